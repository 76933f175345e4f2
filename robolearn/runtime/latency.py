"""How late measurements reach us and commands become motion, how to measure that, and device clocks in our own time.

A command that should be reached at t is sent at t - act_s; a sample that came at t was true at t - observe_s (UMI, Chi et al.,
2024). `estimate_delay` measures a device with a chirp; `ClockMap` brings stamps of other clocks onto ours.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.signal import lfilter
from scipy.special import stdtrit

from robolearn import config
from robolearn.errors import BadInput, UnknownName

Array = np.ndarray
_GRID_S = 0.001  # of the search over delays
_BEYOND_S = 0.02  # searched past both ends too, so that a delay at an end is a minimum and not a slope
_FLAT_S = 0.003  # a bottom of the cost wider than this is taken as a plateau


@dataclass(frozen=True)
class Latency:
    """Delays of one device. observe_s: from the measurement until we have it; act_s: from sending until it moves [s]."""

    observe_s: float = 0.0
    act_s: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.observe_s < 10 and 0 <= self.act_s < 10):
            raise BadInput(f"latency: want seconds from 0 to 10, got observe_s {self.observe_s:g}, act_s {self.act_s:g}")


@dataclass(frozen=True)
class LatencyModel:
    """The delays of every device of a set-up, by name."""

    devices: Mapping[str, Latency] = field(default_factory=dict)

    def of(self, device: str) -> Latency:
        """Returns the delays of one device; UnknownName where it was never measured."""
        if device not in self.devices:
            raise UnknownName("device", device, self.devices, where="latency model")
        return self.devices[device]

    def captured_ns(self, device: str, t_recv_ns: int) -> int:
        """Returns when a sample was true that came without a stamp."""
        return t_recv_ns - round(self.of(device).observe_s * 1e9)

    def send_ns(self, device: str, t_due_ns: int) -> int:
        """Returns when a command must be sent that should be motion at t_due_ns."""
        return t_due_ns - round(self.of(device).act_s * 1e9)

    def commit_ns(self, now_ns: int, margin_s: float = 0.0) -> int:
        """Returns the first instant that a plan made now can still change, on the slowest device."""
        slowest = max((latency.act_s for latency in self.devices.values()), default=0.0)
        return now_ns + round((slowest + margin_s) * 1e9)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values for YAML or JSON; `from_json` reads them back."""
        return {name: config.to_mapping(latency) for name, latency in self.devices.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: str = "latency") -> LatencyModel:
        """Returns the model written by `to_json`; ConfigError names `where`, the device and the field."""
        return cls({name: config.from_mapping(Latency, each, f"{where}: {name}") for name, each in values.items()})


@dataclass(frozen=True)
class Delay:
    """A measured delay. seconds: time shift; gain: measured per commanded motion; residual: rms that the fit leaves, in its unit.

    interval: (lowest, highest) delay [s] that fits nearly as well (95 %, F-test), or wider by what segments of the recording say
    (95 %, jackknife), where asked for; time_constant_s: of the plant, where asked for.
    """

    seconds: float
    gain: float
    residual: float
    interval: tuple[float, float]
    time_constant_s: float = 0.0


def chirp(duration_s: float, f0: float, f1: float, amplitude: float) -> Callable[[ArrayLike], Array]:
    """Returns offset(t_s): a sine that rises from f0 to f1 [Hz], faded in and out over a tenth of the time, 0 outside it.

    BadInput where the slow period does not fit in twice.
    """
    if not (0 < f0 <= f1 and amplitude > 0 and duration_s * f0 >= 2):
        got = f"{f0:g} to {f1:g} Hz, amplitude {amplitude:g}, {duration_s:g} s"
        raise BadInput(f"chirp: want 0 < f0 <= f1, an amplitude above 0 and time for two periods of f0, got {got}")

    def offset(t_s: ArrayLike) -> Array:
        t = np.clip(np.asarray(t_s, float), 0.0, duration_s)
        edge = np.clip(10 * np.minimum(t, duration_s - t) / duration_s, 0.0, 1.0)
        return np.asarray(
            amplitude * edge * edge * (3 - 2 * edge) * np.sin(2 * np.pi * (f0 * t + (f1 - f0) * t * t / (2 * duration_s)))
        )

    return offset


