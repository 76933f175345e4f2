"""Pictures of the robosuite bodies: calibrated cameras, the fast preset, and the bench that times it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from robolearn import geometry
from robolearn.apps import bench_render
from robolearn.errors import ConfigError, UnknownName
from sim_envs import _base as tasks
from sim_envs import _mujoco
from sim_envs._robosuite import RobosuiteEnv


@pytest.fixture(scope="module")
def body() -> Iterator[RobosuiteEnv]:
    with closing(tasks.make("lift", {"cameras": ["agentview", "wrist"]})) as env:
        assert isinstance(env, RobosuiteEnv)
        yield env


def reddest(picture: np.ndarray) -> np.ndarray:
    """Returns the middle (u, v) [px] of what is red in a picture."""
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    rows, columns = np.nonzero((red > 80) & (red > 2 * green) & (red > 2 * blue))
    assert len(rows) > 3, "nothing red"
    return np.array([columns.mean(), rows.mean()])


def project(camera_size: tuple[int, int], K: np.ndarray, world_from_camera: np.ndarray, point: np.ndarray) -> np.ndarray:
    in_camera = geometry.inverse(world_from_camera) @ np.append(point, 1.0)
    assert in_camera[2] > 0, "behind the camera"
    pixel = (K @ in_camera[:3])[:2] / in_camera[2]
    assert (pixel >= 0).all() and (pixel < camera_size).all()
    return pixel


@pytest.mark.parametrize("key", ["agentview_image", "wrist_image"])
def test_a_calibrated_camera_sees_the_cube_where_it_is(body: RobosuiteEnv, key: str) -> None:
    obs = body.reset(2)
    camera = body.calibration(key.removesuffix("_image"))
    cube = body.object_poses()["cube"][:3, 3]
    pixel = project(camera.size, np.array(camera.K), np.array(camera.world_from_camera), cube)
    assert np.linalg.norm(pixel - reddest(obs[key])) < 3.0


def test_the_spec_carries_the_cameras(body: RobosuiteEnv) -> None:
    obs = body.reset(0)
    assert set(body.spec.cameras) == {"agentview_image", "wrist_image"}
    assert body.spec.cameras["agentview_image"].size == (84, 84)
    assert obs["wrist_image"].shape == (84, 84, 3) and obs["wrist_image"].dtype == np.uint8
    assert body.spec.cameras["agentview_image"] == body.calibration("agentview")


def test_the_spec_does_not_say_where_a_moving_camera_is(body: RobosuiteEnv) -> None:
    assert body.spec.cameras["wrist_image"].world_from_camera == ()
    assert body.spec.cameras["wrist_image"].K == body.calibration("wrist").K


def test_leaving_out_what_is_not_in_view_changes_no_pixel(body: RobosuiteEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    body.reset(1)
    for camera in ("agentview", "robot0_eye_in_hand", "sideview"):
        with closing(_mujoco.Renderer(body.model, 84, _mujoco.FAST)) as renderer:
            fast = renderer.draw(body.data, camera)
            assert not _mujoco.in_view(body.model, body.data, body.model.camera(camera).id).all()
            with monkeypatch.context() as patch:
                patch.setattr(_mujoco, "in_view", lambda model, data, camera_id: np.ones(model.ngeom, bool))
                np.testing.assert_array_equal(renderer.draw(body.data, camera), fast)


def test_pictures_do_not_change_the_episode(body: RobosuiteEnv) -> None:
    with closing(tasks.make("lift")) as blind:
        seen, unseen = body.reset(5), blind.reset(5)
        hold = np.array([*seen["eef_pos"], *seen["eef_rot6d"], 1.0], np.float32)
        for _ in range(3):
            seen, unseen = body.step(hold).obs, blind.step(hold).obs
            body.render()
        assert all(np.array_equal(seen[key], unseen[key]) for key in unseen)


def test_an_unknown_camera_names_the_known_ones(body: RobosuiteEnv) -> None:
    with pytest.raises(UnknownName, match=r"unknown camera 'agentvew'; did you mean 'agentview'\?"):
        body.render("agentvew")
    with pytest.raises(UnknownName, match="unknown camera 'wirst'"):
        tasks.make("lift", {"cameras": ["wirst"]})


@pytest.mark.slow
def test_bench_render_says_both_rates_and_how_alike_the_pictures_are(tmp_path: Path) -> None:
    figures, picture = tmp_path / "render.json", tmp_path / "pair.png"
    assert bench_render.run(bench_render.Config(images=1, steps=1, json=figures, picture=picture)) == 0
    kept = json.loads(figures.read_text())
    for key in ("ours_images_per_s", "robosuite_default_images_per_s", "ours_steps_per_s", "reference_per_s"):
        assert kept[key] > 0
    assert min(kept["psnr_db"].values()) > 25
    assert picture.is_file()


def test_bench_render_wants_a_robosuite_task() -> None:
    with pytest.raises(ConfigError, match="want a robosuite task, got pusht"):
        bench_render.run(bench_render.Config(task="pusht"))
