"""Calibration files: ours and others' come back as they went, pickles are read with trust only, and run nothing."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from board_pictures import LENS

from robolearn import geometry
from robolearn.core import Camera
from robolearn.errors import AlreadyExists, BadInput
from robolearn.video import pinhole
from robolearn.video.calibration import foreign, formats, stereo
from robolearn.video.calibration.boards import Board
from robolearn.video.calibration.formats import Calibration, Picture, View

PLACE = geometry.pose((0.9, -0.3, 0.5), geometry.matrix_from_rotvec((1.2, -0.8, 0.4)))
LEFT = stereo.placed(replace(LENS, dist=(0.1, -0.2, 0.001, 0.002, 0.05)), PLACE)
RIGHT = stereo.placed(LENS, PLACE @ geometry.pose((0.5, 0.0, 0.1), geometry.matrix_from_rotvec((0.0, 0.4, 0.0))))


def same(one: Camera, other: Camera, atol: float = 0.0) -> bool:
    """Whether two cameras are equal but for the hash."""
    keys = ("K", "dist", "world_from_camera")
    close = all(np.allclose(getattr(one, key), getattr(other, key), rtol=0, atol=atol) for key in keys)
    return one.size == other.size and close


def test_our_file_comes_back_as_it_went(tmp_path: Path) -> None:
    """K7, ours: views, board, pictures and what was found, equal in every digit."""
    views = {
        "left": View(LEFT, 0.24, (Picture("left01.jpg", 54, 0.19),)),
        "wrist": View(LENS, 0.3, (), tuple(tuple(row) for row in PLACE.tolist())),
    }
    board = Board(size=(5, 7), legacy=True)
    kept = Calibration(views, "robot base", board, {"handeye": {"left": {"spread_mm": 1.0}}}, "2026-01-01")
    made = formats.save(tmp_path / "cams.json", kept)
    read = formats.load(tmp_path / "cams.json")
    assert read == made and len(read.hash) == 16
    assert read.board == board and read.world == "robot base" and read.found == kept.found and read.date == kept.date
    for name, view in views.items():
        assert read.views[name] == replace(view, camera=replace(view.camera, hash=read.hash))
    assert formats.load_cameras(tmp_path / "cams.json")["left"].hash == read.hash
    with pytest.raises(AlreadyExists):
        formats.save(tmp_path / "cams.json", kept)


def test_the_hash_is_of_the_whole_file_and_changes_with_any_number(tmp_path: Path) -> None:
    one = formats.save_cameras(tmp_path / "a.json", {"left": LEFT}, world="world")
    calibration = Calibration({"left": View(LEFT)}, "world", date=formats.load(tmp_path / "a.json").date)
    same_again = formats.save(tmp_path / "b.json", calibration)
    other = formats.save(
        tmp_path / "c.json", replace(calibration, views={"left": View(replace(LEFT, dist=(0.1, -0.2, 0.001, 0.002, 0.0501)))})
    )
    assert one.hash == same_again.hash != other.hash


def test_opencvs_file_comes_back_as_it_went(tmp_path: Path) -> None:
    foreign.save_opencv(tmp_path / "left.yml", LEFT)
    read = formats.load(tmp_path / "left.yml")
    assert same(read.cameras["camera"], LEFT, atol=1e-12) and read.world == "world"
    foreign.save_opencv(tmp_path / "lens.xml", LENS)
    assert same(formats.load(tmp_path / "lens.xml").cameras["camera"], replace(LENS, dist=(0.0,) * 5))


def test_a_pair_in_opencvs_file_has_the_first_camera_as_its_world(tmp_path: Path) -> None:
    second_from_first = geometry.inverse(np.array(RIGHT.world_from_camera)) @ PLACE
    storage = cv2.FileStorage(str(tmp_path / "pair.yml"), cv2.FILE_STORAGE_WRITE)
    for name, matrix in (("M1", LEFT.K), ("D1", [LEFT.dist]), ("M2", RIGHT.K), ("D2", [[0.0] * 5])):
        storage.write(name, np.array(matrix))
    storage.write("R", second_from_first[:3, :3])
    storage.write("T", second_from_first[:3, 3:])
    storage.release()
    with pytest.raises(BadInput, match="does not say how large its pictures are; want --size WIDTH HEIGHT"):
        formats.load(tmp_path / "pair.yml")
    read = formats.load(tmp_path / "pair.yml", size=(640, 480))
    point = np.array([0.1, -0.2, 1.5])
    assert np.allclose(pinhole.project(read.cameras["first"], point), pinhole.project(LEFT, geometry_at(point)), atol=1e-9)
    assert np.allclose(pinhole.project(read.cameras["second"], point), pinhole.project(RIGHT, geometry_at(point)), atol=1e-9)


def geometry_at(point: np.ndarray) -> np.ndarray:
    """Returns a point of the left camera's frame in the world."""
    return PLACE[:3, :3] @ point + PLACE[:3, 3]


def mt_pi(folder: Path) -> Path:
    """Writes what MT-pi writes: two lenses, and both directions of both poses in one pickle."""
    transforms = {}
    for number, camera in enumerate((LEFT, RIGHT), start=1):
        np.save(folder / f"agent{number}_intrinsics.npy", np.array(camera.K))
        pose = np.array(camera.world_from_camera)
        transforms[f"agent{number}"] = {"trc": geometry.inverse(pose)[:3], "tcr": pose[:3]}
    np.save(folder / "transforms_both.npy", transforms, allow_pickle=True)  # type: ignore[arg-type]
    return folder


