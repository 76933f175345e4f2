"""Every run becomes data: a run directory, written by another process, that a crash leaves readable.

    with RunLog(Path("runs/cups_12"), facts, emulated=False) as log:
        machine = Machine(sink=log.change)
        rollout(body, policy, max_steps=600, sinks=[log])
    for episode in episodes(open_run(Path("runs/cups_12"))): ...    # robolearn.runtime.runs

    run.json         facts of the set-up, versions, one (monotonic, wall) pair; written first
    streams/*.seg    raw streams with both stamps, ticks by episode, chunks whole, pictures (`robolearn.runtime._segments`)
    events.jsonl     begin, end, mode, timing, ...; black_box/NNN_WHY/: the last 30 s before each fault

Nothing here waits for the disk, and nothing but the constructor raises: where the writer is gone, silent, behind or out of
space, `healthy` is False with a `reason`, the control loop goes on, and whoever begins episodes refuses the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from robolearn import __version__
from robolearn.clock import now_ns
from robolearn.core import SOURCES, Chunk, Outcome, Spec, Tick
from robolearn.errors import AlreadyExists, BadInput
from robolearn.runtime import _segments as seg
from robolearn.runtime._feed import Feed
from robolearn.runtime.state import Change, Mode

_LIBRARIES = ("numpy", "scipy", "cv2", "mujoco", "ruckig", "torch")  # whose version run.json tells, where they are loaded
_ABSENT: Mapping[str, Any] = {"t": -1, "score": np.nan, "alarm": False}  # of columns that came and went, by how they begin
_REMEMBERED = 256  # pictures of a camera that a tick may still point at


@dataclass(frozen=True)
class Logging:
    """How to log. flush_s: what a kill may take; buffer_mib: memory for what the writer has not taken; quality: of JPEG.

    box_s, box_mib: what the black box holds of pictures, and as much of all else; silent_s: silence of the writer that is
    unhealthy; close_s: patience at the end.
    """

    flush_s: float = 0.25
    buffer_mib: int = 64
    quality: int = 95
    box_s: float = 30.0
    box_mib: int = 64
    silent_s: float = 2.0
    close_s: float = 10.0


class RunLog:
    """A run directory being written; also a sink for `rollout`.

    facts: JSON values of the set-up: config, git, devices (serial, firmware), calibration (hashes), limits, latency, ...;
    emulated: no metal moves. Raises AlreadyExists, or BadInput where the directory or its writer cannot be begun.
    """

    def __init__(
        self,
        path: Path,
        facts: Mapping[str, Any],
        *,
        emulated: bool,
        how: Logging = Logging(),
        clock: Callable[[], dict[str, int]] = now_ns,
    ) -> None:
        self.path, self.how, self._clock = Path(path), how, clock
        _begin_folder(self.path, facts, emulated, clock())
        self.feed = Feed(self.path, asdict(how), lambda: clock()["monotonic"] * 1e-9)
        self._streams: dict[str, tuple[Any, ...]] = {}  # number, kind, dtype, shape
        self._lock = threading.Lock()
        self._frames: dict[str, deque[int]] = {}
        self._episode, self._chunks = -1, 0
        self._chunk: Chunk | None = None
        self._why, self._closed = "", False

    @property
    def healthy(self) -> bool:
        """False where something is not on the disk, or will not be."""
        return not self.reason

    @property
    def reason(self) -> str:
        """Why the log is not healthy, "" where it is."""
        feed, silent_s = self.feed, self._clock()["monotonic"] * 1e-9 - self.feed.heard_s
        if self._why or feed.why or self._closed:
            return self._why or feed.why
        if feed.process.poll() is not None:
            return f"the writer's process ended ({feed.process.returncode})"
        return f"the writer is silent since {silent_s:.1f} s" if silent_s > self.how.silent_s else ""

    def event(self, event: str, *, box: bool = False, **facts: Any) -> None:
        """Logs a line with both clocks; box: the last seconds are written too."""
        now = self._clock()
        line = {"t_ns": now["monotonic"], "t_wall_ns": now["wall"], "event": event, **facts}
        self._offer(seg.EVENT, seg.to_json(line))
        if box:
            self._offer(seg.BOX, event.encode())

    def change(self, change: Change) -> None:
        """Logs what the state machine was asked and where it went; a fault or an emergency stop writes the black box."""
        facts = asdict(change)
        facts |= {"at_ns": facts.pop("t_ns"), "trigger": facts.pop("event")}
        self.event("mode", **facts)
        if change.target in (Mode.FAULT, Mode.ESTOP) and change.target is not change.source:
            self._offer(seg.BOX, (change.kind or change.event).encode())

    def sample(self, name: str, t_ns: int, t_recv_ns: int, array: np.ndarray) -> None:
        """Logs one sample of a stream: an array of one layout, or a picture (height, width, 3) uint8; stamps monotonic."""
        array = np.asarray(array)
        picture = _is_picture(array)
        self._row(name, "jpeg" if picture else "rows", array, t_ns, t_recv_ns)
        if picture:
            self._frames.setdefault(name, deque(maxlen=_REMEMBERED)).append(t_ns)

    def chunk(self, chunk: Chunk, **facts: Any) -> None:
        """Logs a plan whole; facts: what the schedule knows of it (id, epoch, delay, ...)."""
        named = {name: getattr(chunk, name) for name in ("actions", "past", "samples", "past_samples", "features")}
        arrays = {name: np.asarray(array) for name, array in named.items() if array is not None}
        about = {"tick": chunk.tick, "past_stride": chunk.past_stride, "events": chunk.events, "episode": self._episode, **facts}
        now = self._clock()["monotonic"]
        self._chunks += 1
        if (number := self._number("chunks", "bundle", None, (), {})) is not None:
            self._offer(seg.ROW, seg.pack(about, arrays), number, now, now)

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        """Begins an episode; whoever calls has asked `healthy` before."""
        self._episode, self._chunk, self._dtype = self._episode + 1, None, np.dtype([])
        self._spec, self._times = spec, self._clock()
        self._about: dict[str, Any] = {"episode": self._episode, "spec": spec.to_json(), "meta": json.loads(seg.to_json(meta))}
        self.event("begin", **self._about)

    def record(self, tick: Tick) -> None:
        """Logs one tick: what was seen, asked, filtered and sent, and the chunk when it is a new one."""
        try:
            now = self._clock()
            columns = self._columns(tick, now)
            if not self._dtype.names:
                self._dtype = np.dtype([(name, value.dtype.str, value.shape) for name, value in columns.items()])
            row = _filled(self._dtype, columns)
            self._row(f"episode_{self._episode:04d}", "rows", row, int(columns["t/monotonic"]), now["monotonic"], self._about)
        except Exception as error:  # another layout than the first tick's, or no arrays: the body must go on
            self._why = self._why or f"tick {tick.k}: {error}"

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Logs a sample that came just now."""
        self.sample(name, t_ns, self._clock()["monotonic"], array)

    def end(self, outcome: Outcome) -> None:
        """Ends the episode."""
        self.event("end", episode=self._episode, outcome=asdict(outcome))
        self._offer(seg.SYNC, b"")

    def close(self) -> bool:
        """Ends the run and returns whether all of it is on the disk; waits for `how.close_s` at most."""
        if not self._closed:
            self.event("close", reason=self.reason, dropped=self.feed.dropped)
            self._closed = True
            self.feed.close()
        return self.healthy

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _columns(self, tick: Tick, now: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Returns the row of a tick by column, after logging the pictures and the chunk that it points at."""
        step, period = tick.step, round(1e9 / self._spec.hz)
        following = {**now, **step.t_ns}  # the step's stamps are those of the next tick's observation
        times = {name: self._times.get(name, value - period) for name, value in following.items()}
        self._times = following
        for key in filter(lambda key: _is_picture(tick.obs[key]), tick.obs):
            times[f"dev/{key}"] = stamp = times.get(f"dev/{key}", times["monotonic"])
            if stamp not in self._frames.get(key, ()):
                self.sample(key, stamp, now["monotonic"], tick.obs[key])
        if tick.chunk is not None and tick.chunk is not self._chunk:
            self.chunk(tick.chunk)
            self._chunk = tick.chunk
        source = SOURCES.index(tick.source) if tick.source in SOURCES else 0
        columns: dict[str, Any] = {
            "k": np.int32(tick.k),
            "flags": np.int32(step.flags),
            "source": np.int8(source),
            "success": np.int8(-1 if step.success is None else step.success),
            "task_score": np.float64(np.nan if step.score is None else step.score),
            "chunk": np.int64(self._chunks - 1 if self._chunk is not None else -1),
            "asked": tick.asked,
            "filtered": step.filtered,
            "sent": step.sent,
            **{f"t/{name}": np.int64(value) for name, value in times.items()},
            **{f"obs/{key}": array for key, array in tick.obs.items() if not _is_picture(array)},
            **{f"score/{name}": np.float64(verdict.score) for name, verdict in tick.verdicts.items()},
            **{f"alarm/{name}": np.bool_(verdict.alarm) for name, verdict in tick.verdicts.items()},
        }
        return {name: np.asarray(value) for name, value in columns.items()}

    def _row(
        self, name: str, kind: str, array: np.ndarray, t_ns: int, t_recv_ns: int, about: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        number = self._number(name, kind, array.dtype, array.shape, about)
        if number is not None:
            self._offer(seg.ROW, array.tobytes(), number, t_ns, t_recv_ns)

    def _number(
        self, name: str, kind: str, dtype: np.dtype | None, shape: tuple[int, ...], about: Mapping[str, Any]
    ) -> int | None:
        """Returns the number of a stream, declared at its first row; None, and not healthy, where its layout has changed."""
        if dtype is not None and dtype.hasobject:
            self._why = self._why or f"stream '{name}': want numbers, got {dtype}{shape}"
            return None
        with self._lock:
            new = name not in self._streams
            number, *layout = self._streams.setdefault(name, (len(self._streams), kind, dtype, shape))
            if new:
                self._offer(seg.DECLARE, seg.to_json(seg.header(name, kind, dtype, shape, about)), number)
        if layout != [kind, dtype, shape]:
            self._why = self._why or f"stream '{name}': want {layout[1]}{layout[2]}, got {dtype}{shape}"
            return None
        return int(number)

    def _offer(self, kind: int, body: bytes, stream: int = 0, t_ns: int = 0, t_recv_ns: int = 0) -> None:
        try:
            head = seg.MESSAGE.pack(kind, stream, t_ns, t_recv_ns)
        except struct.error as error:  # a stamp that is none: the loop must go on
            self._why = self._why or f"stamps {t_ns!r}, {t_recv_ns!r}: {error}"
        else:
            self.feed.offer(head + body)


def _filled(dtype: np.dtype, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the columns as one row; KeyError or ValueError where they are other ones, or of other shapes."""
    row = np.zeros((), dtype)
    if new := columns.keys() - set(dtype.names or ()):
        raise KeyError(f"columns that the first tick had not: {', '.join(sorted(new))}")
    for name in dtype.names or ():
        value = np.asarray(columns.get(name, _ABSENT.get(name.partition("/")[0])))
        if value.shape != dtype[name].shape:
            raise ValueError(f"{name}: want shape {dtype[name].shape}, got {value.shape}")
        row[name] = value
    return row


def _is_picture(array: np.ndarray) -> bool:
    return array.dtype == np.uint8 and array.ndim == 3 and array.shape[-1] == 3


def _begin_folder(path: Path, facts: Mapping[str, Any], emulated: bool, now: Mapping[str, int]) -> None:
    """Makes the directory and writes run.json, durably, before anything else."""
    settings = json.dumps(facts.get("config"), sort_keys=True, default=str)
    about = {
        "format": seg.FORMAT,
        "emulated": emulated,
        "robolearn": __version__,
        "python": platform.python_version(),
        "versions": {name: sys.modules[name].__version__ for name in _LIBRARIES if name in sys.modules},
        "config_sha256": hashlib.sha256(settings.encode()).hexdigest(),
        "clock": {"monotonic_ns": now["monotonic"], "wall_ns": now["wall"]},
        **facts,
    }
    try:
        (path / "streams").mkdir(parents=True)
        with (path / "run.json.new").open("w") as file:
            json.dump(about, file, indent=1, default=str)
            file.flush()
            os.fsync(file.fileno())
        (path / "run.json.new").rename(path / "run.json")
        for folder in (path, path.parent):
            number = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
    except FileExistsError as error:
        raise AlreadyExists(path, "run directory") from error
    except (OSError, TypeError, ValueError) as error:
        raise BadInput(f"{path}: no run directory can be begun: {error}") from error
