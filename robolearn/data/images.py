"""Images of a set as one uint8 array that can be indexed at random: decoded once, kept beside the set as a memory map."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from robolearn import config
from robolearn.core import ArraySpec
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

_BLOCK_ROWS = 512
_VECTOR_ROWS = 65536


def is_image(spec: ArraySpec) -> bool:
    """Returns True for (height, width, 3) arrays, whatever their dtype: other programs keep images as floats."""
    return len(spec.shape) == 3 and spec.shape[-1] == 3 and min(spec.shape[:2]) >= 8


def image_keys(dataset: EpisodeSet) -> tuple[str, ...]:
    """Returns the keys of a set that hold images."""
    return tuple(key for key, spec in dataset.keys.items() if is_image(spec))


def load_frames(dataset: EpisodeSet, key: str, cache: Path | None = None) -> np.ndarray:
    """Returns all images of one key (steps, height, width, 3) uint8: a memory map of the cache file, made when missing.

    cache: a folder, by default NAME.cache beside NAME.zarr; where it cannot be written, the images are held in memory.
    """
    folder = cache or dataset.path.with_suffix(".cache")
    file = folder / f"{key}-{_fingerprint(dataset, key)}.npy"
    if file.is_file():
        return np.load(file, mmap_mode="r")
    shape = (dataset.n_steps, *dataset.keys[key].shape)
    size = f"{np.prod(shape) / 2**20:.0f} MiB"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{file.name}.{os.getpid()}.partial"
        target = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=shape)
    except OSError as error:
        _say(f"{key}: {folder} cannot be written ({error.strerror}); {size} of images are held in memory")
        frames = np.empty(shape, np.uint8)
        _decode(dataset, key, frames)
        return frames
    _say(f"{key}: decoding {size} of images once into {file}")
    try:
        _decode(dataset, key, target)
        target.flush()
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    for old in folder.glob(f"{key}-*.npy"):
        if old != file:
            old.unlink(missing_ok=True)
    return np.load(file, mmap_mode="r")


def frame_blocks(dataset: EpisodeSet, key: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields (first row, uint8 images) of one key in blocks aligned with its chunks."""
    array = dataset.array(key)
    step = array.shards[0] if array.shards else array.chunks[0]
    step *= max(1, _BLOCK_ROWS // step)
    scale = None
    for start in range(0, dataset.n_steps, step):
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


def _decode(dataset: EpisodeSet, key: str, target: np.ndarray) -> None:
    with tqdm(total=dataset.n_steps, desc=f"decode {key}", unit="img", leave=False, disable=not sys.stderr.isatty()) as bar:
        for start, block in frame_blocks(dataset, key):
            target[start : start + len(block)] = block
            bar.update(len(block))


def _fingerprint(dataset: EpisodeSet, key: str) -> str:
    """Returns a hash of the array's metadata, its extent and the times of its files: another recording, another hash."""
    array = dataset.array(key)
    stamp = [json.dumps(array.metadata.to_dict(), sort_keys=True, default=str), str(dataset.n_steps)]
    folder = dataset.path / "data" / key
    if folder.is_dir():
        newest = max((p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()), default=0)
        stamp.append(str(newest))
    return hashlib.sha256("|".join(stamp).encode()).hexdigest()[:16]


def _say(text: str) -> None:
    config.warn(f"robolearn: {text}")
