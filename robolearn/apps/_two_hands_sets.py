"""Motion-track sets of the two-embodiment bench: robots' by projection, humans' from the drawn hand's exact landmarks.

Both come from the same scenes, physics and expert (`sim_envs/_two_hands.py`), so that a robot's and a human's set differ in what
is seen and in nothing else. The layout is that of every motion-track set: pictures, `tracks/VIEW`, `valid/VIEW`, `gripper_open`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from robolearn import geometry
from robolearn.apps._trials import HOPELESS
from robolearn.core import ArraySpec, Camera, Obs, Spec
from robolearn.data._files import built_aside
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, Findings
from robolearn.video import pinhole
from robolearn.video.gaps import fill_gaps
from robolearn.video.noise import HandNoise
from robolearn.video.points import LAYOUT, five_of_hand, gripper_points
from sim_envs import _base
from sim_envs._two_hands import TwoHands, landmarks

Array = np.ndarray
VIEWS = ("left", "right")
N_LANDMARKS = 21
PROPRIO = ("eef_pos", "eef_quat_wxyz", "object")


@dataclass(frozen=True)
class Wanted:
    """What to record: successes of the expert, from the first seed on.

    noise: errors of a hand detector on a human's landmarks, None: exact; base: the hand's point for the gripper's base;
    overrides: of the task's config (direction, hand, image_size, ...).
    """

    task: str
    episodes: int
    seed: int = 0
    embodiment: Literal["robot", "human"] = "robot"
    noise: HandNoise | None = None
    base: Literal["wrist", "index"] = "wrist"
    overrides: Mapping[str, Any] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, Any]:
        """The task's overrides: those given, both views, and the embodiment."""
        return {"cameras": list(VIEWS), **self.overrides, "embodiment": self.embodiment}


@dataclass(frozen=True)
class Episode:
    """One episode of the expert, rows before every action: observations, actions, simulator states, landmarks (T, 21, 3) [m]."""

    obs: Mapping[str, Array]
    actions: Array
    states: Array
    landmarks: Array
    right_hand: bool
    success: bool

    @property
    def world_from_hand(self) -> Array:
        """The gripper's poses (T, 4, 4) [m]."""
        return poses_of(self.obs)


def record_tracks(wanted: Wanted, out: Path, overwrite: bool = False) -> EpisodeSet:
    """Writes a motion-track set of `wanted.episodes` successes and returns it; Findings where the expert hardly ever succeeds."""
    with closing(open_bench(wanted.task, wanted.env)) as body, built_aside(out, overwrite) as part:
        facts = {"task": wanted.task, "embodiment": wanted.embodiment, "base": wanted.base, "first_seed": wanted.seed}
        meta = {"record": facts, "noise": vars(wanted.noise) if wanted.noise else None, "simulator": body.versions()}
        about: dict[str, Any] = {"task": wanted.task, "env": wanted.env, "meta": meta}
        extra = {"sim_state": ArraySpec(body.state().shape, "float64")} if wanted.embodiment == "robot" else {}
        made = EpisodeSet.create(part, spec_of(body), extra=extra, durable=False, **about)
        seed, what = wanted.seed, f"{wanted.task} {wanted.embodiment}"
        with tqdm(total=wanted.episodes, desc=what, unit="episode", disable=not sys.stderr.isatty()) as bar:
            while made.n_episodes < wanted.episodes:
                episode = performed(body, seed)
                if episode.success:
                    rows, right = rows_of(body, episode, wanted, np.random.default_rng((seed, 1))), int(episode.right_hand)
                    known = {"embodiment": wanted.embodiment, "right_hand": right, "source": f"bench {wanted.task}"}
                    made.append(rows, seed=seed, success=True, **known)
                    bar.update()
                seed += 1
                if seed - wanted.seed >= HOPELESS and made.n_episodes < (seed - wanted.seed) // HOPELESS:
                    raise Findings(f"{out}: {made.n_episodes} successes in {seed - wanted.seed} attempts at {wanted.task}")
    return EpisodeSet.open(out)


def open_bench(task: str, overrides: Mapping[str, Any]) -> TwoHands:
    """Returns the body of a task of the bench; BadInput where the task is another body's."""
    body = _base.make(task, overrides)
    if type(body) is not TwoHands:
        body.close()
        raise BadInput(f"{task}: want a task of the two-embodiment bench (drawer, fork_plate, reach_lift), got another body's")
    return body


