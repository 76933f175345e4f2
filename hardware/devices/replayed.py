"""A stream of any device played again from its file (CSV or npz, see `_stream_file`), and the recorder that writes one.

tape = Recorder(device)             # a device like the one inside, which keeps what passes
tape.save(Path("morning.npz"))
make(Config(path="morning.npz"))    # gives the same samples at the same intervals

Nobody holds a dead-man while a file plays: it drives simulations only, whatever its samples say of the one held then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hardware._base import Device, Kind
from hardware.devices import _stream_file
from robolearn.core import TeleopSample
from robolearn.errors import BadInput, ConfigError


@dataclass(frozen=True)
class Config:
    """What is played."""

    path: str = ""
    """The file, .csv or .npz."""
    speed: float = 1.0
    """2 plays twice as fast."""
    loop: bool = False
    """Begin anew at the end."""

    def __post_init__(self) -> None:
        if self.speed <= 0:
            raise ConfigError(f"replayed speed: want above 0, got {self.speed:g}")


def kind_of(samples: Sequence[TeleopSample]) -> Kind:
    """Returns what the samples hold: keypoints before joints, pose and delta; BadInput where they hold none of these."""
    kinds: tuple[Kind, ...] = ("keypoints", "joints", "pose", "delta")
    for kind in kinds:
        if any(getattr(sample, kind) is not None for sample in samples):
            return kind
    raise BadInput("stream: no sample holds a pose, delta, keypoints or joints")


@dataclass
class Replayed:
    """The device: gives each sample when as much time has passed as when it was recorded."""

    samples: Sequence[TeleopSample]
    speed: float = 1.0
    loop: bool = False
    clock: Callable[[], float] = time.monotonic
    _start_s: float | None = field(default=None, init=False)
    _next: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.kind = kind_of(self.samples)
        self.arms = max(sample.arm for sample in self.samples) + 1
        self.deadman = False  # the samples say when one was held, but nobody holds it now

    @property
    def finished(self) -> bool:
        """True once the last sample was given and there is no loop."""
        return not self.loop and self._next >= len(self.samples)

    def connect(self) -> None:
        """Starts from the first sample."""
        self._start_s, self._next = self.clock(), 0

    def read(self) -> Sequence[TeleopSample]:
        """Returns the samples due since the last call, oldest first, with the present times."""
        if self._start_s is None:
            return ()
        now_s = self.clock()
        out: list[TeleopSample] = []
        while True:
            if self._next >= len(self.samples):
                last_s = (self.samples[-1].t_recv_ns - self.samples[0].t_recv_ns) * 1e-9 / self.speed
                if not self.loop or out:
                    return out
                self._start_s, self._next = max(self._start_s + last_s, now_s - 0.02), 0
            sample = self.samples[self._next]
            due_s = self._start_s + (sample.t_recv_ns - self.samples[0].t_recv_ns) * 1e-9 / self.speed
            if due_s > now_s + 1e-9:
                return out
            age_ns, t_ns = sample.t_recv_ns - sample.t_dev_ns, round(due_s * 1e9)
            out.append(replace(sample, t_dev_ns=t_ns - age_ns, t_recv_ns=t_ns))
            self._next += 1

    def close(self) -> None:
        """Stops."""
        self._start_s = None


def make(config: Config) -> Replayed:
    """Returns the stream of `config.path`; BadInput where it cannot be read."""
    if not config.path:
        raise ConfigError("replayed path: want a .csv or .npz file of a device's stream, got none")
    return Replayed(_stream_file.read(Path(config.path).expanduser()), config.speed, config.loop)


class Recorder:
    """A device around another one: the samples pass, and are kept."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.kind, self.arms, self.deadman = device.kind, device.arms, device.deadman
        self.samples: list[TeleopSample] = []

    def connect(self) -> None:
        """Opens the device inside."""
        self._device.connect()

    def read(self) -> Sequence[TeleopSample]:
        """Returns what the device inside gives."""
        new = self._device.read()
        self.samples += new
        return new

    def close(self) -> None:
        """Lets go of the device inside; the samples stay."""
        self._device.close()

    def save(self, path: Path) -> None:
        """Writes what passed so far to `path` (.csv or .npz)."""
        _stream_file.write(path, self.samples)


@dataclass
class Feed:
    """A clock that `play` moves on."""

    now_s: float = 1.0

    def play(self) -> None:
        """Lets a twentieth of a second pass."""
        self.now_s += 0.05


def fake(config: Config) -> tuple[Replayed, Feed]:
    """Returns the device on a clock that `Feed.play` moves on; a second of a hand going up where no file is named."""
    samples = []
    for k in range(20):
        pose = np.eye(4)
        pose[2, 3] = 0.01 * k
        events = ("success",) if k == 19 else ()
        samples.append(TeleopSample(k * 50_000_000, k * 50_000_000, pose=pose, deadman=True, grip=k / 19, events=events))
    given = _stream_file.read(Path(config.path).expanduser()) if config.path else samples
    feed = Feed()
    return Replayed(given, config.speed, config.loop, lambda: feed.now_s), feed
