"""The recorder's own process: takes ticks and frames from shared memory, encodes, stages, saves, packs.

Started by `EpisodeWriter` as `python -m robolearn.data._writer`. It outlives the program that records: where that is killed,
what it had sent is saved, labelled partial. It answers one JSON object a line on standard output.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data._codec import Codec
from robolearn.data._ring import Receiver
from robolearn.data._stage import Stage
from robolearn.data.journal import Journal
from robolearn.errors import DatasetError, RobolearnError

SYNC_S = 5.0  # how much of a running episode a power cut may take
PHASES = ("idle", "begin", "row", "save", "pack")


class Writer:
    """What the process does with each message."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.set_path, self.journal = Path(options["set"]), Journal(Path(options["journal"]))
        self.codec, self.pack_when = Codec(**options["codec"]), options["pack"]
        self.trace = _Trace(os.environ.get("ROBOLEARN_RECORDER_TRACE"))
        self.stage: Stage | None = None
        self.begun: dict[str, Any] = {}
        self.id, self.failed = -1, ""
        self._synced = time.monotonic()
        self._due: list[int] = []

    def begin(self, header: dict[str, Any]) -> None:
        """Stages a new episode."""
        self.trace.phase("begin")
        self.failed, self.begun = "", header["attributes"]
        try:
            self.id, self.stage = self.journal.stage(self.codec)
            (self.stage.folder / "begin.json").write_text(json.dumps(self.begun, indent=1))
        except (OSError, RobolearnError) as error:
            self.fail(error)

    def row(self, header: dict[str, Any], arrays: list[np.ndarray]) -> None:
        """Adds the arrays of one tick: pictures first, because a row points at them."""
        if self.stage is None or self.failed:  # a row after one that was taken half would stand in the wrong place
            return
        self.trace.phase("row")
        try:
            for (name, facts), value in zip(header["names"], arrays, strict=True):
                if name.startswith("frame/"):
                    self.stage.frame(name.removeprefix("frame/"), int(facts), value)
                else:
                    self.stage.append(name, value, facts)
            durable = time.monotonic() - self._synced > SYNC_S
            self.stage.flush(durable)
            self._synced = time.monotonic() if durable else self._synced
        except (OSError, RobolearnError) as error:
            self.fail(error)
        self.trace.phase("idle")

    def fail(self, error: Exception) -> None:
        """Tells the recording program why this episode can take no more; what is staged stays."""
        if not self.failed:
            self.failed = f"{getattr(error, 'strerror', None) or error}"
            say(event="failed", id=self.id, why=self.failed)

    def end(self, attributes: dict[str, Any]) -> None:
        """Saves the episode; one without a row, or one that the person threw away, is not kept in the journal."""
        stage, self.stage = self.stage, None
        if stage is None or not stage.rows:
            if stage is not None:
                stage.abandon()
                _remove(stage.folder)
            say(event="empty", id=self.id, why=self.failed)
            return
        self.trace.phase("save")
        try:
            if self.failed:
                stage.abandon()
                self.journal.quarantine(self.id)
                saved = self.journal.salvage(self.id, {**attributes, "reason": f"stopped:{self.failed}"})
            else:
                saved = self.journal.save(self.id, stage, {**self.begun, **attributes})
        except (OSError, RobolearnError) as error:
            stage.abandon()
            self.fail(error)
            say(event="unsaved", id=self.id, why=self.failed)
            return
        finally:
            self.trace.phase("idle")
        if attributes.get("discarded"):
            self.journal.trash(saved.id)
        else:
            self._due.append(saved.id)
        say(
            event="saved",
            id=saved.id,
            sha256=saved.sha256,
            steps=saved.steps,
            why=self.failed,
            discarded=bool(attributes.get("discarded")),
        )
        if self.pack_when == "each":
            self.pack()

    def trash(self, episode: int, back: bool) -> None:
        """Moves a saved episode to the trash, or back."""
        from robolearn.data.pack import is_packed

        try:
            if not back and is_packed(self.set_path, episode):
                raise DatasetError(f"{self.set_path}: episode {episode} is packed; `robolearn data delete` takes it out")
            (self.journal.untrash if back else self.journal.trash)(episode)
            self._due = sorted({*self._due, episode}) if back else [number for number in self._due if number != episode]
            say(event="untrashed" if back else "trashed", id=episode)
        except (OSError, RobolearnError) as error:
            say(event="refused", id=episode, why=str(error))

    def pack(self, leave: int | None = None) -> None:
        """Brings the set up to date with the journal, but for the episode `leave`."""
        from robolearn.data.pack import pack  # brings zarr along, which an episode does not need to be saved

        self.trace.phase("pack")
        try:
            report = pack(self.journal, self.set_path, leave=() if leave is None else (leave,))
            say(event="packed", ids=report.packed, refused=report.refused)
        except (OSError, RobolearnError) as error:
            say(event="pack_failed", why=str(error))
        finally:
            self._due = [number for number in self._due if number == leave]
            self.trace.phase("idle")

    @property
    def last(self) -> int:
        """Id of the episode saved last."""
        return self._due[-1]

    @property
    def idle_work(self) -> bool:
        """Whether nothing is being recorded and an episode waits to be packed that is not the last, which may be taken back."""
        return self.pack_when == "idle" and self.stage is None and len(self._due) > 1


class _Trace:
    """Writes the present phase into a file that others can watch (`bench crash` does)."""

    def __init__(self, path: str | None) -> None:
        self._map = None
        if path:
            with open(path, "r+b") as file:
                self._map = mmap.mmap(file.fileno(), 1)

    def phase(self, name: str) -> None:
        if self._map is not None:
            self._map[0] = PHASES.index(name)


def say(**event: Any) -> None:
    """Answers the recording program; where that is gone, nobody needs the answer."""
    try:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def main(argv: list[str]) -> int:
    """Serves one `EpisodeWriter` until it closes, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that records; this one then saves
    options = json.loads(argv[1])
    writer = Writer(options)
    receiver = Receiver(options["memory"], options["pipe"])
    said = writer.journal.recover()
    say(event="ready", notes=said)
    while True:
        message = receiver.receive(0.2 if not writer.idle_work else 0.0)
        if message is None:
            if receiver.closed:
                break
            if writer.idle_work:
                writer.pack(leave=writer.last)
            continue
        header, arrays = message
        kind = header["kind"]
        if kind == "row":
            writer.row(header, arrays)
        elif kind == "begin":
            writer.begin(header)
        elif kind == "end":
            writer.end(header["attributes"])
        elif kind in ("trash", "untrash"):
            writer.trash(header["id"], kind == "untrash")
        elif kind == "pack":
            writer.pack()
        elif kind == "close":
            break
    if writer.stage is not None:  # the recording program is gone in the middle of an episode
        labels = [{"label": "partial", "by": "recorder", "time": ""}]
        writer.end({"reason": "stopped:the recording program ended", "labels": labels})
    if writer.pack_when in ("close", "idle") and writer._due:
        writer.pack()
    say(event="closed")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
