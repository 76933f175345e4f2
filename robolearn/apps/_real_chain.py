"""The whole chain from film to arm, with everything measured from pictures as a user would: rows for `bench video`.

Two cameras of the bench film a ChArUco board; `calibrate cameras` and `calibrate handeye` find lenses and places from these
pictures. The same cameras film the drawn hand at work; `tracks extract` reads the two video files with the calibration just made,
landmarks are triangulated with the calibrated cameras, and bodies perform the path. Networks that learnt from real hands find the
drawn one in some pictures only, so beside what they find there are the exact landmarks, without and with a detector's errors,
stored beside the videos.

Errors are in the world of the bench, which is the robot's base of the hand-eye calibration: between where the path has the middle
of the fingertips (and the wrist) and where the hand that was filmed had it, at the time of the row.
"""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import config, geometry
from robolearn.apps import _filmed_bench, _to_demos, calibrate_cameras, calibrate_handeye, tracks_extract
from robolearn.apps._filmed_bench import FPS, SIDE, Cell, FilmedClip
from robolearn.apps._to_demos import Human, Refused, Scene
from robolearn.apps._two_hands_sets import VIEWS
from robolearn.core import Camera
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, Findings, MissingDependency
from robolearn.intervals import wilson95
from robolearn.video import pinhole
from robolearn.video.calibration import formats
from robolearn.video.calibration.boards import Board
from robolearn.video.clips import probe
from robolearn.video.hands import make_detector
from robolearn.video.noise import HandNoise
from robolearn.video.playback import Pace
from robolearn.video.wrist import ROBUST, WristPath
from sim_envs import _base
from sim_envs._two_hands_scene import FINGER_LENGTH

Array = np.ndarray
RULE = replace(ROBUST, most_gap_s=3.0)  # longest gap that is filled here, so that every clip counts
NOISES = {
    "exact": None,
    "half": HandNoise(sigma_share=(0.025, 0.055), gap_share=(0.05, 0.15)),
    "measured": HandNoise(),  # MediaPipe's: 5 to 11 % of the hand, 5 to 30 % of the pictures without one
}
DETECTOR = "litert"  # that looks at the drawn hand itself
ARM_TASK, ARM_THING, THING = "lift", "cube", "block"  # what an arm does of `reach_lift`
WRIST = 0  # landmark
SETTINGS = {"fps": FPS, "side_px": SIDE, "rule": vars(RULE), "noise": {name: how and vars(how) for name, how in NOISES.items()}}


@dataclass(frozen=True)
class Made:
    """A calibration from pictures: its file, the cameras found and the true ones, by view, and how far they are apart."""

    file: Path
    found: Mapping[str, Camera]
    truth: Mapping[str, Camera]
    figures: Mapping[str, Any]


def calibrated(cell: Cell, folder: Path) -> Made:
    """Returns the calibration that the project's own verbs make of the pictures of a cell."""
    lens_file, robot_file = folder / "lenses.json", folder / "robot.json"
    views = tuple((view, str(path)) for view, path in cell.folders.items())
    with contextlib.redirect_stdout(io.StringIO()):
        calibrate_cameras.run(calibrate_cameras.Config(out=lens_file, view=views, overwrite=True))
        calibrate_handeye.run(calibrate_handeye.Config(lens_file, cell.poses, robot_file, views, overwrite=True))
    lenses, robot = (formats.load(path) for path in (lens_file, robot_file))
    rows = []
    for view, true in cell.cameras.items():
        found = robot.cameras[view]
        K, want = np.array(found.K), np.array(true.K)
        row: dict[str, Any] = {"view": view, "pictures": len(lenses.views[view].pictures), "rms_px": lenses.views[view].rms_px}
        row["focal_error_percent"] = 100 * float(np.abs(np.diag(K)[:2] / np.diag(want)[:2] - 1).max())
        row["principal_point_error_px"] = float(np.linalg.norm(K[:2, 2] - want[:2, 2]))
        mm, deg = apart(np.array(found.world_from_camera), np.array(true.world_from_camera))
        rows.append(
            {**row, "place_error_mm": mm, "turn_error_deg": deg, "handeye_rms_px": robot.found["handeye"][view]["rms_px"]}
        )
    mm, deg = apart(second_from_first(lenses.cameras), second_from_first(cell.cameras))
    pair = {"place_error_mm": mm, "turn_error_deg": deg, **lenses.found["stereo"][VIEWS[1]]}
    return Made(robot_file, robot.cameras, cell.cameras, {"views": rows, "pair": pair})


def apart(found: Array, truth: Array) -> tuple[float, float]:
    """Returns how far two poses (4, 4) are from each other [mm, deg]."""
    turn = geometry.angle_between(found[:3, :3], truth[:3, :3])
    return 1e3 * float(np.linalg.norm(found[:3, 3] - truth[:3, 3])), float(np.rad2deg(turn))


