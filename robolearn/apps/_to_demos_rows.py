"""How much of human motion survives the chain landmarks, noise, triangulation, path, body: rows for `bench video`.

On the two-embodiment bench the truth is known: the drawn hand's 21 landmarks are projected into both cameras, blurred by a share
of the hand's size, and performed by the gripper in the same scene. Nobody's robot demonstrations are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from robolearn import geometry
from robolearn.apps import _to_demos
from robolearn.apps._to_demos import Refused, Scene
from robolearn.apps._two_hands_sets import VIEWS, open_bench, seen_hand
from robolearn.core import Camera
from robolearn.errors import DatasetError
from robolearn.intervals import wilson95
from robolearn.video import wrist
from robolearn.video.noise import HandNoise
from robolearn.video.playback import Pace
from robolearn.video.wrist import POINT_POLICY, ROBUST, WristPath, WristRule
from sim_envs import _base
from sim_envs._two_hands import TwoHands, landmarks
from sim_envs._two_hands_scene import FINGER_LENGTH

Array = np.ndarray
TASKS = ("reach_lift", "fork_plate", "drawer")
SHARES = (0.0, 0.01, 0.05, 0.10)  # standard deviation of a landmark's coordinate, of the hand's size
RULES = {"point_policy": POINT_POLICY, "unsmoothed": replace(ROBUST, smooth_s=0.0), "robust": ROBUST}
GAPS = (0.05, 0.15)
SIDE = 640  # [px] of the pictures
AFTER = 12  # ticks that a person goes on after the task is solved
FIRST_SEED = 100_000
PATIENT_S = 3.0  # longest gap that is filled here, so that every clip counts


@dataclass(frozen=True)
class Performance:
    """What an expert did with the scene of a seed: poses (T, 4, 4), landmarks (T, 21, 3) [m], opening (T,), which hand."""

    seed: int
    world_from_hand: Array
    landmarks: Array
    opening: Array
    right: bool


@dataclass(frozen=True)
class Clips:
    """Performances before two cameras, seen with noise: human episodes as `_to_demos.demonstrate` reads them."""

    performances: Sequence[Performance]
    cameras: Sequence[Camera]
    noise: HandNoise | None
    hz: float

    def path(self, episode: int, rule: WristRule, start: Array) -> WristPath:
        """Returns the hand's way of one episode; Refused where there is none."""
        clip = self.performances[episode]
        rng = np.random.default_rng((clip.seed, 4))
        seen = [seen_hand(camera, clip.landmarks, self.noise, rng) for camera in self.cameras]
        hands, valid = np.stack([hand for hand, _ in seen]), np.stack([valid for _, valid in seen])
        try:
            return wrist.wrist_path(self.cameras, hands, valid, self.hz, clip.right, rule, start)
        except DatasetError as why:
            raise Refused(str(why)) from why

    def closed(self, episode: int, path: WristPath) -> Array:
        """Returns where (T,) bool the gripper was told to be closed."""
        return self.performances[episode].opening[path.first : path.stop] < 0.5


def chain_rows(
    tasks: Sequence[str] = TASKS, shares: Sequence[float] = SHARES, rules: Sequence[str] = tuple(RULES), episodes: int = 20
) -> list[dict[str, Any]]:
    """Returns a row a task, noise and rule: errors of the recovered path, and how often performing it solves the task."""
    rows = []
    for task in tasks:
        with closing(open_bench(task, {"cameras": list(VIEWS), "image_size": SIDE})) as filmed:
            cameras = [filmed.spec.cameras[f"{view}_image"] for view in VIEWS]
        with closing(open_bench(task, {})) as body:
            shown = [performance(body, FIRST_SEED + k) for k in range(episodes)]
            for share in shares:
                noise = HandNoise(sigma_share=(share, share), gap_share=GAPS) if share else None
                clips = Clips(shown, cameras, noise, body.spec.hz)
                rows += [
                    {"task": task, "noise_share": share, "rule": name} | measured(body, clips, RULES[name]) for name in rules
                ]
    return rows


def performance(body: TwoHands, seed: int) -> Performance:
    """Returns what the task's expert does with the scene of `seed`, and a little longer."""
    policy = _base.expert(body, seed)
    obs = body.reset(seed)
    policy.reset(seed)
    policy.observe(obs, None)
    poses, hands, opening, left = [], [], [], AFTER
    for _ in range(body.config.max_steps):
        poses.append(body.eef_pose())
        hands.append(landmarks(body))
        opening.append(body.gripper_open())
        step = body.step(policy.plan().actions[0])
        left -= bool(step.success) or left < AFTER
        if left == 0:
            break
        policy.observe(step.obs, step.filtered)
    right = bool(body.hand_facts()[0] > 0.5)
    return Performance(seed, np.stack(poses), np.stack(hands), np.array(opening), right)


def measured(body: TwoHands, clips: Clips, rule: WristRule) -> dict[str, Any]:
    """Returns the path's errors and the successes over all clips under one rule."""
    scene = Scene(np.eye(4), FINGER_LENGTH, replace(rule, most_gap_s=PATIENT_S), Pace(), labelled=True, most_miss_m=np.inf)
    away, turned, solved, refused = [], [], 0, 0
    for k, clip in enumerate(clips.performances):
        try:
            path = clips.path(k, scene.rule, clip.world_from_hand[0, :3, :3])
            solved += bool(_to_demos.demonstrate(body, clip.seed, clips, k, scene).figures["success"])
        except Refused:
            refused += 1
            continue
        truth = clip.world_from_hand[path.first : path.stop]
        tips = truth[:, :3, 3] + FINGER_LENGTH * truth[:, :3, 2]
        away.append(1e3 * np.linalg.norm(path.world_from_hand[:, :3, 3] - tips, axis=1))
        turned.append(np.rad2deg(geometry.angle_between(path.world_from_hand[:, :3, :3], truth[:, :3, :3])))
    n = len(clips.performances)
    return {
        "episodes": n,
        "refused": refused,
        "position_median_mm": float(np.median(np.concatenate(away))) if away else None,
        "rotation_median_deg": float(np.median(np.concatenate(turned))) if turned else None,
        "success": solved / n,
        "interval95": wilson95(solved, n),
    }
