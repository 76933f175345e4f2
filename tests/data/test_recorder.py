"""The recorder keeps what was handed to it, however it ends: labels, clocks, pictures, crashes, full disks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from bodies import PERIOD, SPEC, Arm, Mind, picture

from robolearn.core import Flag, Outcome
from robolearn.data._codec import Codec
from robolearn.data.check import check
from robolearn.data.journal import Journal
from robolearn.data.recorder import EpisodeWriter, Recording
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError
from robolearn.rollout import rollout


@pytest.fixture
def arm() -> Arm:
    return Arm()


def record(recorder: EpisodeWriter, arm: Arm, steps: int = 12, **mind: Any) -> Outcome:
    return rollout(arm, Mind(**mind), max_steps=steps, seed=3, sinks=[recorder], source="operator")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a set of two lossless episodes and a third that was thrown away, with a device's stream at 200 Hz."""
    path, arm = tmp_path_factory.mktemp("recorded") / "cups.zarr", Arm()
    how = Recording(codec=Codec("png"), latency_s={"force": 0.010})
    facts = {"task": "cups", "operator": "ada", "env": {"size": 1}, "device": "spacemouse"}
    with EpisodeWriter(path, facts, how, state=arm.state, clock=arm.clock) as recorder:
        for events in ({}, {4: ("failure",)}, {2: ("redo",)}):
            arm.reset()

            class Streaming(Mind):
                def plan(self, ask=None):  # type: ignore[no-untyped-def]
                    for part in range(10):
                        when = arm.clock.monotonic + part * PERIOD // 10
                        recorder.stream("force", when, np.array([(when - 10_000_000) * 1e-9], np.float64))
                    return super().plan()

            rollout(arm, Streaming(events=events), max_steps=12, seed=3, sinks=[recorder], source="operator")
        assert [saved.id for saved in recorder.saved] == [0, 1]
    return path


def test_a_set_holds_what_the_body_showed_and_took_bit_for_bit(recorded: Path) -> None:
    made = EpisodeSet.open(recorded)
    rows = made.episode(0)
    np.testing.assert_array_equal(rows["joints"][:, 0], np.arange(12))
    np.testing.assert_array_equal(rows["action"][:, 0], np.arange(12))
    np.testing.assert_array_equal(rows["action_filtered"], 0.5 * rows["action"])
    np.testing.assert_array_equal(rows["action_sent"], 0.25 * rows["action"])
    np.testing.assert_array_equal(rows["front"], [picture(k) for k in range(12)])
    np.testing.assert_array_equal(rows["wrist"], [picture(k + 100) for k in range(12)])
    np.testing.assert_array_equal(rows["sim_state"], [[k, 2 * k] for k in range(12)])
    assert made.keys["joints"].unit == "rad" and made.keys["action"].shape == (3,) and made.spec == SPEC


def test_every_row_has_the_time_at_which_its_observation_was_taken(recorded: Path) -> None:
    rows = EpisodeSet.open(recorded).episode(0)
    assert (np.diff(rows["t_monotonic"]) == PERIOD).all() and (np.diff(rows["t_wall"]) == PERIOD).all()
    assert rows["t_sim"].tolist() == [k * PERIOD for k in range(12)]
    assert (rows["t_monotonic"][1:] - rows["t_dev_front"][1:] == 7_000_000).all()
    assert rows["late_ms"] == pytest.approx(0) and rows["source"].tolist() == [2] * 12
    # flags say how the step went that this row's action began
    assert rows["flags"].tolist() == [int(Flag.ENGAGED)] * 12


def test_streams_keep_their_own_rate_and_lie_on_the_ticks_once_their_delay_is_taken_off(recorded: Path) -> None:
    journal = Journal(recorded.with_name("cups.episodes"))
    assert len(journal.episode(0).array("streams/force/t")) == 120
    rows = EpisodeSet.open(recorded).episode(0)
    np.testing.assert_allclose(rows["stream_force"][1:-1, 0], rows["t_monotonic"][1:-1] * 1e-9, atol=1e-6)


def test_labels_say_who_set_them_and_a_person_overrules_the_environment(recorded: Path) -> None:
    made = EpisodeSet.open(recorded)
    assert made.episode_field("label").tolist() == ["failure", "failure"]
    assert made.episode_field("label_by").tolist() == ["env", "operator:ada"]
    assert made.episode_field("operator").tolist() == ["ada", "ada"] and made.episode_field("success").tolist() == [0, 0]
    assert made.attrs["device"] == "spacemouse" and made.env == {"size": 1}
    labels = Journal(recorded.with_name("cups.episodes")).episode(1).attrs["labels"]
    assert [label["by"] for label in labels] == ["env", "operator:ada"] and all(label["time"] for label in labels)


