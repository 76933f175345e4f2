"""The report of `calibrate cameras`: how good each lens and each pair is, by figures and by pictures. Opens offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from robolearn import geometry
from robolearn.apps import _calibration_pictures, _html
from robolearn.apps._board_flags import Shots
from robolearn.video.calibration import coverage, stereo
from robolearn.video.calibration.boards import Board
from robolearn.video.calibration.formats import Calibration
from robolearn.video.calibration.intrinsics import GOOD_RMS_PX, Lens
from robolearn.video.calibration.stereo import Stereo


def page(made: Calibration, lenses: Mapping[str, Lens], shots: Mapping[str, Shots], pairs: Mapping[str, Stereo]) -> str:
    """Returns the page as HTML."""
    assert made.board is not None
    parts = [_html.grid([_figure(name, lens) for name, lens in lenses.items()] + [_apart(*item) for item in pairs.items()])]
    for name, lens in lenses.items():
        parts.append(_view(made.board, name, lens, shots[name]))
    first = next(iter(lenses))
    for name, found in pairs.items():
        parts.append(_pair(first, name, found, lenses, shots))
    parts.append(_html.card("The file", _html.facts(_facts(made))))
    return _html.page("Camera calibration", str(made.board), parts)


def _figure(name: str, lens: Lens) -> str:
    word = "good" if lens.rms_px <= GOOD_RMS_PX else f"above {GOOD_RMS_PX} px: not good"
    note = f"residual of {len(lens.sightings)} pictures ({word}); f = {lens.camera.K[0][0]:.1f} +- {lens.focal_sigma_px:.1f} px"
    return _html.card(f"{name}: lens", _html.figure(f"{lens.rms_px:.3f} px", note))


def _apart(name: str, found: Stereo) -> str:
    note = (
        f"residual of {len(found.pairs)} pairs; cameras {1000 * found.baseline_m:.1f} mm apart; triangulated squares "
        f"{found.square[0]:.4f} +- {found.square[1]:.4f} of their true size"
    )
    return _html.card(f"{name}: place", _html.figure(f"{found.rms_px:.3f} px", note))


def _view(board: Board, name: str, lens: Lens, shots: Shots) -> str:
    arrows, times = _calibration_pictures.residuals(board, lens)
    order = np.argsort(-lens.view_rms_px)
    rows = [
        (lens.sightings[i].name, len(lens.sightings[i]), float(lens.view_rms_px[i]), *(f"{t:.0f}" for t in _lean(lens, int(i))))
        for i in order
    ]
    missed = [seen for key, seen in shots.sightings.items() if len(seen) == 0]
    missing = coverage.covered(board, lens.sightings, lens.camera.size).missing()
    wishes = "; ".join(missing) if missing else "nothing; corners everywhere, leans to all sides"
    worst = _path_of(shots, lens.sightings[int(order[0])].name)
    pictures = _html.grid(
        [
            _html.card(
                f"{name}: corners and residuals",
                _image(arrows, f"corners of {name}"),
                f"every corner of every picture; arrows are residuals, enlarged {times:g} times",
            ),
            _html.card(
                f"{name}: how the board leaned", _image(_calibration_pictures.leans(lens), f"leans of {name}"), "a dot a picture"
            ),
        ],
        least=430,
    )
    table = _html.table(
        ("picture, worst first", "corners", "residual [px]", "right side away [deg]", "lower side away [deg]"), rows
    )
    lens_taken_out = _image(_calibration_pictures.straightened(lens.camera, worst), f"{worst.name} with and without distortion")
    tail = f"would help: {wishes}" + (f"; no board found in {', '.join(seen.name for seen in missed)}" if missed else "")
    return (
        pictures
        + _html.card(f"{name}: pictures", table, tail)
        + _html.card(
            f"{name}: as taken, and with the lens taken out",
            lens_taken_out,
            f"{worst.name}; edges that are straight in the world are straight on the right",
        )
    )


def _pair(first: str, name: str, found: Stereo, lenses: Mapping[str, Lens], shots: Mapping[str, Shots]) -> str:
    """Returns the card of two views: the worst pair with its epipolar lines, and all pairs."""
    cameras = lenses[first].camera, lenses[name].camera
    pairs = {pair.name: pair for pair in stereo.pair_up(shots[first].sightings, shots[name].sightings)}
    order = np.argsort(-found.pair_rms_px)
    worst = pairs[found.pairs[int(order[0])]]
    paths = shots[first].paths[worst.name], shots[name].paths[worst.name]
    drawn = _image(
        _calibration_pictures.epipolar(cameras, found.second_from_first, worst, paths), f"epipolar lines, {worst.name}"
    )
    rows = []
    for i in order:
        pair = pairs[found.pairs[int(i)]]
        off = float(np.mean(stereo.epipolar_px(*cameras, found.second_from_first, pair)))
        rows.append((pair.name, len(pair.ids), float(found.pair_rms_px[i]), off))
    note = "the worst pair: each corner lies on the line that the other picture gives it"
    return _html.card(f"{first} and {name}: epipolar lines", drawn, note) + _html.card(
        f"{first} and {name}: pairs",
        _html.table(("moment, worst first", "corners in both", "residual [px]", "off the line [px]"), rows),
    )


def _facts(made: Calibration) -> dict[str, str]:
    facts = {"hash": made.hash, "date": made.date, "world": made.world or "none: one camera alone"}
    for name, camera in made.cameras.items():
        lens = "; ".join(" ".join(f"{value:.2f}" for value in row) for row in camera.K)
        facts[f"{name}: size, K"] = f"{camera.size[0]} x {camera.size[1]}; {lens}"
        facts[f"{name}: distortion"] = " ".join(f"{value:.4f}" for value in camera.dist) or "none"
        if camera.world_from_camera:
            pose = np.array(camera.world_from_camera)
            quat = " ".join(f"{value:.4f}" for value in geometry.quat_wxyz_from_matrix(pose[:3, :3]))
            facts[f"{name}: place [m], quaternion wxyz"] = " ".join(f"{value:.4f}" for value in pose[:3, 3]) + "; " + quat
    return facts


def _lean(lens: Lens, picture: int) -> np.ndarray:
    pose = lens.camera_from_board[picture]
    return np.degrees(np.arcsin(np.clip(pose[2, :2], -1, 1)))


def _path_of(shots: Shots, name: str) -> Path:
    return next(path for path in shots.paths.values() if path.name == name)


def _image(picture: np.ndarray, words: str) -> str:
    return _html.jpeg(_calibration_pictures.jpeg(picture), words, (picture.shape[1], picture.shape[0]))
