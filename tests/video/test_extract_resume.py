"""An extraction that was killed goes on to the same set, and a complete set takes further videos."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hand_videos
import numpy as np
from hand_videos import extract

from robolearn.data.store import EpisodeSet


def test_an_extraction_that_was_killed_goes_on_to_the_same_set(tmp_path: Path) -> None:
    for name in "abcd":
        hand_videos.film(tmp_path, name, seed=ord(name))
    hand_videos.calibration(tmp_path / "cameras.json")
    views = [f"left={tmp_path}/*_left.mp4", f"right={tmp_path}/*_right.mp4"]
    command = [sys.executable, "-m", "robolearn", "tracks", "extract", "--view", *views, "--detector", "stored"]
    command += ["--calib", str(tmp_path / "cameras.json"), "--out", str(tmp_path / "killed.zarr")]
    part = tmp_path / ".killed.zarr.extracting" / "killed.zarr"
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not _episodes(part) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    assert not (tmp_path / "killed.zarr").exists(), "there is no half set under its name"
    before = _episodes(part)
    assert 1 <= before < 4
    assert extract(tmp_path, out="killed.zarr") == 2, "it is not gone on with unasked"
    assert extract(tmp_path, "--smooth-s", "0.1", "--resume", out="killed.zarr") == 2, "nor with other settings"
    assert extract(tmp_path, "--resume", out="killed.zarr") == 0
    assert extract(tmp_path, "--workers", "2", out="whole.zarr") == 0, "which two processes write alike"
    killed, whole = EpisodeSet.open(tmp_path / "killed.zarr"), EpisodeSet.open(tmp_path / "whole.zarr")
    assert np.array_equal(killed.episode_ends, whole.episode_ends) and killed.attrs["extract"] == whole.attrs["extract"]
    for key in whole.keys:
        assert np.array_equal(killed.read(key), whole.read(key)), key
    for fact in whole.facts():
        assert np.array_equal(
            killed.episode_field(fact), whole.episode_field(fact), equal_nan=fact not in ("source", "embodiment")
        ), fact
    assert not part.parent.exists()


def _episodes(path: Path) -> int:
    try:
        return EpisodeSet.open(path).n_episodes if path.exists() else 0
    except (OSError, KeyError, ValueError):  # it is being written to
        return 0


def test_further_videos_are_added_to_a_set(tmp_path: Path) -> None:
    hand_videos.film(tmp_path, "a")
    assert extract(tmp_path) == 0
    hand_videos.film(tmp_path, "b", seed=1)
    assert extract(tmp_path) == 2
    assert extract(tmp_path, "--resume") == 0
    assert EpisodeSet.open(tmp_path / "set.zarr").n_episodes == 2
