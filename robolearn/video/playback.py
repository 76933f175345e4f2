"""A hand's path as what a gripper is asked for, one pose and one command a tick of its body."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from robolearn import geometry
from robolearn.errors import BadInput
from robolearn.video import smooth_path

Array = np.ndarray


@dataclass(frozen=True)
class Pace:
    """How a person's motion becomes a gripper's.

    slower: how many times slower it is played; max_speed [m/s], max_turn [rad/s]: played slower still where the hand would go
    faster; dwell_s: how long the gripper stands still where it opens or closes, because fingers need time.
    """

    slower: float = 1.0
    max_speed: float = 0.5
    max_turn: float = 2.0
    dwell_s: float = 0.5

    def __post_init__(self) -> None:
        if self.slower <= 0 or self.max_speed <= 0 or self.max_turn <= 0 or self.dwell_s < 0:
            raise BadInput(
                "pace: want slower, max_speed and max_turn above 0 and dwell_s at least 0, got "
                f"{self.slower:g}, {self.max_speed:g}, {self.max_turn:g}, {self.dwell_s:g}"
            )


@dataclass(frozen=True)
class Playback:
    """What is asked for at each tick: world_from_hand (n, 4, 4) [m], closed (n,) bool; row (n,): the path's row it comes from, -1
    before its beginning.
    """

    world_from_hand: Array
    closed: Array
    row: Array


def playback(world_from_hand: Array, closed: Array, path_hz: float, body_hz: float, pace: Pace = Pace()) -> Playback:
    """Returns a path (T, 4, 4) with its closed (T,), recorded at `path_hz`, at the ticks of a body, no faster than the pace."""
    if len(world_from_hand) != len(closed) or len(closed) < 1 or path_hz <= 0 or body_hz <= 0:
        raise BadInput(
            f"playback: want as many poses as gripper states and rates above 0, got {len(world_from_hand)}, {len(closed)}, "
            f"{path_hz:g} and {body_hz:g}"
        )
    t_s = _times(world_from_hand, path_hz, pace)
    ticks = np.arange(int(np.ceil(t_s[-1] * body_hz - 1e-9)) + 1) / body_hz
    poses = smooth_path.resampled(world_from_hand, t_s, ticks)
    row = np.clip(np.searchsorted(t_s, ticks + 1e-9, side="right") - 1, 0, len(closed) - 1)
    played = Playback(poses, np.asarray(closed, dtype=bool)[row], row)
    return _with_dwells(played, round(pace.dwell_s * body_hz))


def lead_in(now: Array, played: Playback, body_hz: float, pace: Pace = Pace()) -> Playback:
    """Returns a playback that begins at the pose `now` (4, 4): straight and evenly to its first pose, gripper as it is there."""
    first = played.world_from_hand[0]
    far = float(np.linalg.norm(first[:3, 3] - now[:3, 3]))
    turn = float(geometry.angle_between(now[:3, :3], first[:3, :3]))
    n = int(np.ceil(body_hz * max(far / pace.max_speed, turn / pace.max_turn)))
    way = smooth_path.resampled(np.stack([now, first]), np.array([0.0, 1.0]), np.arange(1, n) / max(n, 1))
    return Playback(
        np.concatenate([way, played.world_from_hand]),
        np.concatenate([np.full(len(way), played.closed[0]), played.closed]),
        np.concatenate([np.full(len(way), -1), played.row]),
    )


def placed(played: Playback, body_from_scene: Array, tip_m: float = 0.0) -> Playback:
    """Returns a playback in the body's world: body_from_scene (4, 4), and its hand `tip_m` [m] behind the fingertips."""
    hand_from_tips = geometry.pose([0.0, 0.0, -tip_m], np.eye(3))
    return replace(played, world_from_hand=body_from_scene @ played.world_from_hand @ hand_from_tips)


def _times(world_from_hand: Array, hz: float, pace: Pace) -> Array:
    """Returns when (T,) [s] each pose is due: each step takes as long as it was recorded, or as the pace's speeds allow."""
    step = np.linalg.norm(np.diff(world_from_hand[:, :3, 3], axis=0), axis=1)
    turn = geometry.angle_between(world_from_hand[:-1, :3, :3], world_from_hand[1:, :3, :3])
    takes = np.maximum(pace.slower / hz, np.maximum(step / pace.max_speed, turn / pace.max_turn))
    return np.concatenate([[0.0], np.cumsum(takes)])


def _with_dwells(played: Playback, ticks: int) -> Playback:
    """Returns a playback that stays `ticks` more ticks wherever the gripper's command has just changed."""
    repeats = np.ones(len(played.closed), int)
    repeats[1:][played.closed[1:] != played.closed[:-1]] += ticks
    rows = np.repeat(np.arange(len(repeats)), repeats)
    return Playback(played.world_from_hand[rows], played.closed[rows], played.row[rows])
