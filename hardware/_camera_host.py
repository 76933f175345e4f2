"""A camera in a process of its own: its frames lie in shared memory, and the policy's interpreter never waits for it.

What runs in the process is `hardware._camera_watch`. `HostedCamera.newest` is what a body needs of a camera; `age_s`, `dropped`
and `why` are what a supervisor watches, and `revive` is what it calls where the process itself has ended.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from hardware import _errors
from hardware._base import Frame, Identity
from hardware._camera_watch import CameraHosting, MakeSource, frame_of, layouts, watch
from hardware._errors import HwError, TransportLost
from hardware._ring import Ring, new_run
from robolearn.errors import HardwareError

_POLL_S = 0.0002  # between two looks at a count in shared memory


class HostedCamera:
    """A camera at work in another process.

    Call it from one thread, which lives as long as the camera: when the thread that started a process ends, the system takes it
    for the death of the parent.
    """

    def __init__(
        self,
        name: str,
        make_source: MakeSource,
        run: str,
        hosting: CameraHosting = CameraHosting(),
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """name: in messages and segments; run: of `new_run`.

        make_source: a function of a module, or a partial of one, that opens nothing; it is called here and in the new process.
        """
        source = make_source()
        self.name, self.size, self.hz = name, source.size, source.hz
        self._make_source, self._hosting, self._clock_ns = make_source, hosting, clock_ns
        self._layouts = layouts(run, name, source.size, hosting.depth)
        self._rings: tuple[Ring, Ring] | None = None
        self._process: Any = None  # multiprocessing has no name for what a context's Process is
        self._pipe: Connection | None = None
        self._started_ns, self._newest = 0, (0, 0, 0)  # count, time of capture and losses of the newest frame seen

    @property
    def pid(self) -> int:
        """Of the camera's process."""
        return int(self._process.pid or 0) if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Whether the camera's process runs."""
        return self._process is not None and bool(self._process.is_alive())

    def connect(self, timeout_s: float = 20.0) -> Identity:
        """Opens the camera in its process; from then on frames come. The camera's own error where it cannot be opened."""
        self.close()
        self._rings = Ring(self._layouts[0], create=True), Ring(self._layouts[1], create=True)
        self._start()
        end = self._clock_ns() + timeout_s * 1e9
        while not (said := self._said()) and self.alive and self._clock_ns() < end:
            time.sleep(0.002)
        if said.get("identity"):
            return Identity(**{**said["identity"], "parts": tuple(said["identity"]["parts"])})
        why = self.why.removeprefix(f"{self.name}: ") or f"its camera process says nothing in {timeout_s:g} s"
        self.close()
        raise _raised(self.name, said.get("error", ""), why)

    def newest(self) -> Frame | None:
        """Returns the newest frame, which may be old (see its stamps); None before the first and after `close`."""
        record = self._rings[0].newest() if self._rings else None
        if record is None:
            return None
        frame, lost = frame_of(record.array, self.size)
        self._newest = record.count, frame.t_capture_ns, lost
        return frame

    def newer(self, after: int, timeout_s: float) -> Frame | None:
        """Returns the newest frame as soon as its number is above `after`; None where none comes in time."""
        end, count = self._clock_ns() + timeout_s * 1e9, 0
        while self._rings is not None:
            if self._rings[0].count != count:
                count, frame = self._rings[0].count, self.newest()
                if frame is not None and frame.seq > after:
                    return frame
            if self._clock_ns() > end or not self.alive:
                break
            time.sleep(_POLL_S)
        return None

    @property
    def age_s(self) -> float:
        """Seconds since the newest frame was captured; infinity before the first."""
        count, t_ns, _ = self._look()
        return (self._clock_ns() - t_ns) / 1e9 if count else float("inf")

    @property
    def dropped(self) -> int:
        """Captures that were lost on their way to the ring so far, as far as the camera lets us know."""
        return self._look()[2]

    @property
    def why(self) -> str:
        """Why there are no new frames, in one line; "" where all is well."""
        if self._process is None:
            return f"{self.name}: it is not connected"
        said, age_s = str(self._said().get("why", "")), self.age_s
        if not self.alive:
            ended = f"its camera process has ended (exit code {self._process.exitcode})"
            return f"{self.name}: {ended}; {said}" if said else f"{self.name}: {ended}"
        if not said and self._hosting.gone_s < age_s < float("inf"):
            said = f"no picture for {age_s:.1f} s"
        return f"{self.name}: {said}" if said else ""

    @property
    def counters(self) -> Mapping[str, int]:
        """What went wrong so far, by kind of error, and how often the camera was opened."""
        return dict(self._said().get("counters", {}))

    def revive(self) -> bool:
        """Starts a new process where the camera's has ended, once in `longest_s`; returns whether it did, without waiting."""
        if self._rings is None or self._process is None or self.alive:
            return False
        if self._clock_ns() - self._started_ns < self._hosting.longest_s * 1e9:
            return False
        self._start()
        return True

    def close(self, timeout_s: float = 2.0) -> list[str]:
        """Ends the process, by force where it does not end in time; returns what went wrong, never raises, never hangs."""
        went_wrong: list[str] = []
        if self.alive and self._pipe is not None:
            with contextlib.suppress(OSError):
                self._pipe.send_bytes(b"end")
            self._process.join(timeout_s)
            if self.alive:
                self._process.kill()
                self._process.join(timeout_s)  # a process that the kernel holds in a driver does not even end then
                way = "does not end" if self.alive else "had to be killed"
                went_wrong.append(f"{self.name}: its camera process {way}")
        for ring in self._rings or ():
            ring.close()
            ring.unlink()
        if self._pipe is not None:
            self._pipe.close()
        self._rings, self._process, self._pipe, self._newest = None, None, None, (0, 0, 0)
        return went_wrong

    def _start(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        arguments = (self.name, self._make_source, self._layouts, self._hosting, far, os.getpid())
        self._process = context.Process(target=watch, args=arguments, name=f"camera {self.name}", daemon=True)
        self._process.start()
        self._started_ns = self._clock_ns()
        far.close()

    def _look(self) -> tuple[int, int, int]:
        """Returns count, time of capture and losses of the newest frame, which is copied only where it is new."""
        if self._rings is not None and self._rings[0].count != self._newest[0]:
            self.newest()
        return self._newest

    def _said(self) -> dict[str, Any]:
        record = self._rings[1].newest() if self._rings else None
        return {} if record is None else dict(json.loads(record.array.tobytes().rstrip(b"\0")))


def _raised(name: str, kind: str, why: str) -> HardwareError:
    """Returns the error that a camera's process told of, of the same kind where it is a plain one of the family."""
    known = getattr(_errors, kind, None)
    if isinstance(known, type) and issubclass(known, HwError) and known is not _errors.DeviceFault:
        return known(name, why)
    return HardwareError(f"{name}: {why}")


@dataclass(frozen=True)
class RingFigures:
    """What a ring did. age_p50_s, age_p99_s: from capture to the reader; torn: frames with bytes of another; missed: not seen."""

    frames: int
    torn: int
    missed: int
    age_p50_s: float
    age_p99_s: float


def ring_figures(frames: int, hz: float, size: tuple[int, int] = (640, 480)) -> RingFigures:
    """Returns what `frames` synthetic frames, drawn in another process at `hz`, went through until they were read here.

    size: (width, height) [px]. The age of a frame counts from the instant of its grid, so a late process is part of it.
    """
    from hardware.cameras import synthetic  # not every user of a camera needs the one that draws

    camera = HostedCamera("figures", partial(synthetic.make, synthetic.Config(size, hz)), new_run())
    pattern, torn, first, last = synthetic.Pattern(size), 0, -1, -1
    ages: list[float] = []
    camera.connect()
    try:
        while len(ages) < frames:
            frame = camera.newer(last, 10.0)
            now = time.monotonic_ns()
            if frame is None:
                raise TransportLost("figures", camera.why or "no new frame in 10 s")
            ages.append((now - pattern.mark(frame.image)[1]) / 1e9)
            torn += not pattern.whole(frame.image)
            first, last = first if first >= 0 else frame.seq, frame.seq
    finally:
        camera.close()
    p50, p99 = np.percentile(ages, (50, 99))
    return RingFigures(frames, torn, last - first + 1 - frames, float(p50), float(p99))
