"""Calibrate cameras from pictures of a board: each lens, and how the cameras stand to each other, into one file with a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from robolearn import geometry
from robolearn.apps import _board_flags, _calibration_page, _capture
from robolearn.apps._board_flags import BoardFlags, Shots
from robolearn.apps._report import write_json
from robolearn.errors import AlreadyExists, BadInput, Findings
from robolearn.video.calibration import coverage, foreign, formats, intrinsics, stereo
from robolearn.video.calibration.boards import Board
from robolearn.video.calibration.formats import Calibration, Picture, View
from robolearn.video.calibration.intrinsics import Lens, Model
from robolearn.video.calibration.stereo import Stereo


@dataclass(frozen=True)
class Config:
    """Pictures, or a camera to take them, or a file of another program."""

    out: Path
    """The calibration to write (.json); its report goes beside it (.html)."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Pictures, or folders of them, of one camera."""
    view: tyro.conf.UseAppendAction[tuple[tuple[str, str], ...]] = ()
    """A view and its pictures, a folder or a quoted pattern; once a camera. Pictures of one time share their last number."""
    name: str = "camera"
    """What the camera of bare pictures is called."""
    board: Annotated[BoardFlags, tyro.conf.arg(name="")] = field(default_factory=BoardFlags)
    """The board."""
    lens: Model = "standard"
    """Distortion: none, standard (k1 k2 p1 p2 k3), or rational (8 numbers) for wide lenses."""
    max_rms_px: float = intrinsics.GOOD_RMS_PX
    """Residual above which the calibration counts as bad (exit code 1); it is written all the same."""
    drop_px: float = 0.0
    """Leave out pictures whose residual is larger, and fit again; 0: none."""
    capture: tyro.conf.UseAppendAction[tuple[tuple[str, str], ...]] = ()
    """A view and the driver of its camera, such as left v4l2: take pictures first, guided; once for each camera."""
    capture_set: tuple[str, ...] = ()
    """Fields of the cameras, VIEW.FIELD=VALUE each, such as left.path=/dev/video0 or left.size=[640,480]."""
    pictures: Path = Path("data/calibration/pictures")
    """Folder for the pictures taken, one folder a view in it."""
    seconds: float = 0.0
    """Stop taking pictures after so long; 0: when they will do, or Enter is pressed."""
    from_file: Path | None = None
    """Take over a calibration of OpenCV, MT-pi or Point Policy instead of making one."""
    size: tuple[int, int] | None = None
    """Width and height [px] of the pictures that --from-file was made with, where it does not say."""
    names: tuple[str, ...] = ()
    """New names for the views of --from-file, in their order."""
    trust: bool = False
    """Read --from-file although it is a pickle; nothing in it is run."""
    opencv: bool = False
    """Write each view as OpenCV's YAML too, beside the calibration."""
    json: Path | None = None
    """Write the figures to this file."""
    overwrite: bool = False
    """Replace what is there."""


def run(cfg: Config) -> int:
    """Calibrates, writes file and report, and says how good they are."""
    if cfg.out.suffix != ".json":
        raise BadInput(f"--out {cfg.out}: want a name that ends in .json")
    if cfg.out.exists() and not cfg.overwrite:
        raise AlreadyExists(cfg.out, "calibration")
    if cfg.from_file is not None:
        return take_over(cfg, cfg.from_file)
    board = cfg.board.made()
    views = _board_flags.views_of(cfg.images, cfg.view, cfg.name) if cfg.images or cfg.view or not cfg.capture else {}
    if cfg.capture:
        cameras = _capture.opened(cfg.capture, cfg.capture_set)
        views |= _capture.take(board, cameras, cfg.pictures, cfg.seconds, cfg.overwrite)
    shots = _board_flags.look(board, views)
    lenses = {name: fit_lens(cfg, board, name, shot) for name, shot in shots.items()}
    pairs = between(board, lenses, shots)
    made = formats.save(cfg.out, calibration_of(board, lenses, pairs), cfg.overwrite)
    write_opencv(cfg, made)
    page = cfg.out.with_suffix(".html")
    page.write_text(_calibration_page.page(made, lenses, shots, pairs))
    tell(cfg, board, made, lenses, shots, pairs)
    write_json(cfg.json, figures(cfg, board, made, lenses, pairs))
    bad = [name for name, lens in lenses.items() if lens.rms_px > cfg.max_rms_px]
    bad += [f"{name} with the first" for name, pair in pairs.items() if pair.rms_px > cfg.max_rms_px]
    if bad:
        raise Findings(f"{cfg.out}: {', '.join(bad)}: residual above {cfg.max_rms_px:g} px; see {page}, or try --drop-px")
    return 0


