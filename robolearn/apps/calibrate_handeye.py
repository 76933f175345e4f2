"""Find where cameras are on a robot, from pictures taken at known poses of its gripper, and write it into their calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from robolearn import config, geometry
from robolearn.apps import _board_flags, _gripper_poses
from robolearn.apps._board_flags import BoardFlags, Shots
from robolearn.apps._report import write_json
from robolearn.core import Camera
from robolearn.errors import AlreadyExists, BadInput
from robolearn.video.calibration import check, formats, handeye, marker, stereo
from robolearn.video.calibration.boards import DICTIONARIES, Board, Sighting
from robolearn.video.calibration.formats import Calibration
from robolearn.video.calibration.handeye import HandEye, Mount
from robolearn.video.calibration.intrinsics import board_pose, pixels_of, rms

BASE = "robot base"


@dataclass(frozen=True)
class Config:
    """Calibrated lenses, pictures, and where the gripper was."""

    cameras: tyro.conf.Positional[Path]
    """The calibration that holds the lenses."""
    poses: Path
    """Where the gripper was in each picture (.json or .npz)."""
    out: Path
    """The calibration to write (.json)."""
    view: tyro.conf.UseAppendAction[tuple[tuple[str, str], ...]] = ()
    """A view and its pictures, a folder or a quoted pattern; once for each camera."""
    mount: Mount = "world"
    """Where the camera is: in the world, with the board in the gripper, or on the hand, with the board standing still."""
    method: Literal["board", "marker"] = "board"
    """What the pictures show: a board, anywhere in the gripper, or one marker at a measured place in it (camera in the world)."""
    board: Annotated[BoardFlags, tyro.conf.arg(name="")] = field(default_factory=BoardFlags)
    """The board."""
    marker: int = 0
    """Number of the marker."""
    marker_at: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """The marker's centre in the gripper's frame [m]."""
    refine: bool = True
    """Move Park's answer to where all corners fit best; --no-refine keeps Park's."""
    size: tuple[int, int] | None = None
    """Width and height [px] that the calibration is of, where it does not say."""
    trust: bool = False
    """Read the calibration although it is a pickle; nothing in it is run."""
    json: Path | None = None
    """Write the figures to this file."""
    overwrite: bool = False
    """Replace what is there."""

    def __post_init__(self) -> None:
        """Refuses what does not go together; ValueError names the field."""
        if self.method == "marker" and self.mount == "hand":
            raise ValueError("mount: want world with --method marker, which is for a marker on the gripper; got hand")


def run(cfg: Config) -> int:
    """Solves each view, writes the calibration with the robot's base as the world, and says how well the poses fit."""
    if cfg.out.exists() and not cfg.overwrite:
        raise AlreadyExists(cfg.out, "calibration")
    known = formats.load(cfg.cameras, cfg.trust, cfg.size)
    views = _board_flags.views_of((), cfg.view, "")
    for name in views:
        _board_flags.known_view(name, list(known.views), cfg.cameras)
    gripper = _gripper_poses.read(cfg.poses)
    found: dict[str, dict[str, Any]] = {}
    if cfg.method == "marker":
        for name, paths in views.items():
            found[name] = by_marker(cfg, name, known.cameras[name], gripper, {path.name: path for path in paths})
    else:
        board = cfg.board.made(known.board)
        shots = _board_flags.look(board, views)
        for name, shot in shots.items():
            found[name] = by_board(cfg, name, known.cameras[name], board, gripper, shot)
        known = replace(known, board=board)
    made = formats.save(cfg.out, placed(known, found), cfg.overwrite)
    rows = [{"view": name, **values} for name, values in found.items()]
    others = disagreement(known, found)
    for pair, (mm, deg) in others.items():
        print(f"{pair}: the robot and the pair of cameras differ by {mm:.1f} mm and {deg:.2f} deg")
    print(f"{cfg.out}: world is the {BASE}, hash {made.hash}")
    write_json(cfg.json, {"out": str(cfg.out), "hash": made.hash, "rows": rows, "disagreement": others})
    return 0


def by_board(
    cfg: Config, name: str, camera: Camera, board: Board, gripper: Mapping[str, np.ndarray], shot: Shots
) -> dict[str, Any]:
    """Returns where one view is, and how well, by the board's poses."""
    board.needs_frame("hand-eye")
    camera, note = formats.fitted(camera, shot.size, name)
    at, seen = _gripper_poses.together(gripper, shot, cfg.poses)
    camera_from_board = np.stack([board_pose(camera, board, sighting)[0] for sighting in seen])
    try:
        park = handeye.solve(at, camera_from_board, cfg.mount)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
    result = handeye.refined(park, at, camera, board, seen) if cfg.refine else park
    moved_mm, _ = check.apart(park.mount_from_camera, result.mount_from_camera)
    for warning in (*([note] if note else []), *park.warnings):
        config.warn(f"{name}: {warning}")
    px = residual(result, at, camera, board, seen)
    print(f"{name:>10}  {said(cfg.mount, result.mount_from_camera)}")
    print(
        f"{'':>10}  {len(seen)} poses: the board seems to move by {park.spread_mm:.2f} mm and {park.spread_deg:.2f} deg; a "
        f"second method differs by {park.check_mm:.2f} mm, the refined answer by {moved_mm:.2f} mm; residual {px:.3f} px"
    )
    return {
        "method": "park, refined" if cfg.refine else "park",
        "mount": cfg.mount,
        "mount_from_camera": result.mount_from_camera.tolist(),
        "held": result.held.tolist(),
        "poses": len(seen),
        "rms_px": px,
        "spread_mm": park.spread_mm,
        "spread_deg": park.spread_deg,
        "check_mm": park.check_mm,
        "refined_by_mm": moved_mm,
        "turn_deg": park.turn_deg,
        "warnings": list(park.warnings),
    }


