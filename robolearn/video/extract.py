"""From the videos of one episode to its rows in a motion-track set: pictures, five points and 21 landmarks a view, the gripper.

`film` finds the hands in one video (a process of its own, if asked), `assemble` puts the views of an episode together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from robolearn.core import Camera
from robolearn.errors import RobolearnError
from robolearn.video import clips, closing, hand_tracks, pinhole, sync
from robolearn.video.clips import Clip, Ticks
from robolearn.video.closing import Evidence
from robolearn.video.gaps import fill_gaps, longest_gap
from robolearn.video.grasp import PINCH, contact_from_mask
from robolearn.video.hand_tracks import HandTrack, Side
from robolearn.video.hands import Hand, Settings, make_detector
from robolearn.video.points import five_of_hand
from robolearn.video.triangulate import reprojection_errors, triangulate

Array = np.ndarray
EMBODIMENT = "human"
_GRID_HZ = 30.0  # at which the views' speeds are compared, at most
_DISAGREE_PX = 20.0  # at 640 px of width: hands are found to a tenth of their size, cameras that stand elsewhere are worse
_LONG_GAP_S = 1.0


@dataclass(frozen=True)
class How:
    """How videos become rows.

    detector, settings: what finds the hands; side: which hand; hz: rows a second; smooth_s: of the Gaussian over the points;
    base: the first of the five points, index knuckle or wrist; grasp: by what a hand counts as closed, and close_m, the distance
    of thumb and index tip for `distance`; allow_offset: take views that are out of step.
    """

    detector: str = "litert"
    settings: Settings = Settings()
    side: Side = "any"
    hz: float = 10.0
    smooth_s: float = 0.05
    base: Literal["index", "wrist"] = "index"
    grasp: Evidence = "pinch"
    close_m: float = PINCH
    allow_offset: bool = False


@dataclass(frozen=True)
class Job:
    """One video to look through; size: (width, height) [px] that its pictures are kept at; mask: the object's, by frame."""

    clip: Clip
    size: tuple[int, int]
    how: How
    mask: Path | None = None


@dataclass(frozen=True)
class Film:
    """What one video held: T pictures taken at times_s (T,), the hands in them, and by tick which picture is kept.

    touches: for each hand, (T,) bool whether it touches the object, where masks were given; why: why it could not be read.
    """

    job: Job
    times_s: Array
    hands: tuple[HandTrack, ...]
    numbers: Array
    pictures: Array
    touches: tuple[Array, ...] = ()
    wall_s: float = 0.0
    why: str = ""

    @property
    def frames(self) -> int:
        """Number of pictures."""
        return len(self.times_s)

    @property
    def detected(self) -> int:
        """Number of pictures with a hand."""
        return int(np.any([hand.seen for hand in self.hands], axis=0).sum()) if self.hands else 0


@dataclass(frozen=True)
class Episode:
    """The rows of one episode by key, its facts, and what should be known of it."""

    rows: dict[str, Array]
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()


class LeftOut(Exception):
    """An episode cannot be used; the message says why, in one line."""


def film(job: Job, tick: Callable[[], object] | None = None) -> Film:
    """Returns what is in one video; `tick` is called after every picture. An error of this video is told in `why`."""
    started = time.monotonic()
    try:
        detector = make_detector(job.how.detector, job.how.settings, job.clip.path)
        ticks = Ticks(job.how.hz, job.size)
        times_s: list[float] = []
        found: list[list[Hand]] = []
        try:
            for picture in clips.pictures(job.clip):
                ticks.offer(len(found), picture)
                times_s.append(picture.t_s)
                found.append(detector.detect(picture.rgb, picture.t_s))
                if tick is not None:
                    tick()
        finally:
            detector.close()
        tracks = hand_tracks.associate(found, job.how.settings.max_hands)
        tracks = [hand_tracks.without_jumps(track) for track in tracks]
        touches = tuple(_touches(job, track, len(found)) for track in tracks) if job.mask else ()
    except RobolearnError as error:
        empty = np.zeros((0, job.size[1], job.size[0], 3), np.uint8)
        return Film(job, np.zeros(0), (), np.zeros(0, int), empty, why=str(error))
    numbers, pictures = ticks.rows()
    return Film(job, np.array(times_s), tuple(tracks), numbers, pictures, touches, time.monotonic() - started)


def _touches(job: Job, track: HandTrack, frames: int) -> Array:
    """Returns (T,) bool: the hand touches the object of the mask."""
    assert job.mask is not None
    return contact_from_mask(track.landmarks_px, clips.masks(job.mask, job.clip, frames))


