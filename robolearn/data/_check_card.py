"""What a check says: limits, marks (one finding at one place), the card of an episode, the report of a set, and grades."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from robolearn.data._check_survey import Context

ERRORS = ("nan", "length", "corrupt", "lost", "empty")  # training on such a set is refused or wrong; all else is a warning
REMARKS = ("constant", "sparse", "float_images")  # of a set: worth knowing, no fault of a recording
HEAVY = frozenset(
    {"backwards", "black", "duplicate", "frozen", "gap", "offset", "outlier", "partial"}
    | {"repeated", "replay", "saturated", "stale"}
)
CODES = {
    "nan": "NaN or infinity",
    "length": "arrays and episode ends do not fit together",
    "corrupt": "a chunk that cannot be read",
    "lost": "a chunk that is missing",
    "empty": "no episode",
    "backwards": "a clock that does not rise",
    "black": "black pictures",
    "clock_step": "the wall clock was set while recording",
    "constant": "a number that never changes",
    "duplicate": "the same recording twice",
    "float_images": "images kept as floats",
    "frozen": "one picture for long while the body moves",
    "gap": "time jumps",
    "gripper": "the gripper never moved",
    "idle": "nothing moves at an end",
    "jerky": "much jerkier than the other episodes",
    "joint_limit": "a joint at its limit",
    "lag": "the body follows the action at another delay",
    "late": "ticks that came late",
    "offset": "a constant difference of action and state",
    "outlier": "a number far from all others",
    "partial": "the episode broke off",
    "rate": "another rate than the set's",
    "repeated": "frames that repeat the one before",
    "replay": "the simulator does not repeat it",
    "saturated": "an action at its limit",
    "short": "few steps",
    "sparse": "chunks that another program left out",
    "stale": "a device's value was old",
    "unfinished": "rows of an append that was cut off",
    "unlabelled": "no label, others have one",
}
GRADES = "ABCD"
_B_AT_MOST = 2  # points
_SET_SHARE = 0.9  # of the episodes must be of the set's grade or better


@dataclass(frozen=True)
class Limits:
    """Where a warning begins. Shares are of the steps of an episode, or (where said) of the range a number has in the set."""

    min_steps: int = 10
    """Shorter episodes, and those below a tenth of the median, are `short`."""
    rate_share: float = 0.05
    """`rate`: how far the median rate may be from the set's."""
    gap_periods: float = 2.0
    """`gap`: a step of a clock longer than this many periods."""
    late_share: float = 0.01
    """`late`: share of ticks that came later than half a period."""
    late_p99_ms: float = 5.0
    """`late`: 99th percentile of the lateness of the ticks."""
    stale_ms: float = 100.0
    """`stale`: age of a device's value while engaged."""
    repeated_share: float = 0.02
    """`repeated`: share of frames that are the one before although the body moved, or that the recorder marked."""
    black_mean: float = 5.0
    """`black`: mean of a frame, of 255."""
    frozen_frames: int = 5
    """`frozen`: more frames than this are one picture while the body moves."""
    moves_share: float = 0.02
    """A body has moved when one of its numbers changed by this share of its range."""
    saturated_share: float = 0.2
    """`saturated`: share of steps at a limit, or at the set's own extreme."""
    saturated_run: int = 5
    """The set's own extreme counts from this many steps in a row."""
    joint_margin_rad: float = 0.02
    """`joint_limit`: distance to a joint limit."""
    outlier_ranges: float = 30.0
    """`outlier`: a number this many of its usual ranges (5 to 95 %) away from the set's median, in few episodes."""
    jerky_z: float = 4.5
    """`jerky`: robust z-score of jerk or SPARC against the set's median; more in a small set, whose spread is uncertain."""
    jerky_factor: float = 2.0
    """`jerky`: and the jerk or SPARC is at least this many times the median."""
    idle_s: float = 1.0
    """`idle`: a head or tail without motion that lasts longer."""
    idle_share: float = 0.002
    """No motion: every number of the body changes by less than this share of its range in a step."""
    gripper_share: float = 0.05
    """`gripper`: it moved by less than this share of its range."""
    lag_ticks: float = 1.0
    """`lag`: how far the action-state lag may be from the set's median."""
    offset_share: float = 0.05
    """`offset`: a constant difference of action and state, as a share of the state's range."""
    replay_share: float = 0.05
    """`replay`: error of the last state, as a share of its range."""


@dataclass(frozen=True)
class Mark:
    """One finding: a code, its text, the key it concerns ("" = none), and the first and last row in the episode (None = all)."""

    code: str
    text: str
    key: str = ""
    rows: tuple[int, int] | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {"code": self.code, "rows": list(self.rows) if self.rows else None, "key": self.key, "text": self.text}


