"""The calibration verbs from the command line, on drawn pictures of a board in a gripper before two cameras that are known."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_pictures import LENS, around, facing, shoot

from hardware._base import Frame, Identity
from hardware._errors import TransportLost
from robolearn import cli, geometry
from robolearn.apps import _capture
from robolearn.errors import AlreadyExists, BadInput, HardwareError
from robolearn.video.calibration import foreign, formats
from robolearn.video.calibration.boards import Board, opencv_board

BOARD = Board(marker_m=0.02)
PRINT = ["--marker-mm", "20"]
LEFT_FROM_RIGHT = geometry.pose((0.3, 0.02, 0.08), geometry.matrix_from_rotvec((0.0, -0.5, 0.02)))
BASE_FROM_LEFT = geometry.pose((0.9, -0.2, 0.5), geometry.matrix_from_rotvec((1.5, 1.0, -0.7)))
GRIPPER_FROM_BOARD = geometry.pose((-0.05, 0.02, 0.08), geometry.matrix_from_rotvec((0.4, -0.3, 0.2)))
MOVED = geometry.pose((0.008, 0.0, 0.0), geometry.matrix_from_rotvec((0.0, 0.015, 0.0)))  # of the right camera, later
_MOMENTS = 14


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with pictures left/, right/ and moved/ (right, later), and poses.json."""
    folder = tmp_path_factory.mktemp("drawn")
    rng = np.random.default_rng(4)
    poses = []
    for name in ("left", "right", "moved"):
        (folder / name).mkdir()
    for k, left_from_board in enumerate(around(BOARD, rng, _MOMENTS, far_m=0.55), start=1):
        for name, left_from_view in (("left", np.eye(4)), ("right", LEFT_FROM_RIGHT), ("moved", LEFT_FROM_RIGHT @ MOVED)):
            image = shoot(BOARD, LENS, geometry.inverse(left_from_view) @ left_from_board)
            cv2.imwrite(str(folder / name / f"{name}_{k:03d}.png"), image)
        gripper = BASE_FROM_LEFT @ left_from_board @ geometry.inverse(GRIPPER_FROM_BOARD)
        poses.append({"picture": f"left_{k:03d}.png", "base_from_gripper": gripper.tolist()})
    (folder / "poses.json").write_text(json.dumps({"poses": poses}))
    return folder


@dataclass(frozen=True)
class Made:
    """What the verbs before have written."""

    folder: Path
    cameras: Path
    robot: Path


@pytest.fixture(scope="module")
def made(drawn: Path) -> Made:
    """Runs `calibrate cameras` and `calibrate handeye` on both views."""
    cameras, robot = drawn / "cams.json", drawn / "robot.json"
    assert run("cameras", "--out", cameras, *views(drawn), *PRINT, "--json", drawn / "cams_figures.json", "--opencv") == 0
    flags = ("--poses", drawn / "poses.json", "--out", robot, "--json", drawn / "robot_figures.json")
    assert run("handeye", cameras, *views(drawn), *flags) == 0
    return Made(drawn, cameras, robot)


def run(verb: str, *flags: object) -> int:
    return cli.main(["calibrate", verb, *map(str, flags)])