def performed(body: TwoHands, seed: int) -> Episode:
    """Returns what the task's expert does with the scene of `seed`; the episode's last observation is left out."""
    policy = _base.expert(body, seed)
    obs = body.reset(seed)
    policy.reset(seed)
    policy.observe(obs, None)
    seen, actions, states, hands, success = [], [], [], [], False
    for _ in range(body.config.max_steps):
        action = policy.plan().actions[0]
        seen.append(obs)
        actions.append(action)
        states.append(body.state())
        hands.append(landmarks(body))
        step = body.step(action)
        obs = step.obs
        policy.observe(obs, step.filtered)
        if step.terminated:
            success = bool(step.success)
            break
    together = {key: np.stack([row[key] for row in seen]) for key in seen[0]}
    right = bool(body.hand_facts()[0] > 0.5)
    return Episode(together, np.stack(actions), np.stack(states), np.stack(hands), right, success)


def poses_of(obs: Mapping[str, Array] | Obs) -> Array:
    """Returns world_from_hand (..., 4, 4) [m] of observations of the bench."""
    return geometry.pose(obs["eef_pos"], geometry.matrix_from_quat_wxyz(np.asarray(obs["eef_quat_wxyz"], dtype=float)))


def spec_of(body: TwoHands) -> Spec:
    """Returns the spec of a motion-track set of this body: a human's has no action, and no pose of a gripper."""
    human = body.config.embodiment == "human"
    obs: dict[str, ArraySpec] = {}
    for view in body.config.cameras:
        obs[f"{view}_image"] = body.spec.obs[f"{view}_image"]
        obs[f"tracks/{view}"] = ArraySpec((len(LAYOUT), 2), unit="px")
        obs[f"valid/{view}"] = ArraySpec((1,), "uint8")
        if human:
            obs[f"hand/{view}"] = ArraySpec((N_LANDMARKS, 2), unit="px")
    obs["gripper_open"] = body.spec.obs["gripper_open"]
    if not human:
        obs |= {key: body.spec.obs[key] for key in PROPRIO}
    action = ArraySpec((0,)) if human else body.spec.action
    return Spec(obs, action, body.spec.hz, body.spec.cameras, codec="" if human else body.spec.codec)


def rows_of(body: TwoHands, episode: Episode, wanted: Wanted, rng: np.random.Generator) -> dict[str, Array]:
    """Returns the arrays of one episode, by key."""
    rows: dict[str, Array] = {"gripper_open": episode.obs["gripper_open"]}
    for view in body.config.cameras:
        camera = body.spec.cameras[f"{view}_image"]
        rows[f"{view}_image"] = episode.obs[f"{view}_image"]
        if wanted.embodiment == "robot":
            tracks, valid = robot_tracks(camera, episode), np.ones(len(episode.actions), bool)
        else:
            hand, valid = seen_hand(camera, episode.landmarks, wanted.noise, rng)
            rows[f"hand/{view}"] = hand.astype(np.float32)
            tracks = five_of_hand(hand, episode.right_hand, wanted.base)
        rows[f"tracks/{view}"] = tracks.astype(np.float32)
        rows[f"valid/{view}"] = valid.astype(np.uint8)[:, None]
    if wanted.embodiment == "robot":
        rows |= {key: episode.obs[key] for key in PROPRIO}
        rows |= {"action": episode.actions, "sim_state": episode.states}
    return rows


def robot_tracks(camera: Camera, episode: Episode) -> Array:
    """Returns the gripper's five points (T, 5, 2) [px] in one view."""
    return pinhole.project(camera, gripper_points(episode.world_from_hand, episode.obs["gripper_open"][:, 0]))


def seen_hand(camera: Camera, points: Array, noise: HandNoise | None, rng: np.random.Generator) -> tuple[Array, Array]:
    """Returns landmarks (T, 21, 2) [px] in one view as a detector with this noise finds them, gaps filled, and valid (T,)."""
    exact = pinhole.project(camera, points)
    if noise is None:
        return exact, np.ones(len(exact), bool)
    noisy, valid = noise.apply(exact, rng)
    filled = fill_gaps(noisy, valid)
    return filled.tracks, ~filled.filled


def template_gap_mm(episode: Episode, base: str = "wrist") -> Array:
    """Returns how far (T, 5) [mm] the drawn hand's five points are from the gripper's, in space."""
    theirs = five_of_hand(episode.landmarks, episode.right_hand, base)
    ours = gripper_points(episode.world_from_hand, episode.obs["gripper_open"][:, 0])
    return 1e3 * np.linalg.norm(theirs - ours, axis=-1)
