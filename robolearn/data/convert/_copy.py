"""What the converters share: a foreign dataset before its rows are read, and how those rows become a set, piece by piece."""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tqdm import tqdm

from robolearn.core import ArraySpec, Spec
from robolearn.data._fan import Workers, fan_out
from robolearn.data._files import built_aside
from robolearn.data.convert import _pictures
from robolearn.data.images import is_image, row_blocks
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError

__all__ = ["Foreign", "Options", "built_aside", "copy_set", "own_attributes", "row_blocks", "take_over", "zip_folder"]

_OWN = ("schema", "task", "env", "hz", "keys", "spec")
_PIECE_BYTES = 64 * 2**20  # of one key, decoded
_VECTOR_ROWS = 65536  # a block of vectors that is written at once
_SHARD_ROWS = 128
_LOSSLESS_BYTES = 4 * 2**30  # of decoded pictures: up to here they are kept as PNG where nothing is said

Images = Literal["", "png", "jpeg", "video"]
Rows = dict[str, np.ndarray]
Blocks = Iterable[tuple[str, int, np.ndarray]]


@dataclass(frozen=True)
class Options:
    """How to convert. images: how a format that leaves the choice keeps pictures; workers: who decodes and encodes.

    emulated: take rows of a run in which no metal moved.
    """

    images: Images = ""
    workers: Workers = 0
    emulated: bool = False


@dataclass(frozen=True)
class Piece:
    """Rows [start, stop) of one episode, counted within the episode."""

    episode: int
    start: int
    stop: int


