"""`TakeOver`: a policy that a person may overrule at any tick (as in HG-DAgger, Kelly et al. 2019); what they do is marked.

While the person's hand is engaged, the body follows the person; the policy goes on observing, so that its memory knows what was
done. When the hand lets go, nothing is left of what was planned before, and the policy plans anew from where the body is.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from robolearn.core import Ask, Chunk, Flag, Obs, Policy
from robolearn.runtime.parties import Mind


class Person(Policy, Protocol):
    """A person with a device (`teleop.pilot.Pilot`).

    flags: ENGAGED while a hand drives, STALE while the device says nothing; moved: what was applied was somebody else's.
    """

    flags: Flag

    def moved(self, obs: Obs, applied: np.ndarray) -> None: ...


class Planned(Policy, Mind, Protocol):
    """The policy's side: a mind that a supervisor may ask (`schedule.Scheduled`)."""


class TakeOver:
    """Acts by `mind` unless `person` is engaged. engaged: of this tick; spec, lost, news, current: of the mind.

    silent: the device went silent in this tick while its person drove, who did not let go then.
    """

    def __init__(self, mind: Planned, person: Person) -> None:
        """SpecMismatch where the person's actions are not the policy's."""
        mind.spec.require(person.spec.select(()), who="the person who takes over")
        self.mind, self.person, self.spec, self.silent = mind, person, mind.spec, False

    @property
    def engaged(self) -> bool:
        """True while the person drives."""
        return bool(self.person.flags & Flag.ENGAGED)

    @property
    def lost(self) -> str:
        """Why the mind's planner is gone."""
        return self.mind.lost

    @property
    def early(self) -> bool:
        """Whether this tick has the action of the one before."""
        return self.mind.early

    @property
    def news(self) -> list[Any]:
        """What came in this tick."""
        return self.mind.news

    @property
    def current(self) -> Any:
        """What the mind has scheduled for this tick."""
        return self.mind.current

    @property
    def paused(self) -> bool:
        """Whether the mind may ask for no plan."""
        return self.mind.paused

    @paused.setter
    def paused(self, value: bool) -> None:
        self.mind.paused = value

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode; the policy drives until a hand is engaged."""
        self.mind.reset(seed)
        self.person.reset(seed)

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Shows both what the body shows; a hand that is not engaged keeps up with where the policy brings the arm."""
        drove = self.engaged and applied is not None
        self.mind.observe(obs, applied)
        if applied is not None and not drove:
            self.person.moved(obs, applied)
        self.person.observe(obs, applied)
        self.silent = drove and not self.engaged and bool(self.person.flags & Flag.STALE)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the action (1, action) of whoever drives, and what the person's device said."""
        mine = self.person.plan(ask)
        if self.engaged:
            return mine
        plan = self.mind.plan(ask)
        return Chunk(plan.actions, plan.tick, events=(*plan.events, *mine.events))

    def flush(self) -> None:
        """Empties the mind's schedule."""
        self.mind.flush()
