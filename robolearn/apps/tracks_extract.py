"""Finds the hand in videos of a person at work and writes a motion-track set: pictures, five points a view, the gripper."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tqdm import tqdm

from robolearn import config
from robolearn.apps import _tracks_set, _tracks_sources
from robolearn.apps._edit import counted
from robolearn.apps._report import write_json
from robolearn.apps._tracks_set import Shape
from robolearn.apps._tracks_sources import Source
from robolearn.data._fan import fan_out
from robolearn.data._files import put_in_place
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput, DatasetError, Findings
from robolearn.video import closing, extract
from robolearn.video.extract import Film, How, Job, LeftOut
from robolearn.video.hands import Settings, make_detector


@dataclass(frozen=True)
class Config:
    """Which videos, what finds the hands, and what is written."""

    videos: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Videos, folders or patterns; each video is an episode with one view, `front`."""
    out: Path = Path("data/tracks.zarr")
    """The set to write."""
    view: tuple[str, ...] = ()
    """VIEW=VIDEOS for every view, such as left='clips/*_left.mp4' right='clips/*_right.mp4', for videos that belong together."""
    calib: Path | None = None
    """The cameras, as `robolearn calibrate cameras` writes them (also OpenCV's, MT-pi's and Point Policy's files)."""
    trust: bool = False
    """Read a calibration that is a pickle."""
    masks: tuple[str, ...] = ()
    """VIEW=MASKS of what is grasped: a video (white: the object) or a .npz for each video; then contact tells the grasp."""
    detector: str = "litert"
    """What finds hands: litert, mediapipe, or stored."""
    keypoints: Path | None = None
    """For stored: a file of hands, or the folder with VIDEO*.npz; without it beside the videos."""
    hands: int = 1
    """How many hands are looked for; 2 where both are in view, and the one that is kept is told by --side."""
    side: Literal["any", "left", "right"] = "any"
    """The person's hand that is kept; any: the one seen most."""
    confidence: float = 0.5
    """In [0, 1]: below it nothing is a hand. The authors of MT-pi take 0.1."""
    lite: bool = False
    """The smaller networks: faster, less exact."""
    hz: float = 10.0
    """Rows a second; the hands are found in every picture."""
    image_size: tuple[int, int] | None = None
    """Width and height of the stored pictures [px]; as filmed, but at most 320 wide, where nothing is said."""
    smooth_s: float = 0.05
    """Width of the Gaussian over the points in time [s]; 0: none."""
    base: Literal["index", "wrist"] = "index"
    """The first of the five points: the index knuckle (as in the authors' code) or the wrist (as on their page)."""
    close_m: float = 0.07
    """Two calibrated views: a hand whose thumb and index tip are nearer [m] is closed."""
    task: str = ""
    """What is done in the videos."""
    allow_offset: bool = False
    """Take views that are 0.2 s or more out of step."""
    workers: Annotated[int | Literal["ray"], tyro.conf.arg(metavar="INT|ray")] = 0
    """Processes that look through videos (0: this one), or ray."""
    json: Path | None = None
    """Where to write the figures."""
    resume: bool = False
    """Go on where an interrupted extraction stopped, or add further videos to a set."""
    overwrite: bool = False
    """Replace what is there."""

    def __post_init__(self) -> None:
        """Refuses what makes no sense; ValueError names the field."""
        if not 0 < self.confidence < 1 or self.hands < 1 or self.hz <= 0 or self.smooth_s < 0 or self.close_m <= 0:
            raise ValueError(
                "want 0 < confidence < 1, hands >= 1, hz > 0, smooth_s >= 0 and close_m > 0, got "
                f"{self.confidence:g}, {self.hands}, {self.hz:g}, {self.smooth_s:g} and {self.close_m:g}"
            )
        if self.image_size is not None and min(self.image_size) < 16:
            raise ValueError(f"image_size: want at least 16 x 16, got {self.image_size[0]} x {self.image_size[1]}")


@dataclass
class Report:
    """What came of the videos, in their order, and why some were left out."""

    videos: list[dict[str, Any]]
    left_out: list[str]
    notes: list[str]


def run(cfg: Config) -> int:
    """Extracts, and says what was found; Findings where an episode had to be left out."""
    place = _place(cfg)
    episodes = _tracks_sources.sources(cfg.videos, cfg.view, cfg.masks)
    shape, unreadable = _tracks_set.shape_of(episodes, cfg.calib, cfg.trust, cfg.image_size)
    how = _how(cfg, shape)
    report = Report([], list(unreadable.values()), list(shape.notes))
    made = EpisodeSet.open(place, writable=True) if place.exists() else None
    if made is not None:
        _tracks_set.require_same(made, how, shape)
    readable = [episode for episode in episodes if episode.name not in unreadable]
    if readable:
        with contextlib.suppress(DatasetError):  # of one video; what is missing on this computer ends the command here
            make_detector(how.detector, how.settings, next(iter(readable[0].videos.values()))).close()
    made = _extract(cfg, place, made, (readable, shape, how), report)
    if made is None:
        more = f" (and {counted(len(report.left_out) - 1, 'more episode')})" if len(report.left_out) > 1 else ""
        raise BadInput(f"{report.left_out[0]}{more}; nothing is written")
    _finish(place, cfg.out)
    made = EpisodeSet.open(cfg.out)
    _tell(cfg, made, report)
    write_json(cfg.json, _figures(cfg, made, report))
    if report.left_out:
        raise Findings(f"{counted(len(report.left_out), 'episode')} of {len(episodes)} left out: {report.left_out[0]}")
    return 0