def estimate_delay(
    t_command: ArrayLike,
    command: ArrayLike,
    t_measured: ArrayLike,
    measured: ArrayLike,
    max_delay_s: float = 0.3,
    *,
    between: Literal["held", "linear"] = "held",
    plant: Literal["shift", "first_order"] = "shift",
    segments: int = 0,
) -> Delay:
    """Returns the time shift [s] by which `measured` (m,) follows `command` (n,), both stamped in seconds of one clock.

    Least squares of measured(t) = gain command(t - delay) + offset over delay, gain and offset together: a grid of 1 ms from 0
    to max_delay_s, then the vertex of a parabola about its minimum. A correlation peak would be biased by the window.
    between: what the device does between two commands (a setpoint stays until the next, or is interpolated). plant: "shift"
    gives the whole lag, which for slow motion is dead time plus time constant and is what a schedule wants; "first_order"
    tells a first-order lag (`time_constant_s`) from the dead time (`seconds`). segments: how many equal stretches of the
    recording are left out in turn (Tukey's jackknife), which sees errors that last longer than a sample; 0: the F-test alone.
    BadInput where the signals are not finite, too short, do not move or do not follow each other, or where no delay in the range
    is best.
    """
    command_t, commanded = _signal(t_command, command, "command")
    measured_t, motion = _signal(t_measured, measured, "measured")
    inside = (measured_t >= command_t[0] + max_delay_s + _BEYOND_S) & (measured_t <= command_t[-1] - _BEYOND_S)
    t, y, want_s = measured_t[inside], motion[inside], max(1.0, 2 * max_delay_s)
    if len(t) < 50 or t[-1] - t[0] < want_s:
        raise BadInput(f"delay: want {want_s:g} s and 50 samples after max_delay_s that both signals cover, got {len(t)} samples")
    delays = np.arange(-_BEYOND_S, max_delay_s + _BEYOND_S + _GRID_S / 2, _GRID_S)

    def answers(time_constant_s: float) -> Array:
        return _response(command_t, commanded, between, time_constant_s)(t[None, :] - delays[:, None])

    time_constant_s = _time_constant(lambda seconds: _fit(answers(seconds), y)[0].min()) if plant == "first_order" else 0.0
    x = answers(time_constant_s)  # (delays, samples)
    cost, gains = _fit(x, y)
    best = int(np.argmin(cost))
    gain, left, explained = float(gains[best]), float(cost[best]), 1 - cost[best] / np.sum((y - y.mean()) ** 2)
    if explained < 0.5 or gain <= 0:
        got = f"gain {gain:.3g}, {100 * explained:.0f} % explained"
        raise BadInput(f"delay: the measurement does not follow the command ({got}); check the joint, and that its motor is on")
    seconds, interval = _bottom(delays, cost, len(t))
    if not -_BEYOND_S / 4 <= seconds <= max_delay_s + _BEYOND_S / 4:
        why = "the stamps are of two clocks" if seconds < 0 else "raise max_delay_s"
        raise BadInput(f"delay: {seconds:.3f} s fits best, want 0 to {max_delay_s:g} s; {why}")
    if segments:
        half = _jackknife(x, y, delays, segments)
        interval = (max(0.0, min(interval[0], seconds - half)), max(interval[1], seconds + half))
    return Delay(max(0.0, seconds), gain, math.sqrt(left / len(t)), interval, time_constant_s)