def views(folder: Path, right: str = "right") -> list[object]:
    return ["--view", "left", folder / "left", "--view", "right", folder / right]


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Returns distance [mm] and angle [deg]."""
    turn = geometry.rotvec_from_matrix(one[:3, :3].T @ other[:3, :3])
    return 1000 * float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(np.degrees(np.linalg.norm(turn)))


def test_both_lenses_and_the_pair_are_found_and_reported(made: Made) -> None:
    read = formats.load(made.cameras)
    assert read.world == "camera left" and read.board == BOARD
    for view in ("left", "right"):
        assert np.allclose(read.cameras[view].K, LENS.K, atol=6.0) and read.views[view].rms_px is not None
        assert read.views[view].rms_px < 0.2 and len(read.views[view].pictures) >= 10  # type: ignore[operator]
    mm, deg = apart(np.array(read.cameras["right"].world_from_camera), LEFT_FROM_RIGHT)
    assert mm < 4.0 and deg < 0.8  # the lens is known to half a percent only
    figures = json.loads((made.folder / "cams_figures.json").read_text())
    assert figures["meta"]["command"] and figures["hash"] == read.hash
    assert [row["view"] for row in figures["rows"]] == ["left", "right"] and figures["stereo"]["right"]["with"] == "left"
    assert formats.load(made.folder / "cams_left.yml").cameras["camera"].K == read.cameras["left"].K


def test_the_report_is_one_page_with_its_pictures_inside(made: Made) -> None:
    page = made.cameras.with_suffix(".html").read_text()
    for words in ("left: lens", "right: place", "left: corners and residuals", "right: how the board leaned", "epipolar lines"):
        assert words in page
    assert page.count("data:image/jpeg;base64,") == 7 and "http" not in page.replace("http-equiv", "")
    assert formats.load(made.cameras).hash in page


def test_the_cameras_are_found_on_the_robot(made: Made) -> None:
    read = formats.load(made.robot)
    assert read.world == "robot base"
    for view, truth in (("left", BASE_FROM_LEFT), ("right", BASE_FROM_LEFT @ LEFT_FROM_RIGHT)):
        mm, deg = apart(np.array(read.cameras[view].world_from_camera), truth)
        assert mm < 4.0 and deg < 0.4
    rows = json.loads((made.folder / "robot_figures.json").read_text())["rows"]
    assert all(row["spread_mm"] < 3 and row["check_mm"] < 5 and row["rms_px"] < 0.3 for row in rows)


def test_a_view_that_was_not_measured_follows_its_pair(made: Made, tmp_path: Path) -> None:
    flags = ("--view", "left", made.folder / "left", "--poses", made.folder / "poses.json", "--out", tmp_path / "one.json")
    assert run("handeye", made.cameras, *flags) == 0
    right = np.array(formats.load(tmp_path / "one.json").cameras["right"].world_from_camera)
    mm, deg = apart(right, BASE_FROM_LEFT @ LEFT_FROM_RIGHT)
    assert mm < 4.0 and deg < 0.4


def test_poses_may_be_an_npz_and_the_wrong_mount_is_refused(
    made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    poses = json.loads((made.folder / "poses.json").read_text())["poses"]
    names, matrices = [row["picture"] for row in poses], [row["base_from_gripper"] for row in poses]
    np.savez(tmp_path / "poses.npz", picture=np.array(names), base_from_gripper=np.array(matrices))
    flags = ("--view", "left", made.folder / "left", "--poses", tmp_path / "poses.npz", "--out", tmp_path / "hand.json")
    assert run("handeye", made.cameras, *flags, "--mount", "hand") == 2
    assert "they fit with the camera in the world (--mount world)" in capsys.readouterr().err
    assert not (tmp_path / "hand.json").exists()
    assert run("handeye", made.cameras, *flags, "--no-refine") == 0
    one, other = (formats.load(path).cameras["left"].world_from_camera for path in (tmp_path / "hand.json", made.robot))
    assert 0 < apart(np.array(one), np.array(other))[0] < 5.0


def test_a_camera_on_the_hand_is_found(made: Made, tmp_path: Path) -> None:
    """The same pictures, as if the camera moved and the board stood still: gripper poses that make it so."""
    camera_from_gripper = geometry.pose((0.02, -0.05, -0.06), geometry.matrix_from_rotvec((0.1, 0.2, 1.5)))
    base_from_board = geometry.pose((0.5, 0.1, 0.0), geometry.matrix_from_rotvec((3.0, 0.1, 0.2)))
    rows = []
    for row in json.loads((made.folder / "poses.json").read_text())["poses"]:
        left_from_board = geometry.inverse(BASE_FROM_LEFT) @ np.array(row["base_from_gripper"]) @ GRIPPER_FROM_BOARD
        gripper = base_from_board @ geometry.inverse(left_from_board) @ camera_from_gripper
        quat = geometry.quat_wxyz_from_matrix(gripper[:3, :3]).tolist()
        rows.append({"picture": row["picture"], "position": gripper[:3, 3].tolist(), "quat_wxyz": quat})
    (tmp_path / "poses.json").write_text(json.dumps({"poses": rows}))
    flags = ("--view", "left", made.folder / "left", "--poses", tmp_path / "poses.json", "--mount", "hand")
    assert run("handeye", made.cameras, *flags, "--out", tmp_path / "hand.json") == 0
    view = formats.load(tmp_path / "hand.json").views["left"]
    assert view.camera.world_from_camera == ()
    mm, deg = apart(np.array(view.gripper_from_camera), geometry.inverse(camera_from_gripper))
    assert mm < 4.0 and deg < 0.4
    check = ("--view", "left", made.folder / "left", "--poses", tmp_path / "poses.json")
    assert run("check", tmp_path / "hand.json", *check) == 0


def test_one_marker_at_a_known_place_finds_the_camera_too(made: Made, tmp_path: Path) -> None:
    """Point Policy's way, with one of the board's own markers as the marker."""
    centre = opencv_board(BOARD).getObjPoints()[8].mean(0)
    at = GRIPPER_FROM_BOARD[:3, :3] @ centre + GRIPPER_FROM_BOARD[:3, 3]
    flags = ("--method", "marker", "--marker", 8, "--marker-at", *(f"{value:.6f}" for value in at), "--out", tmp_path / "m.json")
    assert run("handeye", made.cameras, *views(made.folder), "--poses", made.folder / "poses.json", *flags) == 0
    for view, truth in (("left", BASE_FROM_LEFT), ("right", BASE_FROM_LEFT @ LEFT_FROM_RIGHT)):
        mm, deg = apart(np.array(formats.load(tmp_path / "m.json").cameras[view].world_from_camera), truth)
        assert mm < 10.0 and deg < 1.0
    assert run("handeye", made.cameras, "--method", "marker", "--mount", "hand", "--poses", "x", "--out", "y.json") == 2


def test_a_check_passes_while_cameras_stand_and_says_which_one_has_moved(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    poses = ("--poses", made.folder / "poses.json")
    assert run("check", made.robot, *views(made.folder), *poses, "--json", made.folder / "check.json") == 0
    rows = json.loads((made.folder / "check.json").read_text())["rows"]
    assert [row["what"] for row in rows] == [
        "lens left",
        "lens right",
        "left and right",
        "left on the robot",
        "right on the robot",
    ]
    assert all(row["good"] for row in rows)
    capsys.readouterr()
    assert run("check", made.robot, *views(made.folder, "moved"), *poses) == 1
    said = capsys.readouterr()
    assert "left and right, right on the robot: the calibration does not hold any more" in said.err
    assert said.out.count(": holds") == 3 and said.out.count("MOVED, by about") == 2
    assert "MOVED, by about 8 mm and 0.9 deg" in said.out or "MOVED, by about 9 mm and 0.9 deg" in said.out


def test_pictures_of_half_the_size_are_checked_and_cut_ones_are_refused(
    made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for name in ("half", "cut"):
        (tmp_path / name).mkdir()
    for path in sorted((made.folder / "left").glob("*.png"))[:5]:
        image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(tmp_path / "half" / path.name), cv2.resize(image, (480, 360), interpolation=cv2.INTER_AREA))
        cv2.imwrite(str(tmp_path / "cut" / path.name), image[:400])
    assert run("check", made.cameras, "--view", "left", tmp_path / "half") == 0
    assert "left: calibrated at 640 x 480, scaled to 480 x 360" in capsys.readouterr().out
    assert run("check", made.cameras, "--view", "left", tmp_path / "cut") == 2
    assert "want pictures of 640 x 480, as calibrated, or of the same shape, got 640 x 400" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--out", "a.txt"], "want a name that ends in .json"),
        (["--out", "a.json"], "want pictures: a folder or files, or --view NAME FOLDER"),
        (["--out", "a.json", "nowhere"], "nowhere: want a folder with pictures, or a pattern"),
        (["--out", "a.json", "left", "--grid", "6", "5"], "camera: calibration: want at least 3 pictures with 6 corners"),
        (["--out", "a.json", "left", "--view", "camera", "left"], "--view camera: it is given twice"),
        (["--out", "cams.json", "left"], "exists already; give --overwrite"),
        (["--out", "a.json", "--from-file", "cams_left.yml", "--names", "a", "b"], "--names: want 1, for camera, got 2"),
    ],
)
def test_what_cannot_be_calibrated_is_said_in_one_line(
    flags: list[str], message: str, made: Made, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(made.folder)
    assert run("cameras", *flags, *(PRINT if "--grid" not in flags else [])) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (made.folder / "a.json").exists()


def test_pictures_of_different_times_are_named(made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    shutil.copytree(made.folder / "right", tmp_path / "right")
    (tmp_path / "right" / "right_002.png").rename(tmp_path / "right" / "other.png")
    (tmp_path / "right" / "right_005.png").rename(tmp_path / "right" / "right_002.png")
    (tmp_path / "right" / "other.png").rename(tmp_path / "right" / "right_005.png")
    flags = ("--view", "left", made.folder / "left", "--view", "right", tmp_path / "right", "--out", tmp_path / "a.json")
    assert run("cameras", *flags, *PRINT) == 2
    assert "left and right: stereo: pictures 2, 5 do not show the board at one time, as the other 12" in capsys.readouterr().err


def test_a_bad_residual_is_a_finding_and_dropping_pictures_helps(
    made: Made, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    shutil.copytree(made.folder / "left", tmp_path / "left")
    warped = cv2.imread(str(tmp_path / "left" / "left_003.png"), cv2.IMREAD_GRAYSCALE)
    rows, columns = np.indices(warped.shape, dtype=np.float32)
    warped = cv2.remap(warped, columns + 9 * np.sin(rows / 25), rows, cv2.INTER_LINEAR)  # a board that was bent
    cv2.imwrite(str(tmp_path / "left" / "left_003.png"), warped)
    assert run("cameras", tmp_path / "left", *PRINT, "--out", tmp_path / "bent.json") == 1
    assert "residual above 0.5 px" in capsys.readouterr().err and (tmp_path / "bent.json").exists()
    assert run("cameras", tmp_path / "left", *PRINT, "--out", tmp_path / "flat.json", "--drop-px", 1.2) == 0
    assert "left_003.png" not in [picture.name for picture in formats.load(tmp_path / "flat.json").views["camera"].pictures]


def test_a_calibration_of_another_program_is_taken_over_with_trust_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(
        tmp_path / "calib.npy",
        {name: {"int": np.array(LENS.K), "dist_coeff": np.zeros(5), "ext": np.eye(4)} for name in ("cam_1", "cam_2")},  # type: ignore[arg-type]
        allow_pickle=True,
    )
    flags = ["--from-file", tmp_path / "calib.npy", "--size", 640, 480, "--out", tmp_path / "ours.json"]
    assert run("cameras", *flags) == 2
    assert "want --trust" in capsys.readouterr().err
    assert run("cameras", *flags, "--trust", "--names", "left", "right") == 0
    assert list(formats.load_cameras(tmp_path / "ours.json")) == ["left", "right"]
    foreign.save_opencv(tmp_path / "one.yml", LENS)
    assert run("cameras", "--from-file", tmp_path / "one.yml", "--out", tmp_path / "one.json") == 0
    assert run("check", tmp_path / "one.json", "--view", "camera", tmp_path) == 2
    assert "it does not say which board to look for; give --board" in capsys.readouterr().err


def test_a_board_is_written_for_the_printer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("board", tmp_path / "board.pdf", "--json", tmp_path / "board.json") == 0
    assert "Print it at 100 %" in capsys.readouterr().out
    assert json.loads((tmp_path / "board.json").read_text())["board"]["size"] == [7, 5]
    assert run("board", tmp_path / "board.pdf") == 2 and run("board", tmp_path / "board.svg") == 2


class Shown:
    """A camera before which a person holds the board: each pose for some frames, moving in between."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self.size, self.hz, self.images, self.at, self.open = (640, 480), 30.0, images, 0, False

    def connect(self) -> Identity:
        self.open = True
        return Identity("shown", emulated=True)

    def read(self, timeout_s: float) -> Frame | None:
        del timeout_s
        if self.at >= len(self.images):
            raise TransportLost("shown", "unplugged")
        image = self.images[self.at]
        self.at += 1
        return Frame(np.repeat(image[..., None], 3, axis=-1), self.at, self.at, 0, self.at)

    def close(self) -> None:
        self.open = False