@dataclass(frozen=True)
class Foreign:
    """A dataset of another program as it will be taken over: known before any picture is decoded.

    ends: int64 (episodes,); facts: one value an episode; lost: what cannot be carried; rows: reads one piece, every key,
    picklable; blocks: the same in the order of the file, where that is faster than piece by piece.
    """

    spec: Spec
    task: str
    ends: np.ndarray
    rows: Callable[[Piece], Rows]
    extra: Mapping[str, ArraySpec] = field(default_factory=dict)
    env: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Sequence[Any] | np.ndarray] = field(default_factory=dict)
    lost: tuple[str, ...] = ()
    blocks: Callable[[], Blocks] | None = None

    @property
    def keys(self) -> dict[str, ArraySpec]:
        """Every array, `action` included."""
        return {**self.spec.obs, "action": self.spec.action, **self.extra}

    def pieces(self) -> Iterator[Piece]:
        """Yields the episodes in pieces that fit in memory, in order."""
        most = max(1, _PIECE_BYTES // max(row_bytes(array) for array in self.keys.values()))
        for episode, length in enumerate(np.diff(self.ends, prepend=0).tolist()):
            for start in range(0, length, most):
                yield Piece(episode, start, min(start + most, length))


class Ahead:
    """Reads rows of a set that are asked for in order: vectors in blocks, because a call of zarr costs milliseconds."""

    def __init__(self, source: EpisodeSet) -> None:
        self.source = source
        self._held: dict[str, tuple[int, np.ndarray]] = {}

    def read(self, key: str, first: int, last: int) -> np.ndarray:
        """Returns rows [first, last) of one key; not to be written to."""
        if is_image(self.source.keys[key]):
            return self.source.read(key, first, last)
        start, rows = self._held.get(key, (0, np.zeros(0)))
        if not start <= first <= last <= start + len(rows):
            most = min(_VECTOR_ROWS, _PIECE_BYTES // row_bytes(self.source.keys[key]))
            start, rows = first, self.source.read(key, first, max(last, first + most))
            self._held[key] = start, rows
        return rows[first - start : last - start]


def take_over(foreign: Foreign, dst: Path, *, overwrite: bool, workers: Workers = 0) -> tuple[str, ...]:
    """Writes a foreign dataset as a set to `dst` and returns what could not be carried; a crash leaves `dst` as it was."""
    if not len(foreign.ends):
        raise DatasetError(f"{dst}: want at least one episode, got none")
    with built_aside(dst, overwrite) as part:
        made = EpisodeSet.create(
            part, foreign.spec, task=foreign.task, env=foreign.env, meta=foreign.meta, extra=foreign.extra, durable=False
        )
        blocks = foreign.blocks() if foreign.blocks else aligned(_in_pieces(foreign, workers), foreign.keys)
        total = int(foreign.ends[-1]) * len(foreign.keys)
        with tqdm(total=total, desc=f"convert {dst.name}", unit="row", disable=not sys.stderr.isatty()) as bar:
            made.extend(foreign.ends, _counted(blocks, bar), **{name: list(values) for name, values in foreign.facts.items()})
    return foreign.lost


def refuse_emulated(foreign: Foreign, src: Path, options: Options) -> None:
    """Raises BadInput for rows of emulators and dry runs, which are no training data unless they are asked for."""
    if foreign.meta.get("emulated") and not options.emulated:
        raise BadInput(f"{src}: an emulated run, no robot did this; --emulated takes it all the same")


def _in_pieces(foreign: Foreign, workers: Workers) -> Blocks:
    keys, starts = foreign.keys, np.concatenate([[0], foreign.ends])
    pieces = list(foreign.pieces())
    for piece, rows in zip(pieces, fan_out(partial(_checked, foreign.rows, keys), pieces, workers), strict=True):
        for key, values in rows.items():
            yield key, int(starts[piece.episode]) + piece.start, values


def _checked(read: Callable[[Piece], Rows], keys: Mapping[str, ArraySpec], piece: Piece) -> Rows:
    """Returns the rows of one piece; DatasetError names the key whose array is not what was announced."""
    rows = read(piece)
    for key, want in keys.items():
        got = rows[key]
        if got.shape != (piece.stop - piece.start, *want.shape):
            raise DatasetError(
                f"episode {piece.episode}: {key}: want {piece.stop - piece.start} rows of {want.dtype}{want.shape}, "
                f"got {got.dtype}{got.shape}"
            )
    times = rows.get("timestamp")
    if times is not None and times.dtype.kind == "f" and not np.isfinite(times).all():
        row = piece.start + int(np.argwhere(~np.isfinite(times))[0][0])
        raise DatasetError(f"episode {piece.episode}: timestamp: NaN or infinity in row {row}")
    return {key: rows[key] for key in keys}


def compare(foreign: Foreign, dataset: EpisodeSet, workers: Workers = 0) -> dict[str, Any]:
    """Returns how the rows of a foreign dataset differ from those of a set: ends_equal, and for each key its dtype and
    `equal`, or PSNR [dB] of pictures, or the largest difference of numbers."""
    ends = bool(np.array_equal(foreign.ends, dataset.episode_ends))
    found: dict[str, dict[str, Any]] = {}
    squared: dict[str, list[np.ndarray]] = {}
    pieces, starts = list(foreign.pieces()) if ends else [], np.concatenate([[0], foreign.ends])
    ours = Ahead(dataset)
    for piece, rows in zip(pieces, fan_out(foreign.rows, pieces, workers), strict=True):
        first = int(starts[piece.episode])
        for key in (key for key in rows if key in dataset.keys):
            got, want = rows[key], ours.read(key, first + piece.start, first + piece.stop)
            row = found.setdefault(key, {"shape": want.shape[1:], "dtype": str(want.dtype), "foreign_dtype": str(got.dtype)})
            if is_image(dataset.keys[key]):
                squared.setdefault(key, []).append(_pictures.squared_errors(got, want))
            same = np.array_equal(got, want, equal_nan=want.dtype.kind == "f")
            row["equal"] = row.get("equal", True) and bool(same)
            if not same and not is_image(dataset.keys[key]):
                gap = float(np.nanmax(np.abs(got.astype(float) - want.astype(float))))
                row["max_difference"] = max(row.get("max_difference", 0.0), gap)
    for key, parts in squared.items():
        if not found[key]["equal"]:
            whole, values = np.concatenate(parts), int(np.prod(dataset.keys[key].shape))
            found[key]["psnr_db"] = _pictures.psnr(float(whole.sum()), values * len(whole))
            found[key]["worst_psnr_db"] = _pictures.psnr(float(whole.max()), values)
    return {"ends_equal": ends, "keys": found, "not_compared": [key for key in dataset.keys if key not in found]}


def verified(source: EpisodeSet, foreign: Foreign, workers: Workers) -> tuple[str, ...]:
    """Reads back what was written of `source`; DatasetError where a number differs. Returns the PSNR of changed pictures."""
    found = compare(foreign, source, workers)
    changed = [key for key, row in found["keys"].items() if not row["equal"] and "psnr_db" not in row]
    changed += found["not_compared"]
    if changed or not found["ends_equal"]:
        what = f"key '{changed[0]}'" if changed else "the ends of the episodes"
        raise DatasetError(f"{source.path}: {what} would come back changed from this format; nothing was written")
    return psnr_notes(found["keys"])


def psnr_notes(found: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Returns what `compare` found out about pictures that changed, as `write` tells it."""
    return tuple(
        f"pictures of '{key}' bit for bit: PSNR {row['psnr_db']:.1f} dB, the worst picture {row['worst_psnr_db']:.1f} dB"
        for key, row in found.items()
        if "psnr_db" in row
    )


def aligned(blocks: Blocks, keys: Mapping[str, ArraySpec]) -> Blocks:
    """Yields the same rows, which come in order for each key, cut where the set's files begin: each is then written once."""
    waiting: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    written = dict.fromkeys(keys, 0)
    for key, _, rows in blocks:
        waiting[key].append(rows)
        step = _SHARD_ROWS if is_image(keys[key]) else _VECTOR_ROWS
        count = sum(map(len, waiting[key]))
        if count >= step:
            whole = np.concatenate(waiting[key])
            full = count - count % step
            yield key, written[key], whole[:full]
            written[key] += full
            waiting[key] = [whole[full:]]
    for key, rest in waiting.items():
        if sum(map(len, rest)):
            yield key, written[key], np.concatenate(rest)


def _counted(blocks: Blocks, bar: tqdm) -> Blocks:
    for key, start, rows in blocks:
        yield key, start, rows
        bar.update(len(rows))


def row_bytes(array: ArraySpec) -> int:
    """Returns the bytes of one row."""
    return max(1, int(np.prod(array.shape))) * np.dtype(array.dtype).itemsize


def images_of(keys: Mapping[str, ArraySpec], steps: int, options: Options) -> Images:
    """Returns how pictures are kept where the format leaves the choice: as asked, else PNG up to 4 GiB, video above."""
    size = sum(row_bytes(array) for array in keys.values() if is_image(array)) * steps
    return options.images or ("png" if size <= _LOSSLESS_BYTES else "video")


def lossy_pictures(source: EpisodeSet, images: str) -> tuple[str, ...]:
    """Returns what is lost before anything is written; afterwards `write` says by how much."""
    cameras = [key for key, array in source.keys.items() if is_image(array)]
    return (f"pictures bit for bit: {images} is lossy (--images png is not)",) if cameras and images != "png" else ()


def copy_set(
    source: EpisodeSet,
    out: Path,
    spec: Spec,
    *,
    task: str,
    meta: Mapping[str, Any],
    extra: Mapping[str, ArraySpec],
    zarr_format: int = 3,
    facts: Mapping[str, Any] | None = None,
) -> EpisodeSet:
    """Returns a new set at `out` with all rows and facts of `source`; images become uint8."""
    if not source.n_episodes:
        raise DatasetError(f"{source.path}: want at least one episode, got none")
    made = EpisodeSet.create(out, spec, task=task, env=source.env, meta=meta, extra=extra, zarr_format=zarr_format, durable=False)
    made.extend(source.episode_ends, row_blocks(source, made.keys), **{**all_facts(source), **(facts or {})})
    return made


def all_facts(source: EpisodeSet) -> dict[str, np.ndarray]:
    """Returns every per-episode fact of a set, by name."""
    found = {name: source.episode_field(name) for name in source.facts()}
    return {name: values for name, values in found.items() if values is not None}


def extra_keys(source: EpisodeSet) -> dict[str, ArraySpec]:
    """Returns the arrays of a set that are neither observation nor action: clocks, states, flags."""
    obs = source.spec.obs if source.spec else {}
    return {key: array for key, array in source.keys.items() if key not in obs and key != "action"}


def own_spec(source: EpisodeSet) -> Spec:
    """Returns the spec of a set of ours; DatasetError for a set of another program, or one without episodes."""
    if source.spec is None:
        raise DatasetError(f"{source.path}: is a set of another program; convert it to a robolearn set first")
    if not source.n_episodes:
        raise DatasetError(f"{source.path}: want at least one episode, got none")
    return source.spec


def own_attributes(source: EpisodeSet) -> dict[str, Any]:
    """Returns the free attributes of a set: those that `EpisodeSet.create` does not write by itself."""
    return {name: value for name, value in source.attrs.items() if name not in _OWN}


def stamp(path: Path) -> tuple[int, int, int]:
    """Returns what changes when a file is replaced or written to: what is cached of it is kept under this."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def sync_file(path: Path) -> None:
    """Flushes one file to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def zip_folder(folder: Path, out: Path) -> None:
    """Packs a zarr folder into one uncompressed zip, which zarr's ZipStore reads."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, os.fspath(file.relative_to(folder)))
