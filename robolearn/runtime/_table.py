"""What is to be done in which slot: the table that chunks are offered to, and the rules by which it takes them.

A chunk changes nothing before the commit slot; it is refused when it is of an earlier epoch, not finite, too old, wholly too
late, or does not continue what is executed before it. What was executed stays in the table for as long as a chunk may reach back.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from robolearn.core import Spec
from robolearn.errors import BadInput
from robolearn.runtime._seam import Seam, splice
from robolearn.runtime._slots import Delays, Held, Proposal, slots_in
from robolearn.runtime.consumers._base import Consumer, View

_KEPT = 512  # slots of the past


@dataclass(frozen=True)
class Rules:
    """When a chunk may change what.

    observe_s, act_s: from a measurement to us, and from a command to motion [s]; margin: more slots that may not change;
    max_age_s: age of an observation whose plan is still taken [s], and how long a request is waited for; seam: how fast
    targets may move.
    """

    observe_s: float = 0.0
    act_s: float = 0.0
    margin: int = 0
    max_age_s: float = 5.0
    seam: Seam = Seam()

    def __post_init__(self) -> None:
        for name in ("observe_s", "act_s", "margin", "max_age_s"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise BadInput(f"{name}: want a finite number of at least 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Offer:
    """What became of a chunk.

    reason: why it was refused (epoch, invalid, age, late, delay, seam, speed), "" where it was accepted; dropped: its steps that
    came too late; blended: its steps that were faded in; jump: largest change of a number where it began, or would have.
    """

    accepted: bool
    reason: str = ""
    dropped: int = 0
    blended: int = 0
    jump: float = 0.0


class Schedule:
    """Actions by slot, and where each comes from. `offer` is the only way in; `at` says what a slot holds.

    epoch: counts flushes and resets; delays: how long plans took.
    """

    def __init__(self, spec: Spec, consumer: Consumer, rules: Rules = Rules()) -> None:
        """spec: of the body; consumer: decides how chunks are joined. BadInput where limits do not fit the action."""
        rules.seam.require(spec.action.shape[-1])
        self.spec, self.consumer, self.rules, self.epoch = spec, consumer, rules, 0
        self.begin()

    @property
    def lead(self) -> int:
        """How many slots ahead of the clock an action is sent, so that it moves the body in its own slot."""
        return slots_in(self.rules.act_s, self.spec.hz)

    def begin(self) -> None:
        """Forgets everything; plans that were asked for before are of an earlier epoch."""
        self.epoch += 1
        self.delays, self.horizon = Delays(), 0
        self._path: dict[int, Held] = {}
        self._done: deque[Held] = deque(maxlen=2)
        self._accepted: tuple[Proposal, ...] = ()

    def flush(self) -> None:
        """Empties every slot that was not executed; plans that were asked for before are of an earlier epoch."""
        self.epoch += 1
        self._path = {slot: held for slot, held in self._path.items() if self._done and slot <= self._done[-1].slot}
        self._accepted = ()

    def at(self, slot: int) -> Held | None:
        """Returns what lies in a slot, None for nothing."""
        return self._path.get(slot)

    def left(self, slot: int) -> int:
        """Returns how many slots from `slot` on are filled without a gap."""
        n = 0
        while slot + n in self._path:
            n += 1
        return n

    def execute(self, slot: int, action: np.ndarray) -> None:
        """Notes what was applied (action,) in a slot; slots that the loop skipped keep what they held."""
        held = replace(self._path.get(slot, Held(slot, action, epoch=self.epoch)), action=np.array(action))
        if self._done and self._done[-1].slot == slot:
            self._done.pop()
        self._done.append(held)
        self._path[slot] = held
        if len(self._path) > 2 * _KEPT:
            self._path = {near: held for near, held in self._path.items() if near > slot - _KEPT}

    def resume(self, slot: int) -> bool:
        """Returns whether what lies in `slot` and after may follow what was executed last; where not, it is emptied.

        After a loop has skipped slots the next action is further from the last one than its neighbour in the chunk is.
        """
        n = max(self._path, default=slot) - slot + 1
        if n < 1 or not self._done:
            return True
        before, rows = self._around(slot, slot, n)
        found = splice(before, rows, rows, replace(self.rules.seam, blend=0), self.consumer.kinds, self.spec.hz)
        if found.reason:
            self._cut(slot)
        return not found.reason

    def view(self, first: int, slot: int, since: int | None = None) -> View:
        """Returns what the consumer sees; first: the slot of the observation to plan from, slot: the next one to be sent."""
        expected, warm_up = self.delays.expected, self.delays.warm_up
        commit, path = slot + self.rules.margin, MappingProxyType(self._path)
        return View(first, commit, self.left(slot), since, self.horizon, expected, warm_up, path, self._accepted)

    def offer(self, new: Proposal, slot: int, now_s: float) -> Offer:
        """Returns what became of a chunk that came before the action of `slot` was sent, at `now_s` [s]."""
        commit = slot + self.rules.margin
        if new.epoch != self.epoch:
            return Offer(False, "epoch")
        self.delays.add(max(commit - new.first, 0))
        late = 0 if self.consumer.waits else int(np.clip(commit - new.first, 0, len(new.actions)))
        shape = (len(new.actions), *self.spec.action.shape)
        if not len(new.actions) or new.actions.shape != shape or not np.isfinite(new.actions).all():
            return Offer(False, "invalid")
        if now_s - new.t_obs > self.rules.max_age_s:
            return Offer(False, "age", late)
        if late == len(new.actions):
            return Offer(False, "late", late)
        merged = self.consumer.merge(new, self.view(new.first, slot))
        if merged.refused or not len(merged.actions):
            return Offer(False, merged.refused or "late", late)
        before, old = self._around(slot, merged.start, len(merged.actions))
        found = splice(before, old, merged.actions, self.rules.seam, self.consumer.kinds, self.spec.hz)
        if found.reason:
            return Offer(False, found.reason, late, found.blended, found.jump)
        self._cut(merged.start)
        for i, action in enumerate(found.actions):
            self._path[merged.start + i] = Held(merged.start + i, action, new.id, new.epoch, merged.index + i)
        self.horizon = len(new.actions)
        self._accepted = (*(chunk for chunk in self._accepted if chunk.end > commit), new)
        return Offer(True, "", late, found.blended, found.jump)

    def _cut(self, slot: int) -> None:
        for later in [other for other in self._path if other >= slot]:
            del self._path[later]

    def _around(self, slot: int, start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns what is executed last before `start` (0 to 2, action), and what would be from there on (n, action) as it is."""
        before, path = [held.action for held in self._done], self._path
        if not before and not any(later in path for later in range(slot, start)):
            nothing = np.zeros((0, *self.spec.action.shape))
            return nothing, nothing
        for later in range(slot, start):
            if later in path or before:
                before.append(path[later].action if later in path else self.consumer.kinds.still(before[-1]))
        old = before[-1:]
        for later in range(start, start + n):
            old.append(path[later].action if later in path else self.consumer.kinds.still(old[-1]))
        return np.stack(before[-2:]), np.stack(old[1:])
