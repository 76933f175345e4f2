"""A new set out of episodes of others, value for value, in blocks that fit in memory. Images are copied as they are stored.

The layout (zarr format, chunks, compression) is that of the first source. Facts that a source lacks become unknown.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from tqdm import tqdm

from robolearn.data import _zarr
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

_BLOCK_BYTES = 32 * 2**20
_VERSION_ONLY = ("generation", "trash", "next_id")  # what is true of one state of one set and does not travel


@dataclass(frozen=True)
class Piece:
    """Some episodes of a set, in their order; episodes: rising places."""

    dataset: EpisodeSet
    episodes: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Number of steps of every episode."""
        return np.diff(self.dataset.episode_ends, prepend=0)[self.episodes]

    @cached_property
    def wanted(self) -> np.ndarray:
        """(steps of the whole set,) bool: the rows of these episodes."""
        chosen = np.zeros(self.dataset.n_episodes, bool)
        chosen[self.episodes] = True
        return np.repeat(chosen, np.diff(self.dataset.episode_ends, prepend=0))

    def fact(self, name: str) -> np.ndarray | None:
        """Returns one fact of these episodes, None where the set has no such fact."""
        values = self.dataset.episode_field(name)
        return None if values is None else values[self.episodes]


def travelling(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the attributes of a set that stay true of a copy of some of its episodes."""
    return {name: value for name, value in attributes.items() if name not in _VERSION_ONLY}


def united_facts(pieces: Sequence[Piece], names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
    """Returns every fact over all pieces, end to end; where a piece lacks one, its episodes have it unknown."""
    if names is None:
        names = sorted({name for piece in pieces for name in piece.dataset.facts()})
    return {name: _united(name, pieces) for name in names}


def _united(name: str, pieces: Sequence[Piece]) -> np.ndarray:
    found = [piece.fact(name) for piece in pieces]
    known = [(piece, values) for piece, values in zip(pieces, found, strict=True) if values is not None]
    first, sample = known[0]
    for piece, values in known:
        if (values.dtype.kind == "U") != (sample.dtype.kind == "U") or values.shape[1:] != sample.shape[1:]:
            raise DatasetError(
                f"fact '{name}': {_kind(sample)} in {first.dataset.path}, {_kind(values)} in {piece.dataset.path}; "
                f"leave it out, or write it alike in both"
            )
    if sample.dtype.kind == "U":
        parts = [np.full(len(p.episodes), "") if v is None else v for p, v in zip(pieces, found, strict=True)]
        return np.concatenate(parts)
    dtype = np.result_type(*(values for _, values in known))
    return np.concatenate([_numbers(p, v, dtype, sample.shape[1:]) for p, v in zip(pieces, found, strict=True)])


def _numbers(piece: Piece, values: np.ndarray | None, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a numeric fact of one piece in the common dtype, what is unknown said as that dtype says it."""
    if values is None:
        return np.full((len(piece.episodes), *shape), _zarr.unknown_fact(dtype), dtype)
    if dtype.kind == "f" and values.dtype.kind in "iu":
        return np.where(values == -1, np.nan, values).astype(dtype)
    return values.astype(dtype, copy=False)


def _kind(values: np.ndarray) -> str:
    return "text" if values.dtype.kind == "U" else f"numbers of shape {values.shape[1:]}"


def build(
    path: Path,
    pieces: Sequence[Piece],
    facts: Mapping[str, np.ndarray],
    attributes: Mapping[str, Any],
    *,
    keys: Sequence[str] | None = None,
    link: bool = False,
) -> None:
    """Writes a new set at `path` (which must not exist) of the episodes of all pieces, end to end.

    keys: by default those of the first piece. link: files at the beginning that are the same as in the first piece's set are
    shared with it (hard links), for a next generation of it. The caller renames the result into place.
    """
    like = pieces[0].dataset
    chosen = tuple(like.keys) if keys is None else tuple(keys)
    for dataset in {id(piece.dataset): piece.dataset for piece in pieces}.values():
        require_whole(dataset, chosen)
    group = zarr.create_group(zarr.storage.LocalStore(path), zarr_format=like.zarr_format, attributes=dict(attributes))
    group.create_group("data")
    group.create_group("meta")
    lengths = np.concatenate([piece.lengths for piece in pieces])
    rows = int(lengths.sum())
    with tqdm(total=rows * len(chosen), desc="copy", unit="row", leave=False, disable=not sys.stderr.isatty()) as bar:
        for key in chosen:
            array = like_array(group, f"data/{key}", like.array(key), rows)
            done = _linked_rows(like, key, path, pieces[0]) if link else 0
            bar.update(done)
            for written in _write(array, done, rows_of(pieces, key, done)):
                bar.update(written)
    for name, values in facts.items():
        write_fact(group, name, values)
    ends = _zarr.create_ends(group)
    ends.resize((len(lengths),))
    if len(lengths):
        ends[:] = np.cumsum(lengths)


def require_whole(dataset: EpisodeSet, keys: Iterable[str]) -> None:
    """Raises DatasetError where chunk files of a set of ours are missing: they would be copied as zeros."""
    for key in keys if "schema" in dataset.attrs else ():
        lost = _zarr.missing_chunks(dataset.path / "data" / key, dataset.array(key))
        if lost:
            raise DatasetError(f"{dataset.path}: {key}: {lost} chunk files are missing; restore them from a copy")


def like_array(group: zarr.Group, name: str, source: zarr.Array, rows: int) -> zarr.Array:
    """Returns a new array with `rows` rows and dtype, chunks, shards, codecs and attributes of `source`."""
    made = zarr.from_array(
        group.store,
        data=source,
        name=name,
        write_data=False,
        zarr_format=group.metadata.zarr_format,
        attributes=dict(source.attrs),
    )
    made.resize((rows, *source.shape[1:]))
    return made


def write_fact(group: zarr.Group, name: str, values: np.ndarray) -> None:
    """Writes a fact of all episodes of a new set: text as UTF-8, numbers in their dtype."""
    if values.dtype.kind in "UTO":
        encoded = [_zarr.encode_fact(str(value)) for value in values]
        width = max((len(row) for row in encoded), default=_zarr.TEXT_CHUNK)
        rows = np.stack([np.pad(row, (0, width - len(row))) for row in encoded]) if encoded else np.zeros((0, width), np.uint8)
    else:
        rows = values.astype(np.int64) if values.dtype == np.uint8 else values
    array = _zarr.fact_array(group["meta"], f"episode_{name}", np.zeros(rows.shape[1:], rows.dtype))
    array.resize(rows.shape)
    if len(rows):
        array[:] = rows


def rows_of(pieces: Sequence[Piece], key: str, skip: int = 0) -> Iterator[np.ndarray]:
    """Yields the rows of one key, piece after piece, in blocks along the chunks of their source, without the first `skip`."""
    for piece in pieces:
        array, count = piece.dataset.array(key), piece.dataset.n_steps
        step = block_rows(array)
        wanted = piece.wanted
        for start in range(0, count, step):
            inside = np.flatnonzero(wanted[start : min(start + step, count)])
            if skip >= len(inside):
                skip -= len(inside)
                continue
            inside = inside[skip:]
            skip = 0
            low, high = int(inside[0]), int(inside[-1]) + 1
            block = _zarr.read_rows(array, start + low, start + high, f"{piece.dataset.path}: {key}")
            yield block if len(inside) == high - low else block[inside - low]


def block_rows(array: zarr.Array) -> int:
    """Returns a number of rows, whole chunk files of `array`, of some tens of MiB at most (or one file)."""
    step = int(array.shards[0] if array.shards else array.chunks[0])
    row_bytes = max(1, int(np.prod(array.shape[1:]))) * array.dtype.itemsize
    return step * max(1, _BLOCK_BYTES // (step * row_bytes))


def _write(array: zarr.Array, start: int, blocks: Iterable[np.ndarray]) -> Iterator[int]:
    """Writes blocks from row `start` on, gathered so that every chunk file is written once; yields how many rows each time."""
    step, held = block_rows(array), list[np.ndarray]()
    for block in blocks:
        held.append(block)
        while (count := sum(map(len, held))) >= step:
            rows = np.concatenate(held) if len(held) > 1 else held[0]
            whole = count - count % step
            array[start : start + whole] = rows[:whole]
            start += whole
            held = [rows[whole:]]
            yield whole
    rest = np.concatenate(held) if held else np.zeros((0,))
    if len(rest):
        array[start : start + len(rest)] = rest
        yield len(rest)


def _linked_rows(like: EpisodeSet, key: str, path: Path, piece: Piece) -> int:
    """Shares the leading chunk files that stay as they are between two generations of a set; returns how many rows they hold.

    Chunk files are never written in place, only replaced, so neither generation can change the other's.
    """
    array = like.array(key)
    rows = piece.wanted
    same = len(rows) if rows.all() else int(np.argmin(rows))
    step = int(array.shards[0] if array.shards else array.chunks[0])
    along = array.shards or array.chunks
    if piece.dataset is not like or tuple(along[1:]) != tuple(array.shape[1:]) or not like.path.is_dir():
        return 0
    for index in range(same // step):
        name = array.metadata.encode_chunk_key((index, *[0] * (array.ndim - 1)))
        source, target = like.path / "data" / key / name, path / "data" / key / name
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except OSError:  # no hard links here, or another program left a chunk of zeros out
            with contextlib.suppress(OSError):
                target.unlink()
            return index * step
    return same // step * step