@dataclass
class Card:
    """What is known of one episode.

    numbers: duration_s, rate_hz, worst_gap_s, ...; series: by joint or position, its sparc, jerk and largest speed; notes:
    what could not be checked and why; hashes: of its rows, by which duplicates are found.
    """

    episode: int
    steps: int
    numbers: dict[str, float] = field(default_factory=dict)
    series: dict[str, dict[str, float]] = field(default_factory=dict)
    marks: list[Mark] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    digest: bytes = b""

    def add(self, code: str, text: str, key: str = "", rows: tuple[int, int] | None = None) -> None:
        """Adds one finding."""
        self.marks.append(Mark(code, text, key, None if rows is None else (int(rows[0]), int(rows[1]))))

    @property
    def flags(self) -> list[str]:
        """The findings as text, "code: text"."""
        return [str(mark) for mark in self.marks]

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of the findings, each once, in order."""
        return tuple(dict.fromkeys(mark.code for mark in self.marks))

    @property
    def points(self) -> int:
        """2 for every heavy code, 1 for every other; a code counts once."""
        return sum(2 if code in HEAVY else 1 for code in self.codes)

    @property
    def grade(self) -> str:
        """D with an error, else A without a flag, B up to 2 points, C above."""
        if any(code in ERRORS for code in self.codes):
            return "D"
        return "A" if not self.points else "B" if self.points <= _B_AT_MOST else "C"

    @property
    def why(self) -> str:
        """What the grade comes from."""
        return ", ".join(self.codes) or "no flag"

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values."""
        return {
            "grade": self.grade,
            "points": self.points,
            "why": self.why,
            "steps": self.steps,
            **self.numbers,
            "series": self.series,
            "notes": self.notes,
        }


@dataclass
class Report:
    """What a check found: a card per episode, flags "code: text" of the whole set, and what could not be checked."""

    cards: list[Card] = field(default_factory=list)
    whole: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    medians: dict[str, float] = field(default_factory=dict)
    context: Context | None = None

    @property
    def episodes(self) -> dict[int, list[str]]:
        """The flags of every episode that has some."""
        return {card.episode: card.flags for card in self.cards if card.marks}

    def codes(self) -> list[str]:
        """Returns the code of every flag."""
        return [flag.split(":")[0] for flag in self.whole] + [mark.code for card in self.cards for mark in card.marks]

    @property
    def n_errors(self) -> int:
        """Number of flags that make the set unfit for training."""
        return sum(code in ERRORS for code in self.codes())

    @property
    def grade(self) -> str:
        """D with an error anywhere, else the grade that nine of ten episodes have or better; a flag of the set: at best B."""
        if self.n_errors:
            return "D"
        places = sorted(GRADES.index(card.grade) for card in self.cards)
        place = places[max(0, int(np.ceil(_SET_SHARE * len(places))) - 1)] if places else 0
        flagged = any(flag.split(":")[0] not in REMARKS for flag in self.whole)
        return GRADES[max(place, int(flagged))]

    def worst(self, count: int) -> list[Card]:
        """Returns the flagged episodes, worst grade and most points first, at most `count`."""
        flagged = [card for card in self.cards if card.marks]
        return sorted(flagged, key=lambda card: (-GRADES.index(card.grade), -card.points, -len(card.marks), card.episode))[:count]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON values: the set's card, its flags, and the episodes with theirs."""
        codes = self.codes()
        grades = [card.grade for card in self.cards]
        return {
            "set_card": {
                "grade": self.grade,
                "episodes": len(self.cards),
                "steps": sum(card.steps for card in self.cards),
                "grades": {grade: grades.count(grade) for grade in GRADES},
                "episodes_per_code": self.episodes_per_code(),
                "medians": self.medians,
                "worst": [card.episode for card in self.worst(20)],
                "notes": self.notes,
            },
            "set_flags": self.whole,
            "counts": {code: codes.count(code) for code in sorted(set(codes))},
            "errors": self.n_errors,
            "episodes": [
                {
                    "episode": card.episode,
                    "flags": card.flags,
                    "flag_rows": [mark.to_json() for mark in card.marks],
                    "card": card.to_json(),
                }
                for card in self.cards
            ],
        }

    def episodes_per_code(self) -> dict[str, int]:
        """Returns how many episodes have each code, most first."""
        counts: dict[str, int] = {}
        for card in self.cards:
            for code in card.codes:
                counts[code] = counts.get(code, 0) + 1
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
