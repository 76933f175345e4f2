"""N streams through one batched policy are N single rollouts, whatever happens to the worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn.core import Chunk, Outcome
from robolearn.errors import ArrayMismatch, BadInput, SpecMismatch
from robolearn.rollout import States, rollout
from robolearn.rollout_vector import rollout_vector
from sim_envs._pool import Pool

sys.path.insert(0, str(Path(__file__).parent / "sim_envs"))
from toys import Deadly, Hanging, Walk, Wanderer

SEEDS = range(40, 53)
MAX_STEPS = 17


def single(seed: int, execute: int = 3) -> tuple[Outcome, np.ndarray, np.ndarray]:
    body = Walk()
    kept = States(body.state)
    outcome = rollout(body, Wanderer(execute=execute), max_steps=MAX_STEPS, seed=seed, sinks=[kept])
    return outcome, np.stack(kept.actions), np.stack(kept.states)


@pytest.fixture(scope="module")
def pool() -> Pool:
    with Pool(Walk, workers=2, envs_per_worker=2, keep_states=True) as pool:
        yield pool


@pytest.mark.parametrize("execute", [1, 3, 9])
def test_n_streams_that_end_at_different_ticks_equal_n_single_rollouts(pool: Pool, execute: int) -> None:
    records = rollout_vector(pool, Wanderer(pool.streams, execute), SEEDS, max_steps=MAX_STEPS)
    assert len({record.outcome.steps for record in records}) > 3, "the test wants episodes of different length"
    assert {record.outcome.reason for record in records} == {"success", "horizon"}
    for record, seed in zip(records, SEEDS, strict=True):
        outcome, actions, states = single(seed, execute)
        assert record.outcome == outcome
        np.testing.assert_array_equal(record.actions, actions)
        np.testing.assert_array_equal(record.states, states)


def test_all_waiting_streams_are_planned_in_one_batch(pool: Pool) -> None:
    policy = Wanderer(pool.streams)
    rollout_vector(pool, policy, SEEDS, max_steps=MAX_STEPS)
    assert max(policy.batches) == pool.streams
    assert np.mean(policy.batches) > pool.streams / 2


def test_records_are_told_as_they_end_and_returned_in_the_order_of_the_seeds(pool: Pool) -> None:
    told = []
    records = rollout_vector(pool, Wanderer(pool.streams), SEEDS, max_steps=MAX_STEPS, on_record=told.append)
    assert [record.outcome.seed for record in records] == list(SEEDS)
    assert sorted(record.outcome.seed for record in told) == list(SEEDS)


def test_a_killed_worker_is_replaced_and_its_episodes_are_run_again(tmp_path: Path) -> None:
    with Pool(partial(Deadly, tmp_path, 45, 2), workers=2, envs_per_worker=2) as pool:
        records = rollout_vector(pool, Wanderer(pool.streams), SEEDS, max_steps=MAX_STEPS)
        assert pool.restarts == 2
    assert [record.outcome for record in records] == [single(seed)[0] for seed in SEEDS]


@pytest.mark.parametrize("kill", [True, False])
def test_an_episode_that_always_crashes_counts_as_failed_and_says_why(tmp_path: Path, kill: bool) -> None:
    with Pool(partial(Deadly, tmp_path, 45, 99, kill), workers=1, envs_per_worker=2) as pool:
        records = rollout_vector(pool, Wanderer(pool.streams), range(44, 47), max_steps=MAX_STEPS, retries=1)
    crashed = records[1]
    assert (crashed.outcome.reason, crashed.outcome.success) == ("crashed", False)
    assert ("exit code -9" if kill else "FloatingPointError: the simulation is unstable") in crashed.why
    assert len(list(tmp_path.iterdir())) == 2, "once and one retry"
    assert [records[0].outcome, records[2].outcome] == [single(44)[0], single(46)[0]]


def test_a_worker_that_hangs_is_replaced_and_its_episodes_are_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receive = Pool._receive

    def patient(pool: Pool, worker: Any, within_s: float) -> Any:
        """However slow the machine is, only a worker that said it hangs is out of time."""
        while not worker.pipe.poll(0.01) and str(worker.process.pid) not in {note.read_text() for note in tmp_path.iterdir()}:
            pass
        return receive(pool, worker, within_s)

    monkeypatch.setattr(Pool, "_receive", patient)
    with Pool(partial(Hanging, tmp_path, seed=44, times=1), workers=2, envs_per_worker=2, round_s=0.2) as pool:
        records = rollout_vector(pool, Wanderer(pool.streams), SEEDS, max_steps=MAX_STEPS)
        assert pool.restarts == 1
    assert [record.outcome for record in records] == [single(seed)[0] for seed in SEEDS]


def test_a_body_that_cannot_be_made_is_one_clear_error() -> None:
    with pytest.raises(BadInput, match="no such toy"):
        Pool(refuse, workers=1)


def refuse() -> Walk:
    raise BadInput("no such toy")


def test_a_policy_for_another_body_is_refused_before_anything_moves(pool: Pool) -> None:
    policy = Wanderer(pool.streams)
    policy.spec = policy.spec.__class__(obs={}, action=policy.spec.action, hz=50.0)
    with pytest.raises(SpecMismatch, match="50 Hz"):
        rollout_vector(pool, policy, SEEDS, max_steps=3)


def test_an_action_that_is_not_finite_is_refused(pool: Pool) -> None:
    class Broken(Wanderer):
        def plan_streams(self, indices: list[int], ask: object = None) -> list[Chunk]:
            return [Chunk(np.full((5, 2), np.nan, np.float32), self.streams[i].tick) for i in indices]

    with pytest.raises(ArrayMismatch, match="finite"):
        rollout_vector(pool, Broken(pool.streams), SEEDS, max_steps=3)


def test_leaving_the_pool_leaves_no_process_behind() -> None:
    with pytest.raises(RuntimeError), Pool(Walk, workers=2) as pool:
        pids = pool.pids
        raise RuntimeError
    assert not [pid for pid in pids if alive(pid)]


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "busy.py"
    script.write_text(
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits 'ignore'\n"
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent / 'sim_envs')!r})\n"
        "from toys import Sleepy, Wanderer\n"
        "from robolearn.rollout_vector import rollout_vector\n"
        "from sim_envs._pool import Pool\n"
        "if __name__ == '__main__':\n"
        "    with Pool(Sleepy, workers=2) as pool:\n"
        "        print(*pool.pids, flush=True)\n"
        "        rollout_vector(pool, Wanderer(2), range(4), max_steps=9)\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2 and all(alive(pid) for pid in pids)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) != 0
    assert not [pid for pid in pids if alive(pid)]


def alive(pid: int) -> bool:
    multiprocessing.active_children()  # collects the dead ones
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"
