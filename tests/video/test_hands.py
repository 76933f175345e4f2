"""Hands in pictures: found in real clips where MediaPipe finds them, right hands called right, none where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from robolearn import registry
from robolearn.errors import DatasetError, MissingDependency, UnknownName
from robolearn.video import clips, hand_tracks, hands
from robolearn.video.detectors import _models, mediapipe
from robolearn.video.hands import Hand, Settings, make_detector
from sim_envs import _base as tasks

DATA = "data/hands"


@pytest.fixture(scope="module")
def litert() -> None:
    """Skips aloud where LiteRT or its networks are not there."""
    try:
        make_detector("litert").close()
    except MissingDependency as error:
        pytest.skip(str(error))


def pictures(path: Path, most: int = 10_000) -> Iterator[np.ndarray]:
    """Yields the first pictures of a video."""
    return (picture.rgb for picture in islice(clips.pictures(clips.probe(path)), most))


def found(name: str, path: Path, settings: Settings = Settings(), most: int = 10_000) -> list[list[Hand]]:
    """Returns the hands in every picture of a clip."""
    with closing(make_detector(name, settings, path)) as detector:
        return [detector.detect(picture, i / 30) for i, picture in enumerate(pictures(path, most))]


def away(seen: list[list[Hand]], shared: Path, clip: str) -> np.ndarray:
    """Returns the mean distance [px] from MediaPipe's stored landmarks in every picture that both found the hand in."""
    stored = np.load(shared / DATA / f"small_{clip}_60f_mp01021_landmarks.npz")["kpts"]
    pairs = [(row[0].landmarks_px, want) for row, want in zip(seen, stored, strict=False) if row and np.isfinite(want).all()]
    return np.array([np.linalg.norm(got - want, axis=1).mean() for got, want in pairs])


@pytest.mark.parametrize(("clip", "limit_px"), [("cup", 1.0), ("openhand", 0.1)])
def test_litert_finds_the_hands_where_mediapipe_does(litert: None, shared: Path, clip: str, limit_px: float) -> None:
    """C1: at least 57 of 60 pictures, mean below 2 px; measured 60 of 60, 0.51 px (cup) and 0.03 px (openhand)."""
    seen = found("litert", shared / DATA / f"small_{clip}_60f.mp4")
    assert len(seen) == 60 and sum(map(bool, seen)) >= 57
    assert away(seen, shared, clip).mean() < limit_px
    assert all(row[0].right for row in seen if row), "both clips show a right hand to an ordinary camera"


def test_mediapipe_itself_gives_the_stored_landmarks(shared: Path) -> None:
    """C1, the same version: about 0."""
    if not mediapipe.python().is_file():
        pytest.skip(f"no MediaPipe at {mediapipe.python()}; make video HANDS=mediapipe")
    seen = found("mediapipe", shared / DATA / "small_cup_60f.mp4", most=12)
    assert away(seen, shared, "cup").max() < 1e-3
    assert all(row[0].right for row in seen)


def test_a_mirrored_hand_is_of_the_other_side_and_lies_mirrored(litert: None, shared: Path) -> None:
    """C2."""
    picture = next(pictures(shared / DATA / "small_openhand_60f.mp4"))
    with closing(make_detector("litert")) as detector:
        (hand,) = detector.detect(picture, 0.0)
        detector.reset()
        (mirrored,) = detector.detect(np.ascontiguousarray(picture[:, ::-1]), 0.0)
    assert hand.right and not mirrored.right
    back = mirrored.landmarks_px * (-1, 1) + (picture.shape[1] - 1, 0)
    assert np.linalg.norm(back - hand.landmarks_px, axis=1).mean() < 3.0
    assert hand.world_m is not None and 0.06 < np.linalg.norm(hand.world_m[0] - hand.world_m[9]) < 0.12, "a palm in metres"


