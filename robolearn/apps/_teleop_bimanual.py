"""Two arms boxing on one torso: what each filter makes of the same 765 frames, judged by MuJoCo's contacts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np

from robolearn.apps import _teleop_streams as streams
from robolearn.teleop.bimanual import Filter, Filtered, Goal, Guard
from robolearn.teleop.sew import solve
from robolearn.teleop.smooth import Smooth
from robolearn.teleop.torso import SIDES, Torso, torso

Array = np.ndarray
HZ, CAP = 60.0, 6.0


def bimanual(frames: int, seed: int, name: str = "panda") -> dict[str, Any]:
    """Returns figures of no filter, the published one (alone and behind a speed limit), the guard, and mink."""
    body = torso(name)
    start, goals = rolling_punch(body, frames, seed)
    published, limited = Filter(body, start), Filter(body, start)
    guard, smooth = Guard(body, start, HZ, CAP), Smooth(body, start, HZ, CAP)
    last = [start]

    def slow(goal: Goal) -> Filtered:
        most = CAP / HZ
        near = last[0] + np.clip(goal.q - last[0], -most, most)
        found = limited.step(goal._replace(q=near))
        if np.abs(found.q - last[0]).max() > most + 1e-12:  # the correction leaps: hold
            limited.q = last[0]
            found = Filtered(last[0], found.verdict, found.clearance)
        last[0] = found.q
        return found

    ways: dict[str, Callable[[Goal], Array]] = {
        "none": lambda goal: goal.q,
        "published": lambda goal: published.step(goal).q,
        "published, speed limit": lambda goal: slow(goal).q,
        "guard": lambda goal: guard.step(goal).q,
        "mink": lambda goal: smooth.step(goal).q,
    }
    rows = [judged(body, start, goals, method, step) for method, step in ways.items()]
    safe = [row for row in rows if row["method"] in ("published", "guard", "mink")]
    return {
        "arms": name, "frames": frames, "hz": HZ, "cap_rad_per_s": CAP, "rows": rows,
        "holds": all(row["penetrating_frames"] == 0 for row in safe),
    }  # fmt: skip


def rolling_punch(body: Torso, frames: int, seed: int) -> tuple[Array, list[Goal]]:
    """Returns a start (2, 7) and a stream in which both fists circle each other before the chest, then punch."""
    rng = np.random.default_rng(seed)
    q = [np.zeros(7), np.zeros(7)]
    goals, start = [], None
    for k in range(-90, frames):
        t = max(k, 0) / HZ
        ease = 1.0 if k >= 0 else (k + 90) / 90
        upper, lower, hand = np.empty((2, 3)), np.empty((2, 3)), np.empty((2, 3, 3))
        for side, out in enumerate((-1.0, 1.0)):
            phase = 2 * np.pi * 0.6 * t + (np.pi if side else 0.0)
            inwards = ease * (0.75 + 0.2 * np.sin(2 * np.pi * 0.11 * t))
            u = np.array([0.65 + 0.25 * np.sin(phase), out * (0.5 - 0.8 * inwards), -0.30 + 0.2 * np.cos(phase)])
            low = np.array([0.50, -out * (0.3 + inwards), 0.15 + 0.35 * np.cos(phase)])
            u, low = u + 0.004 * rng.normal(size=3), low + 0.004 * rng.normal(size=3)
            upper[side], lower[side] = u / np.linalg.norm(u), low / np.linalg.norm(low)
            x = np.cross([0.0, 0.0, 1.0], lower[side])
            x = x / np.linalg.norm(x)
            hand[side] = np.stack([x, np.cross(lower[side], x), lower[side]], axis=1)
            base = body.torso_from_base[side][:3, :3].T
            arm = body.arms[side]
            q[side] = solve(arm, base @ upper[side], base @ lower[side], base @ hand[side], q[side]).q
        if k == 0:
            start = np.stack(q)
        if k >= 0:
            goals.append(Goal(upper, lower, hand, np.stack(q)))
    assert start is not None
    return start, goals


def judged(body: Torso, start: Array, goals: list[Goal], method: str, step: Callable[[Goal], Array]) -> dict[str, Any]:
    """Returns what one method makes of the stream."""
    data, last = mujoco.MjData(body.model), start
    depths, steps, errors, held, spent = [], [], [], 0, 0.0
    counts: Counter[str] = Counter()
    for goal in goals:
        began = time.perf_counter()
        q = step(goal)
        spent += time.perf_counter() - began
        moved = float(np.abs(q - last).max())
        steps.append(moved)
        held += moved < 1e-9
        errors.append(_limb_error(body, goal, q))
        depths.append(penetration(body, data, q))
        counts["touching" if depths[-1] > 0 else "clear"] += 1
        last = q
    return {
        "method": method,
        "penetrating_frames": counts["touching"],
        "penetrating_share": counts["touching"] / len(goals),
        "deepest_m": max(depths),
        "held_share": held / len(goals),
        "largest_step_rad": max(steps[1:], default=0.0),
        "mean_limb_error_deg": float(np.mean(errors)),
        "frames_per_s": len(goals) / spent if spent > 0 else None,
    }


def penetration(body: Torso, data: mujoco.MjData, q: Array) -> float:
    """Returns how deep [m] one arm is in the other or in the torso at q (2, 7), by MuJoCo's contacts; 0 where they are apart."""
    for side in range(2):
        data.qpos[body.qpos_of(side)] = q[side]
    mujoco.mj_kinematics(body.model, data)
    mujoco.mj_collision(body.model, data)
    deepest = 0.0
    for contact in data.contact[: data.ncon]:
        owners = {_owner(body.model, int(geom)) for geom in (contact.geom1, contact.geom2)}
        if len(owners) == 2:
            deepest = max(deepest, -float(contact.dist))
    return deepest


def _owner(model: mujoco.MjModel, geom: int) -> str:
    name = model.body(int(model.geom_bodyid[geom])).name
    return next((prefix for prefix in SIDES if name.startswith(prefix)), "torso")


def _limb_error(body: Torso, goal: Goal, q: Array) -> float:
    errors = []
    for side, arm in enumerate(body.arms):
        base = body.torso_from_base[side][:3, :3].T
        target = streams.Target(base @ goal.upper[side], base @ goal.lower[side], base @ goal.hand[side], np.zeros(3))
        errors.append(streams.errors_deg(arm, target, q[side])[:2].mean())
    return float(np.mean(errors))
