"""An episode while it is recorded: raw arrays that only grow, each of which becomes a zarr array by one small file at the end.

A zarr array that is one uncompressed chunk is its raw bytes and a few lines of JSON. So a recorder appends to NAME/c.0.0, and
committing writes NAME/zarr.json; nothing is copied, and what a killed recorder leaves can be cut to its last complete row.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np

from robolearn.data._codec import Codec
from robolearn.data._files import append_durably, sync_folder, write_durably
from robolearn.errors import DatasetError

LAYOUT = "layout.jsonl"
_Attributes = Mapping[str, Any]
_NONE: _Attributes = MappingProxyType({})


class Stage:
    """A staged episode in `folder`: `append` rows of any array, `frame` of a camera; `finish` makes it a zarr group."""

    def __init__(self, folder: Path, codec: Codec | None = None) -> None:
        self.folder, self.codec = folder, codec or Codec()
        self._encode = self.codec.encoder()
        folder.mkdir(parents=True)
        sync_folder(folder.parent)
        self._arrays: dict[str, _Growing] = {}
        self._facts: dict[str, dict[str, Any]] = {}
        self._ends: dict[str, int] = {}
        self._counts: dict[str, int] = {}

    @property
    def rows(self) -> int:
        """Complete rows so far."""
        counts = [array.rows for name, array in self._arrays.items() if name.startswith("rows/")]
        return min(counts, default=0)

    def append(self, name: str, value: np.ndarray, attributes: _Attributes = _NONE) -> None:
        """Adds one row to array `name`; DatasetError where its shape or dtype is not that of the rows before."""
        array = self._arrays.get(name)
        if array is None:
            array = self._arrays[name] = _Growing(self.folder / name, value.shape, value.dtype)
            self._facts[name] = dict(attributes)
            line = {"array": name, "shape": list(value.shape), "dtype": str(value.dtype), "attributes": self._facts[name]}
            append_durably(self.folder / LAYOUT, json.dumps(line))
        array.append(value, name)

    def frame(self, camera: str, t_ns: int, picture: np.ndarray) -> int:
        """Adds one picture of a camera, encoded, with its capture time; returns its place in the camera's stream."""
        facts = {"codec": self.codec.name, "shape": list(picture.shape), "lossless": self.codec.lossless}
        return self.encoded(camera, t_ns, self._encode(picture), facts)

    def encoded(self, camera: str, t_ns: int, raw: bytes, facts: _Attributes) -> int:
        """Adds one picture that is bytes already; facts: codec, shape, lossless."""
        count, end = self._counts.get(camera, 0), self._ends.get(camera, 0) + len(raw)
        at = f"cameras/{camera}"
        first = self._facts.get(f"{at}/bytes", facts)["shape"]
        if first != facts["shape"]:
            raise DatasetError(f"{at}: want pictures of {tuple(first)} as before, got one of {tuple(facts['shape'])}")
        self._bytes(f"{at}/bytes", raw, facts)
        self.append(f"{at}/ends", np.array(end, np.int64))
        self.append(f"{at}/t", np.array(t_ns, np.int64), {"unit": "ns"})
        self._ends[camera], self._counts[camera] = end, count + 1
        return count

    def _bytes(self, name: str, raw: bytes, attributes: _Attributes) -> None:
        if name not in self._arrays:
            self.append(name, np.zeros((), np.uint8), attributes)
            self._arrays[name].rewind()
        self._arrays[name].write(raw)

    def flush(self, durable: bool = False) -> None:
        """Hands what was appended to the system, which keeps it when this process dies; durable: to the disk as well."""
        for array in self._arrays.values():
            array.flush(durable)

    def finish(self, attributes: _Attributes) -> str:
        """Writes every array's description and the group's, all of it to the disk; returns the sha256 of the episode.

        It is the hash of the group's zarr.json, whose attribute `sha256` holds the hash of every file.
        """
        if uneven := [name for name, array in self._arrays.items() if name.startswith("rows/") and array.rows != self.rows]:
            raise DatasetError(f"{self.folder}: {uneven[0]} has {self._arrays[uneven[0]].rows} rows, others have {self.rows}")
        hashes = {}
        groups: set[Path] = set()
        for name, array in self._arrays.items():
            array.flush(durable=True)
            array.close()
            description = _describe(array.rows, array.shape, array.dtype, self._facts[name])
            write_durably(array.folder / "zarr.json", description)
            hashes[f"{name}/zarr.json"] = hashlib.sha256(description).hexdigest()
            hashes[f"{name}/{array.file.name}"] = array.sha256
            groups.update(p for p in array.folder.parents if self.folder in p.parents)
        for group in groups:
            write_durably(group / "zarr.json", _group({}))
        for extra in sorted(p for p in self.folder.iterdir() if p.is_file() and p.name != "zarr.json"):
            with extra.open("rb") as file:
                os.fsync(file.fileno())
            hashes[extra.name] = hashlib.sha256(extra.read_bytes()).hexdigest()
        root = _group({**attributes, "sha256": hashes})
        write_durably(self.folder / "zarr.json", root)
        return hashlib.sha256(root).hexdigest()

    def abandon(self) -> None:
        """Closes the files and leaves them as they are."""
        for array in self._arrays.values():
            with contextlib.suppress(OSError):  # a full disk refuses the last bytes once more
                array.close()


class _Growing:
    """One raw file of equal rows, with their count and running hash."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.shape, self.dtype = folder, shape, dtype
        self.file = folder / ".".join(["c", *["0"] * (1 + len(shape))])
        self._out: BinaryIO = self.file.open("ab")
        self._hash, self.rows = hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def append(self, value: np.ndarray, name: str) -> None:
        if value.shape != self.shape or value.dtype != self.dtype:
            raise DatasetError(f"{name}: want {self.dtype}{self.shape} as in the rows before, got {value.dtype}{value.shape}")
        self.write(value.tobytes())

    def write(self, raw: bytes) -> None:
        self._out.write(raw)
        self._hash.update(raw)
        self.rows += len(raw) // max(1, self.dtype.itemsize * int(np.prod(self.shape)))

    def rewind(self) -> None:
        """Forgets everything written so far (the one byte that made the array)."""
        self._out.flush()
        self._out.truncate(0)
        self._hash, self.rows = hashlib.sha256(), 0

    def flush(self, durable: bool) -> None:
        self._out.flush()
        if durable:
            os.fsync(self._out.fileno())

    def close(self) -> None:
        self._out.close()


def _group(attributes: _Attributes) -> bytes:
    return json.dumps({"zarr_format": 3, "node_type": "group", "attributes": dict(attributes)}, indent=1).encode()


def _describe(rows: int, shape: tuple[int, ...], dtype: np.dtype, attributes: _Attributes) -> bytes:
    """Returns the zarr.json of an array (rows, *shape) that is one uncompressed chunk in a file c.0.0."""
    whole = [rows, *shape]
    codec: dict[str, Any] = {"name": "bytes"}
    if dtype.itemsize > 1:
        codec["configuration"] = {"endian": "little"}
    values = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": whole,
        "data_type": str(dtype),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [max(1, n) for n in whole]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "fill_value": False if dtype.kind == "b" else 0.0 if dtype.kind == "f" else 0,
        "codecs": [codec],
        "attributes": dict(attributes),
    }
    return json.dumps(values, indent=1).encode()
