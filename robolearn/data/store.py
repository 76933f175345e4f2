"""The episode store NAME.zarr: regular rows, episodes end to end, readable by everything that reads a ReplayBuffer.

    data/<key>             (steps, ...)   row k: the observation at t_k and the action computed from it; keys nest (tracks/left)
    meta/episode_ends      (episodes,)    int64, uncompressed: episode i = rows [ends[i-1], ends[i])
    meta/episode_<fact>    (episodes,...) what is known of each episode: seed, source, success, ...
    attributes                            what is true of all: schema version, hz, keys with units, frames and names, ...

An episode exists from the instant in which its end is renamed into place; everything before that is invisible.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import zarr

from robolearn.core import ArraySpec, Spec
from robolearn.data import _remote, _zarr
from robolearn.data._files import locked, put_in_place
from robolearn.errors import AlreadyExists, DatasetError, nearest

SCHEMA = 1
_NONE: Mapping[str, Any] = MappingProxyType({})
_RESERVED = ("schema", "task", "env", "spec", "extra", "hz", "keys")


class EpisodeSet:
    """A set of episodes on disk, open for reading, or for reading and appending.

    path; attrs: the attributes as stored; spec: None for a set of another program; task; env: overrides that rebuild
    the body with sim_envs; hz: None where unknown; keys: every array, "action" included; episode_ends: int64 (episodes,).
    """

    def __init__(self, path: str | Path, group: zarr.Group) -> None:
        self.path = _remote.locate(path)
        self._group = group
        self.attrs: dict[str, Any] = dict(group.attrs)
        if self.attrs.get("schema", SCHEMA) > SCHEMA:
            raise DatasetError(f"{path}: schema version {self.attrs['schema']}, this robolearn reads up to {SCHEMA}; upgrade it")
        self.held: dict[str, np.ndarray] = {}  # whole keys in memory, shared by all windows on this set
        self._arrays = self._find_arrays()
        self.spec = Spec.from_json(self.attrs["spec"]) if "spec" in self.attrs else None
        self.task: str | None = self.attrs.get("task")
        self.env: dict[str, Any] = dict(self.attrs.get("env", {}))
        self.hz: float | None = self.spec.hz if self.spec else None
        self.keys = self._find_keys()
        self._ends_on_disk = np.asarray(_zarr.read_rows(group["meta/episode_ends"], 0, None, f"{path}: meta/episode_ends"))
        self.episode_ends = _valid_prefix(self._ends_on_disk, min(a.shape[0] for a in self._arrays.values()))

    @classmethod
    def open(cls, path: str | Path, writable: bool = False) -> EpisodeSet:
        """Returns the set in a folder (for reading also a .zip or an s3:// address); DatasetError where there is no such set."""
        return cls(path, _zarr.open_group(_remote.locate(path), writable))

    @classmethod
    def create(
        cls,
        path: str | Path,
        spec: Spec,
        *,
        task: str,
        env: Mapping[str, Any],
        meta: Mapping[str, Any] = _NONE,
        extra: Mapping[str, ArraySpec] = _NONE,
        zarr_format: int = 3,
        overwrite: bool = False,
        shard_rows: int | None = None,
        durable: bool = True,
    ) -> EpisodeSet:
        """Returns a new, empty set for rows of `spec` (and arrays `extra`), open for appending.

        meta: further attributes (robot, versions, licence, ...); zarr_format 2 is for interchange; shard_rows: frames a
        file of an image key (format 3 only); durable=False: no flush to the disk per write, for a set that is built aside
        and renamed into place when it is complete. A spec whose action has shape (0,) makes a set without actions: what a
        person did in a video, which no robot was told.
        """
        path = _remote.locate(path)
        _remote.refuse_writing(path)
        if path.exists() and not overwrite:
            raise AlreadyExists(path, "dataset")
        clash = sorted(set(meta) & set(_RESERVED)) + sorted(set(extra) & {*spec.obs, "action"})
        if clash:
            raise DatasetError(f"{path}: '{clash[0]}' is taken already and cannot be given as meta or extra")
        path.parent.mkdir(parents=True, exist_ok=True)
        keys = {**spec.obs, **({"action": spec.action} if acts(spec) else {}), **extra}
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")  # so that there never is half a set under its name
        group = zarr.create_group(_zarr.DurableStore(part) if durable else zarr.storage.LocalStore(part), zarr_format=zarr_format)
        group.create_group("data")
        group.create_group("meta")
        for key, array in keys.items():
            _zarr.create_rows(group, f"data/{key}", array.shape, array.dtype, shard_rows)
        _zarr.create_ends(group)
        group.attrs.update(
            {
                "schema": SCHEMA,
                "task": task,
                "env": dict(env),
                "hz": spec.hz,
                "keys": {key: array.to_json() for key, array in keys.items()},
                "spec": spec.to_json(),
                "versions": {name: importlib.metadata.version(name) for name in ("robolearn", "zarr", "numpy")},
                **meta,
            }
        )
        put_in_place(part, path)
        store = _zarr.DurableStore(path) if durable else zarr.storage.LocalStore(path)
        return cls(path, zarr.open_group(store, mode="r+"))

    @property
    def n_episodes(self) -> int:
        """Number of complete episodes."""
        return len(self.episode_ends)

    @property
    def n_steps(self) -> int:
        """Number of rows that belong to complete episodes."""
        return int(self.episode_ends[-1]) if self.n_episodes else 0

    @property
    def zarr_format(self) -> int:
        """2 or 3."""
        return int(self._group.metadata.zarr_format)

    @property
    def ends_left_out(self) -> int:
        """Number of stored episode ends that do not rise or lie outside the arrays, and everything after them."""
        return len(self._ends_on_disk) - self.n_episodes

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found and left out when the set was opened: rows of an append that did not come to its end."""
        rows = max(a.shape[0] for a in self._arrays.values()) - self.n_steps
        ends = self.ends_left_out
        found = [f"{rows} rows after the last episode (an append that was cut off)"] if rows else []
        return tuple(found + ([f"{ends} episode ends that point outside the arrays or do not rise"] if ends else []))

    def array(self, key: str) -> zarr.Array:
        """Returns the zarr array of one key, for readers that go through it in chunks."""
        if key not in self._arrays:
            raise DatasetError(f"{self.path}: no key '{key}'{nearest(key, self._arrays)}")
        return self._arrays[key]

    def read(self, key: str, start: int | None = None, stop: int | None = None) -> np.ndarray:
        """Returns rows [start, stop) of one key, by default all; DatasetError names key and chunk of what is broken."""
        start, stop, _ = slice(start, stop).indices(self.n_steps)
        if "schema" in self.attrs and stop - start == self.n_steps:
            lost = _zarr.missing_chunks(self.path / "data" / key, self.array(key))
            if lost:
                raise DatasetError(f"{self.path}: {key}: {lost} chunk files are missing; restore them from a copy")
        return _zarr.read_rows(self.array(key), start, max(start, stop), f"{self.path}: {key}")

    def episode(self, index: int) -> dict[str, np.ndarray]:
        """Returns all arrays of one episode, by key."""
        start, stop = self.span(index)
        return {key: self.read(key, start, stop) for key in self.keys}

    def span(self, index: int) -> tuple[int, int]:
        """Returns (first row, row after the last) of one episode."""
        if not 0 <= index < self.n_episodes:
            raise DatasetError(f"{self.path}: no episode {index}, the set has {self.n_episodes}")
        return int(self.episode_ends[index - 1]) if index else 0, int(self.episode_ends[index])

    def facts(self) -> tuple[str, ...]:
        """Returns the names of the per-episode facts."""
        names = (n.removeprefix("episode_") for n in self._group["meta"].array_keys() if n.startswith("episode_"))
        return tuple(sorted(name for name in names if name != "ends"))

    def episode_field(self, name: str) -> np.ndarray | None:
        """Returns one fact of every episode (text as str; not known: "", -1 or NaN), None where the set has no such fact."""
        if name not in self.facts():
            return None
        array = self._group[f"meta/episode_{name}"]
        rows = _zarr.read_rows(array, 0, self.n_episodes, f"{self.path}: meta/episode_{name}")
        if len(rows) < self.n_episodes:
            rest = np.full((self.n_episodes - len(rows), *rows.shape[1:]), _zarr.unknown_fact(rows.dtype), rows.dtype)
            rows = np.concatenate([rows, rest])
        return _zarr.decode_text(rows) if array.attrs.get("encoding") == "utf-8" else rows

    def set_fact(self, name: str, values: Mapping[int, Any]) -> None:
        """Writes one fact of some episodes, by index; the others keep theirs, or have none. None: not known."""
        for index in values:
            self.span(index)
        if not self.n_episodes or (name not in self.facts() and all(value is None for value in values.values())):
            return
        with self._sole_writer():
            old = self.episode_field(name)
            unknown = old is None or old.dtype.kind in "iu"
            rows = [None] * self.n_episodes if old is None else [None if unknown and v == -1 else v for v in old.tolist()]
            for index, value in values.items():
                rows[index] = value
            self._write_fact(name, rows, 0)

    def append(self, data: Mapping[str, np.ndarray], **facts: Any) -> int:
        """Adds one episode of equally long arrays with its facts and returns its index; all of it or, after a crash, none.

        The order, each a durable write: rows, shapes of the rows, facts, the ends, the shape of the ends.
        """
        rows = self._checked(data)
        with self._sole_writer():
            return self._append(rows, facts)

    def _append(self, rows: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> int:
        start, index = self.n_steps, self.n_episodes
        stop = start + len(next(iter(rows.values())))
        _zarr.side_by_side(partial(self._write_rows, key, value, start) for key, value in rows.items())
        _zarr.side_by_side(partial(array.resize, (stop, *array.shape[1:])) for array in self._arrays.values())
        _zarr.side_by_side(partial(self._write_fact, name, [fact], index) for name, fact in facts.items())
        self._commit(np.array([stop], np.int64))
        return index

    def extend(
        self, ends: Sequence[int] | np.ndarray, blocks: Iterable[tuple[str, int, np.ndarray]], **facts: Sequence[Any]
    ) -> None:
        """Adds many episodes at once: `ends` count from the first new row, `blocks` are (key, first new row, rows) of every key.

        The ends are written last, so that a crash adds none of them. Values are taken as they are, NaN included (what a
        sensor really said: `data check` finds it and training refuses it).
        """
        with self._sole_writer():
            self._extend(np.asarray(ends, np.int64), blocks, facts)

    def _extend(
        self, ends: np.ndarray, blocks: Iterable[tuple[str, int, np.ndarray]], facts: Mapping[str, Sequence[Any]]
    ) -> None:
        base, index = self.n_steps, self.n_episodes
        total = base + int(ends[-1])
        for array in self._arrays.values():
            array.resize((total, *array.shape[1:]))
        for key, start, rows in blocks:
            self.array(key)[base + start : base + start + len(rows)] = rows.astype(self.keys[key].dtype, copy=False)
        for name, values in facts.items():
            self._write_fact(name, values, index)
        self._commit(ends + base)

    @contextlib.contextmanager
    def _sole_writer(self) -> Iterator[None]:
        """Holds the set's lock; DatasetError where another process has added or taken away episodes since it was opened."""
        with locked(self.path, "dataset"):
            group = _zarr.open_group(self.path)
            now = group["meta/episode_ends"]
            if group.attrs.get("generation", 0) != self.attrs.get("generation", 0):
                raise DatasetError(f"{self.path}: its episodes were edited since it was opened for writing; open the set again")
            if now.shape[0] != len(self._ends_on_disk):
                raise DatasetError(
                    f"{self.path}: had {len(self._ends_on_disk)} episodes when it was opened for writing, now it has "
                    f"{now.shape[0]}: another process writes to it too; end one of them and open the set again"
                )
            yield

    def _commit(self, new_ends: np.ndarray) -> None:
        """Makes the episodes with these ends exist: first the values, then the shape that shows them."""
        ends, count = self._group["meta/episode_ends"], self.n_episodes + len(new_ends)
        _zarr.grown(ends, count)[self.n_episodes :] = new_ends
        ends.resize((count,))
        self.episode_ends = np.concatenate([self.episode_ends, new_ends])
        self._ends_on_disk = self.episode_ends

    def _checked(self, data: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Returns `data` in the stored dtypes; DatasetError names the key that does not fit."""
        where = f"{self.path}: append"
        for key in data:
            if key not in self.keys:
                raise DatasetError(f"{where}: unknown key '{key}'{nearest(key, self.keys)}")
        rows: dict[str, np.ndarray] = {}
        for key, want in self.keys.items():
            if key not in data:
                raise DatasetError(f"{where}: key '{key}' is missing (given: {', '.join(data)})")
            value = np.asarray(data[key])
            if value.shape[1:] != want.shape or value.ndim == 0:
                raise DatasetError(f"{where}: {key}: want rows of {want.dtype}{want.shape}, got {value.dtype}{value.shape[1:]}")
            if value.dtype != np.dtype(want.dtype) and not np.can_cast(value.dtype, want.dtype, "same_kind"):
                raise DatasetError(f"{where}: {key}: want {want.dtype}, got {value.dtype}")
            rows[key] = value.astype(want.dtype, copy=False)
            if rows[key].dtype.kind == "f" and not np.isfinite(rows[key]).all():
                row = int(np.argwhere(~np.isfinite(rows[key]))[0][0])
                raise DatasetError(f"{where}: {key}: NaN or infinity in row {row} of the episode")
        lengths = {key: len(value) for key, value in rows.items()}
        if len(set(lengths.values())) != 1 or not all(lengths.values()):
            raise DatasetError(f"{where}: want arrays of one length above 0, got {lengths}")
        return rows

    def _write_rows(self, key: str, value: np.ndarray, start: int) -> None:
        stop = start + len(value)
        _zarr.grown(self._arrays[key], stop)[start:stop] = value

    def _write_fact(self, name: str, facts: Sequence[Any], index: int) -> None:
        """Writes the values of one fact for the episodes from `index` on; episodes before it that have none become unknown."""
        values = [_zarr.encode_fact(fact) for fact in facts]
        like = next((value for value, fact in zip(values, facts, strict=True) if fact is not None), values[0])
        array = _zarr.fact_array(self._group["meta"], f"episode_{name}", like)
        text = array.dtype == np.uint8
        shape = (max([array.shape[1], *(v.size for v in values)]),) if text else array.shape[1:]
        known = min(array.shape[0], index)
        block = np.full((index + len(values) - known, *shape), _zarr.unknown_fact(array.dtype), array.dtype)
        for row, value in enumerate(values, start=index - known):
            if value.dtype.kind == "f" and value.ndim == 0 and np.isnan(value):
                continue
            if (value.dtype == np.uint8) != text or (not text and value.shape != shape):
                raise DatasetError(
                    f"{self.path}: append: fact '{name}' is {array.dtype}{array.shape[1:]} so far, got {value.dtype}{value.shape}"
                )
            place: tuple[Any, ...] = (row, *(slice(0, n) for n in value.shape))
            block[place] = value
        array.resize((index + len(values), *shape))
        array[known:] = block

    def _find_arrays(self) -> dict[str, zarr.Array]:
        want = "want a zarr group with data/ and meta/episode_ends"
        if "data" not in self._group or "meta/episode_ends" not in self._group:
            raise DatasetError(f"{self.path}: {want}, got {', '.join(sorted(self._group.keys())) or 'nothing'}")
        arrays = _zarr.arrays_below(self._group["data"])
        if not arrays:
            raise DatasetError(f"{self.path}: {want}, got an empty data/")
        lost = [key for key in self.attrs.get("keys", ()) if key not in arrays]
        if lost:
            raise DatasetError(f"{self.path}: key '{lost[0]}' is declared but its array is missing")
        return arrays

    def _find_keys(self) -> dict[str, ArraySpec]:
        if "keys" in self.attrs:
            return {key: ArraySpec.from_json(values) for key, values in self.attrs["keys"].items()}
        return {key: ArraySpec(tuple(a.shape[1:]), str(a.dtype)) for key, a in self._arrays.items()}


def acts(spec: Spec) -> bool:
    """Returns whether rows of this spec hold an action; shape (0,) says that there is none."""
    return spec.action.shape != (0,)


def _valid_prefix(ends: np.ndarray, rows: int) -> np.ndarray:
    """Returns the longest prefix of `ends` that rises strictly from above 0 and stays within `rows`."""
    ends = ends.astype(np.int64)
    good = (np.diff(ends, prepend=0) > 0) & (ends <= rows)
    return ends[: len(ends) if good.all() else int(np.argmin(good))]
