"""A whole recording session in a pseudo-terminal, with nobody at it: keys typed by a script, one redo, one delete, one undo,
one kill -9 and a resume; then the set is checked, replayed and trained on. `bench teleop --session` keeps its figures.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robolearn.apps._session import is_whole
from robolearn.data.journal import STAGING, Journal, folder_of
from robolearn.errors import DatasetError, Findings

PATIENCE_S = 180.0
LOOK_S = 0.05
KEYS = {"enter": b"\r", "backspace": b"\x7f"}


@dataclass(frozen=True)
class Script:
    """What is recorded. max_steps: of an episode, 0: the task's own; train: steps of a training with `config`, 0: none."""

    task: str = "lift"
    driver: str = "operator"
    episodes: int = 10
    max_steps: int = 0
    config: str = "lift_bc"
    train: int = 200


@dataclass
class Terminal:
    """`robolearn` with `arguments` in a pseudo-terminal of its own; what it writes is kept in `text`."""

    arguments: list[str]
    text: bytearray = field(default_factory=bytearray)

    def __enter__(self) -> Terminal:
        self._ours, self._theirs = pty.openpty()
        self.before = termios.tcgetattr(self._theirs)
        command = [sys.executable, "-m", "robolearn", *self.arguments]
        self.process = subprocess.Popen(
            command, stdin=self._theirs, stdout=self._theirs, stderr=self._theirs, start_new_session=True
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self._theirs)
        self._reader.join(5.0)
        os.close(self._ours)

    def press(self, key: str) -> None:
        """Types one key."""
        os.write(self._ours, KEYS.get(key, key.encode()))

    def wait_for(self, what: str, there: Callable[[], bool]) -> None:
        """Waits until something is there; Findings with the last words of the program where it does not come."""
        end = time.monotonic() + PATIENCE_S
        while not there():
            if self.process.poll() is not None or time.monotonic() > end:
                said = bytes(self.text[-600:]).decode(errors="replace")
                raise Findings(f"session: waited for {what}, got (exit code {self.process.poll()}) {said!r}")
            time.sleep(LOOK_S)

    def restored(self) -> bool:
        """Whether the terminal is as it was before the program began."""
        return bool(termios.tcgetattr(self._theirs) == self.before)

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(self._ours, 65536):
                self.text += data


