"""The whole way in real time: a task's expert -> codec -> guard -> driver -> vendor's library -> wire -> emulator -> scene."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hardware._base import CAMERAS, GRIPPERS, ROBOTS, make
from hardware._host import Hosted
from hardware._pair import Pair, make_gripper_guard
from hardware._records import Hosting
from hardware._ring import new_run, sweep
from robolearn.apps import _study_deploy as grid
from robolearn.apps._scene_body import Twin, Watching, Wiring, body
from robolearn.apps._scene_eyes import filmed
from robolearn.apps._scene_link import SceneLink
from robolearn.apps._scene_sim import swift
from robolearn.errors import RobolearnError
from robolearn.rollout import rollout
from sim_envs import _base as sim

pytestmark = pytest.mark.slow
LIBRARIES = {"ur5e": ("rtde_control", "pymodbus"), "viperx": ("dynamixel_sdk",)}


@contextmanager
def emulated(robot: str, folder: Path, *more: str) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Runs `robolearn emulate --scene` and yields the robot file and the addresses that it printed."""
    file = folder / "robot.yaml"
    command = [sys.executable, "-m", "robolearn", "emulate", robot, "--scene", "lift", "--robot-file", str(file), *more]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        addresses: dict[str, str] = {}
        for line in process.stdout:
            if line.startswith("wrote"):
                break
            if line.startswith("  "):
                part, address = line.split()
                addresses[part] = address
        try:
            yield yaml.safe_load(file.read_text()), addresses
            process.send_signal(2)
            assert process.wait(20) == 0
        finally:
            process.kill()


def opened(file: dict[str, Any], run: str) -> Hosted | Pair:
    driver = partial(make, ROBOTS, file["driver"], dict(file["set"]), "robot")
    arm = Hosted(file["driver"], driver, swift(6), run, Hosting(0.01))
    arm.connect()
    if "gripper" not in file:
        return arm
    part = file["gripper"]
    gripper = Hosted(
        "gripper", partial(make, GRIPPERS, part["driver"], dict(part["set"]), "gripper"), make_gripper_guard, run, Hosting(0.02)
    )
    gripper.connect()
    return Pair(arm, gripper)


@pytest.mark.parametrize("robot", sorted(LIBRARIES))
def test_the_expert_lifts_the_cube_over_the_vendors_wire(robot: str, tmp_path: Path) -> None:
    for library in LIBRARIES[robot]:
        pytest.importorskip(library)
    run, ended = new_run(), []
    with emulated(robot, tmp_path) as (file, addresses):
        link = SceneLink(addresses["scene"])
        twin, arm = Twin(link.config, link), opened(file, run)
        try:
            world = body(twin, arm, wiring=Wiring(wait=lambda: time.sleep(0.6)))
            mind = Watching(sim.expert(twin.env), twin)
            for seed in range(3):  # a machine that stalls for long is a fault of the wire
                try:
                    ended.append(rollout(world, mind, max_steps=200, seed=seed))
                except RobolearnError as error:
                    ended.append(error)
                if getattr(ended[-1], "success", False):
                    break
        finally:
            assert arm.close() == []
            sweep(run)
    assert getattr(ended[-1], "success", False), ended


def test_a_cell_over_the_vendors_wire_shows_pictures_of_its_scene_and_leaves_nothing_behind() -> None:
    for library in LIBRARIES["ur5e"]:
        pytest.importorskip(library)
    before = set(os.listdir("/dev/shm"))
    keys = ("eef_pos", "eef_rot6d", "gripper", "wrist_image")
    with grid._sdk("ur5e", "lift", {"robot": "UR5e", "cameras": ["wrist"], "image_size": 32}, keys) as (world, _, _):
        seen = [world.reset(0), *(world.still().obs for _ in range(3)), world.reset(4)]
        picture = seen[-1]["wrist_image"]
        plain = sim.make("lift", {"robot": "UR5e", "cameras": ["wrist"], "image_size": 32})
        off = np.abs(picture.astype(int) - plain.reset(4)["wrist_image"])
        assert tuple(seen[0]) == keys and picture.std() > 5 and (off > 20).mean() < 0.05, "the arm sags by a hair once it is held"
        assert not np.array_equal(seen[0]["wrist_image"], picture), "another placement"
    assert set(os.listdir("/dev/shm")) <= before


def test_a_served_camera_shows_the_pixels_of_the_plain_task(tmp_path: Path) -> None:
    with emulated("ur5e", tmp_path, "--cameras", "agentview", "--scene-set", "image_size=32") as (file, addresses):
        link = SceneLink(addresses["scene"])
        link.reset(3)
        part = file["cameras"]["agentview_image"]
        camera = make(CAMERAS, part["driver"], dict(part["set"]), "camera")
        camera.connect()
        frame = camera.read(2.0)
        camera.close()
        twin = Twin(filmed(link.config, ("agentview",), 32), link)
        np.testing.assert_array_equal(frame.image, twin.read("agentview_image")[0])
        assert frame.image.std() > 5
        twin.env.reset(3)
        np.testing.assert_array_equal(frame.image, twin.env.restore(twin.env.state())["agentview_image"])
