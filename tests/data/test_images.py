"""The frame cache is never stale, never half made, grows with its set, and memory is estimated before it is taken."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_sets import LENGTHS, SPEC, episode, make

from robolearn.data import _frame_cache, _memory, images
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import DatasetError

BUILD = """
import sys
from robolearn.data import images
from robolearn.data.store import EpisodeSet
frames = images.load_frames(EpisodeSet.open(sys.argv[1]), "img")
print(int(frames.astype("int64").sum()))
"""


@pytest.fixture
def toy(tmp_path: Path) -> EpisodeSet:
    return make(tmp_path / "a.zarr", lengths=(40, 30, 25), shard_rows=16)


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that fills with the first row of every decoding."""
    rows: list[int] = []
    real = images._decode
    monkeypatch.setattr(images, "_decode", lambda dataset, key, first: (rows.append(first), real(dataset, key, first))[1])
    return rows


def test_after_an_append_only_the_new_frames_are_decoded(toy: EpisodeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    images.load_frames(toy, "img")
    rows = decoded(monkeypatch)
    toy.append(episode(20, 7))
    again = EpisodeSet.open(toy.path)
    np.testing.assert_array_equal(images.load_frames(again, "img"), again.read("img"))
    assert rows == [80], "95 rows in shards of 16: the last one was written again"
    assert len(list(toy.path.with_suffix(".cache").iterdir())) == 1


@pytest.mark.parametrize("steps", [1, 20, 300])
def test_a_map_that_is_open_keeps_its_frames_while_the_cache_grows(toy: EpisodeSet, steps: int) -> None:
    before, want = images.load_frames(toy, "img"), toy.read("img")
    sizes = set()
    real = _frame_cache.os.ftruncate
    for seed in range(3):
        toy.append(episode(steps, seed))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_frame_cache.os, "ftruncate", lambda file, size: (sizes.add(size or 10**9), real(file, size)))
            again = EpisodeSet.open(toy.path)
            np.testing.assert_array_equal(images.load_frames(again, "img"), again.read("img"))
        np.testing.assert_array_equal(before, want)
    assert min(sizes) >= before.nbytes, "a file that is mapped must not become shorter"