def test_a_picture_is_taken_when_the_board_is_still_and_new(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = np.full((480, 640), 120, np.uint8)
    here, there = facing(BOARD, (0.0, 0.0, 0.5)), facing(BOARD, (0.1, 0.0, 0.5), (0.0, 0.4, 0.0))
    moving = [shoot(BOARD, LENS, facing(BOARD, (x, 0.0, 0.5))) for x in (0.03, 0.06)]
    still, new = shoot(BOARD, LENS, here), shoot(BOARD, LENS, there)
    camera = Shown([empty, still, still, still, *moving, new, new, new])
    taken = _capture.take(BOARD, {"left": camera}, tmp_path, 0.0, False)
    assert [path.name for path in taken["left"]] == ["001.png", "002.png"] and not camera.open
    assert np.array_equal(cv2.imread(str(taken["left"][0]), cv2.IMREAD_GRAYSCALE), still)
    said = capsys.readouterr()
    assert "going on with the 2 pictures taken" in said.err
    assert "taken 2" in said.out and "missing: lean the board: right side away" in said.out and "■" in said.out
    with pytest.raises(AlreadyExists):
        _capture.take(BOARD, {"left": Shown([])}, tmp_path, 0.0, False)


def test_several_cameras_take_pictures_of_the_same_time(tmp_path: Path) -> None:
    pose = facing(BOARD, (0.0, 0.0, 0.5))
    one, other = shoot(BOARD, LENS, pose), shoot(BOARD, LENS, geometry.inverse(LEFT_FROM_RIGHT) @ pose)
    empty = np.full((480, 640), 120, np.uint8)
    cameras = {"left": Shown([one, one, one]), "right": Shown([empty, other, other])}
    taken = _capture.take(BOARD, cameras, tmp_path, 0.0, False)
    assert [len(paths) for paths in taken.values()] == [1, 1] and cameras["left"].at == 3


def test_a_camera_that_shows_no_board_or_nothing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--capture", "left", "synthetic", "--capture-set", "left.size=[64,48]", "--pictures", tmp_path, "--seconds", "0.2"]
    assert run("cameras", "--out", tmp_path / "a.json", *flags) == 2
    assert "no picture was taken: want ChArUco 7 x 5 squares" in capsys.readouterr().err
    for fields, message in (
        ("size=3", "want VIEW.FIELD=VALUE"),
        ("right.size=3", "unknown view 'right'"),
        ("left.sice=3", "sice"),
    ):
        assert run("cameras", "--out", tmp_path / "a.json", "--capture", "left", "synthetic", "--capture-set", fields) == 2
        assert message in capsys.readouterr().err

    class Dark(Shown):
        def read(self, timeout_s: float) -> Frame | None:
            del timeout_s
            return None

    with pytest.raises(HardwareError, match="left: want a picture, got none for 5 s"):
        _capture.take(BOARD, {"left": Dark([])}, tmp_path / "dark", 0.0, False)
    with pytest.raises(BadInput, match="a view is given twice"):
        _capture.opened([("left", "synthetic"), ("left", "synthetic")], [])


def test_a_board_said_for_a_calibration_that_names_one_needs_its_kind(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", made.cameras, "--view", "left", made.folder / "left", "--square-mm", 25) == 2
    assert "the calibration names ChArUco 7 x 5 squares, squares 30 mm" in capsys.readouterr().err
    other = replace(BOARD, square_m=0.025)
    assert other != formats.load(made.cameras).board
    assert run("check", made.cameras, "--view", "middle", made.folder / "left") == 2
    assert "unknown view 'middle'" in capsys.readouterr().err
