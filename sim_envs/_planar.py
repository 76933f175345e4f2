"""What the planar memory tasks share: a hand on the square [-1, 1]^2, a cue, a wait that tells nothing, a go light.

    cue    the fact is visible for `cue_steps` observations; the scene takes the hand home
    wait   `memory_steps` + jitter (0..7) observations: hand at home, light off, the same numbers whatever the fact is
    act    the light is on, the hand is free: an action of length 1 moves it by SPEED, longer ones count as that

While the light is off the scene holds the hand: commands move nothing, and `Step.filtered` is zero, so neither the pose nor
the applied actions can carry the fact over the wait. A picture is a function of `state` alone. All random numbers of an episode
are drawn at reset and live in `Now`, which is also the whole saved state.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import cv2
import numpy as np

from robolearn.core import ArraySpec, Obs, Spec, Step
from robolearn.errors import BadInput

HZ = 10.0
SPEED = 0.15  # per tick
FINISH = 0.2  # y of the line beyond which a hand has chosen: one that cannot decide crosses it somewhere, and is judged
HOME = (0.0, -0.5)
JITTER = 7  # [ticks], the longest addition to a wait
LEG = 60  # [ticks] allowed from home to any place of the square, at a person's speed
SLOWEST_CUE = 4  # [ticks]: the hand needs these from any start to home
VERSION = "3"  # rises when equal seeds no longer give equal episodes

_RUNNING, _SUCCESS, _WRONG = 0.0, 1.0, 2.0
_PEOPLE = 384  # [px], side of the picture for people
_SHIFT = 4  # cv2 takes 1/16 px
_PAPER, _INK, _HAND = (245, 244, 240), (60, 60, 66), (52, 101, 164)
_CHALK = (225, 222, 214)
_GO, _DARK = (40, 170, 70), (150, 150, 150)
_LIGHT = (0.0, 0.86, 0.09)  # x, y, radius of the go light

Color = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Config(ABC):
    """memory_steps: least number of observations between the cue and the go light, of 0.1 s; cue_steps: those that show the fact.

    max_steps: ticks before the episode is cut off (0: as many as the task needs); cameras: ("img",) adds the picture to the
    observations; image_size: its side [px].
    """

    max_steps: int = 0
    memory_steps: int = 64
    cue_steps: int = 8
    cameras: tuple[str, ...] = ()
    image_size: int = 64

    def __post_init__(self) -> None:
        if unknown := [camera for camera in self.cameras if camera != "img"]:
            raise ValueError(f"cameras: unknown camera '{unknown[0]}' (known: img)")
        if self.memory_steps < 1:
            raise ValueError(f"memory_steps: want at least 1, got {self.memory_steps}")
        if self.cue_steps < self.shortest_cue:
            raise ValueError(f"cue_steps: want at least {self.shortest_cue}, got {self.cue_steps}")
        if self.image_size < 16 or self.max_steps < 0:
            raise ValueError(f"want image_size >= 16 and max_steps >= 0, got {self.image_size} and {self.max_steps}")
        if self.max_steps == 0:
            object.__setattr__(self, "max_steps", self.budget())

    @property
    def shortest_cue(self) -> int:
        """The least `cue_steps` [ticks]."""
        return SLOWEST_CUE

    @property
    def longest_wait(self) -> int:
        """The most observations [ticks] from the end of a cue to the go light."""
        return self.memory_steps + JITTER

    @abstractmethod
    def budget(self) -> int:
        """Returns the ticks that a person's episode needs at most."""


@dataclass
class Now:
    """All of one episode, hidden facts included; a saved state is these numbers in this order.

    leave_at: the tick after which the scene takes the hand home; go_at: the tick at which the light goes on; count: what the
    task counts; fact: class index; jitter, next_jitter: of the first and second wait [ticks]; place_x, place_y: in [0, 1).
    """

    tick: float
    x: float
    y: float
    leave_at: float
    go_at: float
    verdict: float
    count: float
    fact: float
    jitter: float
    next_jitter: float
    place_x: float
    place_y: float


