"""The process of a camera: it opens a `FrameSource`, copies each frame with its stamps into a ring, and opens a lost one again.

It moves nothing, so it needs no orderly end when its parent dies: the system ends it, whatever call of a vendor's library it is
in. What it has to say (who answered, what went wrong) goes into a second, small ring.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection

import numpy as np

from hardware._base import Frame, FrameSource, Identity
from hardware._errors import TransportCorrupt, TransportLost
from hardware._process import die_with_parent
from hardware._ring import Layout, Ring
from robolearn.errors import RobolearnError

MakeSource = Callable[[], FrameSource]
DOMAINS = ("received", "monotonic", "device", "file", "sim")
_STAMPS = ("t_capture_ns", "t_recv_ns", "t_unc_ns", "seq", "dropped")
_HEAD = np.dtype([*((name, "<i8") for name in (*_STAMPS, "domain", "lost")), ("exposure_s", "<f8")])
_SAID_BYTES = 2048
_ENVIRONMENT = {"OPENCV_FOR_THREADS_NUM": "1", "OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT": "2"}  # of the process; else 10 s


@dataclass(frozen=True)
class CameraHosting:
    """How a camera's process runs.

    gone_s: silence until the camera counts as lost; wait_s, longest_s: until it is opened again, the first time and at most, for
    it doubles; read_s: how long one read waits; depth: frames in the ring.
    """

    gone_s: float = 2.0
    wait_s: float = 0.25
    longest_s: float = 5.0
    read_s: float = 0.1
    depth: int = 8


def layouts(run: str, name: str, size: tuple[int, int], depth: int) -> tuple[Layout, Layout]:
    """Returns the rings of a camera: its frames, each behind its stamps, and what its process says."""
    record = _HEAD.itemsize + size[0] * size[1] * 3
    return Layout(f"{run}-{name}-frames", "u1", (record,), depth), Layout(f"{run}-{name}-said", "u1", (_SAID_BYTES,), 8)


def frame_of(record: np.ndarray, size: tuple[int, int]) -> tuple[Frame, int]:
    """Returns the frame in one record of a ring, as a view of it, and how many captures were lost since the ring began."""
    head = record[: _HEAD.itemsize].view(_HEAD)[0]
    stamps = {name: int(head[name]) for name in _STAMPS}
    image = record[_HEAD.itemsize :].reshape(size[1], size[0], 3)
    return Frame(image, **stamps, exposure_s=float(head["exposure_s"]), domain=DOMAINS[head["domain"]]), int(head["lost"])


class Watch:
    """What runs in the camera's process: `turn` reads one frame into the ring, or tries to open the camera."""

    def __init__(
        self,
        name: str,
        source: FrameSource,
        rings: tuple[Ring, Ring],
        hosting: CameraHosting,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """rings: of `layouts`; where a process before has written into them, its numbers go on."""
        self._name, self._source, self._rings, self._hosting = name, source, rings, hosting
        self._clock_ns, self._sleep = clock_ns, sleep
        self._record = np.zeros(rings[0].layout.shape, np.uint8)
        self._head = self._record[: _HEAD.itemsize].view(_HEAD)
        self._image = self._record[_HEAD.itemsize :].reshape(source.size[1], source.size[0], 3)
        before = rings[0].newest()
        self._last: Frame | None = None
        self._lost = 0
        if before is not None:
            self._last, self._lost = frame_of(before.array, source.size)
        self._identity: Identity | None = None
        self._open, self._opened, self._offset = False, False, 0
        self._seen_ns = self._next_ns = clock_ns()
        self._wait_s = hosting.wait_s
        self.counters: Counter[str] = Counter()

    def turn(self) -> None:
        """Does one read or one attempt; errors of the family are counted and said, not raised."""
        if not self._open:
            self._try()
            return
        try:
            frame = self._source.read(self._hosting.read_s)
            if frame is not None:
                self._take(frame)
        except RobolearnError as error:
            self.counters[type(error).__name__] += 1
            if not getattr(error, "transient", False):
                self._lose(error)
                return
            self._sleep(min(self._hosting.read_s, 1 / self._source.hz))
        silent_s = (self._clock_ns() - self._seen_ns) / 1e9
        if silent_s > self._hosting.gone_s:
            self.counters["silent"] += 1
            self._lose(TransportLost(self._name, f"no picture for {silent_s:.1f} s; it is opened again"))

    def say(self, why: str, error: str = "") -> None:
        """Leaves for the parent why there are no frames ("" where there are) and the kind of error."""
        identity = None if self._identity is None else asdict(self._identity)
        why = why.removeprefix(f"{self._name}: ")[:400]
        said = {"why": why, "error": error, "identity": identity, "counters": dict(self.counters)}
        data = json.dumps(said).encode()
        if len(data) > _SAID_BYTES:  # a long list of parts
            data = json.dumps({**said, "identity": {**asdict(Identity(self._name)), "parts": ()}}).encode()
        record = np.zeros(_SAID_BYTES, np.uint8)
        record[: len(data)] = np.frombuffer(data, np.uint8)
        self._rings[1].write(record, self._clock_ns())

    def end(self) -> None:
        """Closes the camera and lets go of the rings."""
        self._source.close()
        for ring in self._rings:
            ring.close()

    def _try(self) -> None:
        wait_s = (self._next_ns - self._clock_ns()) / 1e9
        if wait_s > 0:
            self._sleep(min(wait_s, self._hosting.read_s))
            return
        try:
            self._identity = self._source.connect()
        except RobolearnError as error:
            self.counters[type(error).__name__] += 1
            self._lose(error)
            return
        self._open, self._opened, self._seen_ns = True, True, self._clock_ns()
        self.counters["opened"] += 1
        self.say("")

    def _lose(self, error: RobolearnError) -> None:
        self._source.close()
        self._open, self._next_ns = False, self._clock_ns() + round(self._wait_s * 1e9)
        self._wait_s = min(2 * self._wait_s, self._hosting.longest_s)
        self.say(str(error), type(error).__name__)

    def _take(self, frame: Frame) -> None:
        """Writes a frame; after an opening the numbers go on, over the captures that were missed meanwhile."""
        if frame.image.shape != self._image.shape or frame.image.dtype != np.uint8:
            got = f"{frame.image.dtype} {frame.image.shape}"
            raise TransportCorrupt(self._name, f"picture: want uint8 {self._image.shape}, got {got}")
        if self._opened:
            missed = frame.dropped
            if self._last is not None:
                missed = max(0, round((frame.t_capture_ns - self._last.t_capture_ns) * self._source.hz / 1e9) - 1)
                self._offset = self._last.seq + 1 + missed - frame.seq
            frame, self._opened, self._wait_s = replace(frame, dropped=missed), False, self._hosting.wait_s
        frame = replace(frame, seq=frame.seq + self._offset)
        self._lost += frame.dropped
        for name in (*_STAMPS, "exposure_s"):
            self._head[name] = getattr(frame, name)
        self._head["domain"], self._head["lost"] = DOMAINS.index(frame.domain), self._lost
        self._image[...] = frame.image
        self._rings[0].write(self._record, frame.t_capture_ns)
        self._last, self._seen_ns = frame, self._clock_ns()


def watch(
    name: str,
    make_source: MakeSource,
    shapes: tuple[Layout, Layout],
    hosting: CameraHosting,
    pipe: Connection,
    parent: int,
) -> None:
    """Runs in the new process until the parent says a word, or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    die_with_parent(parent)
    for key, value in _ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    at_work = Watch(name, make_source(), (Ring(shapes[0]), Ring(shapes[1])), hosting)
    try:
        while not pipe.poll():  # a word, or the end of the pipe
            at_work.turn()
    except Exception as error:  # a mistake in a driver, which the parent should be able to read
        at_work.say(f"{type(error).__name__}: {error}", "HardwareError")
        raise
    finally:
        at_work.end()
