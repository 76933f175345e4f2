"""Rollouts on disk: what was seen comes back to the bit, and a crash in the middle takes nothing that was acknowledged."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput, DatasetError
from robolearn.monitors._base import ARRAYS, Episode, Layout
from robolearn.monitors._evidence import FACTS, Evidence

sys.path.insert(0, str(Path(__file__).parent))
from test_fit import LAYOUT, rollout

SIMPLE = dataclasses.replace(LAYOUT, n_past=0)
MADE_BY = {"weights_sha256": "ab" * 32, "draws": 4, "policy_env": {"max_steps": 20}}


def create(path: Path, episodes: list[Episode], layout: Layout = LAYOUT) -> Evidence:
    kept = Evidence.create(path, episodes[0].plans, layout, MADE_BY)
    for episode in episodes:
        kept.append(episode)
    return kept


def assert_equal(one: Episode, other: Episode) -> None:
    for name in FACTS:
        assert getattr(one, name) == getattr(other, name), name
        assert type(getattr(one, name)) is type(getattr(other, name)), name
    for name in ARRAYS:
        before, after = getattr(one.plans, name), getattr(other.plans, name)
        assert before.shape == after.shape, name
        np.testing.assert_array_equal(before, after, err_msg=name)


@pytest.mark.parametrize("layout", [LAYOUT, SIMPLE], ids=["with past", "without"])
def test_rollouts_come_back_to_the_bit(tmp_path: Path, layout: Layout) -> None:
    episodes = [
        rollout(i, i % 3 > 0, group="täsk" if i % 2 else "", kind="delay" * (i % 2), score=i / 7, layout=layout) for i in range(5)
    ]
    create(tmp_path / "a.zarr", episodes, layout)
    again = Evidence.open(tmp_path / "a.zarr")
    assert again.layout == layout and again.seeds() == [0, 1, 2, 3, 4]
    assert {key: again.attrs[key] for key in MADE_BY} == MADE_BY
    for one, other in zip(episodes, again.read(), strict=True):
        assert_equal(one, other)
        assert other.plans.executed.shape[1] == other.plans.past_samples.shape[2] == layout.n_past


def test_what_was_not_executed_yet_is_nan_again_and_what_was_is_a_number(tmp_path: Path) -> None:
    episode = rollout(0, plans=3)
    executed = np.full((3, 2, 3), np.nan, np.float32)
    executed[1, 1] = 0.0  # what was executed may be 0, which is not the same as nothing
    executed[2] = 1.5
    one = dataclasses.replace(episode, plans=dataclasses.replace(episode.plans, executed=executed))
    (other,) = create(tmp_path / "a.zarr", [one]).read()
    np.testing.assert_array_equal(other.plans.executed, executed)
    assert np.isnan(other.plans.executed).any(axis=2).tolist() == [[True, True], [True, False], [False, False]]


def test_an_episode_in_which_everything_but_one_plan_was_early_comes_back(tmp_path: Path) -> None:
    one = rollout(4, plans=1)
    (other,) = create(tmp_path / "a.zarr", [one]).read()
    assert_equal(one, other)


def test_all_are_read_in_the_order_of_their_seeds_and_some_in_the_order_asked_for(tmp_path: Path) -> None:
    episodes = [rollout(seed) for seed in (7, 2, 9, 4)]  # as they end, where several run at once
    kept = create(tmp_path / "a.zarr", episodes)
    assert kept.seeds() == [7, 2, 9, 4]
    assert [e.seed for e in kept.read()] == [2, 4, 7, 9]
    for one, other in zip((episodes[2], episodes[0]), kept.read([2, 0]), strict=True):
        assert_equal(one, other)
    with pytest.raises(DatasetError, match="no episode 4, the set has 4"):
        kept.read([4])


def test_an_empty_set_holds_nothing_and_can_be_filled_later(tmp_path: Path) -> None:
    create(tmp_path / "a.zarr", [rollout(0)][:1])
    empty = Evidence.create(tmp_path / "b.zarr", rollout(0).plans, LAYOUT, MADE_BY)
    assert empty.seeds() == [] and empty.read() == []
    Evidence.open(tmp_path / "b.zarr", writable=True).append(rollout(3))
    assert Evidence.open(tmp_path / "b.zarr").seeds() == [3]


def test_a_set_of_something_else_is_refused(tmp_path: Path) -> None:
    spec = Spec({"state": ArraySpec((2,))}, ArraySpec((2,)), 10.0)
    EpisodeSet.create(tmp_path / "demos.zarr", spec, task="pusht", env={})
    with pytest.raises(
        DatasetError, match=r"demos\.zarr: holds no rollouts of a policy with their plans; make some with: monitor collect$"
    ):
        Evidence.open(tmp_path / "demos.zarr")
    with pytest.raises(DatasetError):
        Evidence.open(tmp_path / "nothing.zarr")


def test_a_set_that_is_there_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    create(tmp_path / "a.zarr", [rollout(0)])
    with pytest.raises(AlreadyExists):
        Evidence.create(tmp_path / "a.zarr", rollout(0).plans, LAYOUT, MADE_BY)
    assert Evidence.open(tmp_path / "a.zarr").seeds() == [0]
    assert Evidence.create(tmp_path / "a.zarr", rollout(0).plans, LAYOUT, MADE_BY, overwrite=True).seeds() == []


@pytest.mark.parametrize("amiss", ["draws", "NaN embedding"])
def test_a_rollout_that_does_not_fit_is_refused_and_leaves_the_set_as_it_was(tmp_path: Path, amiss: str) -> None:
    kept = create(tmp_path / "a.zarr", [rollout(0), rollout(1)])
    bad = rollout(2)
    if amiss == "draws":
        bad = bad.with_draws(3)
    if amiss == "NaN embedding":
        bad.plans.features[3, 2] = np.nan
    with pytest.raises(BadInput):
        kept.append(bad)
    again = Evidence.open(tmp_path / "a.zarr", writable=True)
    again.append(rollout(3))
    assert again.seeds() == [0, 1, 3]
    assert_equal(again.read()[2], rollout(3))


def test_fewer_draws_are_the_first_ones_and_more_are_refused(tmp_path: Path) -> None:
    (whole,) = create(tmp_path / "a.zarr", [rollout(5)]).read()
    few = whole.with_draws(2)
    np.testing.assert_array_equal(few.plans.samples, whole.plans.samples[:, :2])
    np.testing.assert_array_equal(few.plans.past_samples, whole.plans.past_samples[:, :2])
    assert few.plans.features is whole.plans.features and few.seed == 5
    with pytest.raises(BadInput, match=r"^episode 5: holds 4 draws a plan, want 5$"):
        whole.with_draws(5)


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_evidence import Evidence, LAYOUT, MADE_BY, Path, rollout
kept = Evidence.create(Path(sys.argv[2]), rollout(0).plans, LAYOUT, MADE_BY)
for seed in range(10_000):
    kept.append(rollout(seed))
    sys.stdout.write(f"{seed}\\n")
    sys.stdout.flush()
"""


def test_whatever_was_acknowledged_survives_kill_minus_nine_between_two_appends(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    command = [sys.executable, "-c", WRITER, str(Path(__file__).parent), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for _ in range(4):
            last = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)  # somewhere in the middle of an append
        last = max([last, *(int(line) for line in writer.stdout if line.endswith("\n"))])
    again = Evidence.open(path, writable=True)
    assert again.seeds() in (list(range(last + 1)), list(range(last + 2))), "at most one was written and not yet told"
    for episode in again.read():
        assert_equal(episode, rollout(episode.seed))
    again.append(rollout(77))
    assert_equal(Evidence.open(path).read()[-1], rollout(77))
