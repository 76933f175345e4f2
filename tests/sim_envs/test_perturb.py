"""Disturbances: nothing at strength zero, by the seed alone, refused in a line, mixtures by their shares."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from perturbed_bodies import BODIES, LIMIT, SOME, Echo, actions, assert_equal, now, play, rng

from robolearn.core import SimEnv
from robolearn.errors import BadInput, SpecMismatch
from robolearn.rollout import rollout
from sim_envs import _base as tasks
from sim_envs import perturb
from sim_envs.perturb import KINDS, Body, Disturbance, Mixture, Perturbed, parse


@pytest.fixture(scope="module", params=BODIES)
def body(request: pytest.FixtureRequest) -> Iterator[Any]:
    with closing(tasks.make(request.param, BODIES[request.param])) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_strength_zero_is_the_bare_body_bit_for_bit(body: Any, kind: str) -> None:
    played = actions(body)
    assert_equal(play(body, 3, played), play(Perturbed(body, Disturbance(kind, 0.0, at=0.0)), 3, played))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("none", "distractor", "push", "goal")])
def test_what_a_kind_computes_tends_to_nothing_at_strength_zero(body: Any, kind: str) -> None:
    """Without the short cut that the wrapper takes; a disc has a middle and a pose of PushT is at rest, hence the exceptions."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Disturbance, "__post_init__", lambda self: None)
        patch.setattr(Mixture, "draw", lambda self, seed, hz: (Disturbance(kind, 0.0), 2, np.random.default_rng(0)))
        env = Perturbed(body, Mixture())
        try:
            KINDS[kind].effect(Body(body, None), 0.0, np.random.default_rng(0))
        except SpecMismatch:
            return
        played = actions(body)
        seen = play(env, 3, played)
        assert env.happened == kind
        assert_equal(play(body, 3, played), seen)


@pytest.mark.parametrize("kind", ["noise", "offset", "lighting", "camera", "distractor", "slip", "push"])
def test_equal_seeds_give_bit_equal_disturbances_and_other_seeds_others(kind: str) -> None:
    one, two = (perturb.make("shell", {"cameras": ["img"]}, Disturbance(kind, SOME.get(kind, 0.5), at=0.5)) for _ in range(2))
    played = actions(one, 12)
    first = play(one, 4, played)
    play(two, 9, played[:3])
    assert_equal(first, play(two, 4, played))
    made = [
        KINDS[kind].effect(Body(tasks.make("shell", {"cameras": ["img"]}), None), SOME.get(kind, 0.5), rng(seed))
        for seed in (1, 2)
    ]
    if kind != "push":  # which tests of its own measure
        a, b = ([*e.see(first[0], None, 0).values(), *(e.act(np.ones(2), None) for _ in range(20))] for e in made)
        assert any(not np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("kind", ["noise", "offset", "delay", "slip", "goal"])
def test_the_body_draws_the_same_start_whatever_happens_to_it(kind: str) -> None:
    bare, env = tasks.make("shell"), perturb.make("shell", {}, now(kind, 0.9))
    for seed in range(5):
        bare.reset(seed)
        state = bare.state()
        env.reset(seed)
        changed = np.flatnonzero(env.state() != state)
        assert not len(changed) or (kind == "goal" and list(vars(bare.now))[changed[0]] == "fact")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("task", "kind", "strength", "message"),
    [
        ("shell", "lighting", 1, "lighting: shell shows no pictures; give it cameras"),
        ("pusht", "camera", 1, "camera: pusht shows no pictures"),
        ("pusht", "distractor", 1, "distractor: pusht shows no pictures"),
        ("shell", "mass", 1, "mass: shell is no MuJoCo body"),
        ("pusht", "friction", 1, "friction: pusht is no MuJoCo body"),
        ("pusht", "goal", 1, "goal: pusht has no goal that could move"),
        ("twice", "goal", 1, "goal: twice has no goal that could move"),
        ("shell", "goal", 3, "goal: shell has 3 goals; want to move by fewer places, got 3"),
    ],
)
def test_a_body_refuses_what_it_cannot_suffer(task: str, kind: str, strength: float, message: str) -> None:
    with pytest.raises(SpecMismatch, match=message):
        perturb.make(task, {}, parse(f"none:0.9,{kind}={strength}:0.1"))