class Canvas:
    """A square picture (size, size, 3) uint8 RGB of the square [-1, 1]^2, y up, drawn with anti-aliased shapes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.pixels = np.full((size, size, 3), _PAPER, np.uint8)

    def disc(self, x: float, y: float, radius: float, color: Color, line: float = 0.0) -> None:
        """Draws a disc, or with `line` its outline of that width."""
        self._circle(x, y, radius, color, -1 if line == 0 else max(1, round(line * self.size / 2)))

    def box(self, x: float, y: float, half: float, color: Color, high: float | None = None) -> None:
        """Draws an upright rectangle of half width `half` and half height `high` (None: a square)."""
        high = half if high is None else high
        corners = [self._px(x + i * half, y + j * high) for i, j in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
        cv2.fillConvexPoly(self.pixels, np.array(corners, np.int32), color, cv2.LINE_AA, _SHIFT)

    def _circle(self, x: float, y: float, radius: float, color: Color, thickness: int) -> None:
        scaled = round(radius * self.size / 2 * 2**_SHIFT)
        cv2.circle(self.pixels, self._px(x, y), scaled, color, thickness, cv2.LINE_AA, _SHIFT)

    def _px(self, x: float, y: float) -> tuple[int, int]:
        half = self.size / 2
        return round(((x + 1) * half - 0.5) * 2**_SHIFT), round(((1 - y) * half - 0.5) * 2**_SHIFT)


class Planar(ABC):
    """A planar memory task: `state` is hand x, y, what the task `shows`, and the go light."""

    task: ClassVar[str]
    shows: ClassVar[tuple[str, ...]] = ()  # names of what lies in `state` between the hand and the go light
    kinds: ClassVar[int] = 1  # facts an episode can begin with
    starts_free: ClassVar[bool] = False  # no cue: the light is on at once
    finish_line: ClassVar[bool] = True  # a choice is made by crossing it

    def __init__(self, config: Config) -> None:
        self.config = config
        names = ("hand_x", "hand_y", *self.shows, "go")
        obs = {"state": ArraySpec((len(names),), "float32", names, "half sides of the square", "table")}
        if config.cameras:
            obs["img"] = ArraySpec((config.image_size, config.image_size, 3), "uint8")
        self.spec = Spec(obs, ArraySpec((2,), "float32", ("dx", "dy"), f"{SPEED} half sides of the square", "table"), HZ)
        self.now = Now(*(0.0 for _ in fields(Now)))

    # What a task says of itself.

    @abstractmethod
    def extras(self) -> tuple[float, ...]:
        """Returns the numbers named by `shows`."""

    @abstractmethod
    def arrived(self) -> None:
        """Judges where the free hand is now: `finish`, `send_home` or nothing."""

    @abstractmethod
    def goal(self) -> Point:
        """Returns where the hand should go now; privileged, for the expert."""

    @abstractmethod
    def scenery(self, canvas: Canvas, shown: dict[str, float]) -> None:
        """Draws what lies on the table when `state` holds the numbers `shown`, by name."""

    # What a body does.

    def versions(self) -> dict[str, str]:
        """Returns the versions of the rules and of the renderer."""
        return {"planar": VERSION, "numpy": np.__version__, "opencv": cv2.__version__}

    def reset(self, seed: int | None = None) -> Obs:
        """Returns the first observation of the episode that `seed` gives."""
        rng = np.random.default_rng(seed)
        x, y, place_x, place_y = rng.uniform(size=4).tolist()
        jitter, next_jitter = rng.integers(JITTER + 1, size=2).tolist()
        fact = float(rng.integers(self.kinds))
        go_at = 0.0 if self.starts_free else float(self.config.cue_steps + self.config.memory_steps + jitter)
        start_x, start_y = 0.6 * x - 0.3, 0.15 * y - 0.9  # below home, so that the first look differs and tells nothing
        self.now = Now(0.0, start_x, start_y, 0.0, go_at, _RUNNING, 0.0, fact, jitter, next_jitter, place_x, place_y)
        return self._obs()

    def step(self, action: np.ndarray) -> Step:
        """Moves the hand by SPEED * `action` (dx, dy) in 0.1 s, within the square; while the light is off, home."""
        now, applied = self.now, (0.0, 0.0)
        free = self.free
        now.tick += 1
        if free:
            x, y = np.asarray(action).tolist()
            length = max(1.0, math.hypot(x, y))
            applied = (x / length, y / length)
            now.x = min(1.0, max(-1.0, now.x + SPEED * applied[0]))
            now.y = min(1.0, max(-1.0, now.y + SPEED * applied[1]))
            self.arrived()
        elif now.verdict == _RUNNING and now.tick > now.leave_at:
            now.x, now.y = _towards(now.x, now.y, *HOME)
        success, done = now.verdict == _SUCCESS, now.verdict != _RUNNING
        filtered = np.array(applied, np.float32)
        return Step(
            obs=self._obs(),
            filtered=filtered,
            sent=filtered.copy(),
            t_ns={"sim": round(now.tick * 1e9 / HZ)},
            score=float(success),
            success=success,
            terminated=done,
            truncated=not done and now.tick >= self.config.max_steps,
        )

    def state(self) -> np.ndarray:
        """Returns the whole state (12,) float64, see `Now`."""
        return np.array(list(vars(self.now).values()), np.float64)

    def restore(self, state: np.ndarray) -> Obs:
        """Returns the observation of a saved `state` (12,), from where the episode goes on bit by bit."""
        want = len(fields(Now))
        if np.shape(state) != (want,):
            raise BadInput(f"{self.task}: want a state of {want} numbers (from state()), got shape {np.shape(state)}")
        self.now = Now(*np.asarray(state, np.float64).tolist())
        return self._obs()

    def with_fact(self, fact: int) -> Obs:
        """Returns what is seen now if the hidden fact of this episode is `fact`, all else as it is; the episode goes on so."""
        self.now.fact = float(fact)
        return self._obs()

    def render(self, camera: str | None = None) -> np.ndarray:
        """Returns the picture (384, 384, 3) uint8 RGB for people, or the smaller observation `camera` "img"."""
        if camera not in (None, "img"):
            raise BadInput(f"{self.task}: unknown camera '{camera}' (known: img)")
        return self._picture(self._visible(), _PEOPLE if camera is None else self.config.image_size)

    def close(self) -> None:  # noqa: B027  a body without a handle has nothing to override
        """Holds nothing open."""

    # What a task calls.

    @property
    def free(self) -> bool:
        """True while the light is on and nothing is decided: commands move the hand."""
        return self.now.tick >= self.now.go_at and self.now.verdict == _RUNNING

    @property
    def in_cue(self) -> bool:
        """True for the first `cue_steps` observations."""
        return self.now.tick < self.config.cue_steps

    def on(self, place: Point, radius: float) -> bool:
        """Returns whether the hand is on the disc of that `radius` about `place`."""
        return math.hypot(self.now.x - place[0], self.now.y - place[1]) <= radius

    def choice(self, places: Sequence[Point]) -> int | None:
        """Returns which of `places` beyond the finish line the hand has chosen: the nearest in x as it crosses the line."""
        if self.now.y < FINISH:
            return None
        return min(range(len(places)), key=lambda k: abs(self.now.x - places[k][0]))

    def finish(self, success: bool) -> None:
        """Ends the episode."""
        self.now.verdict = _SUCCESS if success else _WRONG

    def send_home(self, place: Point, stay: int, wait: int) -> None:
        """Puts the hand on `place`, keeps it there for `stay` ticks, takes it home and turns the light on `wait` ticks later.

        The way is the same every time, so that it tells nothing of how often it was gone.
        """
        now = self.now
        now.x, now.y = place
        now.leave_at = now.tick + stay
        now.go_at = now.leave_at + ticks_home(place) + wait

    def _visible(self) -> np.ndarray:
        now = self.now
        return np.array((now.x, now.y, *self.extras(), float(now.tick >= now.go_at)), np.float32)

    def _obs(self) -> Obs:
        state = self._visible()
        if not self.config.cameras:
            return {"state": state}
        return {"state": state, "img": self._picture(state, self.config.image_size)}

    def _picture(self, state: np.ndarray, size: int) -> np.ndarray:
        """Returns the picture (size, size, 3) of a `state`: nothing else enters it."""
        shown = dict(zip(self.spec.obs["state"].names, state.tolist(), strict=True))
        canvas = Canvas(size)
        if self.finish_line:
            canvas.box(0.0, FINISH, 1.0, _CHALK, high=0.012)
        self.scenery(canvas, shown)
        canvas.disc(*_LIGHT, _GO if shown["go"] > 0.5 else _DARK)
        canvas.disc(*_LIGHT, _INK, line=0.02)
        canvas.disc(shown["hand_x"], shown["hand_y"], 0.08, _HAND)
        canvas.disc(shown["hand_x"], shown["hand_y"], 0.08, _INK, line=0.02)
        return canvas.pixels


def ticks_home(place: Point) -> int:
    """Returns how many ticks the hand needs from `place` to HOME."""
    n = 0
    while place != HOME:
        place, n = _towards(*place, *HOME), n + 1
    return n


def _towards(x: float, y: float, to_x: float, to_y: float) -> Point:
    """Returns the point at most SPEED further on the way; exactly the end where that is near enough."""
    gap = math.hypot(to_x - x, to_y - y)
    if gap <= SPEED:
        return to_x, to_y
    share = SPEED / gap
    return x + share * (to_x - x), y + share * (to_y - y)
