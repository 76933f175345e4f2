"""Whatever goes wrong while recording, what was handed over before is kept, and what happened is said in one line."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bodies import SPEC, Arm, Mind, picture

from robolearn.core import Ask, Chunk, Outcome
from robolearn.data._codec import Codec
from robolearn.data.journal import Journal
from robolearn.data.recorder import EpisodeWriter, Recording
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError
from robolearn.rollout import rollout


@pytest.fixture
def arm() -> Arm:
    return Arm()


@dataclass
class Patient(Mind):
    """Waits at every tick until the recorder has taken most of what it was given: no test is about who is faster."""

    recorder: EpisodeWriter | None = None

    def plan(self, ask: Ask = Ask()) -> Chunk:
        assert self.recorder is not None
        deadline = time.monotonic() + 60
        while self.recorder._link.waiting_bytes > 500_000:
            assert time.monotonic() < deadline, "the recorder takes nothing any more"
            time.sleep(0.001)
        return super().plan(ask)


def record(recorder: EpisodeWriter, arm: Arm, steps: int = 12, **mind: Any) -> Outcome:
    return rollout(arm, Patient(recorder=recorder, **mind), max_steps=steps, seed=3, sinks=[recorder], source="operator")


def test_a_body_that_changes_its_mind_about_a_shape_ends_the_episode_at_its_last_whole_row(tmp_path: Path, capsys) -> None:
    arm = Arm()
    plain = arm.observe
    arm.observe = lambda: plain() | ({"joints": np.zeros(4, np.float32)} if arm.k == 7 else {})  # type: ignore[method-assign]
    with EpisodeWriter(tmp_path / "a.zarr", {}, Recording(codec=Codec("png"), pack="each"), clock=arm.clock) as recorder:
        outcome = record(recorder, arm, steps=400)
        record(recorder, arm, steps=5)
    assert "rows/joints: want float32(3,) as in the rows before, got float32(4,)" in outcome.reason
    assert [saved.steps for saved in recorder.saved] == [7, 5] and "saved as partial" in capsys.readouterr().err
    made = EpisodeSet.open(tmp_path / "a.zarr")
    rows = made.episode(0)
    for key in ("joints", "action"):
        np.testing.assert_array_equal(rows[key][:, 0], np.arange(7))
    np.testing.assert_array_equal(rows["front"], [picture(k) for k in range(7)])
    assert made.episode_field("label").tolist() == ["partial", "failure"]


def test_a_second_recorder_on_one_set_is_refused_in_one_line(tmp_path: Path, arm: Arm) -> None:
    refused = pytest.raises(DatasetError, match=r"process \d+ is writing to this journal")
    with EpisodeWriter(tmp_path / "a.zarr", clock=arm.clock), refused:
        EpisodeWriter(tmp_path / "a.zarr", clock=arm.clock)
    EpisodeWriter(tmp_path / "a.zarr", clock=arm.clock).close()


def test_a_full_buffer_ends_the_episode_by_name_and_keeps_what_was_taken(tmp_path: Path, arm: Arm) -> None:
    with EpisodeWriter(tmp_path / "a.zarr", {}, Recording(buffer_mib=1, pack="each"), clock=arm.clock) as recorder:
        os.kill(recorder._link.pid, signal.SIGSTOP)
        outcomes: list[Outcome] = []

        class Recorder:
            """The recorder, woken when the loop is over, so that `end` can be answered."""

            begin, record, stream = recorder.begin, recorder.record, recorder.stream

            def end(self, outcome: Outcome) -> None:
                outcomes.append(outcome)
                os.kill(recorder._link.pid, signal.SIGCONT)
                recorder.end(outcome)

        rollout(arm, Mind(), max_steps=500, seed=0, sinks=[Recorder()])
    assert outcomes[0].reason == "stopped:the recorder's buffer of 1 MiB is full: disk or encoder cannot keep up"
    steps = recorder.saved[0].steps
    assert 20 < steps < 500
    made = EpisodeSet.open(tmp_path / "a.zarr")
    assert made.n_steps == steps and made.episode_field("reason")[0].startswith("stopped:the recorder's buffer")
    np.testing.assert_array_equal(made.read("joints")[:, 0], np.arange(steps))


def test_a_killed_recorder_stops_the_episode_and_what_it_wrote_is_salvaged(
    tmp_path: Path, arm: Arm, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = EpisodeWriter(tmp_path / "a.zarr", {"task": "t"}, Recording(codec=Codec("png"), pack="never"), clock=arm.clock)
    record(recorder, arm)
    recorder.begin(SPEC, {"seed": 1})
    mind, obs, reason = Mind(), arm.reset(), ""
    mind.reset()
    with pytest.raises(DatasetError, match="earlier episodes are safe"):
        for tick in range(400):
            if tick == 30:
                wait_for_rows(tmp_path / "a.episodes", 20)
                os.kill(recorder._link.pid, signal.SIGKILL)
            outcome = step(recorder, arm, obs, tick)
            reason = reason or outcome
            obs = arm.observe()
        recorder.end(Outcome(1, 400, False, None, "stopped"))
    assert "recorder's process is gone" in reason
    recorder._held.close()

    with EpisodeWriter(tmp_path / "a.zarr", {"task": "t"}, Recording(pack="each"), clock=arm.clock) as again:
        assert "recording was cut off after" in capsys.readouterr().err
        record(again, arm)
        assert [saved.id for saved in again.saved] == [2]
    journal = Journal(tmp_path / "a.episodes")
    saved = journal.salvage(1)
    assert saved.steps >= 20 and journal.ids() == [0, 1, 2] and journal.crashed() == {}
    rows = journal.episode(1).array("rows/joints")
    np.testing.assert_array_equal(rows[:, 0], np.arange(saved.steps))
    np.testing.assert_array_equal(journal.episode(1).frame("front", saved.steps - 1), picture(saved.steps - 1))


def step(recorder: EpisodeWriter, arm: Arm, obs: dict[str, np.ndarray], tick: int) -> str:
    """Hands over one tick; returns why it was not taken, if so."""
    from robolearn.core import Tick
    from robolearn.errors import EpisodeStopped

    action = np.full(3, tick, np.float32)
    done = arm.step(action)
    try:
        recorder.record(Tick(tick, obs, action, done, "operator", None))
    except EpisodeStopped as stop:
        return str(stop)
    return ""


def wait_for_rows(folder: Path, rows: int) -> None:
    """Waits until so many rows of the staged episode are in its files."""
    deadline = time.monotonic() + 60
    while sum(f.stat().st_size for f in folder.glob(".staging/*/rows/joints/c.0.0")) < rows * 12:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_recording_program_that_is_killed_leaves_a_partial_episode_behind(tmp_path: Path) -> None:
    code = (
        "import sys, time; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path\nfrom bodies import Arm, Mind\n"
        "from robolearn.data.recorder import EpisodeWriter, Recording\nfrom robolearn.rollout import rollout\n"
        "arm = Arm()\n"
        "class Slow(Mind):\n"
        "    def plan(self, ask=None):\n"
        "        if self.tick == 20: print('here', flush=True); time.sleep(600)\n"
        "        return super().plan()\n"
        "recorder = EpisodeWriter(Path(sys.argv[1]), {'task': 't'}, Recording(pack='close'), clock=arm.clock)\n"
        "rollout(arm, Slow(), max_steps=50, seed=0, sinks=[recorder])\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", code, str(tmp_path / "a.zarr"), str(root), str(Path(__file__).parent)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"here\n"
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while not (tmp_path / "a.zarr").exists() or not EpisodeSet.open(tmp_path / "a.zarr").n_episodes:
        assert time.monotonic() < deadline, list((tmp_path / "a.episodes").iterdir())
        time.sleep(0.05)
    made = EpisodeSet.open(tmp_path / "a.zarr")
    assert made.n_steps == 20 and made.episode_field("label").tolist() == ["partial"]
    assert made.episode_field("reason").tolist() == ["stopped:the recording program ended"]


def test_a_disk_quota_that_is_used_up_keeps_earlier_episodes_and_says_why(
    tmp_path: Path, arm: Arm, capsys: pytest.CaptureFixture[str]
) -> None:
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, old[1]))  # no file of the recorder may grow beyond this
    try:
        how = Recording(codec=Codec("png"), buffer_mib=1, pack="never")
        recorder = EpisodeWriter(tmp_path / "a.zarr", {}, how, clock=arm.clock)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    with recorder:
        record(recorder, arm, steps=3)
        outcome = record(recorder, arm, steps=3000)
    assert outcome.reason.startswith("stopped:") and "too large" in outcome.reason.lower()
    said = capsys.readouterr().err
    assert "episode 1" in said and ("saved as partial" in said or "could not be saved" in said)
    journal = Journal(tmp_path / "a.episodes")
    journal.recover()
    for number in journal.ids():
        journal.episode(number).verify()
    assert 0 in journal.ids()
    kept = journal.episode(1).steps if 1 in journal.ids() else journal.crashed()[1]
    assert kept >= 3


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_keeps_earlier_episodes_and_says_why(tmp_path: Path, arm: Arm) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        how = Recording(codec=Codec("png"), pack="never", least_free_mib=1)
        with EpisodeWriter(disk / "a.zarr", {}, how, clock=arm.clock) as recorder:
            record(recorder, arm, steps=5)
            outcome = record(recorder, arm, steps=3000)
            assert outcome.reason == "stopped:No space left on device"
            with pytest.raises(DatasetError, match=r"0 MiB are free on its disk, want 1 to begin"):
                record(recorder, arm)
        journal = Journal(disk / "a.episodes")
        journal.episode(0).verify()
        staged = [p.name for p in (journal.folder / ".crashed").iterdir()]
        assert journal.ids() == [0] and staged == ["ep_000001"] and journal.crashed()[1] > 50
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)


def test_a_folder_that_cannot_be_written_is_one_line() -> None:
    with pytest.raises(DatasetError, match="cannot be written to") as caught:
        EpisodeWriter(Path("/proc/robolearn/a.zarr"))
    assert "\n" not in str(caught.value)


def test_an_episode_that_does_not_fit_the_set_stays_in_the_journal(
    tmp_path: Path, arm: Arm, capsys: pytest.CaptureFixture[str]
) -> None:
    with EpisodeWriter(tmp_path / "a.zarr", {}, Recording(pack="each"), clock=arm.clock) as recorder:
        record(recorder, arm)
    with EpisodeWriter(tmp_path / "a.zarr", {}, Recording(pack="each"), state=arm.state, clock=arm.clock) as recorder:
        record(recorder, arm)
    assert "has 'sim_state', which the set" in capsys.readouterr().err
    assert EpisodeSet.open(tmp_path / "a.zarr").n_episodes == 1 and Journal(tmp_path / "a.episodes").ids() == [0, 1]


def test_ctrl_c_ends_the_episode_and_keeps_it(tmp_path: Path, arm: Arm) -> None:
    class Interrupted(Mind):
        def plan(self, ask=None):  # type: ignore[no-untyped-def]
            if self.tick == 7:
                raise KeyboardInterrupt
            return super().plan()

    with EpisodeWriter(tmp_path / "a.zarr", {}, Recording(pack="each"), clock=arm.clock) as recorder:
        with pytest.raises(KeyboardInterrupt):
            rollout(arm, Interrupted(), max_steps=50, seed=0, sinks=[recorder])
        assert recorder.saved[0].steps == 7
    assert EpisodeSet.open(tmp_path / "a.zarr").episode_field("reason").tolist() == ["interrupted"]