def point_policy(path: Path) -> Path:
    """Writes what Point Policy writes."""
    cameras = {
        f"cam_{number}": {
            "int": np.array(camera.K),
            "dist_coeff": np.array([camera.dist or (0.0,) * 5]),
            "ext": geometry.inverse(np.array(camera.world_from_camera)),
        }
        for number, camera in enumerate((LEFT, RIGHT), start=1)
    }
    np.save(path, cameras, allow_pickle=True)  # type: ignore[arg-type]
    return path


def test_both_pickled_layouts_are_read_with_trust(tmp_path: Path) -> None:
    """K7: the authors' files."""
    size = (640, 480)
    read = formats.load(mt_pi(tmp_path), trust=True, size=size)
    assert same(read.cameras["agent1"], replace(LEFT, dist=()), atol=1e-12)
    assert same(read.cameras["agent2"], RIGHT, atol=1e-12) and read.world == "robot base"
    also = formats.load(tmp_path / "transforms_both.npy", trust=True, size=size)
    assert same(also.cameras["agent2"], RIGHT, atol=1e-12)
    read = formats.load(point_policy(tmp_path / "calib.npy"), trust=True, size=size)
    assert same(read.cameras["cam_1"], LEFT, atol=1e-12)
    assert same(read.cameras["cam_2"], replace(RIGHT, dist=(0.0,) * 5), atol=1e-12)


def test_a_pickle_without_trust_is_refused_in_one_line(tmp_path: Path) -> None:
    mt_pi(tmp_path)
    for path in (tmp_path, tmp_path / "transforms_both.npy", point_policy(tmp_path / "calib.npy")):
        with pytest.raises(BadInput, match=r"it is a pickle, which may hold a program; want --trust") as error:
            formats.load(path, size=(640, 480))
        assert "\n" not in str(error.value)


class Hostile:
    """Would touch a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (str(self.path),)


def test_trust_lets_nothing_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    np.save(tmp_path / "calib.npy", {"cam_1": Hostile(mark)}, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"calib\.npy: pickle: refused"):
        formats.load(tmp_path / "calib.npy", trust=True, size=(640, 480))
    assert not mark.exists()
    many = np.array([{"cam_1": 1}, {"cam_2": 2}], dtype=object)
    np.save(tmp_path / "many.npy", many, allow_pickle=True)
    with pytest.raises(BadInput, match=r"want a pickled dict of cameras, got an array object\(2,\)"):
        formats.load(tmp_path / "many.npy", trust=True, size=(640, 480))
    with pytest.raises(BadInput, match="refused an array"):
        foreign._restricted_unpickle.load(pickle.dumps(many))


@pytest.mark.parametrize(
    ("view", "message"),
    [
        ({}, r"cam_1: want 'ext', got"),
        ({"ext": np.eye(3)}, r"want 'ext' as 4 x 4, got \(3, 3\)"),
        ({"ext": "x"}, "want 'ext' as numbers"),
        ({"ext": np.eye(4) * 2, "int": np.eye(3)}, "want world_from_camera as a rigid 4 x 4"),
        ({"ext": np.eye(4), "int": -np.eye(3)}, "want K as 3 x 3 with focal lengths above 0"),
    ],
)
def test_a_layout_that_is_not_whole_is_told(view: dict[str, object], message: str, tmp_path: Path) -> None:
    np.save(tmp_path / "calib.npy", {"cam_1": view}, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=message):
        formats.load(tmp_path / "calib.npy", trust=True, size=(640, 480))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "want the JSON of a calibration, got text that is none"),
        ("a.json", "{}", "as `robolearn calibrate cameras` writes it, got another file"),
        ("a.json", json.dumps({"format": "robolearn cameras", "version": 9}), "want version 1 or older, got 9; update"),
        ("a.json", json.dumps({"format": "robolearn cameras", "views": {"a": {"K": []}}}), "got a file without 'size'"),
        ("a.yml", "%YAML:1.0\n---\nx: 1\n", "want camera_matrix and distortion_coefficients"),
        ("a.yml", "nonsense: [", "a.yml: want "),
        ("a.txt", "", r"want a calibration as \.json \(ours\), \.yml, \.yaml, \.xml \(OpenCV\)"),
        ("a.npy", "x", r"want a \.npy file, got another"),
    ],
)
def test_a_file_that_is_none_is_told_what_would_be(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=message) as error:
        formats.load(tmp_path / name, trust=True, size=(640, 480))
    assert str(tmp_path / name) in str(error.value)
    with pytest.raises(BadInput, match="there is no such calibration"):
        formats.load(tmp_path / "none.json")


def test_pictures_of_another_size_are_scaled_if_their_shape_is_the_same_and_refused_otherwise() -> None:
    assert formats.fitted(LEFT, (640, 480), "left") == (LEFT, "")
    half, note = formats.fitted(LEFT, (320, 240), "left")
    assert note == "left: calibrated at 640 x 480, scaled to 320 x 240"
    point = PLACE[:3, :3] @ np.array([0.2, 0.1, 1.0]) + PLACE[:3, 3]
    assert np.allclose((pinhole.project(LEFT, point) + 0.5) / 2 - 0.5, pinhole.project(half, point), atol=1e-9)
    with pytest.raises(BadInput, match=r"left: want pictures of 640 x 480, as calibrated, or of the same shape, got 640 x 360"):
        formats.fitted(LEFT, (640, 360), "left")
