"""Every kind of disturbance does what it says, measured on the body."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from perturbed_bodies import LIMIT, Echo, actions, looks, now, play, rng, told

from robolearn.errors import SpecMismatch
from sim_envs import _base as tasks
from sim_envs import _perturb_kinds, perturb
from sim_envs.perturb import KINDS, Body, Disturbance, Mixture, Perturbed


@pytest.fixture(scope="module")
def lift() -> Iterator[Any]:
    with closing(tasks.make("lift")) as made:
        yield made


def test_noise_has_the_strength_asked_for_in_the_spread_given() -> None:
    spread = np.array([1.0, 2.0, 0.0, 0.5, 1.0, 1.0])
    env = Perturbed(tasks.make("shell"), Disturbance("noise", 0.3, at=0.0), {"state": spread})
    bare = tasks.make("shell")
    played = np.zeros((120, 2), np.float32)
    pairs = zip(looks(play(env, 0, played)), looks(play(bare, 0, played)), strict=True)
    error = np.array([a["state"] - b["state"] for a, b in pairs])
    assert len(error) > 100
    np.testing.assert_allclose(error.std(axis=0), 0.3 * spread, rtol=0.25)
    assert np.abs(error.mean(axis=0)).max() < 0.3 * 2.0 * 4 / np.sqrt(len(error))


def test_noise_leaves_numbers_alone_that_no_first_observation_varies() -> None:
    env, bare = perturb.make("shell", {}, now("noise")), tasks.make("shell")
    a, b = env.reset(1)["state"], bare.reset(1)["state"]
    assert a[-1] == b[-1] == 0.0 and (a[:2] != b[:2]).all()


def test_an_offset_is_one_vector_for_all_positions_shown() -> None:
    env, bare = perturb.make("pusht", {}, Disturbance("offset", 20.0, at=0.0)), tasks.make("pusht")
    played = actions(bare)
    for a, b in zip(looks(play(env, 2, played)), looks(play(bare, 2, played)), strict=True):
        shift = a["state"] - b["state"]
        assert np.hypot(*shift[:2]) == pytest.approx(20.0, abs=1e-3) and shift[4] == 0
        np.testing.assert_allclose(shift[2:4], shift[:2], atol=1e-3)
        np.testing.assert_allclose(a["keypoint"] - b["keypoint"], np.tile(shift[:2], (9, 1)), atol=1e-3)


def test_lighting_scales_a_picture_up_or_down_and_keeps_its_dark() -> None:
    effects = [KINDS["lighting"].effect(Body(tasks.make("pusht", {"cameras": ["img"]}), None), 0.4, rng(s)) for s in range(20)]
    grey = {"img": np.full((96, 96, 3), 100, np.uint8)}
    gains = np.array([np.log(effect.see(grey, None, 0)["img"][0, 0] / 100.0) for effect in effects])
    assert (gains.mean(axis=1) < -0.15).any() and (gains.mean(axis=1) > 0.15).any()
    assert np.abs(gains).max() <= 0.4 * 1.5 + 0.01 and (gains.std(axis=1) > 0).all()
    assert not effects[0].see({"img": np.zeros((96, 96, 3), np.uint8)}, None, 0)["img"].any()


def test_a_camera_is_shifted_by_whole_pixels_and_repeats_its_edge() -> None:
    body = tasks.make("pusht", {"cameras": ["img"]})
    picture = rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    for seed in range(5):
        shown = KINDS["camera"].effect(Body(body, None), 6.0, rng(seed)).see({"img": picture}, None, 0)["img"]
        x, y = np.rint(6.0 * _perturb_kinds._way(rng(seed), 2)).astype(int)
        rows, columns = np.clip(np.arange(96) - y, 0, 95), np.clip(np.arange(96) - x, 0, 95)
        assert abs(np.hypot(x, y) - 6) < 1
        np.testing.assert_array_equal(shown, picture[np.ix_(rows, columns)])


def test_a_distractor_is_one_disc_that_stays_where_it_is() -> None:
    env, bare = perturb.make("shell", {"cameras": ["img"]}, now("distractor")), tasks.make("shell", {"cameras": ["img"]})
    played = actions(bare)
    covers = []
    for a, b in zip(looks(play(env, 1, played)), looks(play(bare, 1, played)), strict=True):
        np.testing.assert_array_equal(a["state"], b["state"])
        covers.append((a["img"] != b["img"]).any(axis=2))
    colours = {tuple(pixel) for pixel in a["img"][covers[-1]]}
    assert len(colours) == 1 and 0.25 < covers[-1].mean() / (np.pi * 0.2**2) < 1.1, "some of the disc may lie outside"
    assert (covers[0] == covers[-1]).mean() > 0.99


def test_a_frozen_sensor_repeats_the_look_before_for_its_ticks() -> None:
    env, bare = Perturbed(Echo(("x",)), Disturbance("freeze", 3, at=1.0)), Echo(("x",))
    played = np.arange(1, 20, dtype=np.float32)[:, None]
    begins = env.mixture.draw(6, 10.0)[1]
    assert begins is not None and begins > 0
    a, b = looks(play(env, 6, played)), looks(play(bare, 6, played))
    shown, true = ([float(obs["told"][0]) for obs in seen] for seen in (a, b))
    assert shown == [*true[:begins], *[true[begins - 1]] * 3, *true[begins + 3 :]]


def test_delayed_actions_come_late_and_the_body_goes_on_meanwhile() -> None:
    late = told(("x", "y"), Disturbance("delay", 2, at=0.0), [[1, 5], [2, 6], [3, 7], [4, 8]])
    np.testing.assert_array_equal(late, [[1, 5], [1, 5], [1, 5], [2, 6]])
    late = told(("dx", "drz", "gripper"), Disturbance("delay", 2, at=0.0), [[1, 5, -1], [2, 6, 1], [3, 7, 1], [4, 8, 1]])
    np.testing.assert_array_equal(late, [[0, 0, -1], [0, 0, -1], [1, 5, -1], [2, 6, 1]])


def test_weak_motors_go_part_of_the_way_and_grip_as_before() -> None:
    short = told(("x", "gripper"), Disturbance("weak", 0.25, at=0.0), [[4, -1], [8, 1], [8, 1]])
    np.testing.assert_allclose(short, np.array([[4, -1], [7, 1], [7.75, 1]]))
    short = told(("dx", "gripper"), Disturbance("weak", 0.25, at=0.0), [[4, -1], [8, 1]])
    np.testing.assert_allclose(short, [[3, -1], [6, 1]])


def test_slipping_loses_its_share_of_the_actions() -> None:
    came = told(("dx",), Disturbance("slip", 0.3, at=0.0), [[1.0]] * 1000)
    assert set(np.unique(came)) == {0.0, 1.0} and (came == 0).mean() == pytest.approx(0.3, abs=0.06)
    came = told(("x",), Disturbance("slip", 0.3, at=0.0), [[k / 10] for k in range(1000)]).ravel()
    assert (np.diff(came) >= 0).all() and (came != np.float32(np.arange(1000) / 10)).mean() == pytest.approx(0.3, abs=0.06)


def test_the_driver_says_what_it_passed_on_unless_a_limit_cut_it() -> None:
    env = Perturbed(Echo(("dx",), most=1.0), Disturbance("weak", 0.5, at=0.0))
    env.reset(0)
    step = env.step(np.array([0.8], np.float32))
    assert step.filtered == np.float32(0.8) and step.sent == pytest.approx(0.4)
    assert env.step(np.array([4.0], np.float32)).filtered == 1.0


def test_a_heavy_thing_stays_down_under_a_force_that_lifts_it_and_weighs_the_same_afterwards(lift: Any) -> None:
    before = {name: getattr(lift.model, name).copy() for name in ("body_mass", "body_inertia", "body_subtreemass")}
    cube, rises = lift.model.body("cube_main").id, []
    for strength in (0.0, 1.0):
        env = Perturbed(lift, Disturbance("mass", strength))
        played = actions(lift, 4)
        env.reset(0)
        factors = lift.model.body_mass / np.where(before["body_mass"] > 0, before["body_mass"], 1.0)
        assert factors[cube] == 1 + strength and set(np.delete(factors, cube)) <= {0.0, 1.0}
        start = lift.data.xpos[cube, 2]
        lift.data.xfrc_applied[cube, 2] = 1.5 * 9.81 * before["body_mass"][cube]
        for action in played:
            env.step(action)
        lift.data.xfrc_applied[cube] = 0.0
        rises.append(lift.data.xpos[cube, 2] - start)
        assert env.happened == ("mass" if strength else "")
    assert rises[0] > 0.05 and rises[1] < 1e-3
    env.step(played[0])
    env.mixture = Mixture()
    env.reset(0)
    for name, array in before.items():
        np.testing.assert_array_equal(getattr(lift.model, name), array)


def test_a_struck_thing_slides_further_where_it_is_smooth_and_the_blow_is_over_after_a_tick(lift: Any) -> None:
    played, before, slides = actions(lift, 10), lift.model.geom_friction.copy(), []
    for friction in (0.0, -0.8):
        env = Perturbed(lift, Disturbance("push", 0.06, at=0.0))
        rough = Perturbed(env, Disturbance("friction", friction))
        start = rough.reset(4)["object"][:2]
        assert (lift.model.geom_friction == before).all() == (friction == 0.0)
        assert np.linalg.norm(lift.data.xfrc_applied[lift.model.body("cube_main").id]) == pytest.approx(0.06 * 20)
        seen = [rough.step(action).obs["object"][:2] for action in played]
        assert not lift.data.xfrc_applied.any()
        slides.append(np.linalg.norm(seen[-1] - start))
        rough.mixture = Mixture()
        rough.reset(4)
        np.testing.assert_array_equal(lift.model.geom_friction, before)
    assert slides[0] > 0.005 and slides[1] > 2 * slides[0]


@pytest.mark.parametrize("strength", [1, 2])
def test_the_goal_moves_by_the_places_asked_for(strength: int) -> None:
    env = perturb.make("shell", {}, Disturbance("goal", strength, at=1.0))
    moved = set()
    for seed in range(12):
        env.reset(seed)
        first = tasks.module("shell").fact(tasks_bare(env, seed))
        for action in np.zeros((12, 2), np.float32):
            env.step(action)
        moved.add((tasks.module("shell").fact(env) - first) % 3)
    assert moved == {1, 2}


def tasks_bare(env: Any, seed: int) -> Any:
    bare = tasks.make(env.task)
    bare.reset(seed)
    return bare


def test_a_push_displaces_a_planar_hand_by_its_strength_once() -> None:
    env, bare = (
        perturb.make("shell", {"memory_steps": 1}, Disturbance("push", 0.3, at=2.0)),
        tasks.make("shell", {"memory_steps": 1}),
    )
    begins = [env.mixture.draw(seed, 10.0)[1] for seed in range(40)]  # type: ignore[attr-defined]
    seed = next(seed for seed, tick in enumerate(begins) if tick == 18)
    a, b = looks(play(env, seed, np.zeros((25, 2)))), looks(play(bare, seed, np.zeros((25, 2))))
    apart = [float(np.hypot(*(x["state"] - y["state"])[:2])) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(apart, [0.0] * 19 + [0.3] * 7, atol=1e-6)


def test_a_push_displaces_the_tee_and_the_episode_goes_on_by_the_clock() -> None:
    env = Perturbed(tasks.make("pusht", LIMIT), Disturbance("push", 40.0, at=0.5))
    bare = tasks.make("pusht", LIMIT)
    seed = next(seed for seed in range(40) if env.mixture.draw(seed, 10.0)[1] == 3)
    played = np.tile(bare.reset(seed)["state"][:2], (9, 1))
    a, b = play(env, seed, played), play(bare, seed, played)
    apart = [float(np.hypot(*(x["state"] - y["state"])[2:4])) for x, y in zip(looks(a), looks(b), strict=True)]
    np.testing.assert_allclose(apart, [0.0] * 4 + [40.0] * 3, atol=0.1)
    assert [step.t_ns["sim"] for step in a[1:]] == [step.t_ns["sim"] for step in b[1:]]
    assert [step.truncated for step in a[1:]] == [False] * 5 + [True]
    state, other = env.state(), tasks.make("pusht", LIMIT)
    np.testing.assert_array_equal(other.restore(state)["state"], a[-1].obs["state"])


def test_a_blow_meets_the_hand_where_a_task_has_no_thing(lift: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lift, "task_facts", replace(lift.task_facts, things=()))
    env = Perturbed(lift, Disturbance("push", 1.0, at=0.0))
    env.reset(0)
    struck = lift.model.site_bodyid[lift.arms[0].site]
    assert np.flatnonzero(lift.data.xfrc_applied.any(axis=1)).tolist() == [struck]
    env.step(actions(lift, 1)[0])
    with pytest.raises(SpecMismatch, match="mass: lift has no thing to weigh"):
        Perturbed(lift, Disturbance("mass", 1.0))
