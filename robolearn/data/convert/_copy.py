"""Copies whole sets, arrays and facts, block by block: what the converters share."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robolearn.core import ArraySpec, Spec
from robolearn.data._files import built_aside
from robolearn.data.images import row_blocks
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

__all__ = ["built_aside", "copy_set", "own_attributes", "row_blocks", "zip_folder"]

_OWN = ("schema", "task", "env", "hz", "keys", "spec")


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
