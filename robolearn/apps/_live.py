"""Bodies for recording at an arm's own pace: a simulator that keeps time, and one that ends when success has lasted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from robolearn.clock import Deadline, now_ns
from robolearn.core import Env, Flag, Obs, Step


class Paced:
    """A simulated body that keeps time: `step` returns at the next tick of its rate and says when its observation was taken."""

    def __init__(self, inner: Env) -> None:
        self.inner, self.spec = inner, inner.spec
        self._rate = Deadline(1.0 / inner.spec.hz)

    def reset(self, seed: int | None = None) -> Obs:
        """Starts an episode of the body inside; its first tick is now."""
        return self.begin(self.inner.reset(seed))

    def begin(self, obs: Obs) -> Obs:
        """Takes now as the first tick, for a body that was put somewhere otherwise than by `reset`; returns `obs`."""
        self._rate = Deadline(1.0 / self.spec.hz)
        self._rate.wait()
        return obs

    def step(self, action: np.ndarray) -> Step:
        """Moves the body inside and waits for the tick; a tick that came late by half a period is flagged."""
        step = self.inner.step(action)
        late_s = self._rate.wait()
        flags = Flag(step.flags) | (Flag.LATE if late_s > 0.5 / self.spec.hz else Flag(0))
        return replace(step, t_ns={**step.t_ns, **now_ns()}, flags=int(flags))

    def close(self) -> None:
        """Closes the body inside."""
        self.inner.close()


class Lasting:
    """A body whose episodes end when success was held for `ticks` ticks in a row; 0: only a person ends them."""

    def __init__(self, inner: Env, ticks: int) -> None:
        self.inner, self.spec, self.ticks = inner, inner.spec, ticks
        self._held = 0

    def reset(self, seed: int | None = None) -> Obs:
        """Starts an episode of the body inside."""
        self._held = 0
        return self.inner.reset(seed)

    def step(self, action: np.ndarray) -> Step:
        """Moves the body inside; what ends an episode for another reason than success still ends it."""
        step = self.inner.step(action)
        self._held = self._held + 1 if step.success else 0
        over = bool(self.ticks) and self._held >= self.ticks
        return replace(step, terminated=over or (step.terminated and not step.success))

    def close(self) -> None:
        """Closes the body inside."""
        self.inner.close()
