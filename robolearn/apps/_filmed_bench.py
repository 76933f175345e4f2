"""The two-embodiment bench as two cameras film it: pictures of a calibration board, and videos of the drawn hand at work.

What is written is what a person with two cameras and a robot would have: folders of pictures, `poses.json` of the gripper that
held the board, and a video a view and clip. Where everything truly was is returned beside it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robolearn import geometry
from robolearn.apps import _video
from robolearn.apps._board_mesh import board_mesh
from robolearn.apps._two_hands_sets import VIEWS, open_bench
from robolearn.core import Camera
from robolearn.video.calibration.boards import Board
from sim_envs import _base, _mujoco
from sim_envs._two_hands import TwoHands, landmarks
from sim_envs._two_hands_scene import LOOK_AT, scene_xml

import mujoco  # isort: skip  # after _mujoco, which chooses the GL library

Array = np.ndarray
SIDE = 640  # [px] of all pictures
FPS = 30.0
LOOK = _mujoco.Look(reflections=False, samples=8)
AFTER_S = 1.2  # that a person goes on after the task is solved
HELD, NEAR = 24, 10  # pictures of the board: held by the gripper before both cameras, and near each camera
FIRST_NEAR = 100  # number of the first near picture; pictures of one time share their number
LEAN = 0.40  # [rad] by which a held board leans about each axis, at most
GRIPPER_FROM_BOARD = geometry.pose(
    (-0.09, 0.08, 0.17), geometry.matrix_from_rotvec((0.12, -0.08, 0.1)) @ np.diag([1.0, -1.0, -1.0])
)


@dataclass(frozen=True)
class Cell:
    """The cameras as they truly are, by view, and the pictures of the board on disk."""

    cameras: Mapping[str, Camera]
    folders: Mapping[str, Path]
    poses: Path


@dataclass(frozen=True)
class FilmedClip:
    """A clip of F pictures at FPS: its videos by view; the truth, world_from_hand (F, 4, 4) [m] of the gripper that the hand
    stands for, landmarks (F, 21, 3) [m], right: whether it is a right hand; things: where the objects lay at the start.
    """

    task: str
    seed: int
    videos: Mapping[str, Path]
    world_from_hand: Array
    landmarks: Array
    right: bool
    things: Mapping[str, Array]


def photograph(board: Board, folder: Path, seed: int, side: int = SIDE, held: int = HELD, near: int = NEAR) -> Cell:
    """Writes pictures of a board: `held` by the gripper in both views, with its poses, and `near` each camera by a person."""
    rng = np.random.default_rng((seed, 7))
    mesh = board_mesh(board)
    xml = scene_xml(mesh.body, (), 0).replace("<worldbody>", f"<asset>{mesh.asset}</asset><worldbody>", 1)
    model = mujoco.MjModel.from_xml_string(xml, mesh.files)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    cameras = {view: _mujoco.camera(model, data, view, side) for view in VIEWS}
    folders = {view: folder / view for view in VIEWS}
    rows: list[dict[str, Any]] = []
    with closing(_mujoco.Renderer(model, side, LOOK)) as renderer:

        def shoot(world_from_board: Array, number: int, views: Sequence[str]) -> Array:
            world_from_gripper: Array = world_from_board @ geometry.inverse(GRIPPER_FROM_BOARD)
            data.joint("gripper").qpos[:3] = world_from_gripper[:3, 3]
            data.joint("gripper").qpos[3:] = geometry.quat_wxyz_from_matrix(world_from_gripper[:3, :3])
            data.mocap_pos[model.body("board").mocapid[0]] = world_from_board[:3, 3]
            data.mocap_quat[model.body("board").mocapid[0]] = geometry.quat_wxyz_from_matrix(world_from_board[:3, :3])
            mujoco.mj_forward(model, data)
            for view in views:
                path = folders[view] / f"{number:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), cv2.cvtColor(renderer.draw(data, view), cv2.COLOR_RGB2BGR))
            return world_from_gripper

        for number, pose in enumerate(_held_poses(board, cameras, rng, held)):
            at = shoot(pose, number, VIEWS)
            rows.append({"picture": f"{number:03d}.png", "base_from_gripper": at.tolist()})
        for k, view in enumerate(VIEWS):
            for i, pose in enumerate(_near_poses(board, cameras[view], rng, near)):
                shoot(pose, FIRST_NEAR * (k + 1) + i, [view])
    (folder / "poses.json").write_text(json.dumps({"poses": rows}))
    return Cell(cameras, folders, folder / "poses.json")


def _centred(board: Board) -> Array:
    """Returns middle_from_board (4, 4)."""
    return geometry.pose((-board.size[0] * board.square_m / 2, -board.size[1] * board.square_m / 2, 0.0), np.eye(3))


def _held_poses(board: Board, cameras: Mapping[str, Camera], rng: np.random.Generator, n: int) -> Array:
    """Returns world_from_board (n, 4, 4): where both cameras see it, facing the middle between them, leaning to all sides."""
    eyes = np.stack([np.array(camera.world_from_camera)[:3, 3] for camera in cameras.values()])
    away = LOOK_AT - eyes.mean(axis=0)
    away /= np.linalg.norm(away)
    right = np.cross(away, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    facing = geometry.pose(np.add(LOOK_AT, (0.0, 0.0, 0.04)), np.stack([right, np.cross(away, right), away], axis=-1))
    turns = geometry.matrix_from_rotvec(rng.uniform(-LEAN, LEAN, (n, 3)))
    shifts = rng.uniform(-1.0, 1.0, (n, 3)) * (0.12, 0.08, 0.12)
    return facing @ geometry.pose(shifts, turns) @ _centred(board)


def _near_poses(board: Board, camera: Camera, rng: np.random.Generator, n: int) -> Array:
    """Returns world_from_board (n, 4, 4): near one camera, over its whole picture."""
    places = rng.uniform(-1.0, 1.0, (n, 3)) * (0.10, 0.10, 0.05) + (0.0, 0.0, 0.50)
    turns = geometry.matrix_from_rotvec(rng.uniform(-0.55, 0.55, (n, 3)))
    return np.array(camera.world_from_camera) @ geometry.pose(places, turns) @ _centred(board)


def film(task: str, seeds: Sequence[int], folder: Path, side: int = SIDE) -> Iterator[FilmedClip]:
    """Yields the clips of a task's scenes, done by the drawn hand, each written as a video a view."""
    with (
        closing(open_bench(task, {"embodiment": "human"})) as body,
        closing(_mujoco.Renderer(body.model, side, _mujoco.FAST)) as renderer,
    ):
        for seed in seeds:
            states, things = _performed(body, seed)
            frames = list(_between(body, states))
            videos = {view: folder / f"{task}_{seed}_{view}.mp4" for view in VIEWS}
            done: dict[int, tuple[Array, Array]] = {}
            for view, path in videos.items():
                _video.write_mp4(path, _pictures(body, renderer, frames, view, done), FPS, hold_s=0.0)
            poses, hands = zip(*done.values(), strict=True)
            right = bool(body.hand_facts()[0] > 0.5)
            yield FilmedClip(task, seed, videos, np.stack(poses), np.stack(hands), right, things)