def second_from_first(cameras: Mapping[str, Camera]) -> Array:
    """Returns how the second view stands to the first (4, 4)."""
    first, second = (np.array(cameras[view].world_from_camera) for view in VIEWS)
    return geometry.inverse(second) @ first


@dataclass(frozen=True)
class Seen:
    """What `tracks extract` made of a task's clips: clips by episode, and when (clips,) [s] in the videos their rows begin."""

    human: Human
    clips: tuple[FilmedClip, ...]
    begins_s: Array
    detected_share: float

    def truth(self, episode: int, path: WristPath) -> tuple[Array, Array]:
        """Returns the true fingertips' middle (T, 4, 4) and the true wrist (T, 3) [m] at the rows of a path."""
        clip = self.clips[episode]
        t_s = self.begins_s[episode] + np.arange(path.first, path.stop) / self.human.hz
        frames = np.minimum(np.round(t_s * FPS).astype(int), len(clip.landmarks) - 1)
        tips = clip.world_from_hand[frames] @ geometry.pose([0.0, 0.0, FINGER_LENGTH], np.eye(3))
        return tips, clip.landmarks[frames, WRIST]


def extracted(clips: Sequence[FilmedClip], made: Made, landmarks: str, folder: Path) -> Seen | None:
    """Returns the motion tracks of clips from their video files and the landmarks of that name; None where no clip gave any.

    Both cameras began to film at one time, which is known, so no clip is left out because its views seem out of step.
    """
    views = [f"{view}={clips[0].videos[view].parent}/{clips[0].task}_*_{view}.mp4" for view in VIEWS]
    out = folder / "people.zarr"
    cfg = tracks_extract.Config(
        view=tuple(views), calib=made.file, detector=landmarks, out=out, allow_offset=True, overwrite=True
    )
    if landmarks in NOISES:
        cfg = replace(cfg, detector="stored", keypoints=stored(clips, made, NOISES[landmarks], folder / "keypoints"))
    shutil.rmtree(out, ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Findings):  # what is left out is counted
        try:
            tracks_extract.run(cfg)
        except BadInput as error:
            if landmarks in NOISES:
                raise
            config.warn(f"robolearn: {error}")
            return None
    dataset = EpisodeSet.open(out)
    source, begins_s, frames, detected = (dataset.episode_field(name) for name in ("source", "begins_s", "frames", "detected"))
    assert source is not None and begins_s is not None and frames is not None and detected is not None
    of = {clip.videos[VIEWS[0]].name: clip for clip in clips}
    kept = tuple(of[Path(str(name).partition("; ")[0].partition("=")[2]).name] for name in source)
    return Seen(_to_demos.open_human(dataset), kept, begins_s, float(detected.sum() / frames.sum()))


def stored(clips: Sequence[FilmedClip], made: Made, noise: HandNoise | None, folder: Path) -> Path:
    """Returns the folder of the clips' landmarks as the true cameras see them, with a detector's errors."""
    folder.mkdir(parents=True, exist_ok=True)
    for clip in clips:
        rng = np.random.default_rng((clip.seed, 4))
        for view, video in clip.videos.items():
            pixels = pinhole.project(pinhole.resized(made.truth[view], probe(video).size), clip.landmarks)
            if noise is not None:
                pixels, _ = noise.apply(pixels, rng)
            np.savez(folder / f"{video.stem}.npz", kpts=pixels, right=np.full(len(pixels), int(clip.right)))
    return folder


def path_errors(seen: Seen, made: Made) -> dict[str, Any]:
    """Returns how far the recovered paths are from the truth, medians and 95th percentiles over all rows of all clips.

    true_cameras: the same landmarks located with the cameras as they truly are, which leaves out what the calibration costs.
    """
    lenses = [pinhole.resized(made.truth[view], old.size) for view, old in zip(seen.human.views, seen.human.cameras, strict=True)]
    ideal = replace(seen.human, cameras=tuple(lenses))
    kinds = ("position_mm", "rotation_deg", "wrist_point_mm", "true_cameras_position_mm")
    found: dict[str, list[Array]] = {kind: [] for kind in kinds}
    for episode, clip in enumerate(seen.clips):
        start = clip.world_from_hand[0, :3, :3]
        try:
            path, exact = (human.path(episode, RULE, start) for human in (seen.human, ideal))
        except Refused:
            continue
        tips, wrist = seen.truth(episode, path)
        angles = geometry.angle_between(path.world_from_hand[:, :3, :3], tips[:, :3, :3])
        found["position_mm"].append(_away_mm(path.world_from_hand[:, :3, 3], tips[:, :3, 3]))
        found["rotation_deg"].append(np.rad2deg(angles))
        found["wrist_point_mm"].append(_away_mm(path.landmarks[:, WRIST], wrist))
        found["true_cameras_position_mm"].append(
            _away_mm(exact.world_from_hand[:, :3, 3], seen.truth(episode, exact)[0][:, :3, 3])
        )
    row: dict[str, Any] = {"clips": len(found["position_mm"]), "detected_share": seen.detected_share}
    for kind, values in found.items():
        together, (name, unit) = np.concatenate(values) if values else np.full(1, np.nan), kind.rsplit("_", 1)
        row |= {f"{name}_median_{unit}": float(np.median(together)), f"{name}_p95_{unit}": float(np.percentile(together, 95))}
    return row


