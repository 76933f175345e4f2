"""Who meets under a supervisor: a body that can stay, a mind that can be asked why it is silent, a way to the first target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from robolearn.core import Obs, Spec, Step


class Body(Protocol):
    """An Env that can also stay, and go to joint angles (n,) [rad]. age_s: of its oldest input; late: inputs that are late."""

    spec: Spec
    age_s: float
    late: tuple[str, ...]

    def reset(self, seed: int | None = None) -> Obs: ...
    def step(self, action: np.ndarray) -> Step: ...
    def still(self) -> Step: ...
    def toward(self, q: np.ndarray) -> Step: ...
    def where(self) -> np.ndarray: ...
    def target(self, action: np.ndarray) -> np.ndarray: ...
    def close(self) -> None: ...


class Mind(Protocol):
    """What is asked of the policy beside its actions; `schedule.Scheduled` is one.

    lost: why its planner is gone; paused: it may ask for no plan; early: this tick has the action of the one before; current:
    what is scheduled for this tick; news: what came.
    """

    lost: str
    paused: bool
    early: bool
    news: list[Any]

    @property
    def current(self) -> Any: ...
    def flush(self) -> None: ...


class Approach(Protocol):
    """The way to the first target (`align.Align`)."""

    done: bool

    def step(self, now_s: float, deadman: bool) -> np.ndarray: ...


class Recovering(Protocol):
    """A body that is being brought back, by whatever may take its time; nobody else talks to the body meanwhile.

    ended: True once it is back, a RobolearnError where it cannot be, and False before that, at once; stop: asks it to end
    soon, and to switch nothing on any more.
    """

    def ended(self) -> bool: ...
    def stop(self) -> None: ...


@dataclass(frozen=True)
class Manners:
    """How a deployment behaves. attended: somebody hears and sees; waits: an empty slot is no trouble (the consumer waits).

    plan_age_s: age of an observation from which no new plan is made; give_up_s: how long an unattended body holds until the
    episode ends; stall_s: lateness of a tick that counts as a stall; rest_s: lateness after which the arm's driver has brought it
    to rest.
    """

    attended: bool = False
    waits: bool = False
    plan_age_s: float = 0.25
    give_up_s: float = 30.0
    stall_s: float = 0.1
    rest_s: float = 0.3