def test_a_body_without_numbers_positions_or_physics_refuses_too() -> None:
    echo = Echo(("dx",))
    with pytest.raises(SpecMismatch, match="offset: echo shows no positions"):
        Perturbed(echo, Disturbance("offset", 1.0))
    with pytest.raises(SpecMismatch, match="push: echo is no planar, PushT or MuJoCo body"):
        Perturbed(echo, Disturbance("push", 1.0))
    with pytest.raises(SpecMismatch, match="no observation 'other'"):
        Perturbed(echo, Disturbance("noise", 1.0), {"other": np.ones(1)})
    echo.spec = replace(echo.spec, obs={})
    with pytest.raises(SpecMismatch, match="noise: echo shows no numbers"):
        Perturbed(echo, Disturbance("noise", 1.0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mixture: want KIND=STRENGTH:SHARE such as delay=2:0.25, got ''"),
        ("none:0.5,delay:two", "got 'delay:two'"),
        ("delay=2", "got 'delay=2'"),
        ("delay=2=3:1", "got 'delay=2=3:1'"),
        ("noise=nan:1", "got 'noise=nan:1'"),
        ("delya=2:1", "unknown disturbance 'delya'; did you mean 'delay'"),
        ("delay=2.5:1", "delay: want as strength whole ticks, got 2.5"),
        ("weak=1.5:1", "weak: want as strength the share of a motion that is lost, 0 to 1, got 1.5"),
        ("mass=-1:1", "mass: want as strength a relative change, -0.99 or more, got -1"),
        ("none=1:1", "none: want as strength nothing, got 1"),
        ("none:1.5", "none: want a share from 0 to 1 and at >= 0 s, got 1.5 and 2"),
        ("none:0.5,noise=1:0.6", "mixture: want shares that are 1 together, got 1.1 in 'none:0.5,noise=1:0.6'"),
        ("none:0.5", "want shares that are 1 together, got 0.5"),
    ],
)
def test_a_mixture_that_is_not_one_is_refused_in_a_line(text: str, message: str) -> None:
    with pytest.raises(BadInput) as raised:
        parse(text)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    with pytest.raises(BadInput, match="mixture: want shares of at most 1 together, got"):
        Mixture((Disturbance(share=0.75), Disturbance("noise", 1.0, 0.75)))


def test_the_example_means_what_it_says() -> None:
    parts = parse("none:0.5, delay=2:0.25,noise=0.3@1.5:0.25").parts
    assert parts == (Disturbance(share=0.5), Disturbance("delay", 2.0, 0.25), Disturbance("noise", 0.3, 0.25, at=1.5))


@given(st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.floats(0, 1), st.floats(0, 99), st.floats(0.01, 1)), min_size=1))
def test_a_mixture_is_read_as_it_was_written(drawn: list[tuple[str, float, float, float]]) -> None:
    total = sum(share for *_, share in drawn)
    whole = ("none", "delay", "freeze", "goal")
    parts = [Disturbance(k, 0.0 if k in whole else strength, share / total, at) for k, strength, at, share in drawn]
    mixture = Mixture(tuple(parts))
    assert parse(str(mixture)) == mixture


def test_episodes_meet_disturbances_by_their_shares_and_begin_when_they_may() -> None:
    mixture, n = parse("none:0.5,delay=2:0.3,noise=0.3@1.5:0.2"), 4000
    drawn = [mixture.draw(seed, 10.0) for seed in range(n)]
    for part in mixture.parts:
        met = sum(each[0] == part for each in drawn)
        assert abs(met - n * part.share) < 4 * np.sqrt(n * part.share * (1 - part.share))
    ticks = {kind: [begins for met, begins, _ in drawn if met.kind == kind] for kind in ("none", "delay", "noise")}
    assert set(ticks["none"]) == {None} and set(ticks["delay"]) == set(range(20)) and set(ticks["noise"]) == set(range(15))
    rest = sum(
        Disturbance("delay", 2.0, share=0.25) == Mixture((Disturbance("delay", 2.0, 0.25),)).draw(s, 10.0)[0] for s in range(n)
    )
    assert abs(rest - n / 4) < 4 * np.sqrt(n * 3 / 16)


def test_what_happened_is_known_without_the_body_and_only_once_it_did() -> None:
    env: Any = perturb.make("pusht", LIMIT, parse("none:0.4,noise=0.1@1:0.3,offset=5@0.3:0.3"))
    said, seeds = [], range(150)
    assert any(env.mixture.draw(seed, 10.0)[1] == 6 for seed in seeds), "as the episode ends: too late"
    for seed in seeds:
        steps = len(play(env, seed, np.full((9, 2), 50.0))) - 1
        said.append(env.happened)
        assert env.happened == env.mixture.happened(seed, steps, env.spec.hz)
    assert set(said) == {"", "noise", "offset"}
    late = perturb.make("pusht", {}, Disturbance("noise", 1.0, at=5.0))
    seed = next(seed for seed in range(9) if late.mixture.draw(seed, 10.0)[1])  # type: ignore[attr-defined]
    late.reset(seed)
    assert late.happened == "" and late.drawn.kind == "noise"  # type: ignore[attr-defined]


def test_it_is_a_body_that_an_expert_can_drive() -> None:
    env: Any = perturb.make("shell", {"memory_steps": 4}, now("noise", 0.1))
    assert env.config.memory_steps == 4 and env.versions() == env.inner.versions()
    assert rollout(env, tasks.expert(env), max_steps=env.config.max_steps, seed=1).success
    assert isinstance(env, SimEnv) and not isinstance(Perturbed(Echo(("x",)), Mixture()), SimEnv)
    env.close()
