"""Rollouts of a policy that was never trained: in two goes as in one, on disk as soon as they end, and of one policy only."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn.apps._evaluate import Subject, find
from robolearn.apps._rollouts import Wanted, collect, layout_of
from robolearn.errors import BadInput
from robolearn.monitors._base import ARRAYS, Episode
from robolearn.monitors._evidence import FACTS, Evidence
from robolearn.training.checkpoint import load_policy
from sim_envs import _base as tasks
from sim_envs import perturb

sys.path.insert(0, str(Path(__file__).parent))
from runs import untrained

WANTED = Wanted(episodes=5, seed=900, draws=3, mixture="none:0.5,noise=0.3:0.5")
SHORT = {"max_steps": 20}


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    return dataclasses.replace(find(str(untrained(tmp_path_factory.mktemp("one") / "run"))), env=SHORT)


@pytest.fixture(scope="module")
def whole(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> list[Episode]:
    return collect(subject, WANTED, tmp_path_factory.mktemp("whole") / "a.zarr").read()


def assert_close(one: list[Episode], other: list[Episode]) -> None:
    """Asserts that rollouts are the same but for how a network's rows are batched."""
    for a, b in zip(one, other, strict=True):
        assert [getattr(a, name) for name in FACTS[:-1]] == [getattr(b, name) for name in FACTS[:-1]]
        assert a.score == pytest.approx(b.score, abs=1e-3)
        for name in ARRAYS:
            np.testing.assert_allclose(getattr(a.plans, name), getattr(b.plans, name), rtol=1e-3, atol=1e-2, err_msg=name)


def test_every_seed_has_its_rollout_with_all_its_plans(subject: Subject, whole: list[Episode]) -> None:
    assert [e.seed for e in whole] == list(range(900, 905)) and {e.group for e in whole} == {"pusht"}
    assert {e.kind for e in whole} == {"", "noise"}
    policy = load_policy(subject.checkpoint or "")
    layout, execute = layout_of(policy), policy.spec.execute
    for e in whole:
        assert e.steps == 20 and not e.success and 0 <= e.score <= 1
        assert e.plans.ticks.tolist() == list(range(0, 20, execute))
        assert e.plans.samples.shape == (len(e), 3, layout.horizon, 2) and e.plans.past_samples.shape[2] == layout.n_past
        assert np.isnan(e.plans.executed[0]).all() and np.isfinite(e.plans.executed[1:]).all()
    body = tasks.make("pusht", SHORT)
    calm = next(e for e in whole if not e.kind)
    policy.reset(calm.seed)
    policy.observe(body.reset(calm.seed), None)
    np.testing.assert_allclose(policy.plan().actions, calm.plans.samples[0, 0], rtol=1e-4, atol=1e-2)


def test_two_goes_give_what_one_does_and_a_third_gives_nothing_more(
    subject: Subject, whole: list[Episode], tmp_path: Path
) -> None:
    path, told = tmp_path / "a.zarr", []
    collect(subject, dataclasses.replace(WANTED, episodes=2), path)
    assert sorted(Evidence.open(path).seeds()) == [900, 901]
    assert_close(collect(subject, WANTED, path, lambda: told.append(1)).read(), whole)
    assert len(told) == 5, "those that are there already are told too"
    assert len(collect(subject, WANTED, path).seeds()) == 5


def test_an_interrupted_collection_has_what_ended_and_goes_on_from_there(
    subject: Subject, whole: list[Episode], tmp_path: Path
) -> None:
    path, on_disk = tmp_path / "a.zarr", []

    def interrupt() -> None:
        on_disk.append(len(Evidence.open(path).seeds()))
        if len(on_disk) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(subject, WANTED, path, interrupt)
    assert on_disk == [1, 2, 3], "each is on disk before it is told"
    assert_close(collect(subject, WANTED, path).read(), whole)


def test_rollouts_of_another_policy_task_disturbance_or_number_of_draws_are_refused(subject: Subject, tmp_path: Path) -> None:
    path, one = tmp_path / "a.zarr", dataclasses.replace(WANTED, episodes=1)
    collect(subject, one, path)
    other = dataclasses.replace(find(str(untrained(tmp_path / "run", seed=1))), env=SHORT)
    for who, wanted, message in [
        (other, one, f"holds rollouts with weights_sha256 {subject.weights_sha256}, want {other.weights_sha256}"),
        (dataclasses.replace(subject, env={"max_steps": 30}), one, "policy_env {'max_steps': 20}, want {'max_steps': 30}"),
        (dataclasses.replace(subject, task="twice"), one, "policy_task pusht, want twice"),
        (subject, dataclasses.replace(one, draws=4), "holds rollouts with draws 3, want 4"),
        (subject, dataclasses.replace(one, mixture=""), "mixture none:0.5,noise=0.3:0.5, want ;"),
    ]:
        with pytest.raises(BadInput) as caught:
            collect(who, wanted, path)
        assert message in str(caught.value) and str(caught.value).endswith("; give another path")
    assert Evidence.open(path).seeds() == [900]


def test_an_expert_has_no_plans_to_watch(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"^expert:pusht: only a trained policy has plans to watch; give a run folder$"):
        collect(find("expert:pusht"), WANTED, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


@pytest.mark.parametrize("where", ["reset", "step"])
def test_an_episode_whose_body_always_crashes_does_not_take_the_others_along(
    subject: Subject, whole: list[Episode], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    make = perturb.make

    def frail(*args: Any) -> Any:
        body: Any = make(*args)
        reset, step = body.reset, body.step
        now: list[int] = []

        def begin(seed: int) -> Any:
            now[:] = [seed]
            return fail() if where == "reset" and seed == 902 else reset(seed)

        def fail() -> Any:
            raise FloatingPointError("the simulation is unstable")

        body.reset, body.step = begin, lambda action: fail() if now == [902] else step(action)
        return body

    monkeypatch.setattr(perturb, "make", frail)
    found = collect(subject, WANTED, tmp_path / "a.zarr").read()
    assert_close([e for e in found if e.seed != 902], [e for e in whole if e.seed != 902])
    assert all(not e.success for e in found if e.seed == 902)
