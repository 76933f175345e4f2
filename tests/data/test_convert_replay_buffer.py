"""ReplayBuffers: what zarr 2 and diffusion_policy's assertions see, UMI's picture codecs, times that are no times."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from peer import read_with
from small_sets import make

from robolearn.data.convert import _copy, replay_buffer
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError, MissingDependency

POSE = {"eef_pos": 3, "eef_rot_axis_angle": 3, "gripper_width": 1}


def umi(path: Path, compressor: object, images: np.ndarray, pose: bool = True) -> Path:
    """Writes a buffer as UMI (poses) or diffusion_policy (actions) do: one picture a chunk, coded by imagecodecs."""
    folder = path.with_suffix("") if path.suffix == ".zip" else path
    group = zarr.create_group(folder, zarr_format=2)
    rng, steps = np.random.default_rng(0), len(images)
    for name, size in POSE.items() if pose else ():
        rows = rng.normal(size=(steps, size)).astype(np.float32)
        group.create_array(f"data/robot0_{name}", data=rows, chunks=rows.shape, compressors=None)
    if not pose:
        group.create_array("data/action", data=rng.normal(size=(steps, 2)).astype(np.float32))
    chunks = (1, *images.shape[1:])
    group.create_array("data/camera0_rgb", shape=images.shape, dtype="uint8", chunks=chunks, compressors=compressor)[:] = images
    group.create_array("meta/episode_ends", data=np.array([steps // 2, steps]), compressors=None)
    if path.suffix == ".zip":
        _copy.zip_folder(folder, path)
    return path


@pytest.fixture
def images() -> np.ndarray:
    y, x = np.mgrid[:24, :24]
    one = np.stack([(x * 7 + k) % 256 for k in range(10)])
    return np.stack([one, one[:, ::-1], np.broadcast_to(y * 5, one.shape)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_jpeg_xl_pictures_of_umi_are_read(images, suffix, tmp_path) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs")
    file = umi(tmp_path / f"umi{suffix}", codecs.Jpegxl(level=99, numthreads=1), images)
    assert replay_buffer.sniff(file)
    replay_buffer.read(file, tmp_path / "a.zarr", hz=60.0)
    made = EpisodeSet.open(tmp_path / "a.zarr")
    assert made.array("camera0_rgb").dtype == np.uint8 and made.spec.codec == "pose_axis_angle_abs"
    assert np.abs(made.read("camera0_rgb").astype(int) - images).mean() < 8  # level 99 is lossy where it was written
    np.testing.assert_array_equal(
        made.read("camera0_rgb"), zarr.open(str(tmp_path / "umi.zarr"), mode="r")["data/camera0_rgb"][:]
    )


def test_jpeg_2000_pictures_of_diffusion_policy_are_read(images, tmp_path) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs")
    file = umi(tmp_path / "a.zarr", codecs.Jpeg2k(level=0, reversible=True), images, pose=False)
    replay_buffer.read(file, tmp_path / "b.zarr", hz=20.0, task="lift")
    np.testing.assert_array_equal(EpisodeSet.open(tmp_path / "b.zarr").read("camera0_rgb"), images)


def test_missing_picture_codecs_name_the_extra(images, tmp_path, monkeypatch) -> None:
    codecs = pytest.importorskip("imagecodecs.numcodecs")
    file = umi(tmp_path / "umi.zarr", codecs.Jpegxl(lossless=True), images)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("imagecodecs"):
            raise ModuleNotFoundError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in sys.modules if name.startswith("imagecodecs")]:
        monkeypatch.delitem(sys.modules, name)
    assert replay_buffer.sniff(file)
    with pytest.raises(MissingDependency, match=r"pip install robolearn\[jxl\]"):
        replay_buffer.read(file, tmp_path / "a.zarr", hz=60.0)


@pytest.mark.parametrize("suffix", [".zarr", ".zarr.zip"])
def test_zarr_2_reads_what_we_write_as_diffusion_policy_does(suffix, tmp_path) -> None:
    source = make(tmp_path / "set.zarr")
    replay_buffer.write(source, tmp_path / f"b{suffix}")
    seen = read_with("zarr2", "zarr", [str(tmp_path / f"b{suffix}")], tmp_path, version="2.")
    np.testing.assert_array_equal(seen["ends"], source.episode_ends)
    assert seen["img_chunks"].tolist() == [1, 8, 8, 3]
    for key in source.keys:
        np.testing.assert_array_equal(seen[key], source.read(key))


def test_an_export_keeps_the_rules_of_diffusion_policys_replay_buffer(tmp_path) -> None:
    source = make(tmp_path / "set.zarr")
    replay_buffer.write(source, tmp_path / "b.zarr")
    root = zarr.open_group(str(tmp_path / "b.zarr"), mode="r")
    ends = root["meta/episode_ends"][:]
    assert ends.dtype == np.int64 and ends.ndim == 1 and (np.diff(ends, prepend=0) > 0).all()
    assert all(array.shape[0] == ends[-1] for array in root["data"].array_values())
    assert root.metadata.zarr_format == 2 and all(array.metadata.zarr_format == 2 for array in root["data"].array_values())


def test_times_that_are_no_times_are_refused(tmp_path) -> None:
    group = zarr.create_group(tmp_path / "b.zarr", zarr_format=2)
    times = np.arange(8.0)
    times[3] = np.nan
    group.create_array("data/timestamp", data=times)
    group.create_array("data/action", data=np.zeros((8, 2), np.float32))
    group.create_array("meta/episode_ends", data=np.array([8]))
    with pytest.raises(DatasetError, match="timestamp: NaN in row 3"):
        replay_buffer.read(tmp_path / "b.zarr", tmp_path / "a.zarr", hz=10.0)


def test_a_broken_header_is_refused_in_one_line(tmp_path) -> None:
    source = make(tmp_path / "set.zarr")
    replay_buffer.write(source, tmp_path / "b.zarr")
    (tmp_path / "b.zarr/data/state/.zarray").write_text("{")
    with pytest.raises(DatasetError) as caught:
        replay_buffer.read(tmp_path / "b.zarr", tmp_path / "a.zarr")
    assert "\n" not in str(caught.value) and not replay_buffer.sniff(tmp_path / "b.zarr")
