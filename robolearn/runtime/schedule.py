"""`Scheduled`: a policy whose plans are made elsewhere and come late, as a `core.Policy` that has one action for every tick.

    clock = TickClock(body.spec.hz)
    planner = Local(policy, delay_s=0.12, clock=clock)
    mind = Scheduled(planner, make_consumer("rtc_guided", {}, policy.spec), body.spec, clock)
    rollout(body, mind, max_steps=300, sinks=[clock])
    mind.statistics().underruns

Which action a tick gets is a matter of the clock: slot k is the time t_start + k / hz, and a loop that skips a period skips the
slot. Where a slot is empty the body stays where it is and the tick says "underrun"; nothing is invented or extrapolated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from robolearn.core import Ask, Chunk, Obs, Spec
from robolearn.errors import BadInput, HardwareError
from robolearn.runtime._slots import Held, Proposal, slot_at
from robolearn.runtime._table import Offer, Rules, Schedule
from robolearn.runtime.consumers._base import Consumer
from robolearn.runtime.reactions import Hold
from robolearn.runtime.remote import Planned, Planner, Request

UNDERRUN, EARLY, LOST, FLUSHED = "underrun", "early", "planner_lost", "flushed"
_BAD_IN_A_ROW = 3  # chunks that are not finite or of another shape, before the body is stopped


@dataclass(frozen=True)
class Relative:
    """What a policy's actions are relative to: its observation. Both take actions (horizon, action) and that observation."""

    to_absolute: Callable[[np.ndarray, Obs], np.ndarray]
    to_relative: Callable[[np.ndarray, Obs], np.ndarray] | None = None


@dataclass(frozen=True)
class Statistics:
    """What happened since the last reset, up to the last action that was followed by an observation.

    ticks; underruns: ticks without an action; early: ticks within the slot of the one before; skipped: slots without a tick;
    dropped: steps of chunks that came too late; rejected: chunks by reason ("lost": never came, "skip": the rest of a chunk that
    no longer fitted after the loop had skipped slots); delays: slots that each plan took; seam_max: largest change of a number
    where an accepted chunk began; idle_share: of ticks without an action; busy_share: of ticks with a plan under way.
    """

    ticks: int
    underruns: int
    early: int
    skipped: int
    dropped: int
    rejected: Mapping[str, int]
    delays: tuple[int, ...]
    seam_max: float
    idle_share: float
    busy_share: float


@dataclass(frozen=True)
class _Asked:
    """A request that is under way, and the observation it began with."""

    request: Request
    t_obs: float
    obs: Obs
    prefix: int
    prefixed: bool


