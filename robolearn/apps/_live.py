"""Recording at the body's own pace: a simulator that keeps time like an arm, and episodes that go through the recorder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.clock import Rate, now_ns
from robolearn.core import Env, Flag, Obs, Outcome, SimEnv, Step
from robolearn.data.recorder import EpisodeWriter, Recording
from robolearn.data.store import EpisodeSet
from robolearn.errors import Findings
from robolearn.rollout import rollout
from sim_envs import _base


class Paced:
    """A simulated body that keeps time: `step` returns at the next tick of its rate and says when its observation was taken."""

    def __init__(self, inner: Env) -> None:
        self.inner, self.spec = inner, inner.spec
        self._rate = Rate(inner.spec.hz)

    def reset(self, seed: int | None = None) -> Obs:
        """Starts an episode of the body inside; its first tick is now."""
        obs = self.inner.reset(seed)
        self._rate = Rate(self.spec.hz)
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


def record_live(
    out: Path, body: SimEnv, facts: Mapping[str, Any], seeds: range, tell: Callable[[Outcome], None], how: Recording = Recording()
) -> EpisodeSet:
    """Records one episode for each seed, driven by the scripted expert in real time; failures are kept and labelled."""
    paced = Paced(body)
    max_steps = body.config.max_steps  # type: ignore[attr-defined]
    with closing(body), EpisodeWriter(out, facts, how, state=body.state) as recorder:
        for seed in seeds:
            expert = _base.expert(body, seed)
            tell(rollout(paced, expert, max_steps=max_steps, seed=seed, sinks=[recorder], source="expert"))
        if seeds and not recorder.saved:
            raise Findings(f"{out}: no episode was saved")
    return EpisodeSet.open(out)
