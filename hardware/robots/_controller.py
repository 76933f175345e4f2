"""What the arms behind a controller of their own share: the checks before the wire, the wait for a new sample, and letting go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from hardware._base import Setpoint
from hardware._errors import BadCommand, HwError, NotReady, TransportTimeout
from robolearn.errors import ConfigError

T = TypeVar("T")
_NAP_S = 0.0003


def checked(setpoint: Setpoint, joints: int, active: bool, device: str) -> list[float]:
    """Returns the joints (n,) [rad] of a setpoint; BadCommand for another number or not finite, NotReady unless active."""
    q = [float(angle) for angle in setpoint.q]
    if len(q) != joints or not all(map(math.isfinite, q)):
        raise BadCommand(device, f"setpoint: want {joints} finite numbers [rad], got {q}")
    if not active:
        raise NotReady(device, "setpoint: the arm is not active")
    return q


def check_limits(lower: Sequence[float], upper: Sequence[float], device: str) -> None:
    """Raises ConfigError unless there are as many lower as upper limits, all finite, each below its other."""
    finite = all(map(math.isfinite, (*lower, *upper)))
    if len(lower) != len(upper) or not finite or not all(a < b for a, b in zip(lower, upper, strict=True)):
        raise ConfigError(f"{device}: want as many lower as upper limits, finite, each below its other, got {lower} and {upper}")


def fresh(read: Callable[[], T | None], patience_s: float, clock_ns: Callable[[], int], device: str) -> T:
    """Returns the first sample that `read` gives, which says None to an old one; TransportTimeout after so long [s]."""
    until = clock_ns() + int(patience_s * 1e9)
    while (sample := read()) is None:
        if clock_ns() > until:
            raise TransportTimeout(device, f"its clock has stood still for {1000 * patience_s:g} ms", phase="exchange")
        time.sleep(_NAP_S)
    return sample


def let_go(ours: bool, stop: Callable[[], None]) -> list[Exception]:
    """Stops an arm that is ours and returns what went wrong, for a `disconnect` that never raises."""
    try:
        if ours:
            stop()
    except HwError as error:
        return [error]
    return []
