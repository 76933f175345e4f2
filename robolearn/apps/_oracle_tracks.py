"""The oracle: the true future tracks of a demonstration in place of a network's, so that only geometry can fail.

MT-pi's chain (arXiv 2501.06994) from tracks to motion, on the two-embodiment bench: at every plan the points of now are projected
from the hand's pose, the demonstration's points of the ticks to come are projected and blurred by pixel noise, and
`video/decoding.decode` makes poses of them. Success about as high as the demonstration's own separates faults of geometry from
faults of learning.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from robolearn import geometry
from robolearn.apps._two_hands_sets import VIEWS, Episode, open_bench, performed, poses_of
from robolearn.core import Camera, Obs
from robolearn.intervals import wilson95
from robolearn.video import pinhole
from robolearn.video.decoding import GATE_WIDTH, Decoded, Gates, decode
from robolearn.video.points import OPEN_FROM, gripper_points
from sim_envs._two_hands import TwoHands

Array = np.ndarray
TASKS = ("reach_lift", "fork_plate", "drawer")
SIGMAS = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # [px of a picture 640 px wide]
FIRST_SEED = 100_000
GATES = Gates(outlier_px=400.0)  # a plan of 16 ticks goes as far as 0.3 m, 260 px here; 100 px suit the authors' slower arm


@dataclass(frozen=True)
class Oracle:
    """How tracks are followed: plans of `horizon` ticks, of which `execute` are carried out before the next plan.

    sigma_px: standard deviation of each coordinate of the future points; shift_px: of the second view, in both ends, as a
    camera that is calibrated wrongly shows it; both in px of a picture 640 px wide.
    """

    sigma_px: float = 0.0
    shift_px: float = 0.0
    horizon: int = 16
    execute: int = 8
    gates: Gates = GATES


@dataclass(frozen=True)
class Followed:
    """What came of one episode: whether it was solved, ticks, and how many plans were not trusted."""

    success: bool
    steps: int
    untrusted: int


def oracle_rows(
    tasks: Sequence[str] = TASKS,
    episodes: int = 100,
    sigmas: Sequence[float] = SIGMAS,
    seed: int = FIRST_SEED,
    oracle: Oracle = Oracle(),
) -> list[dict[str, Any]]:
    """Returns one row a task and noise: how often the demonstration, its replay, and its tracks as a plan solve the task."""
    rows: list[dict[str, Any]] = []
    for task in tasks:
        with closing(open_bench(task, {})) as body:
            demos = [(k, performed(body, k)) for k in _counted(seed, episodes, f"{task} demonstrations")]
            shown = sum(demo.success for _, demo in demos)
            replayed = sum(replay(body, demo, k) for k, demo in demos)
            for sigma in sigmas:
                asked = Oracle(sigma, oracle.shift_px, oracle.horizon, oracle.execute, oracle.gates)
                found = [follow(body, demos[k - seed][1], k, asked) for k in _counted(seed, episodes, f"{task} {sigma:g} px")]
                solved = sum(each.success for each in found)
                rows.append(
                    {
                        "task": task,
                        "sigma_px": sigma,
                        "shift_px": asked.shift_px,
                        "episodes": episodes,
                        "first_seed": seed,
                        "demo_success": shown / episodes,
                        "replay_success": replayed / episodes,
                        "success": solved / episodes,
                        "interval95": wilson95(solved, episodes),
                        "untrusted_plans": sum(each.untrusted for each in found),
                        "steps_mean": float(np.mean([each.steps for each in found])),
                    }
                )
    return rows


def replay(body: TwoHands, demo: Episode, seed: int) -> bool:
    """Returns whether the demonstration's actions, blindly, solve its scene again."""
    body.reset(seed)
    return any([body.step(action).success for action in demo.actions])


def follow(body: TwoHands, demo: Episode, seed: int, oracle: Oracle) -> Followed:
    """Returns what comes of following the tracks of `demo` in its own scene; at its end the last row is held for a while."""
    rng = np.random.default_rng((seed, 2))
    cameras = [body.calibration(view) for view in VIEWS]
    ahead = np.minimum(np.arange(len(demo.actions) + 2 * oracle.horizon), len(demo.actions) - 1)
    poses, opening = demo.world_from_hand[ahead], _commands(demo)[ahead]
    obs, untrusted, tick = body.reset(seed), 0, 0
    while tick + oracle.horizon < len(ahead):
        rows = slice(tick + 1, tick + oracle.horizon)
        planned = _planned(cameras, obs, poses[rows], opening[rows], oracle, rng)
        untrusted += not planned.trusted.all()
        for action in _actions(planned, oracle.execute):
            step = body.step(action)
            obs, tick = step.obs, tick + 1
            if step.terminated or tick >= body.config.max_steps:
                return Followed(bool(step.success), tick, untrusted)
    return Followed(False, tick, untrusted)


def _planned(
    cameras: Sequence[Camera], obs: Obs, poses: Array, opening: Array, oracle: Oracle, rng: np.random.Generator
) -> Decoded:
    """Returns the trajectory that the tracks of `poses` (H - 1, 4, 4), row 0 being now, decode to."""
    now, open_now = poses_of(obs), float(obs["gripper_open"][0])
    points = gripper_points(np.concatenate([now[None], poses]), np.concatenate([[open_now], opening]))
    tracks = np.stack([pinhole.project(camera, points) for camera in cameras])
    px = cameras[0].size[0] / GATE_WIDTH
    tracks[:, 1:] += oracle.sigma_px * px * rng.standard_normal(tracks[:, 1:].shape)
    tracks[1] += (oracle.shift_px * px, 0.0)
    votes = np.broadcast_to(np.concatenate([[open_now], opening]), tracks.shape[:2])
    return decode(cameras, tracks, votes, now, open_now < OPEN_FROM, oracle.gates)


def _actions(planned: Decoded, count: int) -> Array:
    """Returns actions (count, 10) of the ticks after now; from the first row not trusted on, the last one before is held."""
    trusted = np.logical_and.accumulate(planned.trusted)
    rows = np.maximum.accumulate(np.where(trusted, np.arange(len(trusted)), 0))[1 : count + 1]
    turned = geometry.rot6d_from_matrix(planned.poses[rows, :3, :3])
    grip = 1.0 - 2.0 * planned.gripper_open[rows, None]
    return np.concatenate([planned.poses[rows, :3, 3], turned, grip], axis=1).astype(np.float32)


def _commands(demo: Episode) -> Array:
    """Returns the opening (T,) that the demonstration shows from one row to the next: 0 from where the fingers begin to close."""
    return np.where(demo.obs["gripper_open"][:, 0] < OPEN_FROM, 0.0, 1.0)


def _counted(seed: int, episodes: int, what: str) -> Iterator[int]:
    yield from tqdm(range(seed, seed + episodes), desc=what, leave=False, disable=not sys.stderr.isatty())
