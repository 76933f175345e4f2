"""OpenCV's own sample photographs give the figures that others get from them; skipped aloud where they are not at hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from robolearn.video.calibration import formats, intrinsics, stereo
from robolearn.video.calibration.boards import Board, Sighting, count_markers, detect
from robolearn.video.calibration.intrinsics import Lens
from robolearn.video.calibration.stereo import Stereo

CHESS = Board("chessboard", (9, 6), 1.0)  # lengths in squares


@pytest.fixture(scope="module")
def photographs(shared: Path) -> Path:
    """Returns the folder with 13 pairs of chessboard photographs and two of a ChArUco board."""
    folder = shared / "data" / "hands" / "calib_real"
    if not folder.is_dir():
        pytest.skip(f"no calibration photographs at {folder}")
    return folder


def measured(folder: Path, window_px: int) -> tuple[dict[str, Lens], Stereo]:
    """Returns both lenses and how they stand to each other."""
    seen: dict[str, dict[str, Sighting]] = {}
    for view in ("left", "right"):
        paths = sorted(folder.glob(f"{view}??.jpg"))
        seen[view] = {p.stem[-2:]: detect(CHESS, cv2.imread(str(p), cv2.IMREAD_GRAYSCALE), p.name, window_px) for p in paths}
    lenses = {view: intrinsics.calibrate(CHESS, list(shots.values()), (640, 480)) for view, shots in seen.items()}
    pairs = stereo.pair_up(seen["left"], seen["right"])
    return lenses, stereo.calibrate(CHESS, lenses["left"].camera, lenses["right"].camera, pairs)


def test_the_sample_stereo_set_gives_the_published_figures(photographs: Path) -> None:
    """K6: RMS 0.408 and 0.458 px, stereo 0.447 px, baseline 3.345 squares, f 536.0 px, within 5 %, by a window of 11 px."""
    lenses, pair = measured(photographs, window_px=11)
    assert [len(lens.sightings) for lens in lenses.values()] == [13, 13]
    assert lenses["left"].rms_px == pytest.approx(0.408, rel=0.05) and lenses["right"].rms_px == pytest.approx(0.458, rel=0.05)
    assert lenses["left"].camera.K[0][0] == pytest.approx(536.0, rel=0.01)
    assert pair.rms_px == pytest.approx(0.447, rel=0.05) and pair.baseline_m == pytest.approx(3.345, rel=0.01)
    assert pair.square[0] == pytest.approx(1.0016, abs=0.003) and pair.square[1] < 0.0203 * 1.05


def test_a_window_that_ends_before_the_next_corner_fits_the_same_photographs_better(photographs: Path) -> None:
    lenses, pair = measured(photographs, window_px=0)
    assert lenses["left"].rms_px < 0.26 and lenses["right"].rms_px < 0.35 and pair.rms_px < 0.32
    assert pair.square[0] == pytest.approx(1.0, abs=0.002) and pair.square[1] < 0.012


def test_a_photographed_charuco_board_is_found_whole(photographs: Path) -> None:
    """The specification's photograph: 17 of 17 markers, 24 of 24 corners."""
    board = Board(size=(5, 7), square_m=0.04, marker_m=0.02, dictionary="6X6_250")
    grey = cv2.imread(str(photographs / "choriginal.jpg"), cv2.IMREAD_GRAYSCALE)
    assert count_markers(board, grey) == 17 and len(detect(board, grey)) == 24


def test_opencvs_sample_calibrations_are_read(photographs: Path) -> None:
    left = formats.load(photographs / "left_intrinsics.yml").cameras["camera"]
    assert (
        left.size == (640, 480)
        and left.K[0][0] == pytest.approx(535.9157, rel=1e-5)
        and left.dist[0] == pytest.approx(-0.26637, rel=1e-4)
    )
    charuco = formats.load(photographs / "tutorial_camera_charuco.yml").cameras["camera"]
    assert charuco.K[1][1] == pytest.approx(456.767, rel=1e-5) and len(charuco.dist) == 5
    pair = formats.load(photographs / "intrinsics.yml", size=(640, 480))
    assert set(pair.cameras) == {"first", "second"} and pair.cameras["second"].K[0][2] == pytest.approx(334.557, rel=1e-5)
