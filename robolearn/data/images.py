"""Images of a set as one uint8 array that can be indexed at random: decoded once, kept beside the set as a memory map."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import zarr
from tqdm import tqdm

from robolearn import config
from robolearn.core import ArraySpec
from robolearn.data import _frame_cache, _remote
from robolearn.data._files import locked
from robolearn.data._memory import as_size, fits, free_memory
from robolearn.data._remote_store import RemoteStore
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

_BLOCK_ROWS = 512
_VECTOR_ROWS = 65536
_PATIENCE_S = 86400.0  # for another process that is decoding the same images
CacheMode = Literal["auto", "ram", "mmap"]


def is_image(spec: ArraySpec) -> bool:
    """Returns True for (height, width, 3) arrays, whatever their dtype: other programs keep images as floats."""
    return len(spec.shape) == 3 and spec.shape[-1] == 3 and min(spec.shape[:2]) >= 8


def image_keys(dataset: EpisodeSet) -> tuple[str, ...]:
    """Returns the keys of a set that hold images."""
    return tuple(key for key, spec in dataset.keys.items() if is_image(spec))


def hold_images(dataset: EpisodeSet, keys: Iterable[str], mode: CacheMode) -> None:
    """Puts the image keys among `keys` where all windows on `dataset` find them, and says how much memory that takes."""
    for key in keys:
        if key in dataset.keys and is_image(dataset.keys[key]) and len(dataset.held.get(key, ())) != dataset.n_steps:
            frames = load_frames(dataset, key, mode=mode)
            if isinstance(frames, np.memmap):
                free = as_size(free_memory())
                _say(f"{key}: {as_size(frames.nbytes)} of images as a memory map of {frames.filename}; {free} of memory free")
            dataset.held[key] = frames


def load_frames(dataset: EpisodeSet, key: str, cache: Path | None = None, mode: CacheMode = "auto") -> np.ndarray:
    """Returns all images of one key (steps, height, width, 3) uint8, decoded once.

    cache: a folder, by default NAME.cache beside NAME.zarr (a remote set: in the local cache). mode "mmap": a memory map of
    a file there, made when missing; "ram": in memory; "auto": the map, or memory where it cannot be made.
    DatasetError where the images do not fit into what is free, before any of it is taken.
    """
    folder = cache or _remote.beside(dataset.path, ".cache")
    state = _state(dataset, key)
    file = folder / f"{key}-{state.name}.npy"
    if mode == "ram":
        return _in_memory(dataset, key, file, "--dataset.cache mmap needs none")
    if not file.is_file():
        try:
            _build(dataset, key, folder, state)
        except OSError as error:
            why = f"{folder} cannot be written ({error.strerror or error})"
            if mode == "mmap":
                raise DatasetError(f"{dataset.path}: {key}: {why}; --dataset.cache ram needs no file") from error
            _say(f"{key}: {why}")
            return _in_memory(dataset, key, file, "make room for the file")
    return _mapped(file)


def _build(dataset: EpisodeSet, key: str, folder: Path, state: _frame_cache.State) -> None:
    """Makes the cache file; where another process is making it, waits for that one."""
    file, place = folder / f"{key}-{state.name}.npy", _frame_cache.lock_place(folder)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(locked(place, "frame cache", wait_s=0.2))
        except DatasetError as error:
            if error.__cause__ is not None:
                raise OSError(errno.EACCES, str(error.__cause__)) from error
            _say(f"{key}: another process is decoding the images of {dataset.path}; waiting for it")
            held.enter_context(locked(place, "frame cache", wait_s=_PATIENCE_S))
        if file.is_file():
            return
        _say(f"{key}: decoding {as_size(state.nbytes)} of images once into {file}")
        _frame_cache.build(folder, key, state, lambda first: _decode(dataset, key, first))


def _mapped(file: Path) -> np.memmap:
    """Returns the memory map of a cache file; its pages are fetched ahead where they fit in half of the free memory."""
    frames = np.load(file, mmap_mode="r")
    if hasattr(mmap, "MADV_WILLNEED") and frames.nbytes:
        fits_well = frames.nbytes <= free_memory() // 2
        frames._mmap.madvise(mmap.MADV_WILLNEED if fits_well else mmap.MADV_RANDOM)
    return frames


def _in_memory(dataset: EpisodeSet, key: str, file: Path, way_out: str) -> np.ndarray:
    """Returns the images in memory, from the cache file where there is one; DatasetError where they do not fit."""
    shape = (dataset.n_steps, *dataset.keys[key].shape)
    need, free = int(np.prod(shape, dtype=np.int64)), free_memory()
    if not fits(need, free):
        raise DatasetError(
            f"{dataset.path}: {key}: want {as_size(need)} of memory for the images, {as_size(free)} are free; {way_out}, "
            "or train on fewer episodes"
        )
    _say(f"{key}: {as_size(need)} of images are held in memory, {as_size(free)} are free")
    if file.is_file():
        return np.load(file)
    frames = np.empty(shape, np.uint8)
    for start, block in _decode(dataset, key, 0):
        frames[start : start + len(block)] = block
    return frames


def frame_blocks(dataset: EpisodeSet, key: str, first: int = 0) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, uint8 images) of one key from row `first` on, in blocks aligned with its chunks where `first` is."""
    array = dataset.array(key)
    step = array.shards[0] if array.shards else array.chunks[0]
    step *= max(1, _BLOCK_ROWS // step)
    scale = None
    for start in range(first, dataset.n_steps, step):
        block = dataset.read(key, start, min(start + step, dataset.n_steps))
        if block.dtype == np.uint8:
            yield start, block
            continue
        scale = scale or _scale(block)
        yield (
            start,
            to_uint8(
                block if scale == 1.0 else block * scale, f"{dataset.path}: {key}: rows {start} to {start + len(block) - 1}"
            ),
        )


def row_blocks(dataset: EpisodeSet, keys: Iterable[str]) -> Iterator[tuple[str, int, np.ndarray]]:
    """Yields (key, first row, rows) of each key in blocks that fit in memory, images as uint8: what `EpisodeSet.extend` takes."""
    for key in keys:
        if is_image(dataset.keys[key]):
            yield from ((key, start, block) for start, block in frame_blocks(dataset, key))
        else:
            for start in range(0, dataset.n_steps, _VECTOR_ROWS):
                yield key, start, dataset.read(key, start, start + _VECTOR_ROWS)


def to_uint8(images: np.ndarray, where: str) -> np.ndarray:
    """Returns float images that hold 0..255 as uint8; DatasetError where they hold anything else."""
    low, high = float(images.min(initial=0)), float(images.max(initial=0))
    if not (low >= -0.5 and high < 255.5):
        raise DatasetError(f"{where}: want images of 0..255 (or 0..1), got values {low:g}..{high:g}")
    return (images + 0.5).astype(np.uint8)


def _scale(block: np.ndarray) -> float:
    """Returns 255 for images of 0..1, 1 for images of 0..255 (a black first block says nothing: 1)."""
    return 255.0 if 0.0 < float(block.max(initial=0)) <= 1.0 else 1.0


def _decode(dataset: EpisodeSet, key: str, first: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yields what `frame_blocks` yields, with a progress bar on a terminal; files of a remote set are fetched ahead."""
    array, quiet = dataset.array(key), not sys.stderr.isatty()
    with contextlib.ExitStack() as held:
        if isinstance(array.store, RemoteStore):
            step = (array.shards or array.chunks)[0]
            parts = range(first // step, -(-dataset.n_steps // step))
            names = (array.metadata.encode_chunk_key((part, *[0] * (array.ndim - 1))) for part in parts)
            held.enter_context(array.store.mirror.fetching(f"data/{key}/{name}" for name in names))
        bar = held.enter_context(
            tqdm(total=dataset.n_steps, initial=first, desc=f"decode {key}", unit="img", leave=False, disable=quiet)
        )
        for start, block in frame_blocks(dataset, key, first):
            yield start, block
            bar.update(len(block))


def _state(dataset: EpisodeSet, key: str) -> _frame_cache.State:
    """Returns what the images of one key depend on: cheap to find, and another one after every change."""
    array = dataset.array(key)
    chunk = array.shards or array.chunks
    shape = (dataset.n_steps, *array.shape[1:])
    grid = tuple(-(-n // c) for n, c in zip(shape, chunk, strict=True))
    metadata = {k: v for k, v in array.metadata.to_dict().items() if k != "shape"}
    count = int(np.prod(grid))
    stamps, whole = _frame_cache.file_stamps(_stamps(dataset, key, grid), count)
    alone = whole and count == grid[0] and array.dtype == np.uint8
    return _frame_cache.State(json.dumps(metadata, sort_keys=True, default=str), shape, stamps, chunk[0], alone)


def _stamps(dataset: EpisodeSet, key: str, grid: tuple[int, ...]) -> Callable[[int], tuple[int, int]]:
    """Returns what gives the stamp of chunk file number i: time and size of the file, of the whole .zip, or a remote tag."""
    array = dataset.array(key)
    if isinstance(array.store, zarr.storage.ZipStore):
        return lambda _: _frame_cache.local_stamp(str(array.store.path))
    encode, rest, only_time = array.metadata.encode_chunk_key, (0,) * (len(grid) - 1), int(np.prod(grid[1:])) == 1

    def name(index: int) -> str:
        place = (index, *rest) if only_time else tuple(map(int, np.unravel_index(index, grid)))
        return f"data/{key}/{encode(place)}"

    if isinstance(array.store, RemoteStore):
        return lambda index: array.store.stamp(name(index))
    return lambda index: _frame_cache.local_stamp(f"{dataset.path}/{name(index)}")


def _say(text: str) -> None:
    config.warn(f"robolearn: {text}")
