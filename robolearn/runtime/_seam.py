"""Where a new chunk meets what is executed before it: is the jump one that the limits allow, and if not, does blending help?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robolearn.errors import BadInput
from robolearn.runtime._slots import Kinds

_ROUNDING = 1e-6  # relative; actions may be float32


@dataclass(frozen=True)
class Seam:
    """How fast targets may move: speed [1/s], acceleration [1/s^2] of each number of an action, empty for no limit.

    Numbers that may jump (a grip), and displacements, whose change is no speed, have infinity. blend: steps over which a new
    chunk is faded in where it does not meet the old one, 0: it is refused.
    """

    speed: tuple[float, ...] = ()
    acceleration: tuple[float, ...] = ()
    blend: int = 4

    def __post_init__(self) -> None:
        for name in ("speed", "acceleration"):
            if any(not value > 0.0 for value in getattr(self, name)):
                raise BadInput(f"{name}: want numbers above 0, infinity for no limit, got {list(getattr(self, name))}")
        if self.blend < 0:
            raise BadInput(f"blend: want 0 or more steps, got {self.blend}")

    def require(self, width: int) -> None:
        """Raises BadInput unless there is a limit for each of `width` numbers of an action, or none at all."""
        for name in ("speed", "acceleration"):
            if len(getattr(self, name)) not in (0, width):
                raise BadInput(f"{name}: want {width} numbers, one for each of an action, got {len(getattr(self, name))}")


@dataclass(frozen=True)
class Splice:
    """The outcome of `splice`: actions (n, action) to schedule, how many were blended, why not at all ("" fits), the jump."""

    actions: np.ndarray
    blended: int = 0
    reason: str = ""
    jump: float = 0.0


def splice(before: np.ndarray, old: np.ndarray, new: np.ndarray, limits: Seam, kinds: Kinds, hz: float) -> Splice:
    """Returns `new` (n, action) as it may follow `before` (0 to 2, action), blended with `old` (n, action) where it must be.

    before: what is executed last, the newest at the end; old: what would be executed in place of `new`. Reasons: seam (the jump
    is too large, blended or not), speed (the chunk itself moves faster than the limit).
    """
    if not len(before) or not len(new):
        return Splice(new, reason=_too_fast(before, new, limits, hz, 0))
    new = kinds.same_signs(np.concatenate([before[-1:], new]))[1:].astype(new.dtype)
    plain = [i for i in range(new.shape[1]) if i not in kinds.binary]
    jump = float(np.abs(new[0] - before[-1])[plain].max(initial=0.0))
    reason = _too_fast(before, new, limits, hz, 1)
    if reason != "seam":
        return Splice(new, reason=reason, jump=jump)
    blended = min(limits.blend, len(new))
    if blended == 0:
        return Splice(new, reason="seam", jump=jump)
    share = (np.arange(blended) + 1) / (blended + 1)
    both = np.stack([old[:blended].astype(new.dtype), new[:blended]])
    faded = np.concatenate([kinds.average(both, np.stack([1 - share, share])), new[blended:]])
    faded = kinds.same_signs(np.concatenate([before[-1:], faded]))[1:].astype(new.dtype)
    return Splice(faded, blended, _too_fast(before, faded, limits, hz, blended + 1), jump)


def _too_fast(before: np.ndarray, new: np.ndarray, limits: Seam, hz: float, seam: int) -> str:
    """Returns which limit the steps break: seam among the first `seam` of them, speed after; "" where none does.

    The speed is looked at in every step, the acceleration only where the chunks meet: within a chunk it is the policy's own.
    """
    rows = np.concatenate([before, new]).astype(np.float64)
    steps = np.diff(rows, axis=0)
    at = max(len(before) - 1, 0)  # the step that leads into the chunk
    if limits.acceleration:
        bends = np.abs(np.diff(steps, axis=0))[: at + seam] * hz**2
        if seam and np.any(bends > np.multiply(limits.acceleration, 1 + _ROUNDING)):
            return "seam"
    if limits.speed:
        fast = np.any(np.abs(steps[at:]) * hz > np.multiply(limits.speed, 1 + _ROUNDING), axis=1)
        if fast[:seam].any():
            return "seam"
        if fast.any():
            return "speed"
    return ""
