"""A sound recorded set of an arm with three joints, a gripper and a camera, and one with a single planted fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Flag, Spec
from robolearn.data.store import EpisodeSet

HZ, STEPS, EPISODES, LAG = 20.0, 100, 9, 2
_ROOM = 10  # rows of a path before and after
JOINTS = ("j0", "j1", "j2")
SPEC = Spec(
    {
        "joint_pos": ArraySpec((3,), names=JOINTS, unit="rad"),
        "eef_pos": ArraySpec((3,), names=("x", "y", "z"), unit="m"),
        "gripper": ArraySpec((1,), unit="m"),
        "force": ArraySpec((2,), unit="N"),
        "front": ArraySpec((16, 16, 3), "uint8"),
    },
    ArraySpec((4,), names=(*JOINTS, "gripper")),
    HZ,
)
_CLOCK = ArraySpec((), "int64", unit="ns")
EXTRA = {
    **{name: _CLOCK for name in ("t_monotonic", "t_wall", "t_dev_arm", "t_dev_front")},
    "flags": ArraySpec((), "int32"),
    "source": ArraySpec((), "int8"),
    "late_ms": ArraySpec((), "float32", unit="ms"),
}
META: dict[str, Any] = {"joint_limits": [[-3.0, 3.0]] * 3}
Episodes = list[dict[str, Any]]


def minimum_jerk(start: np.ndarray, goal: np.ndarray, steps: int) -> np.ndarray:
    """Returns the straight movement of least jerk, (steps, n), the goal left out."""
    t = np.arange(steps)[:, None] / steps
    return start + (goal - start) * (10 * t**3 - 15 * t**4 + 6 * t**5)


def path_of(steps: int, rng: np.random.Generator, n: int = 3) -> np.ndarray:
    """Returns joints (steps, n) [rad] that go from place to place, each movement begun before the one before has ended."""
    out = np.zeros((steps, n))
    at = 0
    for first in range(-20, steps, 20):
        move = minimum_jerk(np.zeros(n), rng.uniform(0.4, 0.8, n) * rng.choice([-1, 1], n) - 0.3 * at, 40)
        at = at + move[-1]
        whole = np.concatenate([move, np.repeat(move[-1:], steps + 40, axis=0)])[max(0, -first) :]
        out[max(0, first) :] += whole[: steps - max(0, first)]
    return out


def episode(seed: int, steps: int = STEPS, lag: int = LAG, at: np.ndarray | None = None) -> dict[str, Any]:
    """Returns the rows and facts of one sound episode; the joints follow the action after `lag` ticks.

    at: (steps,) rows of the path that are gone through, instead of one after the other.
    """
    rng = np.random.default_rng(seed)
    path = path_of(steps + 2 * _ROOM, rng)
    when = _ROOM + (np.arange(steps) if at is None else at)
    asked, joints = (np.stack([np.interp(t, np.arange(len(path)), p) for p in path.T], axis=1) for t in (when, _later(when, lag)))
    joints = joints + rng.normal(0, 1e-4, (steps, 3))
    closed = (np.arange(steps) >= steps // 2).astype(np.float64)
    front = rng.integers(90, 110, (steps, 16, 16, 3)).astype(np.uint8)
    monotonic = 10**12 * (seed + 1) + np.arange(steps) * round(1e9 / HZ) + rng.integers(-(10**5), 10**5, steps)
    return {
        "action": np.concatenate([asked, closed[:, None]], axis=1).astype(np.float32),
        "joint_pos": joints.astype(np.float32),
        "eef_pos": (0.3 * np.sin(joints)).astype(np.float32),
        "gripper": (0.04 * closed[:, None] + rng.normal(0, 1e-5, (steps, 1))).astype(np.float32),
        "force": rng.normal(0, 1, (steps, 2)).astype(np.float32),
        "front": front,
        "t_monotonic": monotonic,
        "t_wall": monotonic + 17 * 10**17,
        "t_dev_arm": monotonic - 3 * 10**6,
        "t_dev_front": monotonic - rng.integers(20, 30, steps) * 10**6,
        "flags": np.full(steps, int(Flag.ENGAGED), np.int32),
        "source": np.full(steps, 2, np.int8),
        "late_ms": np.abs(rng.normal(0, 0.3, steps)).astype(np.float32),
        "facts": {"label": "success", "reason": "success", "uuid": f"u{seed}", "success": 1, "id": seed},
    }


def _later(when: np.ndarray, lag: int) -> np.ndarray:
    """Returns rows of a path as something sees them that follows `lag` ticks later."""
    rows = np.arange(len(when)) - lag
    inside = np.interp(rows, np.arange(len(when)), when)
    return inside + np.where(rows < 0, rows, 0) * (when[1] - when[0]) + np.where(rows >= len(when), rows - len(when) + 1, 0)


def build(path: Path, fault: Callable[[Episodes], None] | None = None, seed: int = 0, **options: Any) -> EpisodeSet:
    """Returns a set of nine sound episodes, changed by `fault` before they are written."""
    episodes = [episode(100 * seed + k) for k in range(options.pop("n", EPISODES))]
    if fault is not None:
        fault(episodes)
    meta = {**META, **options.pop("meta", {})}
    made = EpisodeSet.create(path, SPEC, task="toy", env={}, meta=meta, extra=EXTRA, durable=False, **options)
    lengths = [len(rows["action"]) for rows in episodes]
    keys = [key for key in episodes[0] if key != "facts"]
    blocks = [(key, 0, np.concatenate([rows[key] for rows in episodes])) for key in keys]
    names = episodes[0]["facts"]
    made.extend(np.cumsum(lengths), blocks, **{name: [rows["facts"].get(name) for rows in episodes] for name in names})
    return EpisodeSet.open(path)
