"""The motion-track set of a person's videos: what it looks like before it exists, and what it says of where it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robolearn.apps._tracks_sources import Source
from robolearn.core import ArraySpec, Camera, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError, RobolearnError, nearest
from robolearn.video import clips, closing, pinhole
from robolearn.video.calibration import formats
from robolearn.video.clips import Clip
from robolearn.video.extract import EMBODIMENT, Film, How
from robolearn.video.hands import N_LANDMARKS
from robolearn.video.points import LAYOUT

WIDEST = 320  # [px] of stored pictures where nothing is said: policies look at 128 or fewer
FACTS = (
    "source",
    "embodiment",
    "right_hand",
    "frames",
    "detected",
    "fps",
    "begins_s",
    "longest_gap_s",
    "offset_s",
    "reprojection_px",
)


@dataclass(frozen=True)
class Shape:
    """What the set will look like. sizes: (width, height) [px] of the pictures by view; cameras: as calibrated, by view.

    clips: what every readable video is; calibration: the file and its hash; notes: what was done to fit the cameras.
    """

    sizes: Mapping[str, tuple[int, int]]
    cameras: Mapping[str, Camera]
    clips: Mapping[Path, Clip]
    calibration: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def cameras_of(self, episode: Source) -> dict[str, Camera]:
        """Returns the cameras of an episode's views at the size of its videos."""
        return {
            view: formats.fitted(self.cameras[view], self.clips[path].size, str(path))[0]
            for view, path in episode.videos.items()
            if view in self.cameras
        }

    @property
    def spec(self) -> Spec:
        """Returns the rows without rate: `create` sets it."""
        obs: dict[str, ArraySpec] = {}
        for view, (width, height) in self.sizes.items():
            obs[f"{view}_image"] = ArraySpec((height, width, 3), "uint8")
            obs[f"tracks/{view}"] = ArraySpec((len(LAYOUT), 2), names=("u", "v"), unit="px", frame=f"{view}_image")
            obs[f"valid/{view}"] = ArraySpec((1,), "uint8")
            obs[f"hand/{view}"] = ArraySpec((N_LANDMARKS, 2), names=("u", "v"), unit="px", frame=f"{view}_image")
        obs["gripper_open"] = ArraySpec((1,))
        cameras = {f"{view}_image": pinhole.resized(camera, self.sizes[view]) for view, camera in self.cameras.items()}
        return Spec(obs=obs, action=ArraySpec((0,)), hz=1.0, cameras=cameras)


def shape_of(
    episodes: Sequence[Source], calib: Path | None, trust: bool, size: tuple[int, int] | None
) -> tuple[Shape, dict[str, str]]:
    """Returns what the set will look like, and by name the episodes that cannot be read and why; BadInput where none can."""
    calibration = None if calib is None else formats.load(calib, trust)
    cameras: dict[str, Camera] = {} if calibration is None else calibration.cameras
    for view in episodes[0].videos:
        if calibration is not None and view not in cameras:
            raise BadInput(f"{calib}: no view '{view}'{nearest(view, cameras)}; name the views as there: --view NAME=VIDEOS")
    cameras = {view: camera for view, camera in cameras.items() if view in episodes[0].videos}
    found: dict[Path, Clip] = {}
    firsts: dict[str, Clip] = {}
    unreadable: dict[str, str] = {}
    notes: dict[str, None] = {}
    for episode in episodes:
        try:
            probed = {view: clips.probe(path) for view, path in episode.videos.items()}
            for view, clip in probed.items():
                if view in cameras:
                    notes |= dict.fromkeys(filter(None, [formats.fitted(cameras[view], clip.size, f"view '{view}'")[1]]))
                _require_alike(firsts.get(view, clip), clip, size)
        except RobolearnError as error:
            unreadable[episode.name] = str(error)
            continue
        found |= {clip.path: clip for clip in probed.values()}
        firsts = {**probed, **firsts}
    if not found:
        more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
        raise BadInput(next(iter(unreadable.values())) + more + "; nothing is written")
    sizes = {view: size or clips.at_most(clip.size, WIDEST) for view, clip in firsts.items()}
    about = {} if calibration is None else {"file": Path(calib or "").name, "hash": calibration.hash, "world": calibration.world}
    return Shape(sizes, cameras, found, about, tuple(notes)), unreadable


def _require_alike(first: Clip, clip: Clip, size: tuple[int, int] | None) -> None:
    if size is None and first.size != clip.size:
        want, came = f"{first.size[0]} x {first.size[1]}", f"{clip.size[0]} x {clip.size[1]}"
        raise DatasetError(f"{clip.path}: want {want}, as {first.path}, got {came}; give --image-size WIDTH HEIGHT to mix them")


def create(path: Path, shape: Shape, how: How, task: str) -> EpisodeSet:
    """Returns a new, empty set at `path`."""
    meta = {"robot": EMBODIMENT, "embodiment": EMBODIMENT, "extract": settings_of(how, shape)}
    words = closing.WORDS[how.grasp].replace("close_m", f"{how.close_m:g} m")
    meta["grasp"] = {"by": how.grasp, "words": words}
    return EpisodeSet.create(path, dataclasses.replace(shape.spec, hz=how.hz), task=task, env={}, meta=meta)


def settings_of(how: How, shape: Shape) -> dict[str, Any]:
    """Returns everything that decides what is written, as JSON values."""
    values = dataclasses.asdict(how)
    values["settings"]["keypoints"] = str(how.settings.keypoints or "")
    return {**values, "calibration": dict(shape.calibration), "sizes": {view: list(size) for view, size in shape.sizes.items()}}


def require_same(made: EpisodeSet, how: How, shape: Shape) -> None:
    """Raises BadInput where a set that is gone on with was begun with other settings."""
    was, now = made.attrs.get("extract"), settings_of(how, shape)
    if was is None:
        raise BadInput(f"{made.path}: want a set that `tracks extract` wrote, got another one; give another --out")
    changed = [name for name in now if was.get(name) != now[name]]
    if changed:
        name = changed[0]
        raise BadInput(
            f"{made.path}: was begun with {name} {was.get(name)}, now it is {now[name]}; give the same settings, or --overwrite"
        )


def video_row(film: Film) -> dict[str, Any]:
    """Returns one video's figures; frames_per_s: how fast it was looked through, decoding included."""
    speed = film.frames / film.wall_s if film.wall_s else None
    clip = film.job.clip
    return {"path": clip.path, "frames": film.frames, "detected": film.detected, "fps": clip.fps, "frames_per_s": speed}


def videos_of(made: EpisodeSet, index: int, episode: Source) -> list[dict[str, Any]]:
    """Returns the figures of the videos of an episode that is in the set already."""
    frames, detected, fps = (made.episode_field(name) for name in ("frames", "detected", "fps"))
    assert frames is not None and detected is not None and fps is not None
    return [
        {"path": path, "frames": int(n), "detected": int(hits), "fps": float(rate), "frames_per_s": None}
        for path, n, hits, rate in zip(episode.videos.values(), frames[index], detected[index], fps[index], strict=True)
    ]


def views_of(dataset: EpisodeSet) -> tuple[str, ...]:
    """Returns the views of a motion-track set; DatasetError where it is none."""
    views = tuple(key.removeprefix("tracks/") for key in dataset.keys if key.startswith("tracks/"))
    if not views:
        raise DatasetError(
            f"{dataset.path}: want a set with tracks/VIEW, as `tracks extract` writes it, got {', '.join(dataset.keys)}"
        )
    return views
