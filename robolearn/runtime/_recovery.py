"""`Recovery`: a body in FAULT or ESTOP is brought back beside the loop, which goes on hearing; what is said meanwhile wins."""

from __future__ import annotations

import math
from collections.abc import Callable

from robolearn.errors import RobolearnError
from robolearn.runtime.parties import Recovering
from robolearn.runtime.state import Facts, Machine, Mode

_TRIES, _TRY_EVERY_S = 3, 2.0  # without a person, in a row


class AtOnce:
    """A body that is back as soon as it is asked for."""

    def ended(self) -> bool:
        """Says so."""
        return True

    def stop(self) -> None:
        """Has nothing to end."""


class Recovery:
    """At most one recovery at a time, looked at once a tick. operator: a person asked for the one under way."""

    def __init__(self, begin: Callable[[], Recovering], machine: Machine, clock_ns: Callable[[], int]) -> None:
        """begin: starts one, at once; machine: is told what comes of it."""
        self._begin, self._machine, self._clock_ns = begin, machine, clock_ns
        self._under_way: Recovering | None = None
        self._barred, self._kept, self.operator = "", False, False
        self._tries, self._tried_ns = 0, -math.inf

    @property
    def active(self) -> bool:
        """True while one is under way: nobody else talks to the body meanwhile."""
        return self._under_way is not None

    @property
    def left(self) -> bool:
        """True where one is under way, or another may be tried without a person."""
        return self.active or self._tries < _TRIES

    def may_start(self, now_ns: int, facts: Facts) -> bool:
        """Returns whether one may begin now, asked for by a person (facts.operator) or by nobody."""
        if self._machine.mode not in (Mode.FAULT, Mode.ESTOP) or self.active:
            return False
        rested = self._tries < _TRIES and (now_ns - self._tried_ns) * 1e-9 >= _TRY_EVERY_S
        if not facts.operator and not (rested and self._machine.may_recover(now_ns)):
            return False
        if facts.deadman is False and facts.operator:
            self._machine.on("recover", "the dead-man is not held", now_ns, facts)
        return facts.deadman is not False

    def start(self, now_ns: int, operator: bool, kept: bool) -> None:
        """Starts one; kept: somebody holds the body. `look` tells what became of it."""
        self._tries, self._tried_ns = self._tries + 1, now_ns
        self.operator, self._kept, self._barred, self._under_way = operator, kept, "", self._begin()

    def bar(self, why: str) -> None:
        """Asks the one under way to end; whatever it reached then, it has not brought the body back."""
        if self._under_way is not None:
            self._barred = self._barred or why
            self._under_way.stop()

    def look(self, facts: Facts) -> bool:
        """Goes to ALIGN once the body is back, every cause cleared; True where that failed, and what was held before is again."""
        if self._under_way is None:
            return False
        if facts.deadman is False:
            self.bar("the dead-man is not held")
        try:
            if not self._under_way.ended():
                return False
            why = self._barred
        except RobolearnError as error:
            why = self._barred or str(error)
        self._under_way, now = None, self._clock_ns()
        if why:
            self._machine.on("recover", f"not yet: {why}", now, facts)
            return self._kept
        self._tries = 0
        for kind in self._machine.causes:
            self._machine.clear(kind, "recovered", now)
        self._machine.on("recover", "recovered", now, facts)
        return False
