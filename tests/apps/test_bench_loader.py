"""The loader bench reports every layout with its ratio, and what it draws of each is the set's own frames."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robolearn.apps import _peer_layouts as layouts
from robolearn.cli import main
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet

WINDOW = layouts.Window(2, 4)


@pytest.fixture(scope="module")
def rows() -> layouts.Rows:
    ramp = np.add.outer(np.arange(64), np.arange(64))[None, :, :, None] + 3 * np.arange(40)[:, None, None, None]
    frames = np.repeat((ramp % 200).astype(np.uint8), 3, axis=-1)
    return layouts.Rows(frames, np.arange(80, dtype=np.float32).reshape(40, 2), np.array([25, 40]), 10.0)


@pytest.mark.parametrize("layout", [layouts.ZarrPerSample, layouts.ParquetPng])
def test_a_lossless_layout_gives_the_very_frames_and_actions(layout: type, rows: layouts.Rows, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    frames, actions = layout(rows, WINDOW, tmp_path)[7]
    np.testing.assert_array_equal(frames, rows.frames[7:9])
    np.testing.assert_array_equal(actions, rows.actions[7:11])


@pytest.mark.parametrize("row", [0, 1, 6, 7, 35])
def test_the_video_layout_gives_the_frames_that_were_asked_for(row: int, rows: layouts.Rows, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    made = layouts.ParquetVideo(rows, WINDOW, tmp_path)
    frames, actions = made[row]
    np.testing.assert_array_equal(actions, rows.actions[row : row + 4])
    distance = [[np.abs(seen.astype(int) - frame).mean() for frame in rows.frames.astype(int)] for seen in frames]
    assert np.argmin(distance, axis=1).tolist() == [row, row + 1], "a neighbour is less like it"
    assert layouts.read_back_psnr(rows.frames, tmp_path / "video.mp4", 10) > 20


def test_the_bench_writes_rates_and_ratios(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = Spec({"img": ArraySpec((64, 64, 3), "uint8")}, ArraySpec((2,)), 10.0)
    dataset = EpisodeSet.create(tmp_path / "a.zarr", spec, task="", env={}, durable=False)
    for seed in range(2):
        frames = np.random.default_rng(seed).integers(0, 256, (40, 64, 64, 3), np.uint8)
        dataset.append({"img": frames, "action": np.zeros((40, 2), np.float32)})
    flags = ["--workers", "0", "--repeats", "1", "--rows", "80", "--batch-size", "4"]
    main(["bench", "loader", str(dataset.path), *flags, "--json", str(tmp_path / "out.json")])
    told = json.loads((tmp_path / "out.json").read_text())
    assert {"window", "cold_start_s", "ours_windows_per_s", "naive_zarr_windows_per_s", "peer", "peer_windows_per_s"} <= set(told)
    assert told["ours_over_naive"] == pytest.approx(told["ours_windows_per_s"] / told["naive_zarr_windows_per_s"])
    assert {"ours", "naive", "png", "video"} <= {row["layout"] for row in told["rows"]}
    assert "wanted: 50 times zarr per sample" in capsys.readouterr().out
