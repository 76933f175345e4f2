"""The replay camera: a folder or a video at its pace, with drops, repeats and stalls where it is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from camera_worlds import PERIOD_NS, SIZE, SMALL, Clock, pictures, reads

from hardware._base import Frame
from hardware._errors import ConfigMismatch, TransportCorrupt, TransportLost
from hardware.cameras import replay
from robolearn.errors import ConfigError


def reds(frames: list[Frame]) -> list[int]:
    return [int(frame.image[0, 0, 0]) for frame in frames]


def replayed(folder: Path, **settings: Any) -> tuple[replay.Replay, Clock]:
    clock = Clock()
    camera = replay.make(replay.Config(**{"path": str(folder), **SMALL, **settings}), clock, clock.sleep)
    camera.connect()
    return camera, clock


def test_replay_shows_a_folder_by_name_at_our_pace_and_begins_anew(tmp_path: Path) -> None:
    camera, clock = replayed(pictures(tmp_path / "p", (10, 20, 30)))
    start, frames = clock.now, reads(camera, 5)
    assert reds(frames) == [10, 20, 30, 10, 20] and frames[0].image[0, 0].tolist() == [10, 0, 0]
    assert [frame.t_capture_ns - start for frame in frames] == [k * PERIOD_NS for k in range(5)]


def test_replay_drops_repeats_and_stalls_where_it_is_told(tmp_path: Path) -> None:
    script = {"drop": (1, 2), "twice": (4,), "stall_at": (5,), "stall_s": (0.32,)}
    camera, clock = replayed(pictures(tmp_path / "p", range(20)), **script)
    start, frames = clock.now, reads(camera, 3)
    assert not np.shares_memory(frames[1].image, frames[2].image)
    assert reds(frames) == [0, 3, 3] and [frame.seq for frame in frames] == [0, 3, 4] and frames[1].dropped == 2
    assert camera.read(0.1) is None and camera.read(0.1) is None  # the stall
    frames = reads(camera, 2)
    assert (frames[0].seq, frames[0].t_capture_ns - start) == (5, 5 * PERIOD_NS)
    assert frames[0].t_recv_ns - frames[0].t_capture_ns == 320_000_000
    assert frames[1].seq == 11 and frames[1].dropped == 5 and reds(frames) == [5, 11]


def test_replay_ends_as_if_unplugged_and_begins_anew_when_connected(tmp_path: Path) -> None:
    camera, _ = replayed(pictures(tmp_path / "p", (1, 2)), loop=False)
    reads(camera, 2)
    with pytest.raises(TransportLost, match="it has ended; connecting again begins anew"):
        camera.read(0.2)
    camera.connect()
    assert reds(reads(camera, 2)) == [1, 2]


def test_replay_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "p", (1, 2, 3))
    with pytest.raises(ConfigMismatch, match=r"want pictures of size \(32, 24\), they have \(64, 48\)"):
        replayed(folder, size=(32, 24))
    (folder / "001.png").write_bytes(b"no picture")
    camera, _ = replayed(folder)
    assert reds(reads(camera, 1)) == [1]
    with pytest.raises(TransportCorrupt, match=r"capture 1: want a picture of size .*, got nothing that can be read"):
        camera.read(0.2)
    assert reads(camera, 1)[0].dropped == 1
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.avi").write_text("no video")
    for name, word in (("none", "no such file"), ("empty", "there are none"), ("text.avi", "cannot be read as a video")):
        with pytest.raises(TransportLost, match=word):
            replayed(tmp_path / name)
    for wrong, word in (({"stall_at": (1,)}, "want 1 times"), ({"twice": (0,)}, "from 1 on")):
        with pytest.raises(ConfigError, match=word):
            replay.Config("p", **wrong)  # type: ignore[arg-type]


def test_replay_shows_a_video_at_our_pace_or_its_own(tmp_path: Path) -> None:
    path = tmp_path / "v.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, SIZE)
    for k in range(4):
        writer.write(np.full((SIZE[1], SIZE[0], 3), (0, 0, 60 * k), np.uint8))
    writer.release()
    for own, period_ns in ((False, PERIOD_NS), (True, 2 * PERIOD_NS)):
        camera, _ = replayed(path, own_times=own)
        frames = reads(camera, 4)
        np.testing.assert_allclose(reds(frames), [0, 60, 120, 180], atol=6)
        np.testing.assert_allclose(np.diff([frame.t_capture_ns for frame in frames]), period_ns, atol=1e6)
        assert abs(reds(reads(camera, 1))[0]) < 6 and frames[0].domain == "file"
        camera.close()