class Scheduled:
    """Acts by the schedule, and asks the planner for chunks when the consumer says so; one request is under way at most.

    Plans are asked for and taken in `observe`, so `plan` is pure. lost: why the planner is gone, "" while it is there: what is
    scheduled is then executed to its end, and the body stays. news: what came in this tick, for whoever logs it; plans: of that
    the plans that were taken, whole, for whoever watches them. early: this tick is in the slot of the one before. paused: set it,
    and no new plan is asked for (the body does not follow, or what it shows is too old).
    """

    def __init__(
        self,
        planner: Planner,
        consumer: Consumer,
        spec: Spec,
        clock: Callable[[], float],
        rules: Rules = Rules(),
        ask: Ask = Ask(),
        relative: Relative | None = None,
        here: Callable[[], np.ndarray] | None = None,
    ) -> None:
        """spec: of the body; clock: monotonic [s]; ask: goal and guidance of every request; relative: None for absolute actions.

        here: the action (action,) that stays, for the ticks before anything was applied; None: as `Hold` reads it.

        SpecMismatch where the planner's policy does not fit the body, BadInput where the arguments contradict each other.
        """
        if consumer.prefixes and relative is not None and relative.to_relative is None:
            raise BadInput("scheduled: this consumer tells plans of scheduled actions, and `relative` cannot make them relative")
        if relative is None:
            spec.require(planner.spec, who="the planner's policy")
        self.planner, self.consumer, self.spec, self.clock = planner, consumer, replace(spec, execute=1), clock
        self.schedule = Schedule(spec, consumer, rules)
        self._rules, self._ask, self._relative, self._hold, self._requests = rules, ask, relative, Hold(spec, here), 0
        self.paused, self._seed = False, None  # type: bool, int | None
        self._begin()

    def _begin(self) -> None:
        self.lost, self.news, self.plans = "", list[tuple[Proposal, Offer]](), list[Chunk]()
        self._tick, self._start, self._slot, self.early = -1, 0.0, -1, False
        self._current: Held | None = None
        self._asked: _Asked | None = None
        self._last_asked: int | None = None
        self._events: tuple[str, ...] = ()
        self._counts: Counter[str] = Counter()
        self._acted: dict[str, int] = {}
        self._rejected: Counter[str] = Counter()
        self._seam_max, self._bad = 0.0, 0

    @property
    def current(self) -> Held | None:
        """What the schedule holds for this tick; None where it holds nothing."""
        return self._current

    def reset(self, seed: int | None = None) -> None:
        """Starts an episode; its slot 0 is when the first observation comes. HardwareError where the planner is gone."""
        self.planner.reset(seed)
        self._hold.reset(seed)
        self.schedule.begin()
        self._seed, self.paused = seed, False
        self._begin()

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Goes on to the clock's slot: takes what has been planned, asks for more, chooses this tick's action."""
        now = self.clock()
        self._tick, self.news, self.plans, self._events = self._tick + 1, [], [], ()
        self._hold.observe(obs, applied)
        if applied is not None and self._tick > 0:
            self.schedule.execute(self._slot, applied)
        if self._tick == 0:
            self._start = now
            self._slot = self.schedule.lead - 1  # the first tick is early for nothing
        slot = slot_at(now, self._start, self.spec.hz) + self.schedule.lead
        early, skipped = slot <= self._slot, max(slot - self._slot - 1, 0)
        if skipped and not self.schedule.resume(slot):
            self._rejected["skip"] += 1
        self._think(obs, applied, now, self._slot + 1 if early else slot)
        self._choose(slot, early)
        self._counts.update(self._acted)  # of the tick before: the last observation of an episode is acted on by nobody
        self._acted = {"ticks": 1, "early": int(early), "skipped": skipped, "busy": int(self._asked is not None)}
        self._acted["underruns"] = int(self._current is None and not early)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns this tick's action (1, action), and in `events` why it is none of the policy's, if so.

        BadInput where more is asked than an action that was planned before, or, as `Hold.plan`, where nothing says how to stay.
        """
        if self._tick < 0:
            raise BadInput("scheduled: it has seen no observation yet: call observe before plan")
        if ask.draws > 1 or ask.prefix is not None or ask.goal:
            raise BadInput(
                "scheduled: its plans are made ahead of time; want draws, prefix and goal in the `ask` it is made with"
            )
        action = self._hold.plan().actions[0] if self._current is None else self._current.action
        return Chunk(action[None].copy(), self._tick, events=self._events)

    def flush(self) -> None:
        """Empties the schedule (a fault, another task, a person takes over): the body stays until it is planned for anew."""
        self.schedule.flush()
        self._asked, self._current = None, None
        self._events += (FLUSHED,)

    def replace(self, planner: Planner) -> None:
        """Goes on with another planner, whose memory begins here; the schedule is emptied. HardwareError where it is gone too."""
        if self._relative is None:
            self.spec.require(planner.spec, who="the new planner's policy")
        planner.reset(self._seed)
        self.planner.close()
        self.planner, self.lost = planner, ""
        self.flush()

    def statistics(self) -> Statistics:
        """Returns what happened since the last reset."""
        counts, ticks = self._counts, max(self._counts["ticks"], 1)
        return Statistics(
            ticks=counts["ticks"],
            underruns=counts["underruns"],
            early=counts["early"],
            skipped=counts["skipped"],
            dropped=counts["dropped"],
            rejected=dict(self._rejected),
            delays=tuple(self.schedule.delays.every),
            seam_max=self._seam_max,
            idle_share=counts["underruns"] / ticks,
            busy_share=counts["busy"] / ticks,
        )

    def close(self) -> None:
        """Lets the planner go."""
        self.planner.close()

    def _think(self, obs: Obs, applied: np.ndarray | None, now: float, slot: int) -> None:
        """Tells the planner, takes its plans and asks for the next; a planner that is gone is noted."""
        if self.lost:
            return
        try:
            self.planner.observe(obs, applied)
            self._take(now, slot)
            if self._asked is not None and now - self._asked.t_obs > self._rules.max_age_s:
                self._rejected["lost"] += 1
                self._asked = None
            if self._asked is None and not self.paused:
                self._request(obs, now, slot)
                self._take(now, slot)  # a planner without delay has answered already
        except HardwareError as error:
            self.lost, self._asked = str(error), None

    def _request(self, obs: Obs, now: float, slot: int) -> None:
        first = slot_at(now - self._rules.observe_s, self._start, self.spec.hz)
        view = self.schedule.view(first, slot, None if self._last_asked is None else first - self._last_asked)
        if not self.consumer.wants(view):
            return
        ask, prefix = self.consumer.ask(view, self._ask)
        if ask.prefix is not None and self._relative is not None and self._relative.to_relative is not None:
            ask = replace(ask, prefix=self._relative.to_relative(ask.prefix, obs))
        self._requests += 1
        request = Request(self._requests, self.schedule.epoch, first)
        self._asked = _Asked(request, now - self._rules.observe_s, obs, prefix, ask.prefix is not None)
        self._last_asked = first
        self.planner.submit(ask, request)

    def _take(self, now: float, slot: int) -> None:
        for planned in self.planner.poll():
            asked = self._asked
            if asked is None or planned.request != asked.request.id:
                self._rejected["epoch"] += 1  # flushed, reset or given up since
                continue
            self._asked = None
            self._offer(planned, asked, now, slot)

    def _offer(self, planned: Planned, asked: _Asked, now: float, slot: int) -> None:
        actions, request = planned.chunk.actions, asked.request
        if self._relative is not None and np.isfinite(actions).all():
            actions = self._relative.to_absolute(actions, asked.obs)
        new = Proposal(actions, request.slot, request.id, request.epoch, asked.t_obs, asked.prefix, asked.prefixed)
        offer = self.schedule.offer(new, slot, now)
        self.news.append((new, offer))
        self._events += planned.chunk.events
        self._counts["dropped"] += offer.dropped
        if offer.accepted:
            self.plans.append(planned.chunk)
            self._seam_max = max(self._seam_max, offer.jump)
        else:
            self._rejected[offer.reason] += 1
        self._bad = self._bad + 1 if offer.reason == "invalid" else 0
        if self._bad == _BAD_IN_A_ROW:
            self._bad = 0
            self._events += (FLUSHED,)
            self.schedule.flush()

    def _choose(self, slot: int, early: bool) -> None:
        """Chooses this tick's action: what lies in the slot, unless the tick before had it."""
        self._current, self.early = None if early else self.schedule.at(slot), early
        self._slot = max(slot, self._slot)
        if self.lost:
            self._events += (LOST,)
        if early:
            self._events += (EARLY,)
        elif self._current is None:
            self._events += (UNDERRUN,)
