"""Simulators in worker processes: several bodies in each, one message a round for all of them, and a dead worker is replaced.

The parent speaks in rounds: `ask` sends every named stream one command and returns when all have answered. So what is
planned together depends on the seeds alone and not on the clock, and a repeated evaluation is the same evaluation.
"""

from __future__ import annotations

import contextlib
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from multiprocessing import connection, get_context
from typing import Any

import numpy as np

from robolearn.core import Obs, SimEnv, Spec, Step
from robolearn.errors import BadInput, RobolearnError

_PATIENCE_S = 5.0  # for a worker to leave by itself
_ROUND_S = 600.0  # for one round of a worker: a chunk of actions on all its bodies takes seconds


@dataclass(frozen=True)
class Reply:
    """What became of one stream in one round: the first observation, or the steps made; or why its episode is lost.

    states: those reached in this round, when they are kept: (1, state) after a reset, (steps, state) after actions.
    """

    obs: Obs | None = None
    steps: tuple[Step, ...] = ()
    states: np.ndarray | None = None
    lost: str = ""


@dataclass
class _Worker:
    process: Any
    pipe: connection.Connection


class Pool:
    """`workers` processes with `envs_per_worker` bodies each; stream s lives in worker s // envs_per_worker.

    make: called in every worker, once a body; it must be picklable (`functools.partial(make, "pusht", {})`);
    keep_states: replies carry whole simulator states; round_s: a worker that takes longer for a round [s] has hung and is
    replaced. Use it in a `with` block: leaving it, also by an exception or
    Ctrl-C, leaves no process behind.
    """

    def __init__(
        self,
        make: Callable[[], SimEnv],
        workers: int = 2,
        envs_per_worker: int = 1,
        keep_states: bool = False,
        round_s: float = _ROUND_S,
    ) -> None:
        if workers < 1 or envs_per_worker < 1:
            raise BadInput(f"want at least one worker and one body a worker, got {workers} and {envs_per_worker}")
        self._arguments = (make, envs_per_worker, keep_states)
        self._n, self._round_s = envs_per_worker, round_s
        self.streams = workers * envs_per_worker
        self.restarts = 0
        self._workers: list[_Worker] = []
        try:
            self._workers = [self._spawn() for _ in range(workers)]
            facts = [self._greet(worker) for worker in self._workers]
        except BaseException:
            self.close()
            raise
        self.spec = Spec.from_json(facts[0]["spec"])
        self.versions: dict[str, str] = facts[0]["versions"]

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers."""
        return [worker.process.pid for worker in self._workers]

    def ask(self, starts: Mapping[int, int | None], runs: Mapping[int, np.ndarray]) -> dict[int, Reply]:
        """Returns the reply of every stream named, when all are there.

        starts: stream -> seed to reset with; runs: stream -> actions (n, action), executed until the episode is over.
        Streams of a worker that died or hung are answered with `lost`, and the worker is replaced.
        """
        parts: dict[int, dict[int, Any]] = {}
        for stream, command in [*starts.items(), *runs.items()]:
            parts.setdefault(stream // self._n, {})[stream] = command
        replies: dict[int, Reply] = {}
        dead: set[int] = set()
        hung: set[int] = set()
        for index, part in parts.items():
            try:
                self._workers[index].pipe.send(part)
            except OSError:
                dead.add(index)
        for index, part in parts.items():
            try:
                if index not in dead:
                    replies.update(self._receive(self._workers[index], self._round_s))
            except TimeoutError:
                dead.add(index)
                hung.add(index)
            except (EOFError, OSError):
                dead.add(index)
            if index in dead:
                why = self._replace(index, index in hung)
                replies.update({stream: Reply(lost=why) for stream in part})
        return replies

    def close(self) -> None:
        """Ends all workers: asked first, killed where they do not listen."""
        for worker in self._workers:
            with contextlib.suppress(OSError):
                worker.pipe.close()  # a worker that waits for a command sees the end of it and leaves
        for worker in self._workers:
            worker.process.join(0.2)
            if worker.process.is_alive():
                worker.process.terminate()
        for worker in self._workers:
            worker.process.join(_PATIENCE_S)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []

    def _spawn(self) -> _Worker:
        context = get_context("spawn")  # a forked process would share the parent's threads and GL context
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, *self._arguments), daemon=True)
        with _one_thread():
            process.start()
        theirs.close()
        return _Worker(process, ours)

    def _greet(self, worker: _Worker) -> dict[str, Any]:
        try:
            return self._receive(worker, _ROUND_S)
        except (EOFError, OSError) as error:
            worker.process.join(_PATIENCE_S)
            raise BadInput(f"a worker process died while it made its bodies (exit code {worker.process.exitcode})") from error

    def _receive(self, worker: _Worker, within_s: float) -> Any:
        if not worker.pipe.poll(within_s):
            worker.process.kill()
            raise TimeoutError
        answer = worker.pipe.recv()
        if isinstance(answer, RobolearnError):
            raise answer
        return answer

    def _replace(self, index: int, hung: bool) -> str:
        old = self._workers[index]
        old.process.join(_PATIENCE_S)
        if old.process.is_alive():
            old.process.kill()
            old.process.join()
        old.pipe.close()
        self.restarts += 1
        self._workers[index] = self._spawn()
        self._greet(self._workers[index])
        how = f"did not answer for {self._round_s:g} s" if hung else f"died (exit code {old.process.exitcode})"
        return f"its worker process {how}"


class Here:
    """Bodies in this process, driven as those of a `Pool`: for simulators so light that a second process would only wait."""

    def __init__(self, make: Callable[[], SimEnv], streams: int, keep_states: bool = False) -> None:
        self.streams = streams
        self._bodies = [_Body(make, keep_states) for _ in range(streams)]
        env = self._bodies[0].env
        self.spec, self.versions = env.spec, env.versions() if hasattr(env, "versions") else {}

    def __enter__(self) -> Here:
        return self

    def __exit__(self, *_: object) -> None:
        for body in self._bodies:
            body.env.close()

    def ask(self, starts: Mapping[int, int | None], runs: Mapping[int, np.ndarray]) -> dict[int, Reply]:
        """Returns the reply of every stream named; see `Pool.ask`."""
        return {stream: self._bodies[stream].obey(command) for stream, command in [*starts.items(), *runs.items()]}


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Lets processes started inside use one thread each for linear algebra: they are many already."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Body:
    """One body in a worker; `keep` says whether its states are wanted."""

    def __init__(self, make: Callable[[], SimEnv], keep: bool) -> None:
        self.make, self.keep = make, keep
        self.env = make()

    def obey(self, command: Any) -> Reply:
        """Returns what became of a seed or of actions; a body that raised is made anew and its episode is lost."""
        try:
            return self._run(command) if isinstance(command, np.ndarray) else self._start(command)
        except RobolearnError:
            raise
        except Exception as error:
            with contextlib.suppress(Exception):
                self.env.close()
            self.env = self.make()
            where = traceback.extract_tb(error.__traceback__)[-1]
            return Reply(lost=f"{type(error).__name__}: {error} ({os.path.basename(where.filename)}:{where.lineno})")

    def _start(self, seed: int | None) -> Reply:
        obs = self.env.reset(seed)
        return Reply(obs=obs, states=self.env.state()[None] if self.keep else None)

    def _run(self, actions: np.ndarray) -> Reply:
        steps, states = [], []
        for action in actions:
            step = self.env.step(action)
            steps.append(replace(step, t_ns=dict(step.t_ns)))  # a read-only mapping does not travel
            if self.keep:
                states.append(self.env.state())
            if step.terminated or step.truncated:
                break
        return Reply(steps=tuple(steps), states=np.stack(states) if states else None)


def _work(pipe: connection.Connection, make: Callable[[], SimEnv], n: int, keep: bool) -> None:
    """Runs a worker process until its pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            bodies = [_Body(make, keep) for _ in range(n)]
            env = bodies[0].env
            versions = env.versions() if hasattr(env, "versions") else {}
            pipe.send({"spec": env.spec.to_json(), "versions": versions})
            while True:
                part = pipe.recv()
                pipe.send({stream: bodies[stream % n].obey(command) for stream, command in part.items()})
        except RobolearnError as error:
            pipe.send(BadInput(str(error)))