def test_an_episode_that_is_thrown_away_lies_in_the_trash(recorded: Path) -> None:
    journal = Journal(recorded.with_name("cups.episodes"))
    assert journal.ids() == [0, 1] and journal.trashed() == [2] and journal.next_id() == 3


def test_a_saved_episode_opens_with_plain_zarr_and_matches_its_hash(recorded: Path) -> None:
    journal = Journal(recorded.with_name("cups.episodes"))
    for line in journal.index():
        if line["id"] in journal.ids():
            journal.episode(line["id"]).verify()
            assert journal.episode(line["id"]).sha256 == line["sha256"]
    group = zarr.open_group(journal.path(0), mode="r")
    assert group["rows/action"][:].shape == (12, 3) and group["states"].shape == (13, 2)
    damaged = journal.path(0) / "rows/action/c.0.0"
    raw = damaged.read_bytes()
    damaged.write_bytes(raw[:-1] + b"\x01")
    with pytest.raises(DatasetError, match=r"rows/action/c\.0\.0 is damaged"):
        journal.episode(0).verify()
    damaged.write_bytes(raw)


STALLED, SET_BACK, LATE, BLIND, LONG, FINE = range(6)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a set with an episode of every trouble: a camera that stalls, a wall clock that was set, a late tick, no numbers.

    LONG has the first two at once, FINE none.
    """
    path, arm = tmp_path_factory.mktemp("troubled") / "a.zarr", Arm()
    plain_step, plain_observe, at = arm.step, arm.observe, dict[int, tuple[int, int]]()

    def step(action: np.ndarray):  # type: ignore[no-untyped-def]
        wall, late = at.get(arm.k, (0, 0))
        arm.clock.wall, arm.clock.monotonic = arm.clock.wall - wall, arm.clock.monotonic + late
        return plain_step(action)

    arm.step = step  # type: ignore[method-assign]
    hour = 3600 * 10**9
    with EpisodeWriter(path, {}, Recording(codec=Codec("png"), pack="each"), clock=arm.clock) as recorder:
        for stalls, marks, steps in (
            (range(4, 9), {}, 12),
            (range(0), {5: (hour, 0)}, 12),
            (range(0), {4: (0, 2 * PERIOD)}, 10),
            (range(0), {}, 12),
            (range(10, 30), {40: (hour, 0)}, 60),
            (range(0), {}, 30),
        ):
            arm.stalls, at = stalls, marks
            blind = len(recorder.saved) == BLIND
            none = {"joints": np.full(3, np.nan, np.float32)}
            arm.observe = (lambda none=none: plain_observe() | none) if blind else plain_observe  # type: ignore[method-assign]
            record(recorder, arm, steps=steps)
    return path


def test_a_camera_that_stalls_is_stored_once_and_its_rows_say_so(troubled: Path) -> None:
    episode = Journal(troubled.with_name("a.episodes")).episode(STALLED)
    assert episode.array("rows/front@frame").tolist() == [0, 1, 2, 3, 3, 3, 3, 3, 3, 4, 5, 6]
    assert len(episode.array("cameras/wrist/ends")) == 12
    rows = EpisodeSet.open(troubled).episode(STALLED)
    np.testing.assert_array_equal(rows["front"][3], rows["front"][8])
    assert [bool(flag & Flag.FRAME_REPEATED) for flag in rows["flags"]] == [4 <= k + 1 < 9 for k in range(12)]
    assert (rows["t_monotonic"] - rows["t_dev_front"]).max() == 5 * PERIOD + 7_000_000


def test_a_stalled_camera_and_a_wall_clock_that_was_set_are_flagged_by_the_check(troubled: Path) -> None:
    cards = check(EpisodeSet.open(troubled)).cards
    assert {"stale", "repeated", "frozen", "clock_step"} <= set(cards[LONG].codes)
    assert not {"stale", "repeated", "frozen", "clock_step"} & set(cards[FINE].codes)


def test_a_wall_clock_that_steps_back_is_stored_as_it_was(troubled: Path) -> None:
    rows = EpisodeSet.open(troubled).episode(SET_BACK)
    assert (np.diff(rows["t_monotonic"]) == PERIOD).all()
    assert np.flatnonzero(np.diff(rows["t_wall"]) < 0).tolist() == [5]


def test_a_tick_that_came_late_is_late_once_and_the_ones_after_it_are_on_time(troubled: Path) -> None:
    assert EpisodeSet.open(troubled).episode(LATE)["late_ms"].tolist() == [0] * 5 + [100] + [0] * 4


def test_nothing_that_a_sensor_said_is_refused_while_recording(troubled: Path) -> None:
    assert np.isnan(EpisodeSet.open(troubled).episode(BLIND)["joints"]).all()


def test_frames_at_a_cameras_own_rate_are_all_kept_and_a_tick_points_at_its_own(tmp_path: Path, arm: Arm) -> None:
    class Filming(Mind):
        def plan(self, ask=None):  # type: ignore[no-untyped-def]
            now = arm.clock.monotonic + PERIOD  # of the observation that the next step will show
            recorder.stream("front", now - 7_000_000 - PERIOD // 2, picture(1000))
            recorder.stream("front", now - 7_000_000, picture(self.tick + 1))
            return super().plan()

    how = Recording(codec=Codec("png"), pack="each")
    with EpisodeWriter(tmp_path / "a.zarr", {}, how, clock=arm.clock) as recorder:
        rollout(arm, Filming(), max_steps=6, seed=0, sinks=[recorder])
    episode = Journal(tmp_path / "a.episodes").episode(0)
    assert len(episode.array("cameras/front/ends")) == 13  # the first observation, and two a tick
    rows = EpisodeSet.open(tmp_path / "a.zarr").episode(0)
    np.testing.assert_array_equal(rows["front"], [picture(k) for k in range(6)])


def test_jpeg_at_95_looks_the_same_and_takes_a_fraction_of_the_bytes(tmp_path: Path, arm: Arm) -> None:
    with EpisodeWriter(tmp_path / "a.zarr", {}, Recording(pack="each"), clock=arm.clock) as recorder:
        record(recorder, arm)
    made = EpisodeSet.open(tmp_path / "a.zarr").read("front").astype(float)
    error = np.mean((made - [picture(k) for k in range(12)]) ** 2)
    assert 10 * np.log10(255**2 / error) > 38
    assert len(Journal(tmp_path / "a.episodes").episode(0).array("cameras/front/bytes")) < made.size / 4


def test_delete_last_can_be_undone_and_no_id_is_given_twice(tmp_path: Path, arm: Arm) -> None:
    with EpisodeWriter(tmp_path / "a.zarr", {}, Recording(pack="close"), clock=arm.clock) as recorder:
        for _ in range(3):
            record(recorder, arm)
        assert recorder.delete_last() == 2 and recorder.delete_last() == 1
        recorder.undo(2)
        record(recorder, arm)
        with pytest.raises(DatasetError, match="no episode 7 in the trash"):
            recorder.undo(7)
    assert EpisodeSet.open(tmp_path / "a.zarr").episode_field("id").tolist() == [0, 2, 3]
    with EpisodeWriter(tmp_path / "a.zarr", {}, clock=arm.clock) as recorder:  # resume goes on counting
        record(recorder, arm)
        assert [saved.id for saved in recorder.saved] == [4]


def test_the_last_episode_waits_to_be_packed_because_it_may_be_taken_back(tmp_path: Path, arm: Arm) -> None:
    with EpisodeWriter(tmp_path / "a.zarr", {}, Recording(pack="idle"), clock=arm.clock) as recorder:
        record(recorder, arm)
        record(recorder, arm)
        deadline = time.monotonic() + 60
        while not (tmp_path / "a.zarr").exists() or not EpisodeSet.open(tmp_path / "a.zarr").n_episodes:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert recorder.delete_last() == 1
        with pytest.raises(DatasetError, match="episode 0 is packed; `robolearn data delete` takes it out"):
            recorder.delete_last()
        record(recorder, arm)
    assert EpisodeSet.open(tmp_path / "a.zarr").episode_field("id").tolist() == [0, 2]


def test_labels_that_people_set_later_come_back_when_the_set_is_packed_again(tmp_path: Path, arm: Arm) -> None:
    with EpisodeWriter(tmp_path / "a.zarr", {}, Recording(pack="never"), clock=arm.clock) as recorder:
        record(recorder, arm)
    line = {"id": 0, "label": "success", "by": "reviewer:bo", "time": "2026-11-24T00:00:00+00:00"}
    (tmp_path / "a.episodes/labels.jsonl").write_text(json.dumps(line) + "\n{cut off")
    from robolearn.data.pack import pack

    pack(Journal(tmp_path / "a.episodes"), tmp_path / "a.zarr")
    made = EpisodeSet.open(tmp_path / "a.zarr")
    assert (made.episode_field("label")[0], made.episode_field("label_by")[0]) == ("success", "reviewer:bo")
