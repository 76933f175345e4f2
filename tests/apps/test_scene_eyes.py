"""Cameras of a scene: what they draw, when it was so, in which process, and that an episode begins with its own pictures."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hardware._base import Frame
from hardware._errors import StaleData
from robolearn.apps import _scene_eyes
from robolearn.apps._scene import SceneConfig
from robolearn.apps._scene_body import Twin, Wiring, body, see_anew
from robolearn.apps._scene_eyes import Film as EyesOf
from robolearn.apps._scene_eyes import ScenePainter, filmed, hosted, scene_camera
from robolearn.apps._scene_sim import DrawnEye, SimulatedArm
from robolearn.core import ArraySpec
from robolearn.errors import HardwareError
from tests.apps.scenes import CONFIG, answering


@pytest.fixture(scope="module")
def world() -> Iterator[SimulatedArm]:
    with SimulatedArm(CONFIG, ("eef_pos", "eef_rot6d", "gripper", "object")) as world:
        yield world


class Film:
    """In place of a copy of the task that draws: a picture in which every pixel is a sum over the state."""

    def __init__(self, config: SceneConfig, referee: Any) -> None:
        self.config, self.referee, self.env = config, referee, self

    @staticmethod
    def picture(state: np.ndarray) -> np.ndarray:
        return np.full((32, 32, 3), round(state[1:].sum() * 1e3) % 251, np.uint8)

    def restore(self, state: np.ndarray) -> dict[str, np.ndarray]:
        return {"agentview_image": self.picture(state)}

    def read(self, key: str) -> tuple[np.ndarray, int]:
        look = self.referee.look()
        return self.restore(look.state)[key], look.t_ns

    drawn = restore

    def close(self) -> None: ...


class Blind:
    """A camera whose picture never changes."""

    def newest(self) -> Frame:
        return Frame(np.zeros((32, 32, 3), np.uint8), 0, 0, 0, 0)


def test_a_painter_draws_what_the_referee_shows_and_says_when_it_was_so(
    world: SimulatedArm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_scene_eyes, "Twin", Film)  # another copy of the task takes seconds
    with answering(world.scene) as server:
        camera = scene_camera(server.address, "agentview", 32, hz=1000.0)
        with pytest.raises(HardwareError, match="connect first"):
            ScenePainter(server.address, "agentview", 32).shoot(0, 0)
        camera.connect()
        frame = camera.read(1.0)
        camera.close()
        camera.close()
    assert frame is not None and frame.t_capture_ns == world.scene.look().t_ns
    np.testing.assert_array_equal(frame.image, Film(CONFIG, world.scene).read("agentview_image")[0])
    assert dict(filmed(CONFIG, ["wrist"], 64).overrides) == {"robot": "UR5e", "cameras": ("wrist",), "image_size": 64}


def test_a_process_that_draws_gives_way_and_one_that_does_more_does_not(
    world: SimulatedArm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_scene_eyes, "Twin", Film)
    niced: list[tuple[int, ...]] = []
    monkeypatch.setattr(_scene_eyes.os, "setpriority", lambda *given: niced.append(given))
    monkeypatch.setattr(_scene_eyes.os, "getpriority", lambda *given: 3)
    with answering(world.scene) as server:
        for nice in (0, 3, 4):
            painter = ScenePainter(server.address, "agentview", 32, nice)
            painter.open()
            painter.close()
    assert niced == [(os.PRIO_PROCESS, 0, 4)]


def test_cameras_that_came_up_are_closed_where_another_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Camera:
        def __init__(self, name: str, make: Any, run: str) -> None:
            self.name, self.size = name, make().size

        def connect(self, timeout_s: float) -> None:
            log.append(f"{self.name} {self.size}")
            if self.name == "wrist_image" and "fails" in log:
                raise HardwareError("wrist_image: no")

        def close(self) -> None:
            log.append(f"-{self.name}")

    monkeypatch.setattr(_scene_eyes, "HostedCamera", Camera)
    film = EyesOf(("agentview", "wrist"), 32)
    with hosted("127.0.0.1:1", film, "run") as eyes:
        assert list(eyes) == ["agentview_image", "wrist_image"]
    assert log == ["agentview_image (32, 32)", "wrist_image (32, 32)", "-wrist_image", "-agentview_image"]
    log[:] = ["fails"]
    with pytest.raises(HardwareError, match="wrist_image: no"), hosted("127.0.0.1:1", film, "run"):
        raise AssertionError("unreachable")
    assert log[-2:] == ["-wrist_image", "-agentview_image"]


def test_a_simulated_camera_hands_out_what_was_captured_its_latency_ago(world: SimulatedArm) -> None:
    eye = DrawnEye(Film(CONFIG, world.scene), "agentview_image", world.time, hz=50.0, latency_s=0.045)  # type: ignore[arg-type]
    assert eye.newest() is None
    world.time.sleep(0.1)
    frame, now = eye.newest(), world.time.now_ns()
    assert frame is not None and frame.image.shape == (32, 32, 3)
    assert 45 <= (now - frame.t_capture_ns) / 1e6 < 45 + 20 and frame.t_recv_ns == frame.t_capture_ns + 45_000_000
    assert eye.newest().seq == frame.seq  # type: ignore[union-attr]
    world.time.sleep(0.02)
    assert eye.newest().seq == frame.seq + 1  # type: ignore[union-attr]


def test_cameras_that_capture_together_share_one_drawing(world: SimulatedArm, monkeypatch: pytest.MonkeyPatch) -> None:
    twin, drawings = Twin(world.scene.config, world.scene, world.scene.env), []

    def draw(state: np.ndarray) -> dict[str, np.ndarray]:
        drawings.append(state)
        return {"left_image": np.zeros((8, 8, 3), np.uint8), "right_image": np.ones((8, 8, 3), np.uint8)}

    monkeypatch.setattr(world.scene.env, "restore", draw)
    eyes = [DrawnEye(twin, key, world.time, hz=20.0) for key in ("left_image", "right_image")]
    for k in range(3):
        frames = [eye.newest() for eye in eyes]
        assert [frame.image.max() for frame in frames if frame] == [0, 1] and len(drawings) == k + 1
        world.time.sleep(0.05)


def test_an_episode_begins_with_pictures_of_its_own_placement(world: SimulatedArm, monkeypatch: pytest.MonkeyPatch) -> None:
    twin = Twin(world.scene.config, world.scene, world.scene.env)
    restore = world.scene.env.restore
    monkeypatch.setattr(world.scene.env, "restore", lambda state: {**restore(state), "agentview_image": Film.picture(state)})
    eye = DrawnEye(twin, "agentview_image", world.time, hz=4.0)
    spec = replace(twin.spec, obs={**twin.spec.obs, "agentview_image": ArraySpec((32, 32, 3), "uint8")})
    seeing = body(world.twin, world.arm, spec, Wiring({"agentview_image": eye}, world.time.now_ns, world.time.sleep))
    for seed in (1, 2):
        before = world.time.now_ns()
        obs = seeing.reset(seed)
        frame = eye.newest()
        assert frame is not None and frame.t_capture_ns > before
        np.testing.assert_allclose(obs["eef_pos"], world.twin.env.eef_pose()[:3, 3], atol=2e-3)
    with pytest.raises(StaleData, match="no picture of the new placement in 2 s"):
        see_anew({"agentview_image": Blind()}, world.time.now_ns, world.time.sleep)
