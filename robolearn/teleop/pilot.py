"""`Pilot`: a person with a device as a `Policy`, so that the loop that runs a network records a person.

The newest sample of each hand goes through a clutch (engaging, scaling, speed caps, jump guard) to a target of that hand,
and through a drive to the body's action. Everything happens in `observe`; `plan` repeats what was decided, so that it is pure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from robolearn import geometry
from robolearn.core import Ask, Chunk, Flag, Obs, Spec, TeleopSample
from robolearn.teleop.clutch import Clutch
from robolearn.teleop.drives import Drive
from robolearn.teleop.human import SEEN, Limb, Tracker
from robolearn.teleop.limits import Age, Freshness

Array = np.ndarray


@dataclass
class Seat:
    """One hand of the person on one arm of the body; tracker: filters what comes as keypoints, where the device does not."""

    drive: Drive
    clutch: Clutch
    hand: int = 0
    freshness: Freshness = field(default_factory=Freshness)
    tracker: Tracker | None = None


@dataclass(frozen=True)
class Panel:
    """What a screen shows of the last tick. engaged: by seat; why: what holds the arm still, "" where nothing does."""

    engaged: tuple[bool, ...] = ()
    why: str = ""
    age_s: float = 0.0
    samples: int = 0


class Pilot:
    """Drives a body from what `read` returns; `flags` and `panel` say how the last tick went.

    clock: now [s], the clock of `TeleopSample.t_recv_ns`; log: is given every sample as it came (name, t_ns, numbers), for the
    recorder's streams; live: whether silence means a lost device (False for a keyboard, which is silent between presses).
    """

    def __init__(
        self,
        spec: Spec,
        read: Callable[[], Sequence[TeleopSample]],
        seats: Sequence[Seat],
        clock: Callable[[], float] = time.monotonic,
        live: bool = True,
    ) -> None:
        self.spec, self.read, self.seats, self.clock, self.live = spec, read, tuple(seats), clock, live
        self.log: Callable[[str, int, Array], None] | None = None
        self.flags, self.panel = Flag(0), Panel()

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode: the arms stay where they are until a hand is engaged; what was said before is forgotten."""
        del seed
        self._tick = -1
        self._newest: list[TeleopSample | None] = [None] * len(self.seats)
        self._grip = [0.0] * len(self.seats)
        self.read()

    def moved(self, obs: Obs, applied: Array) -> None:
        """Says that `applied` (action,) was somebody else's: hands that let go begin anew where the arms and grippers are."""
        for seat, block in zip(self.seats, np.split(applied, len(self.seats)), strict=True):
            seat.clutch.moved(seat.drive.measured(obs), float(np.clip(0.5 * (block[-1] + 1.0), 0.0, 1.0)))

    def observe(self, obs: Obs, applied: Array | None) -> None:
        """Takes in what the device said since the last tick and decides the action of this one."""
        del applied
        if self._tick < 0:
            for seat in self.seats:
                seat.drive.start(obs)
                seat.clutch.reset(seat.drive.measured(obs))
        self._tick += 1
        samples = list(self.read())
        if self.log is not None:
            for sample in samples:
                self.log(f"device_{sample.arm}", sample.t_recv_ns, as_numbers(sample))
        self._events = tuple(event for sample in samples for event in sample.events)
        blocks, engaged, whys, age_s = [], [], [], 0.0
        self.flags = Flag(0)
        for k, seat in enumerate(self.seats):
            mine = [sample for sample in samples if sample.arm == seat.hand and sample.confidence > SEEN]
            block, on, why, age = self._drive(k, seat, obs, mine)
            blocks.append(block)
            engaged.append(on)
            whys.append(why)
            age_s = max(age_s, age)
        self._action = np.concatenate(blocks).astype(self.spec.action.dtype)
        self.panel = Panel(tuple(engaged), next((why for why in whys if why), ""), age_s, len(samples))

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the action (1, action) of this tick and what the person said."""
        return Chunk(self._action[None], self._tick, events=self._events)

    def _drive(self, k: int, seat: Seat, obs: Obs, samples: list[TeleopSample]) -> tuple[Array, bool, str, float]:
        """Returns the action block of an arm, whether its hand is engaged, what holds it still, and its sample's age [s]."""
        now = self.clock()
        measured = seat.drive.measured(obs)
        for sample in samples:
            if seat.tracker is not None:
                sample = filtered(sample, seat.tracker)
            self._newest[k] = sample
            seat.clutch.update(sample, measured, sample.t_recv_ns * 1e-9)
        newest = self._newest[k]
        age_s = now - newest.t_recv_ns * 1e-9 if newest is not None else 0.0
        stale = seat.freshness.of(age_s) if self.live and newest is not None else Age.FRESH
        if stale is Age.DISENGAGED:
            seat.clutch.release()
        target = seat.clutch.target(measured, now)
        fresh = newest if stale is Age.FRESH and target.engaged else None
        if newest is not None and newest.deadman is not None:
            self.flags |= Flag.ENGAGED if target.engaged else Flag.DISENGAGED
        if stale is not Age.FRESH:
            self.flags |= Flag.STALE
        block = seat.drive.action(obs, target.pose, target.grip, fresh)
        why = f"no input for {age_s * 1e3:.0f} ms" if stale is not Age.FRESH else target.why or seat.drive.why
        return block, target.engaged, why, age_s


def filtered(sample: TeleopSample, tracker: Tracker) -> TeleopSample:
    """Returns a sample of keypoints with limb and hand filtered (one-Euro), the hand's place being the wrist."""
    if sample.keypoints is None or sample.pose is None:
        return sample
    shoulder, elbow, wrist = sample.keypoints
    seen = Limb(shoulder, elbow, wrist, sample.pose[:3, :3], sample.confidence)
    limb, _ = tracker.step(sample.t_dev_ns * 1e-9, seen)
    return replace(sample, keypoints=limb.keypoints, pose=geometry.pose(limb.wrist, limb.hand))


def as_numbers(sample: TeleopSample) -> Array:
    """Returns a sample as a row (n,) float64: dev and recv time [s], dead-man (-1 none), grip, confidence, and what it holds."""
    parts: list[Sequence[float] | Array] = [[sample.t_dev_ns * 1e-9, sample.t_recv_ns * 1e-9]]
    parts.append([-1.0 if sample.deadman is None else float(sample.deadman)])
    parts.append([np.nan if sample.grip is None else sample.grip, sample.confidence])
    given = (sample.pose, sample.delta, sample.keypoints, sample.joints)
    parts += [np.ravel(value) for value in given if value is not None]
    return np.concatenate([np.asarray(part, float) for part in parts])