def _signal(t_s: ArrayLike, values: ArrayLike, name: str) -> tuple[Array, Array]:
    t, x = np.asarray(t_s, float), np.asarray(values, float)
    if t.ndim != 1 or t.shape != x.shape or len(t) < 2:
        raise BadInput(f"delay: {name}: want as many times as values, and two at least, got {t.shape} and {x.shape}")
    if not (np.isfinite(t).all() and np.isfinite(x).all()):
        raise BadInput(f"delay: {name}: want finite numbers, got NaN or infinity; leave those samples out")
    if (np.diff(t) <= 0).any():
        raise BadInput(f"delay: {name}: want times that rise, got one that does not")
    if len(np.unique(x)) < 3:
        raise BadInput(f"delay: {name}: want a signal that moves, got {np.unique(x).tolist()} only; raise the amplitude")
    return t, x


def _response(t_command: Array, command: Array, between: str, time_constant_s: float) -> Callable[[Array], Array]:
    """Returns what a plant without dead time does at given times."""

    def commanded(t: Array) -> Array:
        if between == "linear":
            return np.interp(t, t_command, command)
        return command[np.clip(np.searchsorted(t_command, t, side="right") - 1, 0, len(command) - 1)]

    if time_constant_s < 1e-6:
        return commanded
    grid = np.arange(t_command[0], t_command[-1] + _GRID_S, _GRID_S)
    keep, middle = math.exp(-_GRID_S / time_constant_s), commanded(grid - _GRID_S / 2)  # at the middle of a cell: no bias
    passed, _ = lfilter([1 - keep], [1, -keep], middle, zi=[keep * middle[0]])
    return lambda t: np.interp(t, grid, passed)


def _fit(x: Array, y: Array) -> tuple[Array, Array]:
    """Returns the sum of squares that each delay leaves, and the gain that does so; x: (delays, samples), y: (samples,)."""
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean()
    both, alone = x @ y, np.maximum(np.einsum("ds,ds->d", x, x), 1e-300)
    return np.maximum(y @ y - both * both / alone, 0.0), both / alone


def _jackknife(x: Array, y: Array, delays: Array, segments: int) -> float:
    """Returns half the 95 % interval [s] of the delay, from leaving out each of some stretches of the recording in turn."""
    if segments < 3:
        raise BadInput(f"delay: want 3 segments or more, or 0, got {segments}")
    stretch = np.arange(len(y)) * segments // len(y)
    found = [_bottom(delays, _fit(x[:, stretch != k], y[stretch != k])[0], int((stretch != k).sum()))[0] for k in range(segments)]
    return float(stdtrit(segments - 1, 0.975) * np.sqrt((segments - 1) * np.var(found)))


def _time_constant(cost: Callable[[float], float]) -> float:
    """Returns the time constant [s] that fits best: the best of a coarse scale, then Brent's method beside it."""
    scale = np.concatenate([[0.0], np.geomspace(0.005, 1.0, 8)])
    best = int(np.argmin([cost(float(seconds)) for seconds in scale]))
    bounds = (float(scale[max(best - 1, 0)]), float(scale[min(best + 1, len(scale) - 1)]))
    found = minimize_scalar(cost, bounds=bounds, method="bounded", options={"xatol": 5e-4, "maxiter": 20})
    return float(found.x)


def _bottom(delays: Array, cost: Array, samples: int) -> tuple[float, tuple[float, float]]:
    """Returns the delay [s] at the bottom of the cost, and the delays that the F-test cannot refuse."""
    best, low = int(np.argmin(cost)), cost.min()
    good = delays[cost <= low * (1 + 3.84 / (samples - 3)) + 1e-9 * cost.max()]
    if good[-1] - good[0] > _FLAT_S:  # samples in step with held commands, and noise: which point is lowest is chance
        seconds = 0.5 * float(good[0] + good[-1])
    else:
        before, at, after = cost[np.clip([best - 1, best, best + 1], 0, len(cost) - 1)]
        bend = before - 2 * at + after
        seconds = float(delays[best]) + (0.5 * float((before - after) / bend) * _GRID_S if bend > 0 else 0.0)
    return seconds, (max(0.0, min(float(good[0]) - _GRID_S / 2, seconds)), max(float(good[-1]) + _GRID_S / 2, seconds))


