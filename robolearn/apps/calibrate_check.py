"""Check a calibration against new pictures: whether lenses fit and cameras stand where they stood; exit code 1 if not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from robolearn.apps import _board_flags, _gripper_poses
from robolearn.apps._board_flags import BoardFlags, Shots
from robolearn.apps._report import write_json
from robolearn.core import Camera
from robolearn.errors import BadInput, Findings
from robolearn.video.calibration import check, formats, stereo
from robolearn.video.calibration.boards import Board
from robolearn.video.calibration.check import Judged
from robolearn.video.calibration.formats import Calibration

_LEAST_PAIRS = 5  # of which it can be told how far a camera moved


@dataclass(frozen=True)
class Config:
    """A calibration and new pictures of its board."""

    cameras: tyro.conf.Positional[Path]
    """The calibration, ours or another program's."""
    view: tyro.conf.UseAppendAction[tuple[tuple[str, str], ...]] = ()
    """A view and its pictures, a folder or a quoted pattern; once a camera. Pictures of one time share their last number."""
    board: Annotated[BoardFlags, tyro.conf.arg(name="")] = field(default_factory=BoardFlags)
    """The board."""
    poses: Path | None = None
    """Where the gripper was in each picture (.json or .npz): whether the cameras still stand where they did to the robot."""
    max_px: float = 0.0
    """Residual above which a camera has moved [px]; 0: three times that of the calibration, at least 0.5."""
    max_mm: float = 5.0
    """By how much a camera may seem to have moved to the first one [mm]; it takes five pictures of both to tell."""
    size: tuple[int, int] | None = None
    """Width and height [px] that the calibration is of, where it does not say."""
    trust: bool = False
    """Read the calibration although it is a pickle; nothing in it is run."""
    json: Path | None = None
    """Write the figures to this file."""


def run(cfg: Config) -> int:
    """Measures again with what is known, says what still holds, and ends with 1 where something does not."""
    known = formats.load(cfg.cameras, cfg.trust, cfg.size)
    if known.board is None and not cfg.board.board:
        raise BadInput(f"{cfg.cameras}: it does not say which board to look for; give --board, --grid and --square-mm")
    board = cfg.board.made(known.board)
    views = _board_flags.views_of((), cfg.view, "")
    for name in views:
        _board_flags.known_view(name, list(known.views), cfg.cameras)
    shots = _board_flags.look(board, views)
    cameras = {name: fitted(known.cameras[name], name, shot) for name, shot in shots.items()}
    judged = [
        check.lens(name, cameras[name], board, shot.found, cfg.max_px or check.limit(known.views[name].rms_px))
        for name, shot in shots.items()
    ]
    judged += pairs(cfg, known, board, cameras, shots)
    if cfg.poses is not None:
        judged += robot(cfg, known, board, cameras, shots)
    tell(judged)
    write_json(cfg.json, {"cameras": str(cfg.cameras), "hash": known.hash, "rows": [{**vars(j), "good": j.good} for j in judged]})
    bad = [found.what for found in judged if not found.good]
    if bad:
        raise Findings(f"{cfg.cameras}: {', '.join(bad)}: the calibration does not hold any more; calibrate again")
    return 0


def fitted(camera: Camera, name: str, shot: Shots) -> Camera:
    """Returns the camera for pictures of this size; says so where it had to be scaled."""
    camera, note = formats.fitted(camera, shot.size, name)
    if note:
        print(note)
    return camera


def pairs(
    cfg: Config, known: Calibration, board: Board, cameras: Mapping[str, Camera], shots: Mapping[str, Shots]
) -> list[Judged]:
    """Returns what the first view and each further one say of each other, where both have a place."""
    placed = [name for name, camera in cameras.items() if camera.world_from_camera]
    found = []
    for name in placed[1:]:
        both = (cameras[placed[0]], cameras[name])
        pictures = stereo.pair_up(shots[placed[0]].sightings, shots[name].sightings)
        was = known.found.get("stereo", {}).get(name, {}).get("rms_px")
        one = check.two_views((placed[0], name), both, board, pictures, cfg.max_px or check.limit(was))
        if len(pictures) >= _LEAST_PAIRS and not board.symmetric:
            moved = check.moved_between(board, both, pictures)
            one = replace(one, moved_mm=moved[0], moved_deg=moved[1], limit_mm=cfg.max_mm)
        found.append(one)
    return found


def robot(
    cfg: Config, known: Calibration, board: Board, cameras: Mapping[str, Camera], shots: Mapping[str, Shots]
) -> list[Judged]:
    """Returns whether each view that was calibrated with the robot still is where it was."""
    assert cfg.poses is not None
    measured = known.found.get("handeye", {})
    if not any(name in measured and "held" in measured[name] for name in shots):
        raise BadInput(f"--poses: {cfg.cameras} has no hand-eye calibration by a board; `robolearn calibrate handeye` makes one")
    gripper = _gripper_poses.read(cfg.poses)
    found = []
    for name, shot in shots.items():
        if "held" in measured.get(name, {}):
            at, seen = _gripper_poses.together(gripper, shot, cfg.poses)
            limit_px = cfg.max_px or check.limit(measured[name].get("rms_px"))
            found.append(check.on_robot(name, cameras[name], board, (at, seen), measured[name], limit_px))
    return found


def tell(judged: Sequence[Judged]) -> None:
    """Prints one line for each finding."""
    for one in judged:
        word = "holds" if one.good else "MOVED" if not one.what.startswith("lens") else "DOES NOT FIT"
        if not one.pictures:
            word = "not seen: no picture shows enough of the board"
        moved = "" if np.isnan(one.moved_mm) or one.good else f", by about {one.moved_mm:.0f} mm and {one.moved_deg:.1f} deg"
        print(f"{one.what:<24} {one.px:7.3f} px of {one.limit_px:.2f} in {one.pictures} pictures: {word}{moved}")