@dataclass(frozen=True)
class _View:
    """One view of an episode: its film and the hand in it; landmarks (T, 21, 2) [px of the video] without gaps, smoothed."""

    film: Film
    hand: HandTrack
    landmarks: Array
    first: int
    stop: int
    touches: Array | None

    @property
    def ticks(self) -> Array:
        """Returns the numbers of the ticks from the first with the hand to the last."""
        inside: Array = np.flatnonzero((self.film.numbers >= self.first) & (self.film.numbers < self.stop))
        return inside


def assemble(films: Mapping[str, Film], cameras: Mapping[str, Camera], how: How) -> Episode:
    """Returns the rows of one episode from its films by view; LeftOut where it cannot be used.

    cameras: of the videos' own size, by view, for the views that are calibrated. Rows go from the first tick at which any view
    sees the hand to the last; `valid/VIEW` says where a view saw it, elsewhere its points are filled in or held.
    """
    right, hands = _which_hand(films, how.side)
    views = {name: _view(films[name], hands[name], how) for name in films}
    lag = _in_step(views, how)
    ticks = min(len(view.film.numbers) for view in views.values())
    spans = [view.ticks[view.ticks < ticks] for view in views.values()]
    if not all(map(len, spans)):
        raise LeftOut(f"{_first(films)}: no hand while all views were filming")
    rows = np.arange(min(span[0] for span in spans), max(span[-1] for span in spans) + 1)
    data: dict[str, Array] = {}
    for name, view in views.items():
        data |= _rows_of(name, view, rows, right, how)
    landmarks = {name: view.landmarks[view.film.numbers[rows]] for name, view in views.items()}
    seen = {name: view.hand.seen[view.film.numbers[rows]] for name, view in views.items()}
    space, error_px = _in_space(landmarks, seen, cameras)
    touches = [view.touches[view.film.numbers[rows]] for view in views.values() if view.touches is not None]
    closed = closing.closed(closing.Rule(how.grasp, how.close_m, how.hz), list(landmarks.values()), space, touches)
    data["gripper_open"] = np.where(closed, 0.0, 1.0).astype(np.float32)[:, None]
    facts = {"embodiment": EMBODIMENT, "right_hand": int(right), **figures(films.values())}
    gaps = [longest_gap(view.hand.seen[view.first : view.stop]) / view.film.job.clip.fps for view in views.values()]
    facts |= {
        "begins_s": rows[0] / how.hz,
        "longest_gap_s": max(gaps),
        "offset_s": lag.lag_s if lag.correlation >= sync.SURE else np.nan,
    }
    return Episode(data, {**facts, "reprojection_px": error_px}, tuple(_notes(films, facts, error_px)))


def figures(films: Iterable[Film]) -> dict[str, Array]:
    """Returns frames, pictures with a hand and pictures a second of videos, one number a video."""
    films = list(films)
    return {
        "frames": np.array([f.frames for f in films]),
        "detected": np.array([f.detected for f in films]),
        "fps": np.array([f.job.clip.fps for f in films]),
    }


def _first(films: Mapping[str, Film]) -> Path:
    return next(iter(films.values())).job.clip.path


def _which_hand(films: Mapping[str, Film], side: Side) -> tuple[bool, dict[str, HandTrack]]:
    """Returns whether the episode's hand is a right one, and that hand in every view."""
    for film_ in films.values():
        if film_.why:
            raise LeftOut(film_.why)
        if not film_.hands:
            raise LeftOut(
                f"{film_.job.clip.path}: no hand in {film_.frames} pictures; lower --confidence, or leave this video out"
            )
    weight = {True: 0.0, False: 0.0}
    for film_ in films.values():
        for track in film_.hands:
            weight[True] += track.right_share * track.score.sum()
            weight[False] += (1 - track.right_share) * track.score.sum()
    right = side == "right" if side != "any" else weight[True] >= weight[False]
    hands = {}
    for name, film_ in films.items():
        hand = hand_tracks.chosen(film_.hands, "right" if right else "left")
        if hand is None and side != "any":
            raise LeftOut(f"{film_.job.clip.path}: no {side} hand, only the other one in {film_.detected} pictures")
        hands[name] = film_.hands[0] if hand is None else hand
    return right, hands


def _view(film_: Film, hand: HandTrack, how: How) -> _View:
    filled = fill_gaps(hand.landmarks_px, hand.seen)
    smooth = hand_tracks.smoothed(filled.tracks, film_.job.clip.fps, how.smooth_s)
    index = next(i for i, other in enumerate(film_.hands) if other is hand)
    return _View(film_, hand, smooth, filled.first, filled.stop, film_.touches[index] if film_.touches else None)


