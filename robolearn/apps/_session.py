"""A recording session: waiting, recording, waiting again, driven by what a person says with a device or with keys.

An episode is on the disk before the next word is heard. Nothing is ever unlinked: what is redone or deleted lies in the
journal's trash, and `undo` brings it back. Screens read `Session.board`, which is replaced whole, so no lock is needed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np

from robolearn.core import Chunk, Env, Flag, Outcome, Policy, Sink, Spec, TeleopSample, Tick
from robolearn.data.journal import Journal, Saved
from robolearn.data.recorder import EpisodeWriter
from robolearn.errors import BadInput, DatasetError, EpisodeStopped
from robolearn.rollout import rollout
from robolearn.teleop.pilot import as_numbers

ENDS = ("stop", "success", "failure", "redo", "quit")
NOTES = 5  # how many of the last messages a screen shows


class State(StrEnum):
    """Where a session is."""

    WAITING = "waiting"
    RECORDING = "recording"
    DONE = "done"


@dataclass(frozen=True)
class Rules:
    """What is to be recorded.

    target: episodes wanted, those kept from before included; seed: episode number k (ids are never given twice) resets the body
    with seed + k; below: the first seed that may not be used; auto: episodes begin by themselves and the session ends at the
    target; source: who drives (`core.SOURCES`).
    """

    target: int
    max_steps: int
    seed: int = 0
    below: int | None = None
    auto: bool = False
    source: str = "operator"


@dataclass(frozen=True)
class Board:
    """What a screen shows of a session. late: share of late ticks in the running episode; flags: of the last tick."""

    state: State = State.WAITING
    kept: int = 0
    target: int = 0
    seed: int | None = None
    step: int = 0
    max_steps: int = 0
    began_s: float = 0.0
    late: float = 0.0
    flags: int = 0
    notes: tuple[str, ...] = ()
    panel: Any = None


@dataclass
class Counts:
    """What came of a session so far."""

    begun: int = 0
    successes: int = 0
    steps: int = 0
    redone: int = 0
    deleted: int = 0
    undone: int = 0


@dataclass
class Ears:
    """What can be heard: keys (always), and the device, which between episodes nobody else reads."""

    pressed: Callable[[], Sequence[str]] = tuple
    device: Callable[[], Sequence[str]] = tuple

    def waiting(self) -> list[str]:
        """Returns all events since the last call, between episodes."""
        return [*self.pressed(), *self.device()]


@dataclass
class Session:
    """Records until the target is reached (auto) or somebody quits; `run` returns the counts, `board` is what a screen shows.

    mind: seed -> who drives that episode; tell: is given every message; pause: waits between two looks for a word;
    views: told everything after the recorder.
    """

    body: Env
    mind: Callable[[int], Policy]
    recorder: EpisodeWriter
    rules: Rules
    ears: Ears = field(default_factory=Ears)
    tell: Callable[[str], None] = lambda text: None
    pause: Callable[[], None] = lambda: time.sleep(0.02)
    clock: Callable[[], float] = time.monotonic
    views: Sequence[Sink] = ()

    def __post_init__(self) -> None:
        self._whole: dict[int, bool] = {}  # by id: it was not cut off
        self._trashed: list[int] = []
        self.counts, self.board = Counts(), Board(kept=self.kept, target=self.rules.target, max_steps=self.rules.max_steps)
        self._again: int | None = None  # the seed of a scene that is to be recorded again

    @property
    def kept(self) -> int:
        """How many whole episodes there are that were not taken back, earlier sessions included."""
        ids = self.recorder.journal.ids()
        for k in set(ids) - set(self._whole):
            self._whole[k] = is_whole(self.recorder.journal, k)
        return sum(self._whole[k] for k in ids)

    def run(self) -> Counts:
        """Records; returns when the session is over. An interruption (Ctrl-C) ends the running episode, saves it and goes up."""
        self._say(f"{self.kept} of {self.rules.target} episodes")
        word = ""
        while word != "quit":
            words = self.ears.waiting()
            for word in words:
                if word == "quit":
                    break
                if self._obey(word) == "quit":
                    word = "quit"
                    break
            else:
                if self.rules.auto and self.kept >= self.rules.target:
                    break
                if self.rules.auto:
                    word = self._episode()
                elif not words:
                    self.pause()
        self.board = replace(self.board, state=State.DONE)
        return self.counts

    def _obey(self, word: str) -> str:
        """Does what was said between episodes; returns the word that ended an episode, if one was recorded."""
        try:
            if word == "start":
                return self._episode()
            if word == "delete_last":
                self._delete()
            elif word == "undo":
                self._undo()
            elif word in ENDS:
                self._say(f"no episode is running, so there is nothing to end with '{word}'; enter starts one")
        except DatasetError as refused:
            self._say(str(refused))
        return ""

    def _episode(self) -> str:
        """Records one episode and returns the word that ended it, "" where it ended by itself."""
        seed = self.rules.seed + self.recorder.journal.next_id() if self._again is None else self._again
        if self.rules.below is not None and seed >= self.rules.below:
            raise BadInput(f"seed {seed}: seeds from {self.rules.below} on are for evaluation; give a lower --seed")
        self._again = None
        if not self.rules.auto:
            self._say(f"seed {seed}: recording")
        ear = Ear(self, self.mind(seed))
        self.board = replace(
            self.board, state=State.RECORDING, seed=seed, step=0, late=0.0, flags=0, began_s=self.clock(), panel=None
        )
        try:
            outcome = rollout(
                self.body, ear.mind, max_steps=self.rules.max_steps, seed=seed, sinks=[ear, *self.views], source=self.rules.source
            )
        finally:
            self.board = replace(self.board, state=State.WAITING, kept=self.kept)
        self._count(outcome, ear.word)
        return ear.word

    def _count(self, outcome: Outcome, word: str) -> None:
        self.counts.begun += 1
        self.counts.steps += outcome.steps
        how = word or outcome.reason
        if word == "redo":
            self.counts.redone += 1
            self._again = outcome.seed
            self._trashed += self.recorder.journal.trashed()[-1:]
        elif word == "success" or (outcome.success and word != "failure"):
            self.counts.successes += 1
        if word == "quit":
            how = "quit: kept, with no word of yours on it"
        self._say(f"seed {outcome.seed}: {how} after {outcome.steps} steps; {self.kept} of {self.rules.target} episodes")
        if not self.rules.auto and self.kept >= self.rules.target and word != "quit":
            self._say("the target is reached: q ends, enter records one more, backspace takes the last back")

    def _delete(self) -> None:
        self._trashed.append(self.recorder.delete_last())
        self.counts.deleted += 1
        self._say(f"episode {self._trashed[-1]} is in the trash; u brings it back; {self.kept} of {self.rules.target} episodes")

    def _undo(self) -> None:
        if not self._trashed:
            self._say("nothing was deleted or redone in this session, so there is nothing to undo")
            return
        self.recorder.undo(self._trashed[-1])
        back = self.recorder.journal.episode(self._trashed.pop())
        self.recorder.saved.append(Saved(back.id, back.sha256, back.steps))  # so that `delete_last` takes this one next
        self.recorder.saved.sort(key=lambda saved: saved.id)
        self._again = None
        self.counts.undone += 1
        self._say(f"episode {back.id} is back; {self.kept} of {self.rules.target} episodes")

    def _say(self, text: str) -> None:
        self.board = replace(self.board, kept=self.kept, notes=(*self.board.notes, text)[-NOTES:])
        self.tell(text)

    def figures(self) -> dict[str, int]:
        """Returns the counts and how many episodes are kept."""
        return {**asdict(self.counts), "kept": self.kept}


def is_whole(journal: Journal, episode: int) -> bool:
    """Whether a saved episode was ended by somebody or something, and not cut off by a crash."""
    return all(line["label"] != "partial" for line in journal.episode(episode).attrs.get("labels", ()))


@dataclass
class Ear:
    """The recorder as the loop sees it: hears keys too, and ends the episode on a word once its row is taken."""

    session: Session
    mind: Policy
    word: str = ""
    _late: int = 0

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        """Begins the episode; what a device sends from here on is recorded as it came."""
        self.session.recorder.begin(spec, meta)
        if hasattr(self.mind, "log"):
            self.mind.log = self._raw
            self._silence()

    def record(self, tick: Tick) -> None:
        """Takes one tick with what was said in it; EpisodeStopped names the word that ends the episode."""
        keys = ["stop" if key == "start" else key for key in self.session.ears.pressed()]
        chunk, heard = tick.chunk, list(keys)
        if chunk is not None and chunk.tick == tick.k:
            heard += ["stop" if event == "start" else event for event in chunk.events]
        if heard and chunk is not None:
            tick = replace(tick, chunk=Chunk(chunk.actions[:1], tick.k, events=tuple(heard)))
        flags = Flag(tick.step.flags) | getattr(self.mind, "flags", Flag(0))
        if int(flags) != tick.step.flags:
            tick = replace(tick, step=replace(tick.step, flags=int(flags)))
        self._late += bool(flags & Flag.LATE)
        self.session.recorder.record(tick)
        self.session.board = replace(
            self.session.board,
            step=tick.k + 1,
            late=self._late / (tick.k + 1),
            flags=int(flags),
            panel=getattr(self.mind, "panel", None),
        )
        self.word = next((event for event in heard if event in ENDS), "")
        if self.word:
            raise EpisodeStopped(self.word)

    def _silence(self) -> None:
        """Hands over a hand at rest for a device that is silent between presses: every episode of a set has the same streams."""
        if getattr(self.mind, "live", True):
            return
        t_ns = round(self.session.clock() * 1e9)
        for seat in getattr(self.mind, "seats", ()):
            at_rest = as_numbers(TeleopSample(t_ns, t_ns, seat.hand, delta=np.zeros(6)))
            self._raw(f"device_{seat.hand}", t_ns, at_rest)

    def _raw(self, name: str, t_ns: int, numbers: np.ndarray) -> None:
        """Hands over what a device sent; -1 stands for what it does not have, because NaN would spoil a set."""
        self.session.recorder.stream(name, t_ns, np.nan_to_num(numbers, nan=-1.0))

    def stream(self, name: str, t_ns: int, array: Any) -> None:
        """Hands a raw sample over."""
        self.session.recorder.stream(name, t_ns, array)

    def end(self, outcome: Outcome) -> None:
        """Ends the episode; it is on the disk when this returns."""
        if hasattr(self.mind, "log"):
            self.mind.log = None
        # A person's word is no break-off, which `data check` would take "stopped:" for.
        self.session.recorder.end(replace(outcome, reason=f"operator:{self.word}") if self.word else outcome)