def _away_mm(found: Array, truth: Array) -> Array:
    """Returns the distances (T,) [mm] of points (T, 3) [m]."""
    return 1e3 * np.linalg.norm(found - truth, axis=1)


def performed(body: Any, seen: Seen | None, filmed: int) -> dict[str, Any]:
    """Returns how many of the `filmed` clips a body solves by doing what was seen, and how well it could follow."""
    arm, demos = body.task == ARM_TASK, []
    for episode, clip in enumerate(seen.clips if seen else ()):
        assert seen is not None
        body.reset(clip.seed)
        place, tip_m = (laid(clip, body), 0.0) if arm else (np.eye(4), FINGER_LENGTH)
        scene = Scene(place, tip_m, RULE, Pace(), labelled=True, most_miss_m=np.inf)
        with contextlib.suppress(Refused):  # counted by what is missing
            demos.append(_to_demos.demonstrate(body, clip.seed, seen.human, episode, scene).figures)
    solved = sum(bool(demo["success"]) for demo in demos)
    row = {"refused": filmed - len(demos), "success": solved / filmed, "interval95": wilson95(solved, filmed)}
    misses = [demo["miss_max_mm"] for demo in demos if demo["miss_max_mm"] is not None]
    lags = [demo["lag_mean_mm"] for demo in demos]
    return {**row, "arm_miss_max_mm": max(misses, default=None), "lag_mean_mm": float(np.mean(lags)) if lags else None}


def laid(clip: FilmedClip, body: Any) -> Array:
    """Returns body_from_scene (4, 4): the person's table laid so that the block is where the arm's cube is, of the four ways
    that look alike the one in which the hand begins most as the arm's does.
    """
    scene, cube = clip.things[THING], body.object_poses()[ARM_THING]
    turned = [
        geometry.rotation_z(geometry.yaw_of(cube[:3, :3]) - geometry.yaw_of(scene[:3, :3]) + k * np.pi / 2) for k in range(4)
    ]
    begins, now = clip.world_from_hand[0, :3, :3], body.eef_pose()[:3, :3]
    turn = min(turned, key=lambda way: float(geometry.angle_between(way @ begins, now)))
    return geometry.pose(cube[:3, 3] - turn @ scene[:3, 3], turn)


def real_chain(tasks: Sequence[str], episodes: int, seed: int, folder: Path, side: int = SIDE) -> dict[str, Any]:
    """Returns how well the pictures' calibration fits the truth, and what became of the clips: paths by task and landmarks,
    and replays by body too.
    """
    made = calibrated(_filmed_bench.photograph(Board(), folder / "board", seed, side), folder)
    paths: list[dict[str, Any]] = []
    replays: list[dict[str, Any]] = []
    why = missing(DETECTOR)
    for task in tasks:
        clips = tuple(_filmed_bench.film(task, range(seed, seed + episodes), folder / "films", side))
        with contextlib.ExitStack() as stack:
            bodies = {name: stack.enter_context(closing(_base.make(name, {}))) for name in bodies_of(task)}
            for landmarks in (*NOISES, *([] if why else [DETECTOR])):
                about = {"task": task, "landmarks": landmarks, "filmed": len(clips)}
                seen = extracted(clips, made, landmarks, folder / f"{task}_{landmarks}")
                paths.append({**about, **(path_errors(seen, made) if seen else {"clips": 0})})
                replays += [{**about, "body": name, **performed(body, seen, len(clips))} for name, body in bodies.items()]
    left_out = {DETECTOR: why} if why else {}
    return {"calibration": made.figures, "paths": paths, "replays": replays, "settings": SETTINGS, "left_out": left_out}


def missing(detector: str) -> str:
    """Returns why a detector is not at hand, "" where it is."""
    try:
        make_detector(detector).close()
    except MissingDependency as error:
        return str(error)
    return ""


def bodies_of(task: str) -> Iterator[str]:
    """Yields the tasks whose bodies perform a task's clips: its own gripper, and an arm where one has the same thing to do."""
    yield task
    if task == "reach_lift":
        yield ARM_TASK