def _in_step(views: Mapping[str, _View], how: How) -> sync.Offset:
    """Returns the largest lag between the first view and another; LeftOut where it is surely too large."""
    (_, first), *others = views.items()
    worst = sync.Offset(0.0, -1.0)
    for name, other in others:
        hz = min(_GRID_HZ, first.film.job.clip.fps, other.film.job.clip.fps)
        start = max(view.film.times_s[view.first] for view in (first, other))
        stop = min(view.film.times_s[view.stop - 1] for view in (first, other))
        shared = slice(int(np.ceil(start * hz)), max(0, int(stop * hz)))
        lag = sync.offset(_middle(first, hz)[shared], _middle(other, hz)[shared], hz)
        if lag.out_of_step and not how.allow_offset:
            raise LeftOut(
                f"{other.film.job.clip.path}: view '{name}' is {1e3 * lag.lag_s:+.0f} ms from {first.film.job.clip.path} "
                f"(speeds agree to {lag.correlation:.2f} there), want less than {1e3 * sync.OUT_OF_STEP_S:.0f} ms; "
                "cut the videos to one start, or give --allow-offset"
            )
        worst = lag if worst.correlation < sync.SURE or abs(lag.lag_s) > abs(worst.lag_s) else worst
    return worst


def _middle(view: _View, hz: float) -> Array:
    """Returns the middle of the hand (time, 2) [px] on a grid of `hz`."""
    times = view.film.times_s
    at = np.arange(int(times[-1] * hz) + 1) / hz
    return np.stack([np.interp(at, times, column) for column in view.landmarks.mean(axis=1).T], axis=-1)


def _rows_of(name: str, view: _View, rows: Array, right: bool, how: How) -> dict[str, Array]:
    """Returns one view's arrays at the ticks `rows`; points in pixels of the kept pictures."""
    numbers, job = view.film.numbers[rows], view.film.job
    landmarks = pinhole.resized_pixels(view.landmarks[numbers], job.clip.size, job.size)
    return {
        f"{name}_image": view.film.pictures[rows],
        f"tracks/{name}": five_of_hand(landmarks, right, how.base).astype(np.float32),
        f"valid/{name}": view.hand.seen[numbers].astype(np.uint8)[:, None],
        f"hand/{name}": landmarks.astype(np.float32),
    }


def _in_space(
    landmarks: Mapping[str, Array], seen: Mapping[str, Array], cameras: Mapping[str, Camera]
) -> tuple[Array | None, float]:
    """Returns landmarks (row, 21, 3) [m], NaN where no two views see them, and how well the views agree (median [px])."""
    placed = [name for name in landmarks if name in cameras and cameras[name].world_from_camera]
    if len(placed) < 2:
        return None, float("nan")
    lenses = [cameras[name] for name in placed]
    pixels = np.stack([pinhole.undistort(cameras[name], landmarks[name]) for name in placed])
    valid = np.broadcast_to(np.stack([seen[name] for name in placed])[..., None], pixels.shape[:-1])
    points = triangulate(lenses, pixels, valid)
    errors = reprojection_errors(lenses, points, pixels)
    return points, float(np.median(errors[np.isfinite(errors)])) if np.isfinite(errors).any() else float("nan")


def _notes(films: Mapping[str, Film], facts: Mapping[str, Any], error_px: float) -> list[str]:
    """Returns a line for everything about an episode that its user should know."""
    first, notes = _first(films), []
    width = next(iter(films.values())).job.clip.size[0]
    if error_px > _DISAGREE_PX * width / 640:
        notes.append(f"{first}: the views disagree by {error_px:.1f} px; has a camera moved since it was calibrated?")
    if facts["longest_gap_s"] > _LONG_GAP_S:
        notes.append(f"{first}: {facts['longest_gap_s']:.1f} s without a hand, filled in along a straight line")
    lengths = [float(film_.times_s[-1]) for film_ in films.values()]
    if max(lengths) - min(lengths) > _LONG_GAP_S:
        notes.append(f"{first}: the views last {' and '.join(f'{s:.1f} s' for s in lengths)}; the rows end with the shortest")
    jobs = [film_.job for film_ in films.values()]
    if slow := [job for job in jobs if job.clip.fps < 0.95 * job.how.hz]:
        notes.append(f"{slow[0].clip.path}: {slow[0].clip.fps:g} pictures a second for {slow[0].how.hz:g} rows: some repeat")
    return notes
