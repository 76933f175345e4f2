"""The single-arm part of `bench teleop`: residuals, round trips, rates beside mink, streams, the hand's exact pose."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.apps import _teleop_streams as streams
from robolearn.apps._bench import interleaved, reference_per_s
from robolearn.apps._teleop_mink import Mink, Target
from robolearn.teleop import robots
from robolearn.teleop.arm import Arm
from robolearn.teleop.sew import Status, Stream, solve, solve_batch

Array = np.ndarray
CAP = 3.0  # [rad/s] of the streams
EPS = (0.0, 0.05, 0.1)


def exactness(name: str, n: int, seed: int) -> dict[str, Any]:
    """Returns the largest residual [rad] over n random targets without limits, and the share of n in-limit poses found again."""
    arm, rng = robots.arm(name), np.random.default_rng(seed)
    free = arm.without_limits()
    snapped = replace(free, exact=False)
    U, L, H = streams.random_targets(rng, n)
    most = max(float(solve(free, U[k], L[k], H[k]).residuals.max()) for k in range(n))
    rounded = max(float(solve(snapped, U[k], L[k], H[k]).residuals.max()) for k in range(n))
    found = 0
    for q in streams.inside(arm, rng, n):
        near = np.clip(q + rng.uniform(-0.02, 0.02, 7), arm.low, arm.high)
        found += bool(np.abs(geometry.wrap(solve(arm, *arm.directions(q), near).q - q)).max() < 1e-6)
    return {"max_residual_rad": most, "max_residual_without_exact_stage_rad": rounded, "round_trip_share": found / n}


def beside_mink(name: str, n: int, repeats: int, seed: int) -> dict[str, Any]:
    """Returns rates and shares at three starts: 0.02 and 0.2 rad off, and mid-range; every method sees the same targets."""
    arm, rng = robots.arm(name), np.random.default_rng(seed)
    peer = Mink(arm)
    poses = streams.inside(arm, rng, n)
    targets = [streams.target_at(arm, q) for q in poses]
    warm = {r: [np.clip(q + rng.uniform(-r, r, 7), arm.low, arm.high) for q in poses] for r in (0.02, 0.2)}
    out: dict[str, Any] = {}
    for label, starts in (("warm_002", warm[0.02]), ("warm_02", warm[0.2]), ("cold", [arm.middle()] * n)):
        out[label] = _race(arm, peer, targets, starts, repeats)
    first = out["warm_02"]
    return {
        "solves_per_s": first["solves_per_s"],
        "mink_same_objective_solves_per_s": first["mink_same_objective_solves_per_s"],
        "mink_hand_pose_solves_per_s": first["mink_hand_pose_solves_per_s"],
        "ratio": first["ratio"],
        "ratio_is_void": first["mink_converged_share"] < 0.98,
        "mink_converged_share": first["mink_converged_share"],
        "cold_converged_share": out["cold"]["converged_share"],
        "mink_cold_converged_share": out["cold"]["mink_converged_share"],
        "reference_per_s": reference_per_s(),
        "starts": out,
    }


def _race(arm: Arm, peer: Mink, targets: Sequence[Target], starts: Sequence[Array], repeats: int) -> dict[str, Any]:
    results: dict[str, list[Any]] = {}

    def run(name: str, one: Callable[[Target, Array], Any]) -> Callable[[], None]:
        def all_of_them() -> None:
            results[name] = [one(target, start) for target, start in zip(targets, starts, strict=True)]

        return all_of_them

    times = interleaved(
        {
            "ours": run("ours", lambda t, q: solve(arm, t.upper, t.lower, t.hand, q)),
            "same": run("same", peer.same_objective),
            "pose": run("pose", peer.hand_pose),
        },
        repeats,
    )
    rate = {name: len(targets) / statistics.median(each) for name, each in times.items()}
    elbow = [float(streams.errors_deg(arm, t, r[0])[:2].max()) for t, r in zip(targets, results["pose"], strict=True)]
    converged = [r.residuals.max() < 1e-3 for r in results["ours"]]
    same = [r[1] for r in results["same"]]
    return {
        "solves_per_s": rate["ours"],
        "converged_share": float(np.mean(converged)),
        "mink_same_objective_solves_per_s": rate["same"],
        "mink_converged_share": float(np.mean(same)),
        "mink_steps_mean": float(np.mean([r[2] for r in results["same"]])),
        "mink_hand_pose_solves_per_s": rate["pose"],
        "mink_hand_pose_converged_share": float(np.mean([r[1] for r in results["pose"]])),
        "mink_hand_pose_limb_error_deg": float(np.mean(elbow)),
        "ratio": rate["ours"] * float(np.mean(converged)) / max(rate["same"] * float(np.mean(same)), 1e-9),
        "ratio_hand_pose": rate["ours"] / rate["pose"],
    }


def batch_rate(n: int, repeats: int, seed: int) -> dict[str, float]:
    """Returns how many targets a second the batch form solves, n at a time, by arm, limits on."""
    arms = {name: robots.arm(name) for name in ("panda", "iiwa", "kinova3")}
    U, L, H = streams.random_targets(np.random.default_rng(seed), n)
    runs = {name: partial(solve_batch, arm, U, L, H) for name, arm in arms.items()}
    return {name: n / statistics.median(each) for name, each in interleaved(runs, max(repeats, 7), warm=2).items()}


def stream_rows(names: Sequence[str], seconds: float, seed: int) -> list[dict[str, Any]]:
    """Returns one row for each arm, stream and method: mean errors [deg], largest step against the cap, frames a second."""
    import mink

    rows = []
    for name in names:
        arm = robots.arm(name)
        for kind, make in (("bent", streams.bent), ("poles", streams.through_poles)):
            targets = make(arm, np.random.default_rng(seed), seconds)
            start = solve(arm, *targets[0][:3]).q
            for eps in EPS:
                stream = Stream(arm, streams.HZ, CAP, eps)
                stream.reset(start)
                rows.append(_followed(arm, targets, start, _sew_step(stream), f"sew eps {eps:g}"))
                rows[-1] |= {"arm": name, "stream": kind}
            peer = Mink(arm)
            speed = mink.VelocityLimit(peer.model, {joint: np.array([CAP / streams.HZ]) for joint in arm.joint_names})
            peer.put(start)
            rows.append(_followed(arm, targets, start, _mink_step(peer, [*peer.limits, speed]), "mink same objective, 1 step"))
            rows[-1] |= {"arm": name, "stream": kind}
    return rows


def _sew_step(stream: Stream) -> Callable[[Target], Array]:
    return lambda target: stream.step(*target[:3]).q


def _mink_step(peer: Mink, limits: list[Any]) -> Callable[[Target], Array]:
    def step(target: Target) -> Array:
        peer.aim(target)
        peer.step([*peer.aligned, peer.turn], limits)
        return peer.configuration.q[peer.qpos].copy()

    return step


def _followed(arm: Arm, targets: Sequence[Target], start: Array, step: Callable[[Target], Array], method: str) -> dict[str, Any]:
    path: list[Array] = []

    def follow() -> None:
        path[:] = [step(target) for target in targets]

    (seconds,) = interleaved({"follow": follow}, 1, warm=0)["follow"]
    errors = np.array([streams.errors_deg(arm, target, q) for target, q in zip(targets, path, strict=True)])
    steps = np.abs(np.diff(np.vstack([start, path]), axis=0))
    accelerations = np.diff(np.array(path), n=2, axis=0) * streams.HZ**2
    return {
        "method": method,
        "frames_per_s": len(targets) / seconds,
        "mean_error_deg": errors.mean(axis=0).tolist(),
        "max_step_rad": float(steps.max()),
        "cap_rad": CAP / streams.HZ,
        "within_cap": bool(steps.max() <= CAP / streams.HZ + (0.0 if method.startswith("sew") else 1e-9)),
        "rms_acceleration": float(np.sqrt(np.mean(accelerations**2))),
    }


def mode_c(names: Sequence[str], n: int, seed: int) -> list[dict[str, Any]]:
    """Returns, for random reachable poses, how far the hand and the elbow plane end from what was asked."""
    rows = []
    for name in names:
        arm, rng = robots.arm(name), np.random.default_rng(seed)
        far, plane, turn, exact = [], [], [], 0
        for q in streams.inside(arm, rng, n):
            shoulder, elbow, wrist, hand = arm.keypoints(q)
            near = np.clip(q + rng.uniform(-0.2, 0.2, 7), arm.low, arm.high)
            result = solve(arm, elbow - shoulder, wrist - elbow, arm.pose(q)[:3, :3], near, "pose", hand)
            far.append(float(np.linalg.norm(arm.pose(result.q)[:3, 3] - hand)))
            plane.append(float(np.degrees(result.residuals[0])))
            turn.append(float(result.residuals[2]))
            exact += result.status is Status.EXACT
        rows.append(
            {
                "arm": name,
                "targets": n,
                "position_error_m_max": max(far),
                "position_error_m_p99": float(np.quantile(far, 0.99)),
                "share_within_1e-6_m": float(np.mean(np.array(far) <= 1e-6)),
                "elbow_plane_error_deg_mean": float(np.mean(plane)),
                "elbow_plane_error_deg_max": max(plane),
                "rotation_error_rad_max": max(turn),
                "exact_share": exact / n,
            }
        )
    return rows