def fit_lens(cfg: Config, board: Board, name: str, shot: Shots) -> Lens:
    """Returns one view's lens, without the pictures that --drop-px leaves out."""
    try:
        lens = intrinsics.calibrate(board, shot.found, shot.size, cfg.lens)
        kept = tuple(seen for seen, px in zip(lens.sightings, lens.view_rms_px, strict=True) if px <= cfg.drop_px)
        if cfg.drop_px and len(kept) < len(lens.sightings):
            lens = intrinsics.calibrate(board, kept, shot.size, cfg.lens)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
    return lens


def between(board: Board, lenses: Mapping[str, Lens], shots: Mapping[str, Shots]) -> dict[str, Stereo]:
    """Returns how each further view stands to the first; a view that was never filmed together with it is refused."""
    first, *others = lenses
    found = {}
    for name in others:
        pairs = stereo.pair_up(shots[first].sightings, shots[name].sightings)
        try:
            found[name] = stereo.calibrate(board, lenses[first].camera, lenses[name].camera, pairs)
        except BadInput as error:
            raise BadInput(f"{first} and {name}: {error}") from error
    return found


def calibration_of(board: Board, lenses: Mapping[str, Lens], pairs: Mapping[str, Stereo]) -> Calibration:
    """Returns what is written: the first camera is the world where there are several."""
    views = {}
    for name, lens in lenses.items():
        place = geometry.inverse(pairs[name].second_from_first) if name in pairs else np.eye(4)
        camera = stereo.placed(lens.camera, place) if pairs else lens.camera
        used = zip(lens.sightings, lens.view_rms_px, strict=True)
        views[name] = View(camera, lens.rms_px, tuple(Picture(seen.name, len(seen), round(float(px), 4)) for seen, px in used))
    found = {
        name: {
            "with": next(iter(lenses)),
            "rms_px": pair.rms_px,
            "baseline_m": pair.baseline_m,
            "square_mean": pair.square[0],
            "square_std": pair.square[1],
            "pairs": len(pair.pairs),
        }
        for name, pair in pairs.items()
    }
    return Calibration(views, f"camera {next(iter(lenses))}" if pairs else "", board, {"stereo": found} if found else {})


def take_over(cfg: Config, source: Path) -> int:
    """Writes a calibration of another program as ours."""
    read = formats.load(source, cfg.trust, cfg.size)
    if cfg.names and len(cfg.names) != len(read.views):
        raise BadInput(f"--names: want {len(read.views)}, for {', '.join(read.views)}, got {len(cfg.names)}")
    views = dict(zip(cfg.names or read.views, read.views.values(), strict=True))
    made = formats.save(cfg.out, replace(read, views=views), cfg.overwrite)
    write_opencv(cfg, made)
    print(f"{cfg.out}: {', '.join(views)} from {source}, hash {made.hash}")
    write_json(cfg.json, {"out": str(cfg.out), "from": str(source), "hash": made.hash, "views": list(views)})
    return 0


def write_opencv(cfg: Config, made: Calibration) -> None:
    """Writes each view for OpenCV where --opencv asks for it."""
    for name, camera in made.cameras.items() if cfg.opencv else ():
        foreign.save_opencv(cfg.out.with_name(f"{cfg.out.stem}_{name}.yml"), camera, cfg.overwrite)


def tell(
    cfg: Config,
    board: Board,
    made: Calibration,
    lenses: Mapping[str, Lens],
    shots: Mapping[str, Shots],
    pairs: Mapping[str, Stereo],
) -> None:
    """Prints what was found, and what more pictures would help."""
    print(f"{board}")
    for name, lens in lenses.items():
        focal = f"f {lens.camera.K[0][0]:.1f} px +- {lens.focal_sigma_px:.1f}"
        print(f"{name:>10}  {len(lens.sightings)} of {len(shots[name].paths)} pictures, residual {lens.rms_px:.3f} px, {focal}")
        missing = coverage.covered(board, lens.sightings, shots[name].size).missing()
        if missing:
            print(f"{'':>10}  would help: {'; '.join(missing[:4])}")
    for name, pair in pairs.items():
        size = f"squares {pair.square[0]:.4f} +- {pair.square[1]:.4f} of their size"
        apart = f"{1000 * pair.baseline_m:.1f} mm from {next(iter(lenses))}"
        print(f"{name:>10}  {apart}, residual {pair.rms_px:.3f} px in {len(pair.pairs)} pairs, {size}")
    print(f"{cfg.out}: hash {made.hash}; report {cfg.out.with_suffix('.html')}")


def figures(
    cfg: Config, board: Board, made: Calibration, lenses: Mapping[str, Lens], pairs: Mapping[str, Stereo]
) -> dict[str, Any]:
    """Returns what `calibrate cameras --json` keeps."""
    return {
        "out": str(cfg.out),
        "hash": made.hash,
        "board": str(board),
        "rows": [
            {
                "view": name,
                "pictures": len(lens.sightings),
                "rms_px": lens.rms_px,
                "focal_px": lens.camera.K[0][0],
                "focal_sigma_px": lens.focal_sigma_px,
                "view_rms_px": lens.view_rms_px,
            }
            for name, lens in lenses.items()
        ],
        **made.found,
    }
