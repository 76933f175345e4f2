"""`Guard`: what stands between setpoints and motors at the rate of a driver's loop, the tracker and then the filter chain.

The tracker makes any target smooth; the chain has the last word on what it made, and where it cuts, the tracker goes on from what
was sent. A setpoint that is none is refused by the chain and becomes a brake. Nothing here raises on what comes in.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from robolearn.runtime.filters import Chain, Filtered, Measured, Result
from robolearn.runtime.limits import Limits, unit_doubt
from robolearn.runtime.tracker import Tracker

Array = np.ndarray


class Guard:
    """The limits of one arm at work.

    filters: their names, in order; temperature: (n,) [deg C] as last measured, by whoever polls it; last: what became of the
    newest setpoint.
    """

    def __init__(self, chain: Chain, period_s: float) -> None:
        """period_s: of the loop. MissingDependency without Ruckig."""
        self.chain, self.tracker = chain, Tracker(chain.limits, period_s)
        self.filters = tuple(chain.counts)[len(Result) :]
        self.temperature: Array | None = None
        self.last: Filtered | None = None

    @property
    def limits(self) -> Limits:
        """What is kept."""
        return self.chain.limits

    def reset(self, q: Array, aperture: float | None, now_s: float) -> None:
        """Begins at rest at the measured q (n,) [rad]."""
        self.chain.reset(q, now_s, aperture)
        self.tracker.reset(q)

    def towards(self, q: Any, aperture: Any, qd: Array | None, measured: Measured, now_s: float) -> Filtered:
        """Returns what may be sent, one period after the last, on the way to q (n,) [rad], which moves at qd (n,) [rad/s].

        What the tracker keeps back counts as cut too: by "position" beyond the soft range, by "velocity" where the way that is
        left is longer than a period at top speed.
        """
        if not self._is_target(q):
            return self._sent(self.chain.filter(q, aperture, now_s, now_s, self._known(measured)))
        bounds, here = self.limits.bounds, self.tracker.q
        inside = np.clip(q, np.minimum(bounds.soft_lower, here), np.maximum(bounds.soft_upper, here))
        wanted = self.tracker.step(q, qd)
        filtered = self._sent(self.chain.filter(wanted, aperture, now_s, now_s, self._known(measured)))
        beyond = np.abs(q - inside) > 1e-9  # rounding is no cut
        behind = np.abs(inside - filtered.q) > bounds.velocity * self.tracker.period_s
        kept_back = [name for name, cut in (("position", beyond), ("velocity", behind)) if cut.any()]
        if filtered.result is Result.REJECT or not kept_back:
            return filtered
        which = tuple(dict.fromkeys((*filtered.which, *kept_back)))
        self.last = replace(filtered, result=Result.CLAMP, which=which, why=f"cut by {', '.join(which)}")
        return self.last

    def rest(self, measured: Measured, now_s: float) -> tuple[Filtered, bool]:
        """Returns the next step of a ramp to rest, and whether it rests."""
        filtered = self.chain.filter(self.tracker.stop(), None, now_s, now_s, self._known(measured))
        return self._sent(filtered), self.tracker.at_rest

    def _is_target(self, q: Any) -> bool:
        if not isinstance(q, np.ndarray) or q.shape != self.tracker.q.shape or q.dtype.kind != "f":
            return False
        return bool(np.isfinite(q).all()) and not unit_doubt(q, self.limits)

    def _known(self, measured: Measured) -> Measured:
        return Measured(measured.q, measured.effort, self.temperature)

    def _sent(self, filtered: Filtered) -> Filtered:
        self.last, sent = filtered, self.chain.sent
        if not np.array_equal(sent.q, self.tracker.q):  # a cut aperture leaves the joints' way alone
            self.tracker.adopt(sent.q, sent.qd, sent.qdd)
        return filtered
