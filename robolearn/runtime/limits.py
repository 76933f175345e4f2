"""What an arm may be told, declared once: ranges, speeds, workspace, effort, heat, age. Everything is on; what is off is named.

    limits = defaults(names, lower, upper, velocity, share=0.25, max_effort=(87,) * 7, without=("workspace", "temperature"))

Whoever switches a limit off says so in `without`, the run log keeps `switched_off()`, and a limit that has no number is refused:
the absence of a limit is never an accident. Units: rad (m for a sliding joint), s, N m or A, degrees Celsius.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from robolearn.errors import BadInput, UnknownName

Array = np.ndarray
ALWAYS = ("finite", "shape", "unit", "step")
SWITCHES = (
    "age",
    "position",
    "workspace",
    "velocity",
    "acceleration",
    "jerk",
    "collision",
    "effort",
    "temperature",
    "aperture",
    "align",
)
FAR = 2 * math.pi  # [rad] beyond the hard range: no arm means that
DEGREES = 1.0  # [rad] beyond the hard range, from where on degrees are suspected


@dataclass(frozen=True)
class Box:
    """Where points of the tool may be: lower <= p <= upper, (3,) each [m], in the frame of the forward kinematics."""

    lower: tuple[float, float, float]
    upper: tuple[float, float, float]

    def __post_init__(self) -> None:
        if not (
            _finite(self.lower, 3) and _finite(self.upper, 3) and all(a < b for a, b in zip(self.lower, self.upper, strict=True))
        ):
            raise BadInput(f"limits: box: want 3 numbers, lower < upper [m], got {self.lower} and {self.upper}")


@dataclass(frozen=True)
class Plane:
    """A half space for points of the tool: normal . p >= offset; normal (3,) is made a unit vector, offset in [m]."""

    normal: tuple[float, float, float]
    offset: float

    def __post_init__(self) -> None:
        if not (_finite(self.normal, 3) and math.isfinite(self.offset) and any(self.normal)):
            raise BadInput(f"limits: plane: want a normal that is not 0 and an offset [m], got {self.normal} and {self.offset}")


class Bounds(NamedTuple):
    """The limits as arrays (n,); what is switched off is infinite. soft_lower, soft_upper: where setpoints are cut [rad]."""

    lower: Array
    upper: Array
    soft_lower: Array
    soft_upper: Array
    velocity: Array
    acceleration: Array
    jerk: Array
    effort: Array


@dataclass(frozen=True)
class Limits:
    """The declared limits of n joints; BadInput in one line where one is missing, has the wrong length or makes no sense.

    names: joints in the order of every (n,); lower, upper: hard range [rad]; velocity, acceleration, jerk: [rad/s], /s, /s;
    max_effort: [N m], or [A] where the arm measures current; boxes, planes: every point of the tool must be in all of them;
    max_temperature: [deg C]; soft_margin: how far inside the hard range setpoints are cut [rad]; max_age_s: of a setpoint;
    max_align: farthest way to a first setpoint [rad]; align_share: of velocity, on that way; aperture_speed: [1/s];
    collision_margin_m: clearance to keep; without (`off` is no word in YAML, but false): the words of SWITCHES that do not hold.
    """

    names: tuple[str, ...]
    lower: tuple[float, ...] = ()
    upper: tuple[float, ...] = ()
    velocity: tuple[float, ...] = ()
    acceleration: tuple[float, ...] = ()
    jerk: tuple[float, ...] = ()
    max_effort: tuple[float, ...] = ()
    boxes: tuple[Box, ...] = ()
    planes: tuple[Plane, ...] = ()
    max_temperature: float | None = None
    soft_margin: float = 0.05
    max_age_s: float = 0.1
    max_align: float = 1.0
    align_share: float = 0.2
    aperture_speed: float = 2.0
    collision_margin_m: float = 0.005
    without: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for word in self.without:
            if word in ALWAYS:
                raise BadInput(f"limits: without: '{word}' cannot be switched off (can be: {', '.join(SWITCHES)})")
            if word not in SWITCHES:
                raise UnknownName("limit", word, SWITCHES, where="limits: without")
        if not self.names:
            raise BadInput("limits: want the name of at least one joint, got none")
        missing = [name for name, value in self._given().items() if name not in self.without and not value]
        if missing:
            raise BadInput(
                f"limits: no {', no '.join(missing)}: give a number, or switch it off by name (without: [{missing[0]}])"
            )
        if "acceleration" in self.without and "jerk" not in self.without:
            raise BadInput("limits: jerk means nothing without acceleration: switch off both, or none")
        self._check_arrays()
        self._check_numbers()

    def _given(self) -> dict[str, Any]:
        return {
            "position": self.lower and self.upper,
            "workspace": self.boxes or self.planes,
            "velocity": self.velocity,
            "acceleration": self.acceleration,
            "jerk": self.jerk,
            "effort": self.max_effort,
            "temperature": self.max_temperature is not None,
        }

    def _check_arrays(self) -> None:
        n = len(self.names)
        for name in ("lower", "upper", "velocity", "acceleration", "jerk", "max_effort"):
            values = getattr(self, name)
            if values and not _finite(values, n):
                raise BadInput(f"limits: {name}: want {n} finite numbers, one a joint, got {list(values)}")
            if name not in ("lower", "upper") and any(value <= 0 for value in values):
                raise BadInput(f"limits: {name}: want numbers above 0, got {list(values)}")
        if bool(self.lower) != bool(self.upper):
            raise BadInput("limits: lower and upper belong together: give both, or none")
        for name, low, high in zip(self.names, self.lower, self.upper, strict=False):  # both are empty where off
            if not high - low > 2 * self.soft_margin:
                raise BadInput(
                    f"limits: {name}: want upper - lower > 2 soft_margin = {2 * self.soft_margin:g}, got {low:g} .. {high:g}"
                )

    def _check_numbers(self) -> None:
        if not 0 <= self.soft_margin < math.inf:
            raise BadInput(f"limits: soft_margin: want 0 or more [rad], got {self.soft_margin:g}")
        for name in ("max_age_s", "max_align", "aperture_speed", "collision_margin_m"):
            if not 0 < getattr(self, name) < math.inf:
                raise BadInput(f"limits: {name}: want a finite number above 0, got {getattr(self, name):g}")
        if not 0 < self.align_share <= 1:
            raise BadInput(f"limits: align_share: want a share of the velocity in (0, 1], got {self.align_share:g}")
        if self.max_temperature is not None and not 0 < self.max_temperature < math.inf:
            raise BadInput(f"limits: max_temperature: want degrees Celsius above 0, got {self.max_temperature:g}")

    def on(self, word: str) -> bool:
        """Returns whether the limit of that name (SWITCHES, ALWAYS) holds."""
        return word not in self.without

    def switched_off(self) -> tuple[str, ...]:
        """Returns the names of the limits that do not hold, in the order of SWITCHES: a line for the run log."""
        return tuple(word for word in SWITCHES if word in self.without)

    @cached_property
    def bounds(self) -> Bounds:
        """The limits as arrays (n,), infinite where switched off."""
        n = len(self.names)

        def array(word: str, values: tuple[float, ...], otherwise: float = math.inf) -> Array:
            return np.array(values, float) if self.on(word) else np.full(n, otherwise)

        lower, upper = array("position", self.lower, -math.inf), array("position", self.upper)
        return Bounds(
            lower,
            upper,
            lower + self.soft_margin,
            upper - self.soft_margin,
            array("velocity", self.velocity),
            array("acceleration", self.acceleration),
            array("jerk", self.jerk),
            array("effort", self.max_effort),
        )


class Checked(NamedTuple):
    """Whether a chunk may be merged; which: the filter that refused it, why: in one line."""

    accepted: bool
    which: str = ""
    why: str = ""


def defaults(
    names: Sequence[str],
    lower: Sequence[float],
    upper: Sequence[float],
    velocity: Sequence[float],
    share: float = 1.0,
    **rest: Any,
) -> Limits:
    """Returns limits at a share of the fastest speed: top speed after 0.2 s, top acceleration after 0.1 s.

    lower, upper [rad], velocity [rad/s]: of the arm's data sheet, (n,) each; share: in (0, 1]; rest: any field of Limits. What no
    data sheet implies (workspace, effort, temperature) still has to be given or switched off.
    """
    if not 0 < share <= 1:
        raise BadInput(f"limits: share: want a share of the velocity in (0, 1], got {share:g}")
    fast = [share * float(speed) for speed in velocity]
    ramps = {"acceleration": tuple(5 * speed for speed in fast), "jerk": tuple(50 * speed for speed in fast)}
    given = {"lower": tuple(map(float, lower)), "upper": tuple(map(float, upper)), "velocity": tuple(fast)}
    return Limits(names=tuple(names), **{**given, **ramps, **rest})


def check_chunk(actions: Any, limits: Limits, current: Array) -> Checked:
    """Returns whether a whole chunk of joint targets (horizon, n) [rad] may be merged, judged before any of it is.

    current: (n,) the setpoint or pose of now [rad]. Refused are other shapes, what is not finite, what is outside the hard range
    (an action between soft and hard range is cut later, tick by tick), and a first action farther than `max_align`.
    """
    n = len(limits.names)
    try:
        rows = np.asarray(actions, dtype=float)
    except (TypeError, ValueError):
        return Checked(False, "shape", f"chunk: want numbers (horizon, {n}), got {type(actions).__name__}")
    if rows.ndim != 2 or rows.shape[1] != n or len(rows) == 0:
        return Checked(False, "shape", f"chunk: want (horizon, {n}), got {rows.shape}")
    if not np.isfinite(rows).all():
        at = int(np.argmin(np.isfinite(rows).all(axis=1)))
        return Checked(False, "finite", f"chunk: action {at} is not finite: {np.array2string(rows[at], precision=3)}")
    for at, row in enumerate(rows):
        if why := unit_doubt(row, limits):
            return Checked(False, "unit", f"chunk: action {at}: {why}")
    low, high = limits.bounds.lower, limits.bounds.upper
    outside = np.maximum(low - rows, rows - high)
    if outside.max() > 1e-9:
        at, joint = (int(i) for i in np.unravel_index(int(np.argmax(outside)), rows.shape))
        why = f"{limits.names[joint]} {rows[at, joint]:.3f} is outside {low[joint]:.3f} .. {high[joint]:.3f} rad"
        return Checked(False, "position", f"chunk: action {at}: {why}")
    gap = float(np.abs(rows[0] - np.asarray(current, float)).max())
    if limits.on("align") and not gap <= limits.max_align:
        return Checked(False, "align", f"chunk: it begins {gap:.3f} rad away, want {limits.max_align:g} at most: align first")
    return Checked(True)


def unit_doubt(q: Array, limits: Limits) -> str:
    """Returns why a finite q (n,) cannot be in radians for this arm, "" where it can."""
    low, high = limits.bounds.lower, limits.bounds.upper
    outside = np.maximum(low - q, q - high)
    worst = int(np.argmax(outside))
    said = f"{limits.names[worst]} is {q[worst]:.5g}, its hard range is {low[worst]:.3f} .. {high[worst]:.3f} rad"
    fits = np.deg2rad(q)
    if outside[worst] > DEGREES and bool(np.all((fits >= low) & (fits <= high))):
        return f"{said}: are these degrees? want radians"
    if outside[worst] > FAR:
        return f"{said}: no angle of this arm"
    return ""


def _finite(values: Sequence[float], n: int) -> bool:
    return len(values) == n and all(math.isfinite(value) for value in values)