def test_two_hands_keep_their_names_while_one_pours_into_the_others_cup(litert: None, shared: Path) -> None:
    """The kettle is in the right hand, at the picture's left; single pictures call both hands left."""
    seen = found("litert", shared / DATA / "small_coffee_60f.mp4", Settings(max_hands=2), most=30)
    tracks = hand_tracks.associate(seen, max_hands=2)
    assert [track.seen.sum() for track in tracks] == [30, 30]
    kettle, cup = sorted(tracks, key=lambda track: track.landmarks_px[0, 0, 0])
    assert kettle.right and not cup.right
    assert (kettle.landmarks_px[:, 0, 0] < 150).all() and (cup.landmarks_px[:, 0, 0] > 250).all(), "no hand jumps to the other"


@pytest.mark.parametrize("task", ["reach_lift", "lift"])
def test_no_hand_is_seen_where_a_gripper_works(litert: None, task: str) -> None:
    """The bench's gripper and a Panda: no picture has a hand."""
    with closing(tasks.make(task, {})) as body, closing(make_detector("litert")) as detector:
        body.reset(0)
        expert = tasks.expert(body, 0)
        expert.reset(0)
        obs, applied = body.reset(0), None
        for _ in range(8):
            expert.observe(obs, applied)
            picture = cv2.resize(body.render(), (320, 320))
            assert detector.detect(picture, 0.0) == []
            for action in expert.plan().actions[:1]:
                step = body.step(action)
                obs, applied = step.obs, step.filtered


def test_a_detector_that_is_not_here_says_what_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """C3."""
    monkeypatch.setenv(mediapipe.PYTHON, str(tmp_path / "no" / "python"))
    with pytest.raises(MissingDependency, match=r"mediapipe .* is not installed.*make video HANDS=mediapipe"):
        make_detector("mediapipe")
    monkeypatch.setenv(_models.FOLDER, str(tmp_path))
    with pytest.raises(MissingDependency, match=r"palm_detection_full.tflite is not installed.*install it with: make video"):
        make_detector("litert")
    with pytest.raises(UnknownName, match="unknown hand detector 'litrt'; did you mean 'litert'"):
        make_detector("litrt")
    for name in ("palm_detection_full", "hand_landmark_full"):
        (tmp_path / f"{name}.tflite").write_bytes(b"half of it")
    with pytest.raises(DatasetError, match=r"want sha256 1b14e9422c6ad006\.\.\., got .* it is damaged"):
        make_detector("litert")


def test_a_mediapipe_that_dies_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    dead = tmp_path / "python"
    dead.write_text("#!/bin/sh\nexit 7\n")
    dead.chmod(0o755)
    monkeypatch.setenv(mediapipe.PYTHON, str(dead))
    detector = make_detector("mediapipe")
    with pytest.raises(Exception, match=r"MediaPipe ended with exit code 7"):
        for _ in range(50):
            detector.detect(np.zeros((480, 640, 3), np.uint8), 0.0)


def test_the_networks_come_out_of_the_package_with_its_licence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if not all((_models.folder() / f"{name}.tflite").is_file() for name in _models.FILES):
        pytest.skip(f"no networks at {_models.folder()}; make video")
    import zipfile

    with zipfile.ZipFile(tmp_path / "mediapipe.whl", "w") as wheel:
        for name, (inside, _) in _models.FILES.items():
            wheel.write(_models.folder() / f"{name}.tflite", inside)
        wheel.write(_models.folder() / "LICENSE", "mediapipe-0.10.21.dist-info/LICENSE")
    monkeypatch.setenv(_models.FOLDER, str(tmp_path / "hands"))
    assert _models.fetch(tmp_path / "mediapipe.whl") == tmp_path / "hands"
    assert "Apache License" in (tmp_path / "hands" / "LICENSE").read_text()
    assert "unchanged" in (tmp_path / "hands" / "NOTICE").read_text()
    assert _models.find("lite").palm.is_file()
    assert not [name for name in os.listdir(tmp_path / "hands") if name.endswith(".part")]


def test_every_detector_is_a_file() -> None:
    assert registry.names(hands.DETECTORS) == ("litert", "mediapipe", "stored")
