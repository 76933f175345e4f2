"""One observation out of many clocks: pictures by nearest stamp, numbers interpolated, all at the same instants (UMI, 2024).

The last instant t_ref is the newest capture time that all cameras of the policy have reached; the others lie dt apart before
it. Whoever plans from the result plans for t_ref + k dt, so an observation that comes late is late and not wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from robolearn.core import Flag, Obs
from robolearn.errors import ArrayMismatch, BadInput

Array = np.ndarray
QUATERNIONS = ("_quat_wxyz", "_quat_xyzw")
"""How the keys of unit quaternions end; they are interpolated along the great circle."""


@dataclass(frozen=True)
class Tolerance:
    """How old or far off [s] an input may be.

    late_s: age of the newest sample of a stream (its delay included) from which on it is STALE, late_of: the same for single
    streams; residual_s: distance of the nearest sample from the instant that was wanted; ahead_s: how far a number may be
    continued beyond its newest sample; most_s: age of t_ref beyond which no new plan should be made.
    """

    late_s: float = 0.1
    late_of: Mapping[str, float] = field(default_factory=dict)
    residual_s: float = 0.05
    ahead_s: float = 0.02
    most_s: float = 0.25

    def __post_init__(self) -> None:
        values = {"late_s": self.late_s, "residual_s": self.residual_s, "ahead_s": self.ahead_s, "most_s": self.most_s}
        for name, value in {**values, **self.late_of}.items():
            if not value >= 0:
                raise BadInput(f"tolerance: {name}: want seconds of 0 or more, got {value:g}")


@dataclass(frozen=True)
class Aligned:
    """One observation. obs: (steps, ...) by stream, the last at t_ref_ns; usable: young enough to plan from.

    residual_s: (steps,) by stream, stamp of the nearest sample less the instant wanted [s]; age_s: of t_ref; stale: the streams
    that are late or off; flags: `core.Flag`.
    """

    obs: Obs
    t_ref_ns: int
    residual_s: Mapping[str, Array]
    age_s: float
    stale: tuple[str, ...] = ()
    usable: bool = True

    @property
    def flags(self) -> int:
        """STALE where a stream is, for `Step.flags`."""
        return int(Flag.STALE) if self.stale else 0


class Stream:
    """The last `maxlen` samples of one source with their stamps, oldest first, for one thread.

    Memory is taken once, at the first sample: of a camera 8 pictures do.
    """

    def __init__(self, maxlen: int = 256) -> None:
        if maxlen < 2:
            raise BadInput(f"stream: want room for 2 samples at least, got {maxlen}")
        self.maxlen, self.refused = maxlen, 0
        self._count = 0
        self._t_ns = np.zeros(maxlen, np.int64)
        self._values = np.zeros((0,))

    def __len__(self) -> int:
        return min(self._count, self.maxlen)

    @property
    def newest_ns(self) -> int:
        """Stamp of the newest sample; BadInput before there is one."""
        if not self._count:
            raise BadInput("stream: want a sample, got none yet")
        return int(self._t_ns[(self._count - 1) % self.maxlen])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self._values.shape[1:]

    def append(self, t_ns: int, array: Array) -> bool:
        """Copies a sample in; False, and counted in `refused`, where it is not newer than the last.

        Raises ArrayMismatch where its shape or dtype changes, or it is not finite.
        """
        array = np.asarray(array)
        if not self._count:
            self._values = np.zeros((self.maxlen, *array.shape), array.dtype)
        elif array.shape != self.shape or array.dtype != self._values.dtype:
            want, got = f"{self._values.dtype}{self.shape}", f"{array.dtype}{array.shape}"
            raise ArrayMismatch(f"stream: want {want} as before, got {got}")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArrayMismatch(f"stream: want finite numbers, got {np.array2string(array, threshold=8)}")
        if self._count and t_ns <= self.newest_ns:
            self.refused += 1
            return False
        place = self._count % self.maxlen
        self._t_ns[place], self._values[place] = t_ns, array
        self._count += 1
        return True

    def times(self) -> Array:
        """Returns the stamps (n,) [ns]."""
        return self._t_ns[self._places()]

    def take(self, places: Array) -> Array:
        """Returns the samples (m, ...) at places (m,) counted from the oldest."""
        return self._values[self._places()[places]]

    def _places(self) -> Array:
        return (self._count - len(self) + np.arange(len(self))) % self.maxlen


def align_observation(
    streams: Mapping[str, Stream],
    cameras: tuple[str, ...],
    now_ns: int,
    *,
    steps: int = 1,
    dt_s: float = 0.0,
    t_ref_ns: int | None = None,
    tolerance: Tolerance = Tolerance(),
) -> Aligned:
    """Returns what all streams showed at t_ref - (steps-1) dt ... t_ref, and how far from that their samples lie.

    cameras: the streams of pictures; without one, t_ref is the newest instant that all streams have reached. t_ref_ns: another
    last instant. Before a stream's first sample its first stands, beyond its newest number it goes on in a straight line for
    `tolerance.ahead_s` and then stays; whole numbers take the nearest sample. BadInput names a stream without a sample.
    """
    _refuse(streams, cameras, steps, dt_s)
    if t_ref_ns is None:
        t_ref_ns = min(streams[name].newest_ns for name in cameras or streams)
    at_ns = t_ref_ns - np.round(np.arange(steps - 1, -1, -1) * dt_s * 1e9).astype(np.int64)
    obs, residual_s, stale = Obs(), {}, []
    for name, stream in streams.items():
        times = stream.times()
        near = _nearest(times, at_ns)
        residual_s[name] = (times[near] - at_ns) * 1e-9
        if name in cameras or stream.take(near[:1]).dtype.kind in "iub":
            obs[name] = stream.take(near)
        else:
            obs[name] = _interpolated(name, stream, times, at_ns, tolerance.ahead_s)
        late_s = tolerance.late_of.get(name, tolerance.late_s)
        # Only what ends at the last instant can be amended by waiting: an episode's first observations have no past.
        if (now_ns - times[-1]) * 1e-9 > late_s or abs(residual_s[name][-1]) > tolerance.residual_s:
            stale.append(name)
    age_s = (now_ns - t_ref_ns) * 1e-9
    return Aligned(obs, t_ref_ns, residual_s, age_s, tuple(stale), age_s <= tolerance.most_s)


def _refuse(streams: Mapping[str, Stream], cameras: tuple[str, ...], steps: int, dt_s: float) -> None:
    for name in cameras:
        if name not in streams:
            raise BadInput(f"observation: no stream of camera '{name}' (known: {', '.join(streams) or 'none'})")
    empty = [name for name, stream in streams.items() if not len(stream)]
    if empty or not streams:
        raise BadInput(
            f"observation: want a sample of every stream, got none of {', '.join(empty) or 'any'}; wait before planning"
        )
    if steps < 1 or not dt_s >= 0 or (steps > 1 and dt_s == 0):
        raise BadInput(f"observation: want 1 step, or more of them some time apart, got {steps} steps, dt {dt_s:g} s")


def _nearest(t_ns: Array, at_ns: Array) -> Array:
    right = np.clip(np.searchsorted(t_ns, at_ns), 0, len(t_ns) - 1)
    left = np.maximum(right - 1, 0)
    return np.where(np.abs(at_ns - t_ns[left]) <= np.abs(t_ns[right] - at_ns), left, right)


def _interpolated(name: str, stream: Stream, t_ns: Array, at_ns: Array, ahead_s: float) -> Array:
    ahead_ns = round(ahead_s * 1e9)
    at = np.clip(at_ns, t_ns[0], t_ns[-1] + ahead_ns)
    right = np.clip(np.searchsorted(t_ns, at, side="right"), min(1, len(t_ns) - 1), len(t_ns) - 1)
    left = np.maximum(right - 1, 0)
    beyond = at > t_ns[-1]
    # Going on needs a slope over at least the way to go: two samples that came together would make it of noise.
    base = max(0, int(np.searchsorted(t_ns, t_ns[-1] - ahead_ns, side="right")) - 1)
    left = np.where(beyond, min(base, max(0, len(t_ns) - 2)), left)
    span = np.maximum(t_ns[right] - t_ns[left], 1)
    share = np.where(right > left, (at - t_ns[left]) / span, 0.0)
    first, second = stream.take(left), stream.take(right)
    if name.endswith(QUATERNIONS):
        return _slerp(name, first, second, share)
    share = share.reshape(-1, *[1] * (first.ndim - 1))
    return (first + share * (second.astype(np.float64) - first)).astype(first.dtype)


def _slerp(name: str, first: Array, second: Array, share: Array) -> Array:
    """Returns unit quaternions (m, 4) on the shorter great circles, all of the last one's sign; w first or last alike."""
    a, b = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(np.stack([a, b]), axis=-1)
    if a.shape[1:] != (4,) or (np.abs(lengths - 1) > 1e-2).any():
        raise ArrayMismatch(f"{name}: want unit quaternions (4,), got shape {a.shape[1:]}, lengths {lengths.min():.3g} and more")
    a, b = a / lengths[0][:, None], b / lengths[1][:, None]
    cosine = np.sum(a * b, axis=1, keepdims=True)
    b, cosine = np.where(cosine < 0, -b, b), np.abs(cosine)
    angle, share = np.arccos(np.clip(cosine, -1, 1)), share[:, None]
    small = angle < 1e-6
    sine = np.where(small, 1.0, np.sin(angle))
    out = np.where(small, 1 - share, np.sin((1 - share) * angle) / sine) * a
    out += np.where(small, share, np.sin(share * angle) / sine) * b
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return np.where(out @ out[-1:].T < 0, -out, out).astype(first.dtype)
