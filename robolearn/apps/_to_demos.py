"""One human episode of `tracks to-demos`: landmarks to a hand's path, to what an arm can follow, to an episode of a body."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from robolearn import geometry
from robolearn.apps import _cockpit
from robolearn.apps.record import Rows
from robolearn.core import Ask, Camera, Chunk, Obs, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError, SpecMismatch, nearest
from robolearn.rollout import rollout
from robolearn.teleop.arm import Arm
from robolearn.teleop.drives import JointDrive
from robolearn.teleop.follow import Sew
from robolearn.video import playback, wrist
from robolearn.video.playback import Pace, Playback
from robolearn.video.wrist import WristPath, WristRule

Array = np.ndarray
HALF_TURN = np.diag([-1.0, -1.0, 1.0, 1.0])  # a parallel gripper is the same after it


class Refused(Exception):
    """An episode that gives no demonstration; the message is the reason that is counted."""


class Filmed(Protocol):
    """Human episodes, however they were seen: frames a second, the hand's way, and where the gripper's label says closed."""

    @property
    def hz(self) -> float: ...
    def path(self, episode: int, rule: WristRule, start: Array) -> WristPath: ...
    def closed(self, episode: int, path: WristPath) -> Array: ...


@dataclass(frozen=True)
class Human:
    """A set of human episodes: landmarks `hand/<view>` and `valid/<view>` in pictures of calibrated cameras."""

    dataset: EpisodeSet
    views: tuple[str, ...]
    cameras: tuple[Camera, ...]

    @property
    def hz(self) -> float:
        """Frames a second."""
        assert self.dataset.spec is not None
        return self.dataset.spec.hz

    def path(self, episode: int, rule: WristRule, start: Array) -> WristPath:
        """Returns the hand's way of one episode that begins turned as `start` (3, 3) says; Refused where there is none."""
        rows = self.dataset.span(episode)
        hands = np.stack([self.dataset.read(f"hand/{view}", *rows) for view in self.views])
        valid = np.stack([self.dataset.read(f"valid/{view}", *rows)[:, 0] > 0 for view in self.views])
        right = self.dataset.episode_field("right_hand")
        try:
            known = right is None or bool(right[episode])
            return wrist.wrist_path(self.cameras, hands, valid, self.hz, known, rule, start)
        except DatasetError as why:
            raise Refused(str(why)) from why

    def closed(self, episode: int, path: WristPath) -> Array:
        """Returns where (T,) bool the set's own gripper label says closed, on the rows of the path."""
        first = self.dataset.span(episode)[0]
        return self.dataset.read("gripper_open", first + path.first, first + path.stop)[:, 0] < 0.5


def open_human(dataset: EpisodeSet, views: Sequence[str] = ()) -> Human:
    """Returns the human episodes of a set; DatasetError where it has no two calibrated views of landmarks."""
    known = sorted(key.removeprefix("hand/") for key in dataset.keys if key.startswith("hand/"))
    unknown = [view for view in views if view not in known]
    if unknown:
        raise DatasetError(f"{dataset.path}: no landmarks of view '{unknown[0]}'{nearest(unknown[0], known)}")
    chosen = tuple(views or known)
    cameras = dataset.spec.cameras if dataset.spec is not None else {}
    if len(chosen) < 2:
        raise DatasetError(f"{dataset.path}: want landmarks (hand/VIEW) of two views or more, got {', '.join(chosen) or 'none'}")
    for view in chosen:
        if f"{view}_image" not in cameras or not cameras[f"{view}_image"].world_from_camera:
            raise DatasetError(f"{dataset.path}: camera '{view}' has no calibrated place; extract the tracks with --calib FILE")
    return Human(dataset, chosen, tuple(cameras[f"{view}_image"] for view in chosen))


@dataclass(frozen=True)
class Followed:
    """A body's actions (n, action) for hand poses, and how far [m] its arm misses each (None: a body without a known arm)."""

    actions: Array
    miss_m: Array | None


def follow(body: Any, played: Playback) -> Followed:
    """Returns the actions for a playback, from the body as it was just reset: through SEW retargeting where its arm has seven
    joints, so that what is asked for keeps joint limits and speeds; as asked where not.
    """
    closing = np.where(played.closed, 1.0, -1.0)
    seat = arm_of(body)
    if seat is None:
        if body.spec.codec != "pose_abs":
            raise SpecMismatch(f"task {body.task}: takes actions '{body.spec.codec}', want pose_abs, or an arm of seven joints")
        return Followed(_pose_actions(played.world_from_hand, closing), None)
    drive, arm = seat
    drive.follower.reset(body.data.qpos[body.arms[0].qpos])
    joints, reached = [], []
    for target in played.world_from_hand:
        base_from_hand = geometry.inverse(drive.world_from_base) @ target @ drive.grip_from_hand
        joints.append(drive.follower.step(base_from_hand[:3, 3], base_from_hand[:3, :3], None, None))
        reached.append(drive.world_from_base @ arm.pose(joints[-1]) @ geometry.inverse(drive.grip_from_hand))
    poses = np.stack(reached)
    miss = np.linalg.norm(poses[:, :3, 3] - played.world_from_hand[:, :3, 3], axis=1)
    if body.spec.codec == "joint_abs":
        return Followed(np.column_stack([joints, closing]).astype(np.float32), miss)
    return Followed(_pose_actions(poses, closing), miss)


