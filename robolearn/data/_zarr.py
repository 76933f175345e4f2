"""What the episode store needs of zarr: durable writes, chunk layouts of formats 2 and 3, text as bytes, errors with a place."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.buffer import Buffer

from robolearn.data import _remote
from robolearn.data._files import write_durably
from robolearn.data._remote_store import open_remote
from robolearn.errors import DatasetError, nearest

ENDS_CHUNK = 4096  # episodes
FACT_CHUNK = 512  # episodes
TEXT_CHUNK = 64  # bytes
_CHUNK_BYTES = 64 * 1024
_IMAGE_CHUNK_BYTES = 512 * 1024
_SHARD_BYTES = 32 * 1024 * 1024

# A chunk of zeros must be a file too: otherwise a lost chunk reads as zeros and nobody notices.
zarr.config.set({"array.write_empty_chunks": True})


class DurableStore(zarr.storage.LocalStore):
    """A folder store whose every write is a temporary file, flushed to the disk, then renamed into place."""

    async def set(self, key: str, value: Buffer) -> None:
        """Writes one key durably: after it returns the value survives a power cut, before that the old value does."""
        if not self._is_open:
            await self._open()
        self._check_writable()
        await asyncio.to_thread(write_durably, self.root / key, value.to_bytes())

    def set_sync(self, key: str, value: Buffer) -> None:
        """As `set`, for zarr's synchronous path."""
        self._check_writable()
        write_durably(self.root / key, value.to_bytes())


def side_by_side(calls: Iterable[Callable[[], object]]) -> None:
    """Makes independent writes at the same time, because each waits for the disk; the first error is raised after all ended."""
    with ThreadPoolExecutor(max_workers=8) as pool:
        pending = [pool.submit(call) for call in calls]
    for future in pending:
        future.result()


def open_group(path: Path, writable: bool = False) -> zarr.Group:
    """Returns the group in a folder or .zip, or at an address; DatasetError names the nearest path where there is none."""
    if isinstance(path, _remote.Address):
        if writable:
            _remote.refuse_writing(path)
        found = open_remote(path)
        return _zip_group(found) if isinstance(found, Path) else found
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir() if p.name[0] != "."] if path.parent.is_dir() else []
        raise DatasetError(f"{path}: no such dataset{nearest(path.name, beside)}")
    try:
        if path.is_file():
            return _zip_group(path)
        return zarr.open_group(
            DurableStore(path) if writable else zarr.storage.LocalStore(path, read_only=True), mode="r+" if writable else "r"
        )
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(
            f"{path}: want a zarr group with data/ and meta/episode_ends, got {_what_is(path)} ({type(error).__name__})"
        ) from error


def _zip_group(path: Path) -> zarr.Group:
    store = zarr.storage.ZipStore(path, mode="r")
    with contextlib.suppress(Exception):
        return zarr.open_group(store, mode="r")
    import zipfile

    roots = sorted({name.split("/")[0] for name in zipfile.ZipFile(path).namelist() if "/" in name})
    if not roots:
        raise DatasetError(f"{path}: want a zipped zarr group, got a zip without one")
    return zarr.open_group(store, path=roots[0], mode="r")


def _what_is(path: Path) -> str:
    if path.is_file():
        return "a file"
    names = sorted(p.name for p in path.iterdir())
    return f"a folder with {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "an empty folder"