def test_one_chunk_written_again_is_noticed(toy: EpisodeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    before, want = images.load_frames(toy, "img"), toy.read("img")
    rows = decoded(monkeypatch)
    group = zarr.open_group(toy.path, mode="r+")
    group["data/img"][50] = 255 - group["data/img"][50]
    again = EpisodeSet.open(toy.path)
    np.testing.assert_array_equal(images.load_frames(again, "img"), again.read("img"))
    assert rows == [48], "what lies before the changed shard is kept"
    np.testing.assert_array_equal(before, want)


def test_another_recording_under_the_same_name_is_decoded_anew(toy: EpisodeSet) -> None:
    images.load_frames(toy, "img")
    shutil.rmtree(toy.path)
    other = EpisodeSet.create(toy.path, SPEC, task="toy", env={}, shard_rows=16)
    for seed, steps in enumerate((40, 30, 25)):
        other.append(episode(steps, seed + 10))
    np.testing.assert_array_equal(images.load_frames(other, "img"), other.read("img"))


def test_of_many_chunk_files_a_bounded_number_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    stamps, whole = _frame_cache.file_stamps(lambda index: seen.append(index) or (index, 0), 10**6)
    assert len(stamps) == len(seen) == 16384 and not whole and {0, 999999} <= set(seen)


def test_frames_of_a_key_whose_name_begins_alike_are_left_alone(toy: EpisodeSet) -> None:
    folder = toy.path.with_suffix(".cache")
    folder.mkdir()
    other = folder / "img-left-0123456789abcdef.npy"
    other.write_bytes(b"")
    images.load_frames(toy, "img")
    assert other.exists()


def test_a_full_disk_is_told_and_the_images_are_held_in_memory(
    toy: EpisodeSet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(_frame_cache.os, "posix_fallocate", full)
    frames = images.load_frames(toy, "img")
    np.testing.assert_array_equal(frames, toy.read("img"))
    assert not isinstance(frames, np.memmap) and "No space left on device" in capsys.readouterr().err
    assert list(toy.path.with_suffix(".cache").iterdir()) == []
    with pytest.raises(DatasetError, match=r"img: .*No space left.*--dataset.cache ram needs no file"):
        images.load_frames(toy, "img", mode="mmap")


def test_memory_that_is_not_there_is_refused_before_it_is_taken(toy: EpisodeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "free_memory", lambda: 10_000)
    monkeypatch.setattr(images, "_decode", lambda *_: pytest.fail("decoded all the same"))
    with pytest.raises(DatasetError, match=r"img: want 0 MiB of memory for the images, 0 MiB are free; --dataset.cache mmap"):
        images.load_frames(toy, "img", mode="ram")


@pytest.mark.parametrize("made_before", [False, True])
def test_the_three_ways_give_the_same_images(toy: EpisodeSet, made_before: bool, capsys: pytest.CaptureFixture[str]) -> None:
    if made_before:
        images.load_frames(toy, "img")
    ram = images.load_frames(toy, "img", mode="ram")
    assert not isinstance(ram, np.memmap) and "held in memory" in capsys.readouterr().err
    assert toy.path.with_suffix(".cache").exists() == made_before
    for mode in ("mmap", "auto"):
        frames = images.load_frames(toy, "img", mode=mode)
        assert isinstance(frames, np.memmap) and frames.dtype == np.uint8
        np.testing.assert_array_equal(frames, ram)


def test_what_training_will_read_is_held_and_its_memory_told(toy: EpisodeSet, capsys: pytest.CaptureFixture[str]) -> None:
    images.hold_images(toy, ("img", "state"), "ram")
    assert "are free" in capsys.readouterr().err and set(toy.held) == {"img"}
    images.hold_images(toy, ("img",), "mmap")
    assert not isinstance(toy.held["img"], np.memmap), "what is held already is not loaded twice"
    assert Windows(toy, ("img",))._arrays["img"] is toy.held["img"]


def test_two_processes_at_once_decode_once_and_read_the_same(toy: EpisodeSet) -> None:
    command = [sys.executable, "-c", BUILD, str(toy.path)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60) for process in both]
    assert [int(out) for out, _ in said] == [int(toy.read("img").astype(np.int64).sum())] * 2
    assert sum("decoding" in err and "another" not in err for _, err in said) == 1
    assert len(list(toy.path.with_suffix(".cache").iterdir())) == 1


def test_a_build_that_was_killed_leaves_nothing_that_is_believed(toy: EpisodeSet) -> None:
    kill = BUILD.replace(
        "frames =",
        "import os, itertools\nreal = images._decode\n"
        "images._decode = lambda *a: (row if n < 1 else os._exit(9) for n, row in enumerate(real(*a)))\nframes =",
    ).replace("from robolearn.data import images", "from robolearn.data import images\nimages._BLOCK_ROWS = 16")
    assert subprocess.run([sys.executable, "-c", kill, str(toy.path)], check=False, capture_output=True).returncode == 9
    assert list(toy.path.with_suffix(".cache").glob(".*.partial"))
    np.testing.assert_array_equal(images.load_frames(toy, "img"), toy.read("img"))
    assert len(list(toy.path.with_suffix(".cache").iterdir())) == 1


def test_no_zarr_call_is_made_after_the_windows_are_built(toy: EpisodeSet, monkeypatch: pytest.MonkeyPatch) -> None:
    windows = Windows(toy, ("img", "state"), 2, 4, 0)
    want = toy.read("img", 2, 4)

    def never(*_: object, **__: object) -> None:
        pytest.fail("zarr was asked for a sample")

    for name in ("__getitem__", "get_basic_selection"):
        monkeypatch.setattr(zarr.Array, name, never)
    monkeypatch.setattr(zarr.storage.LocalStore, "get", never)
    np.testing.assert_array_equal(windows.batch(np.array([3]))["obs"]["img"][0], want)


def test_images_stay_uint8_in_a_zip_too(toy: EpisodeSet, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "b.zarr"), "zip", toy.path)
    frames = images.load_frames(EpisodeSet.open(tmp_path / "b.zarr.zip"), "img")
    assert frames.dtype == np.uint8 and frames.shape == (sum((40, 30, 25)), 8, 8, 3)
    np.testing.assert_array_equal(frames, toy.read("img"))


def test_free_memory_is_known_here_and_sizes_read_well() -> None:
    assert _memory.free_memory() > 0 and _memory.fits(10, 0) and not _memory.fits(95, 100)
    assert _memory.as_size(678 * 2**20) == "678 MiB" and _memory.as_size(12 * 2**30) == "12.0 GiB" and len(LENGTHS) == 3
