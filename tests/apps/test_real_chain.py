"""`bench video --parts real_chain`: a filmed board gives the cameras, and films give paths and replays beside the truth."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from robolearn.apps import _filmed_bench, _real_chain, bench_video
from robolearn.apps._filmed_bench import FilmedClip
from robolearn.apps._real_chain import Made, Seen
from robolearn.cli import main
from robolearn.errors import BadInput
from robolearn.video.calibration.boards import Board
from sim_envs import _base

SEED, SIDE = 50_000, 480


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A calibration from few pictures."""
    folder = tmp_path_factory.mktemp("cell")
    cell = _filmed_bench.photograph(Board(), folder / "board", SEED, SIDE, held=10, near=5)
    return _real_chain.calibrated(cell, folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> FilmedClip:
    """A person who lifts the block, in small pictures."""
    (filmed,) = _filmed_bench.film("reach_lift", [SEED], tmp_path_factory.mktemp("films"), 64)
    return filmed


@pytest.fixture(scope="module")
def seen(made: Made, clip: FilmedClip, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """Its motion tracks, with the exact landmarks."""
    found = _real_chain.extracted([clip], made, "exact", tmp_path_factory.mktemp("seen"))
    assert found is not None
    return found


def test_the_verbs_find_lenses_and_places_of_the_cameras_that_filmed_the_board(made: Made) -> None:
    for row in made.figures["views"]:
        assert row["focal_error_percent"] < 1.0 and row["principal_point_error_px"] < 6.0 and row["rms_px"] < 0.3
        assert row["place_error_mm"] < 8.0 and row["turn_error_deg"] < 0.6
    assert made.figures["pair"]["place_error_mm"] < 8.0 and made.figures["pair"]["pairs"] >= 6


def test_a_film_shows_what_was_done_at_30_pictures_a_second(clip: FilmedClip) -> None:
    steps = np.linalg.norm(np.diff(clip.world_from_hand[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 0.5 / 30 + 1e-3, "the hand moves on evenly between the ticks, no faster than the bench allows"
    assert len(clip.landmarks) == len(clip.world_from_hand) > 60 and set(clip.videos) == {"left", "right"}


def test_exact_landmarks_give_the_path_back_and_the_gripper_repeats_it(made: Made, seen: Seen) -> None:
    """What is left is the drawn hand's own offset (4 mm and 7 degrees of tilt at most), not the calibration."""
    row = _real_chain.path_errors(seen, made)
    assert row["clips"] == 1 and row["detected_share"] == 1.0
    assert row["position_median_mm"] < 9.0 and row["rotation_median_deg"] < 2.5 and row["wrist_point_median_mm"] < 4.0
    assert abs(row["position_median_mm"] - row["true_cameras_position_median_mm"]) < 2.0
    with closing(_base.make("reach_lift", {})) as body:
        done = _real_chain.performed(body, seen, filmed=2)
    assert done["success"] == 0.5 and done["refused"] == 1, "a clip that was lost on the way counts as not solved"


def test_a_detectors_errors_are_seen_in_the_path(made: Made, clip: FilmedClip, seen: Seen, tmp_path: Path) -> None:
    noisy = _real_chain.extracted([clip], made, "measured", tmp_path)
    assert noisy is not None and 0.5 < noisy.detected_share < 1.0
    exact, found = (_real_chain.path_errors(of, made)["wrist_point_median_mm"] for of in (seen, noisy))
    assert found > 3 * exact


def test_the_scene_is_laid_for_the_arms_cube_and_the_hand_begins_as_the_arms_does(clip: FilmedClip) -> None:
    class Arm:
        def eef_pose(self) -> np.ndarray:
            return clip.world_from_hand[0]

        def object_poses(self) -> dict[str, np.ndarray]:
            return {"cube": cube}

    quarter = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    cube, block = np.eye(4), np.eye(4)
    cube[:3, :3], cube[:3, 3], block[:3, 3] = quarter, (0.1, -0.2, 0.82), (0.05, 0.06, 0.025)
    place = _real_chain.laid(FilmedClip("", 0, {}, clip.world_from_hand, clip.landmarks, True, {"block": block}), Arm())
    np.testing.assert_allclose((place @ block)[:3, 3], cube[:3, 3], atol=1e-12)
    np.testing.assert_allclose(place[:3, :3], np.eye(3), atol=1e-12)


def test_a_part_that_has_nothing_to_measure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "video", "--parts", "extract", "--clips", "a.mp4", "--workers", "0"]) == 2
    assert "want draws >= 10" in capsys.readouterr().err
    assert main(["bench", "video", "--parts", "hands"]) == 2
    assert "want --clips" in capsys.readouterr().err
    assert not {"hands", "extract"} & set(bench_video.Config().parts), "without clips the rest is measured"


def test_a_chessboard_is_not_drawn() -> None:
    with pytest.raises(BadInput, match="board mesh: want a ChArUco board, got a chessboard 9 x 6"):
        _filmed_bench.board_mesh(Board("chessboard", (9, 6)))