def _pictures(
    body: TwoHands, renderer: _mujoco.Renderer, frames: Sequence[Array], view: str, done: dict[int, tuple[Array, Array]]
) -> Iterator[Array]:
    """Yields the picture of every frame, and leaves in `done` where the gripper and the landmarks are in it."""
    for number, state in enumerate(frames):
        body.restore(state)
        done[number] = body.eef_pose(), landmarks(body)
        yield renderer.draw(body.data, view)


def _performed(body: TwoHands, seed: int) -> tuple[Array, dict[str, Array]]:
    """Returns the states (T, n) of what the task's expert does, a tick each, and where the things lay at the start."""
    policy = _base.expert(body, seed)
    obs = body.reset(seed)
    things = body.object_poses()
    policy.reset(seed)
    policy.observe(obs, None)
    states, left = [body.state()], round(AFTER_S * body.spec.hz)
    for _ in range(body.config.max_steps):
        step = body.step(policy.plan().actions[0])
        states.append(body.state())
        left -= bool(step.success) or left < round(AFTER_S * body.spec.hz)
        if left == 0:
            break
        policy.observe(step.obs, step.filtered)
    return np.stack(states), things


def _between(body: TwoHands, states: Array) -> Iterator[Array]:
    """Yields states at FPS of states (T, n) at the body's rate: joints on the straight way between two of them."""
    model, nq = body.model, body.model.nq
    way = np.empty(model.nv)
    for t in np.arange(int((len(states) - 1) / body.spec.hz * FPS) + 1) * body.spec.hz / FPS:
        before = min(int(t + 1e-9), len(states) - 2)
        state = states[before].copy()
        q = state[1 : 1 + nq]  # behind the time (mjtState.mjSTATE_INTEGRATION)
        mujoco.mj_differentiatePos(model, way, 1.0, q, states[before + 1][1 : 1 + nq])
        mujoco.mj_integratePos(model, q, way, t - before)
        yield state
