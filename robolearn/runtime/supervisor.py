"""`Supervised`: a body under the state machine. It moves by the policy in RUN only, and otherwise stays where it is.

    machine = Machine(sink=log.change)
    body = Supervised(real_env, mind, machine, make_align, hear=keys)
    rollout(body, mind, max_steps=600, sinks=[log, body], on_alarm=body.alarm)

Whatever goes wrong in `step` becomes a row of `state.REACTIONS`; the loop goes on at its rate, the arm holds, and the way back to
RUN is that of the row. An episode ends by its body, by a word of the operator, or where nobody is there to end a fault.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from robolearn.core import Flag, Obs, Outcome, Spec, Step, Tick
from robolearn.errors import BadInput, EpisodeStopped, HardwareError
from robolearn.runtime._beat import Beat
from robolearn.runtime._recovery import AtOnce, Recovery
from robolearn.runtime.parties import Approach, Body, Manners, Mind, Recovering
from robolearn.runtime.state import DeadMan, Facts, Machine, Mode, trouble

WORDS = ("stop", "success", "failure", "quit", "hold", "resume", "recover", "estop")
"""What an operator may say during an episode; the first four end it."""
ENDS = WORDS[:4]
_OF_THE_MIND = frozenset({"underrun", "policy_crash", "bad_chunk"})  # a person can drive in spite of these
_NEAR = 0.05  # [rad] a first target so near needs no align phase: the guard makes it smooth
_LONG_S = 1.0  # without an action of the policy: the arm stands, and a plan must begin near it
_SPEED = 1.0  # [rad/s] that a plan after a shorter gap may have moved meanwhile
_STEPPED_S = 0.1  # of the wall clock against the monotonic one, from one tick to the next
_STOPPED = (Mode.IDLE, Mode.STOPPING, Mode.FAULT, Mode.ESTOP)


class Supervised:
    """An `Env` around a body, and a sink of the same rollout.

    make_align: (measured, target) -> the way there, BadInput where it may not be gone; hear: words since the last call, and the
    place to feed the dead-man; person: whether somebody drives instead of the policy now; recover: begins to bring the body back
    from FAULT; revive: True once a planner that was lost is there again.
    """

    def __init__(
        self,
        body: Body,
        mind: Mind,
        machine: Machine,
        make_align: Callable[[np.ndarray, np.ndarray], Approach],
        manners: Manners = Manners(),
        deadman: DeadMan | None = None,
        hear: Callable[[], Sequence[str]] = tuple,
        person: Callable[[], bool] = lambda: False,
        recover: Callable[[], Recovering] = AtOnce,
        revive: Callable[[], bool] = lambda: False,
        clock_ns: Callable[[], int] = time.monotonic_ns,
        wall_ns: Callable[[], int] = time.time_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.body, self.mind, self.machine, self.spec, self.manners = body, mind, machine, body.spec, manners
        self._make_align, self._deadman, self._hear, self._person = make_align, deadman, hear, person
        self._recovery, self._revive = Recovery(recover, machine, clock_ns), revive
        self._clock_ns, self._wall_ns, self._sleep = clock_ns, wall_ns, sleep
        self._last: Step | None = None
        self._align: Approach | None = None
        self._arrived: Approach | None = None
        self._kept, self._late, self._over, self._driven = False, False, "", False
        self._dropped, self._anew, self._acted_ns = False, "", math.inf
        self._beat, self._still_ns = Beat(1.0 / self.spec.hz, clock_ns, wall_ns), 0

    def reset(self, seed: int | None = None) -> Obs:
        """Brings the body to its start. HardwareError where it cannot; BadInput where a fault of before is left."""
        if self.machine.mode is not Mode.IDLE:
            raise BadInput(f"supervisor: want mode idle to begin, got {self.machine.mode}: {', '.join(self.machine.causes)}")
        self._align, self._kept, self._late, self._over, self._driven = None, False, False, "", False
        self._anew, self._acted_ns = "", math.inf
        obs, now = self.body.reset(seed), self._clock_ns()
        none = np.zeros(self.spec.action.shape, self.spec.action.dtype)
        self._last = Step(obs, none, self.body.where().astype(np.float32), {"monotonic": now})
        self._still_ns = now
        self._beat.begin()
        self._listen(now)
        for kind in set(self.machine.causes) - {"deadman"}:  # of the episode before; where it is left, it is found again
            self.machine.clear(kind, "a new episode", now)
        if not (change := self.machine.on("start", "episode", now, self._facts(empty=True))).accepted:
            raise BadInput(f"supervisor: {change.why}")
        return obs

    def step(self, action: np.ndarray) -> Step:
        """Does what the mode allows with an action, waits for the tick, and returns what came of it; raises nothing."""
        now, self._dropped = self._clock_ns(), False
        self._look_at_clocks(now)
        self._listen(now)
        self._look_at_mind(now)
        driven = self._let_drive(now)
        self._go_back(now)
        free = self.machine.mode is Mode.RUN or (self.machine.mode is Mode.HOLD and self._only_late)
        moved = not self._over and (driven or (free and not self._dropped))
        if self.machine.mode is not Mode.RUN and (driven or not moved):
            self._anew = self._anew or "due"
        elif moved and self.mind.current is not None:
            self._acted_ns = now
        try:
            step = None if self._recovery.active else self._move(action, now, moved)
        except (HardwareError, BadInput) as error:
            self._persist(trouble(error), str(error), now, getattr(error, "kind", ""))
            step = None
        if step is None:
            step = self._repeated()
            self._sleep(max(0.0, 1.0 / self.spec.hz - (self._clock_ns() - now) * 1e-9))
        else:
            self._look_at_inputs(self._clock_ns(), moved and bool(step.flags & Flag.HELD))
        self.mind.paused = driven or self.machine.mode in _STOPPED or self.body.age_s > self.manners.plan_age_s
        flags = Flag(step.flags) | (Flag(0) if moved else Flag.HELD) | (Flag.INTERVENTION | Flag.ENGAGED if driven else Flag(0))
        self._last = self._ended(replace(step, flags=int(flags)))
        return self._last

    def alarm(self, monitor: str, tick: Tick) -> bool:
        """Holds because of a monitor, for `rollout(on_alarm=...)`; True where somebody is there to say what comes next."""
        self._hold(f"alarm of {monitor} at tick {tick.k}", self._clock_ns())
        return self.manners.attended

    def close(self) -> None:
        """Closes the body."""
        self.body.close()

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        """Is told of the episode that it runs itself."""

    def record(self, tick: Tick) -> None:
        """Ends the episode with EpisodeStopped where that was said, or where a trouble lasts and nobody is there."""
        if self._over:
            raise EpisodeStopped(self._over)
        mode, now = self.machine.mode, self._clock_ns()
        if mode in (Mode.RUN, Mode.ALIGN):
            self._still_ns = now
        causes = ", ".join(self.machine.causes) or "held"
        if self.manners.attended:
            return
        if mode is Mode.ESTOP or (mode is Mode.FAULT and not self._may_end_alone):
            raise EpisodeStopped(f"{mode}: {causes}")
        if (now - self._still_ns) * 1e-9 > self.manners.give_up_s:
            raise EpisodeStopped(f"{mode}: {causes} for {self.manners.give_up_s:g} s")

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores them."""

    def end(self, outcome: Outcome) -> None:
        """Stops in order: the schedule is emptied, the body ramps to rest and holds; a fault stays one."""
        now = self._clock_ns()
        self.mind.flush()
        self._recovery.bar("the episode is over")
        try:
            if not self._recovery.active:
                self.body.still()
        except (HardwareError, BadInput) as error:
            self._persist(trouble(error), str(error), now, getattr(error, "kind", ""))
        if self.machine.on("stop", outcome.reason, now).accepted:
            self.machine.on("stopped", outcome.reason, self._clock_ns())

    @property
    def _only_late(self) -> bool:
        """True where nothing is wrong but that no plan is there: the body goes on to its last target and stays there."""
        return not (self._kept or self._anew) and set(self.machine.causes) <= {"underrun"}

    @property
    def _may_end_alone(self) -> bool:
        faults = self.machine.faults
        return bool(faults) and set(faults) <= set(self.machine.automatic) and self._recovery.left

    def _facts(self, *, operator: bool = False, empty: bool = False) -> Facts:
        held = None if self._deadman is None else self._deadman.held(self._clock_ns())
        return Facts(operator, empty, held)

    def _move(self, action: np.ndarray, now: int, moved: bool) -> Step:
        if moved:
            return self.body.step(action)
        if self.machine.mode is Mode.ALIGN and self._align is not None:
            return self.body.toward(self._align.step(now * 1e-9, self._facts().deadman is not False))
        return self.body.still()

    def _repeated(self) -> Step:
        """Returns the step before once more, flagged."""
        assert self._last is not None
        clocks = {"monotonic": self._clock_ns(), "wall": self._wall_ns()}
        return replace(self._last, t_ns=clocks, flags=int(Flag.STALE | Flag.HELD), success=None, score=None)

    def _react(self, event: str, reason: str, now: int, kind: str = "") -> None:
        row = self.machine.react(event, reason, now, kind)
        if row.mode is not None and (row.flush or event not in _OF_THE_MIND):
            self._flush()  # what was planned before the stop does not fit where the body is after it
            self._align = None

    def _flush(self) -> None:
        """Drops what is planned, the action of this tick too."""
        self.mind.flush()
        self._dropped = True

    def _persist(self, event: str, reason: str, now: int, kind: str = "") -> None:
        """Books a trouble that lasts, once."""
        if (kind or event) not in self.machine.causes:
            self._react(event, reason, now, kind)

    def _clear(self, event: str, reason: str, now: int) -> None:
        if event in self.machine.causes:
            self.machine.clear(event, reason, now)

    def _look_at_clocks(self, now: int) -> None:
        late_s, jump_s = self._beat.look(now)
        if late_s > self.manners.stall_s:
            self._react("stall", f"{1000 * late_s:.0f} ms late", now)
            self._beat.stalled(now)
            if late_s > self.manners.rest_s and self.machine.mode is Mode.RUN:
                self._anew = "due"
                self.machine.on("hold", "the arm has come to rest meanwhile", now)
        elif self._beat.calm_s(now) > 1.0:
            self._clear("stall", "on time for a second", now)
        if abs(jump_s) > _STEPPED_S:
            self._react("clock_step", f"the wall clock moved by {jump_s:.3f} s", now)

    def _listen(self, now: int) -> None:
        """Does what the operator said, and looks at the dead-man."""
        for word in self._hear():
            if word in ENDS:
                self._over = self._over or word
                self._recovery.bar(f"the episode is ended: {word}")
            elif word == "hold":
                self._hold("operator", now)
            elif word == "resume":
                self._kept = False
            elif word == "recover":
                self._bring_back(now, operator=True)
            elif word == "estop":
                self._recovery.bar("emergency stop by the operator")
                self._persist("estop", "operator", now)
        if self._deadman is not None:
            now = self._clock_ns()  # devices stamp what they say when they are read
            if self._deadman.held(now):
                self._clear("deadman", "held", now)
            elif self.machine.mode not in (Mode.IDLE, Mode.FAULT, Mode.ESTOP):
                self._persist("deadman", f"{self._deadman.source} is not held", now)

    def _look_at_mind(self, now: int) -> None:
        if self.mind.lost and not self._revive():
            self._persist("policy_crash", self.mind.lost, now)
        elif not self.mind.lost and "policy_crash" in self.machine.causes:
            self._clear("policy_crash", "a planner is there again", now)
        for _, offer in self.mind.news:
            if offer.reason == "invalid":
                self._react("bad_chunk", "a plan that is not finite, or of another shape", now)
            elif offer.accepted:
                self.machine.clear("bad_chunk", "a good plan", now)
        if self.mind.current is not None:
            self._clear("underrun", "a plan is there", now)
        elif not (self.manners.waits or self.mind.lost or self.mind.early) and self.machine.mode is Mode.RUN:
            self._persist("underrun", "no action for this tick", now)

    def _look_at_inputs(self, now: int, held: bool) -> None:
        """Books inputs that are late; a tick that came about says that what was gone is there again.

        held: the arm stood although it was told to move, as its driver does once it was late too often.
        """
        if held:
            self._react("stall", "the arm's driver holds", now)
            self._beat.stalled(now)
        self._clear("camera_gone", "it is there again", now)
        cameras = [name for name in self.body.late if name != "joints"]
        if cameras and not self._late:
            self._react("camera_late", ", ".join(cameras), now)
        self._late = bool(cameras)
        if "joints" in self.body.late:
            self._react("servo_miss", "the newest sample of the joints is an old one", now)
        else:
            self.machine.clear("servo_miss", "a new sample", now)

    def _let_drive(self, now: int) -> bool:
        """Returns whether a person drives in this tick; the policy's plans are dropped before and after."""
        able = self.machine.mode in (Mode.RUN, Mode.HOLD, Mode.ALIGN) and set(self.machine.causes) <= _OF_THE_MIND
        driven = able and self._person()
        if driven != self._driven:
            self._flush()
            if driven and self.machine.mode is not Mode.HOLD:
                self.machine.on("hold", "a person drives", now)
        self._driven, self._align = driven, None if driven else self._align
        return driven

    def _hold(self, reason: str, now: int) -> None:
        """Holds until the operator says resume."""
        self._kept, self._align = True, None
        self._flush()
        if self.machine.mode in (Mode.RUN, Mode.ALIGN):
            self.machine.on("hold", reason, now)

    def _go_back(self, now: int) -> None:
        """Goes on towards RUN as far as that is allowed now."""
        self._look_at_recovery()
        if self.machine.mode is Mode.FAULT and self._may_end_alone:
            self._bring_back(now, operator=False)
        if self.machine.mode is Mode.HOLD and not (self._kept or self._driven or self.machine.causes):
            self._resume(now)
        elif self._anew:
            self._anew = "due"
        if self.machine.mode is Mode.ALIGN and self._kept:
            self.machine.on("hold", "held before the fault", now)
        if self.machine.mode is Mode.ALIGN and self.mind.current is not None:
            self._walk(now)

    def _resume(self, now: int) -> None:
        """Leaves HOLD: by ALIGN where the alignment is lost or the first target is far, else straight on.

        An arm that stood is planned for anew, and stands until that plan is there.
        """
        if self.machine.aligned and self._anew == "due":
            self._flush()  # its steps so far were for a body that goes along
            self._anew, self._still_ns = "asked", now
            return
        if self.machine.aligned and self._anew and self.mind.current is None:
            return
        try:
            planned = self.mind.current is not None
            far = not self.machine.aligned or (planned and _far(*self._way(), self._reach(now)))
        except HardwareError:  # found again in this tick, and booked
            return
        except BadInput as error:
            self._hold(str(error), now)
            return
        if far:
            self._flush()
            self.machine.on("align", "no cause is left", now, self._facts(empty=True))
        elif self.machine.on("resume", "no cause is left", now, self._facts()).accepted:
            self._anew = ""

    def _way(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns where the arm is, and the first target of what is planned, (n,) [rad] each."""
        return self.body.where(), self.body.target(self.mind.current.action)

    def _reach(self, now: int) -> float:
        """Returns how far from the arm a plan may begin [rad]: near it where it stands, else what it would have come on."""
        gap_s = (now - self._acted_ns) * 1e-9
        return _NEAR if self._anew or gap_s > _LONG_S else _NEAR + _SPEED * gap_s if gap_s >= 0 else math.inf

    def _walk(self, now: int) -> None:
        """Goes on with the align phase: begins it at the first action that was planned, or ends it at its target."""
        try:
            if self._align is None:
                here, there = self._way()
                if _far(here, there, _NEAR):
                    self._align = self._make_align(here, there)
                    return
            elif not self._align.done:
                return
            elif self._arrived is not self._align:
                self._arrived = self._align
                self._flush()  # what was planned from where it began is of another pose: it stands until a plan of here is there
                return
        except (HardwareError, BadInput) as error:
            self._hold(str(error), now)
            return
        self._align, self._anew, self._acted_ns = None, "", math.inf
        self.machine.on("aligned", "at the first target", now, self._facts())

    def _bring_back(self, now: int, operator: bool) -> None:
        """Begins to end a fault where the machine lets it end; until that has come to its end the body is left alone."""
        if self._recovery.may_start(now, self._facts(operator=operator)):
            self._flush()
            self._recovery.start(now, operator, self._kept)
            self._kept = self._kept and not operator
            self._look_at_recovery()

    def _look_at_recovery(self) -> None:
        facts = self._facts(operator=self._recovery.operator, empty=True)
        self._kept = self._recovery.look(facts) or self._kept

    def _ended(self, step: Step) -> Step:
        """Returns the step with what the operator said of the episode."""
        if self._over in ("success", "failure"):
            return replace(step, success=self._over == "success", terminated=True, score=float(self._over == "success"))
        return step


def _far(here: np.ndarray, there: np.ndarray, reach: float) -> bool:
    return float(np.abs(there - here).max(initial=0.0)) > reach