def by_marker(
    cfg: Config, name: str, camera: Camera, gripper: Mapping[str, np.ndarray], paths: Mapping[str, Path]
) -> dict[str, Any]:
    """Returns where one view is, and how well, by a marker at a known place in the gripper (Point Policy)."""
    names = cfg.board.dictionary.removeprefix("DICT_")
    if names not in DICTIONARIES:
        raise BadInput(f"--dictionary {names}: want one of {', '.join(DICTIONARIES)}")
    used = [path for picture, path in paths.items() if _board_flags.moment(picture) in gripper]
    images = [_board_flags.read(path) for path in used]
    if not images:
        raise BadInput(f"{cfg.poses}: want poses for the pictures of {name}, got none that fit")
    camera, note = formats.fitted(camera, (images[0].shape[1], images[0].shape[0]), name)
    at = np.stack([gripper[_board_flags.moment(path.name)] for path in used])
    pixels = np.stack([marker.marker_centre(image, names, cfg.marker) for image in images])
    try:
        found = marker.solve(camera, at, np.array(cfg.marker_at), pixels)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
    for warning in (*([note] if note else []), *found.warnings):
        config.warn(f"{name}: {warning}")
    print(f"{name:>10}  {said('world', found.base_from_camera)}")
    print(f"{'':>10}  marker {cfg.marker} in {int(found.used.sum())} of {len(used)} pictures, residual {found.rms_px:.3f} px")
    return {
        "method": "marker",
        "mount": "world",
        "mount_from_camera": found.base_from_camera.tolist(),
        "poses": int(found.used.sum()),
        "rms_px": found.rms_px,
        "warnings": list(found.warnings),
    }


def residual(found: HandEye, at: np.ndarray, camera: Camera, board: Board, seen: list[Sighting]) -> float:
    """Returns how far, RMS [px], corners lie from where the robot and this answer put them."""
    poses = handeye.board_seen(at, found.mount_from_camera, found.held, found.mount)
    errors = [pixels_of(camera, pose, board.corners[s.ids]) - s.pixels for pose, s in zip(poses, seen, strict=True)]
    return rms(np.concatenate(errors))


def placed(known: Calibration, found: Mapping[str, Mapping[str, Any]]) -> Calibration:
    """Returns the calibration in the robot's base; a view that was not measured follows one that was, if they were a pair."""
    views = dict(known.views)
    fixed = {name: np.array(values["mount_from_camera"]) for name, values in found.items() if values["mount"] == "world"}
    base_from_old = None
    for name, place in fixed.items():
        if base_from_old is None and known.cameras[name].world_from_camera:
            base_from_old = place @ geometry.inverse(np.array(known.cameras[name].world_from_camera))
    for name, view in known.views.items():
        old, camera = view.camera.world_from_camera, replace(view.camera, world_from_camera=())
        if name in fixed:
            camera = stereo.placed(camera, fixed[name])
        elif name not in found and old and base_from_old is not None:
            camera = stereo.placed(camera, base_from_old @ np.array(old))
        on_hand = found[name]["mount_from_camera"] if name in found and name not in fixed else ()
        views[name] = replace(view, camera=camera, gripper_from_camera=tuple(tuple(row) for row in on_hand))
    return replace(known, views=views, world=BASE, found={**known.found, "handeye": dict(found)}, date="")


def disagreement(known: Calibration, found: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Returns by how much [mm, deg] pairs of cameras and the robot differ, of views that both have measured."""
    both = [name for name in found if known.cameras[name].world_from_camera and found[name]["mount"] == "world"]
    apart = {}
    for name in both[1:]:
        old = [np.array(known.cameras[view].world_from_camera) for view in (both[0], name)]
        new = [np.array(found[view]["mount_from_camera"]) for view in (both[0], name)]
        apart[f"{both[0]} and {name}"] = check.apart(geometry.inverse(old[0]) @ old[1], geometry.inverse(new[0]) @ new[1])
    return apart


def said(mount: Mount, place: np.ndarray) -> str:
    """Returns the camera's place in words."""
    position = " ".join(f"{value:.4f}" for value in place[:3, 3])
    quat = " ".join(f"{value:.4f}" for value in geometry.quat_wxyz_from_matrix(place[:3, :3]))
    return f"{'base' if mount == 'world' else 'gripper'}_from_camera: position {position} m, quaternion wxyz {quat}"