def create_rows(group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str, shard_rows: int | None = None) -> zarr.Array:
    """Returns a new array (0, *shape) that grows along time.

    Vectors lie some tens of kB a chunk; images one frame a chunk in format 2 (what other programs expect), in format 3
    some frames a chunk (frames resemble each other: a third of the bytes) and `shard_rows` a file (default: 128, or 32 MiB).
    """
    image = dtype == "uint8" and len(shape) == 3
    row_bytes = max(1, int(np.prod(shape)) * np.dtype(dtype).itemsize)
    vector_rows = int(np.clip(_CHUNK_BYTES // row_bytes, 1, 4096))
    if group.metadata.zarr_format == 2:
        blosc = numcodecs.Blosc("zstd", 5, numcodecs.Blosc.NOSHUFFLE if image else numcodecs.Blosc.SHUFFLE)
        rows = 1 if image else vector_rows
        return group.create_array(name, shape=(0, *shape), chunks=(rows, *shape), dtype=dtype, compressors=blosc)
    frames = min(16, _power_of_two(_IMAGE_CHUNK_BYTES // row_bytes))
    shard = max(frames, shard_rows or min(128, _power_of_two(_SHARD_BYTES // row_bytes)))
    return group.create_array(
        name,
        shape=(0, *shape),
        chunks=(frames if image else vector_rows, *shape),
        shards=(shard - shard % frames, *shape) if image else None,
        dtype=dtype,
        compressors=(BloscCodec(cname="zstd", clevel=3, shuffle="noshuffle" if image else "shuffle"), Crc32cCodec()),
        chunk_key_encoding={"name": "default", "separator": "."},  # one folder a key, not three a file of pictures
    )


def arrays_below(group: zarr.Group, prefix: str = "") -> dict[str, zarr.Array]:
    """Returns all arrays of a group by their path in it ("state", "tracks/left"), those of its groups too."""
    found: dict[str, zarr.Array] = {}
    for name, member in group.members():
        if isinstance(member, zarr.Group):
            found |= arrays_below(member, f"{prefix}{name}/")
        else:
            found[f"{prefix}{name}"] = member
    return found


def _power_of_two(limit: int) -> int:
    """Returns the largest power of two that is at most `limit`, at least 1."""
    return 1 << max(0, int(limit).bit_length() - 1)


def create_ends(group: zarr.Group) -> zarr.Array:
    """Returns a new, empty, uncompressed int64 array of episode ends: one raw chunk, so that one rename commits an episode."""
    return group.create_array("meta/episode_ends", shape=(0,), chunks=(ENDS_CHUNK,), dtype="int64", compressors=None)


def grown(array: zarr.Array, rows: int) -> zarr.Array:
    """Returns a handle on `array` with `rows` rows whose shape is not on the disk yet."""
    metadata = array.metadata.update_shape((rows, *array.shape[1:]))
    return zarr.Array(zarr.AsyncArray(metadata=metadata, store_path=array.store_path))


def fact_array(meta: zarr.Group, name: str, value: np.ndarray) -> zarr.Array:
    """Returns the array of one per-episode fact, made for `value` where it does not exist yet."""
    if name in meta:
        return meta[name]
    array = meta.create_array(
        name,
        shape=(0, *value.shape),
        chunks=(FACT_CHUNK, *[max(1, n) for n in value.shape]),
        dtype=value.dtype,
        compressors="auto",
    )
    if value.dtype == np.uint8:
        array.attrs["encoding"] = "utf-8"
    return array


def encode_fact(value: Any) -> np.ndarray:
    """Returns a fact as an array that every zarr reads: text as UTF-8 bytes padded with zeros, True as int8 1."""
    if isinstance(value, str):
        raw = value.encode()
        return np.frombuffer(raw.ljust(-(-max(1, len(raw)) // TEXT_CHUNK) * TEXT_CHUNK, b"\0"), np.uint8)
    if value is None:
        return np.array(np.nan)
    array = np.asarray(value)
    kinds = {"b": "int8", "i": "int8" if array.dtype == np.int8 else "int64", "u": "int64", "f": "float64"}
    if array.dtype.kind not in kinds:
        raise DatasetError(f"want a fact that is text, a number or an array of numbers, got {value!r}")
    return array.astype(kinds[array.dtype.kind])


def unknown_fact(dtype: np.dtype) -> float | int:
    """Returns what stands for "not known" in a fact array: NaN, -1, or empty text."""
    return np.nan if dtype.kind == "f" else 0 if dtype == np.uint8 else -1


def decode_text(rows: np.ndarray) -> np.ndarray:
    """Returns (n,) strings of (n, width) zero-padded UTF-8 bytes."""
    return np.array([bytes(row).rstrip(b"\0").decode() for row in rows], dtype=np.str_) if len(rows) else np.zeros(0, "U1")


def missing_chunks(folder: Path, array: zarr.Array) -> int:
    """Returns how many of the files that the shape of the array in `folder` promises are not there (0 inside a zip)."""
    if not folder.is_dir():
        return 0
    step = array.shards[0] if array.shards else array.chunks[0]
    names = (array.metadata.encode_chunk_key((i, *[0] * (array.ndim - 1))) for i in range(-(-array.shape[0] // step)))
    return sum(not (folder / name).is_file() for name in names)


def read_rows(array: zarr.Array, start: int, stop: int | None, where: str) -> np.ndarray:
    """Returns array[start:stop]; DatasetError names key and chunk where one is truncated, corrupt or unreadable."""
    stop = array.shape[0] if stop is None else stop
    try:
        return np.asarray(array[start:stop])
    except DatasetError:  # of a remote set: says by itself what is wrong
        raise
    except Exception as error:
        step = array.shards[0] if array.shards else array.chunks[0]
        for row in range(start - start % step, stop, step):
            try:
                array[max(row, start) : min(row + step, stop)]
            except Exception as inner:
                what = str(inner).splitlines()[0][:120] if str(inner) else type(inner).__name__
                raise DatasetError(
                    f"{where}: chunk {row // step} (rows {row} to {min(row + step, array.shape[0]) - 1}) is truncated or corrupt "
                    f"({what}); restore it from a copy, or record these episodes again"
                ) from error
        raise DatasetError(f"{where}: rows {start} to {stop - 1} cannot be read ({error})") from error