def arm_of(body: Any) -> tuple[JointDrive, Arm] | None:
    """Returns how the retargeting sees and follows with a body's arm, None where it has none of seven joints."""
    if "robot" not in {field.name for field in dataclasses.fields(body.config)} or len(body.arms) != 1:
        return None
    if len(body.arms[0].qpos) != 7:
        return None
    arm = _cockpit.arm_of(body)
    return _cockpit.seated(body, 0, Sew(arm, body.spec.hz), arm, _cockpit.hand_of(body, 0)), arm


def _pose_actions(poses: Array, closing: Array) -> Array:
    rot6d = geometry.rot6d_from_matrix(poses[:, :3, :3])
    return np.column_stack([poses[:, :3, 3], rot6d, closing]).astype(np.float32)


def half_turned(played: Playback, now: Array) -> Playback:
    """Returns the playback with the fingers exchanged where that is nearer to the pose `now` (4, 4)."""
    first = played.world_from_hand[0, :3, :3]
    turned = first @ HALF_TURN[:3, :3]
    if geometry.angle_between(turned, now[:3, :3]) < geometry.angle_between(first, now[:3, :3]):
        return replace(played, world_from_hand=played.world_from_hand @ HALF_TURN)
    return played


class Asked:
    """A policy that asks for given actions (n, action), one a tick, and then for the last."""

    def __init__(self, spec: Spec, actions: Array) -> None:
        self.spec, self.actions = replace(spec, execute=1), actions
        self.tick = -1

    def reset(self, seed: int | None = None) -> None:
        """Begins with the first."""
        self.tick = -1

    def observe(self, obs: Obs, applied: Array | None) -> None:
        """Goes on to the next."""
        self.tick += 1

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the action (1, action) of this tick."""
        return Chunk(self.actions[min(self.tick, len(self.actions) - 1)][None], self.tick)


@dataclass(frozen=True)
class Scene:
    """How a person's scene becomes a body's.

    body_from_scene (4, 4); tip_m: fingertips before the body's hand [m]; rule, pace: of the hand's path; labelled: the gripper
    closes where the set says so, not where the fingers are near; most_miss_m: an arm may miss the path by so much [m]; linger_s:
    how long the last command is kept [s].
    """

    body_from_scene: Array
    tip_m: float
    rule: WristRule
    pace: Pace
    labelled: bool
    most_miss_m: float
    linger_s: float = 1.0


@dataclass(frozen=True)
class Demo:
    """One demonstration: rows by key, and the figures of how it came about."""

    rows: dict[str, Array]
    figures: Mapping[str, Any]


def demonstrate(body: Any, seed: int, human: Filmed, episode: int, scene: Scene) -> Demo:
    """Returns the episode of a body, reset by `seed`, that does what a person did; Refused where its arm cannot."""
    body.reset(seed)
    now = body.eef_pose()
    path = human.path(episode, scene.rule, scene.body_from_scene[:3, :3].T @ now[:3, :3])
    closed = human.closed(episode, path) if scene.labelled else path.closed
    played = playback.playback(path.world_from_hand, closed, human.hz, body.spec.hz, scene.pace)
    played = half_turned(playback.placed(played, scene.body_from_scene, scene.tip_m), now)
    played = playback.lead_in(now, played, body.spec.hz, scene.pace)
    followed = follow(body, played)
    if followed.miss_m is not None and (worst := float(followed.miss_m.max())) > scene.most_miss_m:
        raise Refused(f"arm: misses the path by {1e3 * worst:.0f} mm, want at most {1e3 * scene.most_miss_m:.0f}")
    rows = Rows(body)
    steps = len(followed.actions) + round(scene.linger_s * body.spec.hz)
    outcome = rollout(body, Asked(body.spec, followed.actions), max_steps=steps, seed=seed, sinks=[rows], source="replay")
    stacked = rows.stacked()
    figures = {
        "seed": seed,
        "steps": outcome.steps,
        "success": bool(outcome.success),
        "filled_share": float(path.filled.mean()),
        "outliers": path.outliers,
        "miss_max_mm": None if followed.miss_m is None else 1e3 * float(followed.miss_m.max()),
        "lag_mean_mm": 1e3 * float(np.mean(_lags(stacked, played))),
    }
    return Demo(stacked, figures)


def _lags(rows: Mapping[str, Array], played: Playback) -> Array:
    """Returns how far (n,) [m] the hand was from what was asked for one tick before, lead-in left out."""
    n = min(len(rows["eef_pos"]) - 1, len(played.row))
    away = np.linalg.norm(rows["eef_pos"][1 : n + 1] - played.world_from_hand[:n, :3, 3], axis=1)
    counted = away[played.row[:n] >= 0]
    return counted if len(counted) else away


def scene_pose(shift: tuple[float, float, float], turn_deg: float) -> Array:
    """Returns body_from_scene (4, 4): a turn about z, then a shift [m]; BadInput where a number is not finite."""
    if not np.isfinite([*shift, turn_deg]).all():
        raise BadInput(f"scene: want finite numbers, got shift {shift} and turn {turn_deg:g}")
    return geometry.pose(shift, geometry.rotation_z(np.deg2rad(turn_deg)))
