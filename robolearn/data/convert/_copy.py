"""Copies whole sets, arrays and facts, block by block: what the converters share."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robolearn.core import ArraySpec, Spec
from robolearn.data.images import row_blocks
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, DatasetError

_OWN = ("schema", "task", "env", "hz", "keys", "spec")


@contextmanager
def built_aside(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives a path beside `out` to build at, and renames it to `out` when the block ends without an error."""
    if out.exists() and not overwrite:
        raise AlreadyExists(out, "dataset")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        part = Path(folder) / out.name
        yield part
        if out.is_dir() and not out.is_symlink():
            shutil.rmtree(out)
        part.replace(out)


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
    carried = {name: source.episode_field(name) for name in source.facts()}
    made.extend(source.episode_ends, row_blocks(source, made.keys), **{**carried, **(facts or {})})
    return made


def own_attributes(source: EpisodeSet) -> dict[str, Any]:
    """Returns the free attributes of a set: those that `EpisodeSet.create` does not write by itself."""
    return {name: value for name, value in source.attrs.items() if name not in _OWN}


def zip_folder(folder: Path, out: Path) -> None:
    """Packs a zarr folder into one uncompressed zip, which zarr's ZipStore reads."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, os.fspath(file.relative_to(folder)))