def session(folder: Path, seed: int, script: Script = Script()) -> dict[str, Any]:
    """Returns the figures of a session recorded in `folder`: what was counted, what was lost, what the set is good for."""
    out = folder / "session.zarr"
    flags = ["record", script.task, "--driver", script.driver, "--live", "--start", "enter", "--out", str(out)]
    flags += ["--episodes", str(script.episodes), "--seed", str(seed)]
    flags += ["--max-steps", str(script.max_steps)] if script.max_steps else []
    journal = Journal(folder_of(out), make=False)
    acknowledged: dict[int, str] = {}
    half = max(1, script.episodes // 2)
    with Terminal(flags) as terminal:
        terminal.wait_for("the session", lambda: b"of %d episodes" % script.episodes in terminal.text)
        for _ in range(half):
            _record(terminal, journal, acknowledged)
        _interfere(terminal, journal, acknowledged)
        _begin(terminal, journal)
        os.kill(terminal.process.pid, signal.SIGKILL)
        terminal.process.wait()
    with Terminal([*flags, "--resume"]) as terminal:
        terminal.wait_for("the session to go on", lambda: b"of %d episodes" % script.episodes in terminal.text)
        said = b"%d of %d episodes" % (kept(journal), script.episodes) in terminal.text
        while kept(journal) < script.episodes:
            _record(terminal, journal, acknowledged)
        terminal.press("q")
        code = terminal.process.wait(PATIENCE_S)
        restored = terminal.restored()
    figures = {"wanted": script.episodes, "exit_code": code, "terminal_restored": restored, "resume_counts_right": said}
    return figures | books(out, journal, acknowledged) | worth(folder, out, script)


def kept(journal: Journal) -> int:
    """Returns how many whole episodes there are."""
    return sum(is_whole(journal, k) for k in journal.ids())


def _staged(journal: Journal) -> bool:
    """Whether an episode is being recorded and its first rows are on the disk."""
    return any((journal.folder / STAGING).glob("ep_*/begin.json"))


def _begin(terminal: Terminal, journal: Journal) -> None:
    terminal.press("enter")
    terminal.wait_for("an episode to begin", lambda: _staged(journal))


def _record(terminal: Terminal, journal: Journal, acknowledged: dict[int, str]) -> None:
    """Records one episode and notes the hash it was acknowledged with."""
    before = set(journal.ids())
    terminal.press("enter")
    terminal.wait_for("an episode to be saved", lambda: set(journal.ids()) > before)
    new = max(set(journal.ids()) - before)
    acknowledged[new] = journal.episode(new).sha256


def _interfere(terminal: Terminal, journal: Journal, acknowledged: dict[int, str]) -> None:
    """One redo, one delete of the last episode, one undo of that, each seen in the journal before the next."""
    _begin(terminal, journal)
    trash = len(journal.trashed())
    terminal.press("r")
    terminal.wait_for("the redo", lambda: len(journal.trashed()) == trash + 1)
    _record(terminal, journal, acknowledged)
    kept = len(journal.ids())
    terminal.press("backspace")
    terminal.wait_for("the delete", lambda: len(journal.ids()) == kept - 1)
    terminal.press("u")
    terminal.wait_for("the undo", lambda: len(journal.ids()) == kept)


def books(out: Path, journal: Journal, acknowledged: dict[int, str]) -> dict[str, Any]:
    """Returns what became of the episodes that were acknowledged: an episode is lost where it is not there as it was saved."""
    from robolearn.data.store import EpisodeSet

    lost = 0
    for episode, sha256 in acknowledged.items():
        try:
            entry = journal.episode(episode)
            entry.verify()
            lost += entry.sha256 != sha256
        except DatasetError:
            lost += 1
    done = EpisodeSet.open(out)
    packed = [int(k) for k in done.episode_field("id")]  # type: ignore[union-attr]
    seeds = [int(k) for k in done.episode_field("seed")]  # type: ignore[union-attr]
    label = done.episode_field("label")
    return {
        "episodes": kept(journal),
        "cut_off": len(journal.ids()) - kept(journal),
        "steps": done.n_steps,
        "redone": len(journal.trashed()),
        "deleted": 1,
        "undone": 1,
        "killed": 1,
        "lost": lost,
        "unpacked": len(set(journal.ids()) - set(packed)),
        "seeds_twice": len(seeds) - len(set(seeds)),
        "successes": sum(str(name) == "success" for name in label) if label is not None else None,
    }


def worth(folder: Path, out: Path, script: Script) -> dict[str, Any]:
    """Returns what `data check`, `replay` and `train` say of a set."""
    found: dict[str, Any] = {}
    found["check_exit_code"], check = _verb(folder, "check.json", ["data", "check", str(out)])
    found["check_flags"] = (check or {}).get("counts")
    found["replay_exit_code"], replay = _verb(folder, "replay.json", ["replay", str(out)])
    for name in ("from_seed", "from_state"):
        errors = [key["max_error"] for key in (replay or {}).get(name, {}).values()]
        found[f"replay_max_error_{name}"] = max(errors, default=None)
    found["replay_success_rate"] = (replay or {}).get("success_rate")
    if script.train:
        run = folder / "run"
        flags = [
            "--dataset.path",
            str(out),
            "--out",
            str(run),
            "--steps",
            str(script.train),
            "--warmup",
            "20",
            "--batch-size",
            "64",
        ]
        flags += ["--val-every", str(script.train), "--save-every", str(script.train), "--log-every", "10", "--overwrite"]
        found["train_exit_code"], _ = _verb(folder, "", ["train", script.config, *flags, "--threads", "1"])
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        losses = [line["loss"] for line in lines if line.get("loss") is not None]
        found |= {"train_steps": script.train, "first_loss": losses[0], "final_loss": losses[-1]}
    return found


def _verb(folder: Path, report: str, arguments: list[str]) -> tuple[int, dict[str, Any] | None]:
    """Runs a command of ours and returns its exit code and the JSON it wrote."""
    where = folder / report
    command = [sys.executable, "-m", "robolearn", *arguments, *(["--json", str(where)] if report else [])]
    with closing(open(os.devnull, "w")) as nowhere:
        code = subprocess.run(command, stdout=nowhere, stderr=subprocess.STDOUT, check=False).returncode
    return code, json.loads(where.read_text()) if report and where.is_file() else None