class ClockMap:
    """A device's clock on ours: the line below all (device, received) pairs of a window, as close to them as can be.

    What comes late only makes the way longer, so the lower envelope is the clock; of its edges the one at the middle of the
    window has the least sum of distances (Moon, Skelly and Towsley, INFOCOM 1999). The way's shortest time cannot be told from
    an offset: the map has it in, and `Latency.observe_s` takes it off. tick_s: length of a device tick; wrap: ticks after which
    the device begins at 0 again, 0 for never; max_drift_ppm: the most that two clocks are believed to differ.
    """

    def __init__(self, tick_s: float = 1.0, wrap: float = 0.0, window_s: float = 60.0, max_drift_ppm: float = 200.0) -> None:
        if not (tick_s > 0 and wrap >= 0 and window_s > 0 and max_drift_ppm >= 0):
            raise BadInput(f"clock map: want tick_s and window_s above 0, got {tick_s:g} and {window_s:g}")
        self._tick_s, self._wrap_s, self._window_s, self._bucket_s = tick_s, wrap * tick_s, window_s, window_s / 200
        self._most, self.resets = max_drift_ppm * 1e-6, -1  # the first stamp begins anew too
        self._slope = self._middle = self._offset = 0.0
        self._points = deque[tuple[float, float]]()  # (device, received - device) [s] since the first, the lowest of a bucket

    @property
    def drift_ppm(self) -> float:
        """How many millionths our clock runs faster than the device's."""
        return self._slope * 1e6

    def add(self, device: float, t_recv_ns: int) -> int:
        """Returns when [ns], on our clock, the device stamped `device` ticks; learns from when that came.

        A device that jumps back by a second begins a new map (`resets` counts them). BadInput where the stamp is not finite.
        """
        if not math.isfinite(device):
            raise BadInput(f"clock map: want a finite device time, got {device}")
        if not self._points or self._since(device, t_recv_ns)[1] < self._points[-1][0] - 1.0:
            self._zero_s, self._zero_ns, self.resets = device * self._tick_s, t_recv_ns, self.resets + 1
            self._slope = self._middle = self._offset = 0.0
            self._points = deque([(0.0, 0.0)])
        received_s, device_s = self._since(device, t_recv_ns)
        self._learn(device_s, received_s - device_s)
        mapped_s = device_s + self._offset + self._slope * (device_s - self._middle)
        return min(self._zero_ns + round(mapped_s * 1e9), t_recv_ns)

    def _since(self, device: float, t_recv_ns: int) -> tuple[float, float]:
        """Returns seconds since the first stamp, on our clock and on the device's with its turns put back."""
        received_s, device_s = (t_recv_ns - self._zero_ns) * 1e-9, device * self._tick_s - self._zero_s
        turns = round((received_s - device_s) / self._wrap_s) if self._wrap_s else 0
        return received_s, device_s + turns * self._wrap_s

    def _learn(self, device_s: float, behind_s: float) -> None:
        newest_s, lowest_s = self._points[-1]
        same = device_s // self._bucket_s == newest_s // self._bucket_s
        if device_s <= newest_s or (same and behind_s >= lowest_s):
            return
        if same:
            self._points.pop()
        self._points.append((device_s, behind_s))
        while device_s - self._points[0][0] > self._window_s:
            self._points.popleft()
        hull, span_s = _lower_hull(self._points), device_s - self._points[0][0]
        self._middle, self._slope = device_s - 0.5 * span_s, 0.0
        if span_s > self._window_s / 12:  # over a shorter time a slope would be made of jitter
            right = min(len(hull) - 1, sum(x <= self._middle for x, _ in hull))
            (x0, y0), (x1, y1) = hull[right - 1], hull[right]
            self._slope = float(np.clip((y1 - y0) / (x1 - x0), -self._most, self._most))
        self._offset = min(y + self._slope * (self._middle - x) for x, y in hull)


def _lower_hull(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the lower convex hull of points of rising x (Andrew's monotone chain)."""
    hull: list[tuple[float, float]] = []
    for x, y in points:
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (y1 - y0) * (x - x0) < (y - y0) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    return hull