def _place(cfg: Config) -> Path:
    """Returns where the set is built: beside its place until it is complete; AlreadyExists where something is in the way."""
    part = cfg.out.with_name(f".{cfg.out.name}.extracting") / cfg.out.name
    if cfg.overwrite:
        shutil.rmtree(part.parent, ignore_errors=True)
        return part
    if part.exists() and not cfg.resume:
        raise AlreadyExists(part, "interrupted extraction", resume=True)
    if cfg.out.exists() and not cfg.resume:
        raise AlreadyExists(cfg.out, "dataset", resume=True)
    return cfg.out if cfg.out.exists() and not part.exists() else part


def _how(cfg: Config, shape: Shape) -> How:
    settings = Settings(cfg.hands, cfg.confidence, cfg.lite, keypoints=cfg.keypoints)
    placed = sum(bool(camera.world_from_camera) for camera in shape.cameras.values())
    grasp = closing.evidence(bool(cfg.masks), placed)
    return How(cfg.detector, settings, cfg.side, cfg.hz, cfg.smooth_s, cfg.base, grasp, cfg.close_m, cfg.allow_offset)


def _extract(
    cfg: Config, place: Path, made: EpisodeSet | None, work: tuple[Sequence[Source], Shape, How], report: Report
) -> EpisodeSet | None:
    """Appends every episode that is not in the set yet, each of them at once when its videos are done; None: there was none."""
    episodes, shape, how = work
    known = None if made is None else made.episode_field("source")
    done = {} if known is None else {str(name): i for i, name in enumerate(known)}
    left = [episode for episode in episodes if episode.name not in done]
    films = _films(left, shape, how, cfg.workers)
    for episode in episodes:
        if episode.name in done:
            assert made is not None
            report.videos += _tracks_set.videos_of(made, done[episode.name], episode)
            continue
        seen = {view: next(films) for view in episode.videos}
        report.videos += [_tracks_set.video_row(film) for film in seen.values()]
        try:
            found = extract.assemble(seen, shape.cameras_of(episode), how)
        except LeftOut as error:
            report.left_out.append(str(error))
            continue
        report.notes += found.notes
        made = made or _tracks_set.create(place, shape, how, cfg.task)
        made.append(found.rows, source=episode.name, **found.facts)
    return made


def _films(episodes: Sequence[Source], shape: Shape, how: How, workers: int | Literal["ray"]) -> Iterator[Film]:
    """Yields what is in every video, episode by episode and view by view."""
    jobs = []
    for episode in episodes:
        for view, path in episode.videos.items():
            jobs.append(Job(shape.clips[path], shape.sizes[view], how, episode.masks.get(view)))
    here = workers in (0, 1)
    with tqdm(total=sum(job.clip.frames for job in jobs), unit="frame", disable=not sys.stderr.isatty()) as bar:
        for film in fan_out(partial(extract.film, tick=bar.update) if here else extract.film, jobs, workers):
            if not here:
                bar.update(film.frames)
            yield film


def _finish(place: Path, out: Path) -> None:
    """Moves a complete set to its place."""
    if place != out:
        put_in_place(place, out)
        shutil.rmtree(place.parent)


def _tell(cfg: Config, made: EpisodeSet, report: Report) -> None:
    """Prints what was found, and to standard error what its user should know."""
    for line in (*report.notes, *(f"left out: {line}" for line in report.left_out)):
        config.warn(f"robolearn: {line}")
    frames, detected = (sum(row[key] for row in report.videos) for key in ("frames", "detected"))
    views = ", ".join(_tracks_set.views_of(made))
    print(f"{cfg.out}: {counted(made.n_episodes, 'episode')}, {made.n_steps} steps at {made.hz:g} Hz, views {views}")
    print(f"  a hand in {detected} of {frames} pictures of {counted(len(report.videos), 'video')}")
    print(f"  closed: {made.attrs['grasp']['words']}")


def _figures(cfg: Config, made: EpisodeSet, report: Report) -> dict[str, Any]:
    facts = {name: made.episode_field(name) for name in _tracks_set.FACTS}
    rows = [
        {"episode": i, "steps": int(made.span(i)[1] - made.span(i)[0]), **{k: v[i] for k, v in facts.items() if v is not None}}
        for i in range(made.n_episodes)
    ]
    return {
        "out": cfg.out,
        "episodes": made.n_episodes,
        "steps": made.n_steps,
        "hz": made.hz,
        "grasp": made.attrs["grasp"],
        "videos": report.videos,
        "rows": rows,
        "left_out": report.left_out,
        "notes": report.notes,
    }
