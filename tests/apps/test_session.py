"""A recording session: what each word does, what is counted, and that nothing said to be saved is lost."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from bodies import Arm, Mind

from robolearn.apps._live import Lasting
from robolearn.apps._session import Ears, Rules, Session, State
from robolearn.core import Step
from robolearn.data.recorder import EpisodeWriter, Recording
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput


def session(recorder: EpisodeWriter, script: list[Any], target: int = 3, **rules: Any) -> Session:
    """Returns a session on a toy arm; script: words said between episodes, and {tick: words} for the episode that follows."""
    waiting: Iterator[Any] = iter([*script, "quit"])
    inside: dict[int, tuple[str, ...]] = {}

    def listen() -> list[str]:
        word = next(waiting)
        if isinstance(word, dict):
            inside.clear()
            inside.update(word)
            return ["start"]
        return [word]

    arm = Arm(recorder._clock)  # type: ignore[arg-type]
    made = Rules(target, max_steps=8, **rules)
    return Session(arm, lambda seed: Mind(events=dict(inside)), recorder, made, Ears(device=listen), pause=lambda: None)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[EpisodeWriter]:
    from bodies import Ticking

    with EpisodeWriter(tmp_path / "a.zarr", {"task": "toy"}, Recording(buffer_mib=16), clock=Ticking()) as writer:
        yield writer


def labels(recorder: EpisodeWriter) -> dict[int, list[str]]:
    return {k: [line["label"] for line in recorder.journal.episode(k).attrs["labels"]] for k in recorder.journal.ids()}


def test_every_word_that_ends_an_episode_ends_it_after_its_row_and_labels_it(recorder: EpisodeWriter) -> None:
    run = session(recorder, [{3: ("success",)}, {2: ("failure",)}, {4: ("stop",)}, {1: ("start",)}, {}])
    counts = run.run()
    assert [recorder.journal.episode(k).steps for k in range(5)] == [4, 3, 5, 2, 8]
    assert labels(recorder) == {
        0: ["failure", "success"],
        1: ["failure", "failure"],
        2: ["failure"],
        3: ["failure"],
        4: ["failure"],
    }
    assert [recorder.journal.episode(k).attrs["reason"] for k in (0, 2, 4)] == ["operator:success", "operator:stop", "horizon"]
    assert (counts.begun, counts.successes, counts.steps, run.kept, run.board.state) == (5, 1, 22, 5, State.DONE)


def test_a_redo_repeats_its_scene_and_no_other_seed_comes_twice(recorder: EpisodeWriter) -> None:
    run = session(recorder, [{}, {2: ("redo",)}, {}, {}], seed=40)
    run.run()
    assert {k: recorder.journal.episode(k).attrs["seed"] for k in recorder.journal.ids()} == {0: 40, 2: 41, 3: 43}
    assert recorder.journal.trashed() == [1] and run.figures()["redone"] == 1 and run.kept == 3


def test_deleted_and_redone_episodes_come_back_one_by_one_and_can_be_deleted_again(recorder: EpisodeWriter) -> None:
    run = session(recorder, [{2: ("redo",)}, {}, "delete_last", "undo", "undo", "undo", "delete_last"])
    run.run()
    assert recorder.journal.ids() == [0] and recorder.journal.trashed() == [1]
    assert (run.counts.redone, run.counts.deleted, run.counts.undone) == (1, 2, 2)
    assert any("nothing to undo" in note for note in run.board.notes)


def test_words_that_mean_nothing_now_are_answered_and_change_nothing(recorder: EpisodeWriter) -> None:
    said: list[str] = []
    run = session(recorder, ["success", "delete_last", "undo", "engage"])
    run.tell = said.append
    run.run()
    assert run.kept == 0 and run.counts.begun == 0
    assert "no episode is running" in said[1] and "no episode was saved yet" in said[2] and "nothing to undo" in said[3]


def test_quit_in_an_episode_keeps_it_with_no_word_of_the_person(recorder: EpisodeWriter) -> None:
    run = session(recorder, [{2: ("quit",)}, {}])
    run.run()
    assert recorder.journal.ids() == [0] and recorder.journal.episode(0).steps == 3
    assert all(line["by"] == "env" for line in recorder.journal.episode(0).attrs["labels"])


def test_a_key_of_the_terminal_counts_as_a_word_of_the_device(recorder: EpisodeWriter) -> None:
    keys = iter([["start"], [], [], ["success"], ["quit"]])
    run = session(recorder, [])
    run.ears = Ears(pressed=lambda: next(keys))
    run.run()
    assert recorder.journal.episode(0).attrs["events"] == [{"event": "success", "tick": 2}]
    assert labels(recorder) == {0: ["failure", "success"]}


def test_a_session_that_goes_by_itself_counts_what_was_kept_before(tmp_path: Path) -> None:
    from bodies import Ticking

    def once(target: int, events: dict[int, tuple[str, ...]]) -> Session:
        with EpisodeWriter(tmp_path / "b.zarr", {"task": "toy"}, Recording(buffer_mib=16), clock=Ticking()) as writer:
            arm = Arm(writer._clock)  # type: ignore[arg-type]
            run = Session(
                arm, lambda seed: Mind(events=events), writer, Rules(target, max_steps=3, auto=True), pause=lambda: None
            )
            run.run()
            return run

    assert once(2, {}).counts.begun == 2 and once(2, {}).counts.begun == 0 and once(3, {}).counts.begun == 1
    done = EpisodeSet.open(tmp_path / "b.zarr")
    assert done.episode_field("seed").tolist() == [0, 1, 2] and done.n_steps == 9


def test_an_interrupted_episode_is_saved_and_the_interruption_goes_up(recorder: EpisodeWriter) -> None:
    calls = iter(range(100))

    def keys() -> list[str]:
        if next(calls) == 4:
            raise KeyboardInterrupt
        return []

    run = session(recorder, [{}])
    run.ears.pressed = keys
    with pytest.raises(KeyboardInterrupt):
        run.run()
    assert recorder.journal.ids() == [0] and recorder.journal.episode(0).attrs["reason"] == "interrupted"


def test_seeds_kept_for_evaluation_are_refused_before_anything_is_written(recorder: EpisodeWriter) -> None:
    with pytest.raises(BadInput, match="are for evaluation"):
        session(recorder, [{}], seed=100, below=100).run()
    assert recorder.journal.ids() == []


class Blinks(Arm):
    """An arm that succeeds at given ticks and says that this ends the episode."""

    good = (2, 4, 5, 6, 7)

    def step(self, action: np.ndarray) -> Step:
        step = super().step(action)
        solved = self.k in self.good
        return Step(step.obs, step.filtered, step.sent, step.t_ns, success=solved, terminated=solved)


@pytest.mark.parametrize(("ticks", "ends"), [(0, None), (1, 2), (2, 5), (3, 6), (5, None)])
def test_success_ends_an_episode_when_it_was_held_so_many_ticks_in_a_row(ticks: int, ends: int | None) -> None:
    body = Lasting(Blinks(), ticks)
    body.reset(0)
    over = [k for k in range(1, 9) if body.step(np.zeros(3, np.float32)).terminated]
    assert (over[0] if over else None) == ends
