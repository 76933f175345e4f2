"""The recorded human hand paths on a Panda: how far the hand is from where it should be in mode A, next to mode C."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.apps import _operator
from robolearn.errors import BadInput
from robolearn.teleop import robots
from robolearn.teleop.drives import JointDrive
from robolearn.teleop.follow import Sew
from robolearn.teleop.mount import calibrated
from robolearn.teleop.operator_model import REST, Wander, limb
from robolearn.teleop.sew import solve
from sim_envs import _base as tasks

Array = np.ndarray
HZ = 20.0


def human(episodes: int, seed: int) -> dict[str, Any]:
    """Returns errors over the hand paths of the human Lift demonstration, moved to `episodes` scenes, with a swaying elbow."""
    learnt, rng = _operator.lesson("lift"), np.random.default_rng(seed)
    far: dict[str, list[float]] = {"A": [], "C": []}
    plane: list[float] = []
    with closing(tasks.make("lift", {"action": "joint_abs"})) as body:
        for k in range(episodes):
            body.reset(seed + k)
            path = np.concatenate([part.path for part in _operator.parts_of(learnt, body)])
            drive = _operator.drive_of(body, "sew")
            if not isinstance(drive, JointDrive):
                raise BadInput("human paths: the body is not told joint angles")
            poses = geometry.inverse(drive.world_from_base) @ path @ drive.grip_from_hand
            start = body.data.qpos[body.arms[0].qpos].copy()  # type: ignore[attr-defined]
            _follow(poses, start, rng, far, plane)
    out: dict[str, Any] = {
        mode: {
            "position_error_mm_mean": 1e3 * float(np.mean(values)),
            "position_error_mm_p95": 1e3 * float(np.quantile(values, 0.95)),
            "position_error_mm_max": 1e3 * max(values),
        }
        for mode, values in far.items()
    }
    return out | {
        "episodes": episodes,
        "poses": len(far["A"]),
        "elbow_plane_error_deg_mean": float(np.mean(plane)),
        "holds": None,
    }


def _follow(poses: Array, start: Array, rng: np.random.Generator, far: dict[str, list[float]], plane: list[float]) -> None:
    """Adds the errors along one path of the hand body (n, 4, 4) in the arm's base frame."""
    arm = robots.arm("panda")
    swivel = Wander(1, 1.5, 1 / HZ, rng)
    keypoints = [limb(REST + pose[:3, 3] - poses[0, :3, 3], 0.2 * float(swivel.step()[0])) for pose in poses]
    shoulder, elbow, wrist = keypoints[0]
    home_upper, home_lower, _ = arm.directions(start)
    base_from_torso = calibrated((elbow - shoulder, wrist - elbow), (home_upper, home_lower))
    follower, q = Sew(arm, HZ, 100.0), start
    follower.reset(start)
    for pose, (shoulder, elbow, wrist) in zip(poses, keypoints, strict=True):
        upper, lower = base_from_torso @ (elbow - shoulder), base_from_torso @ (wrist - elbow)
        q = solve(arm, upper, lower, pose[:3, :3], q).q
        far["A"].append(float(np.linalg.norm(arm.pose(q)[:3, 3] - pose[:3, 3])))
        exact = follower.step(pose[:3, 3], pose[:3, :3], elbow - shoulder, wrist - elbow)
        far["C"].append(float(np.linalg.norm(arm.pose(exact)[:3, 3] - pose[:3, 3])))
        if follower.result is not None:
            plane.append(float(np.degrees(follower.result.residuals[0])))
