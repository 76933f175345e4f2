"""Other names: of a set with what belongs to it, of a key, of the task."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import zarr

from robolearn.data import _remote, _zarr
from robolearn.data._files import built_aside, locked, sync_folder
from robolearn.data._trash import sole_editor, trashed
from robolearn.data.journal import folder_of
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput, DatasetError, UnknownName

_KEY = re.compile(r"[A-Za-z0-9_.@-]+")


def rename_set(path: Path, to: str, dry_run: bool = False) -> list[tuple[Path, Path]]:
    """Renames a set, its journal and its frame cache, and returns the (old, new) paths; `to`: beside it, or a whole path.

    A rename that a crash cut off is completed by the same call.
    """
    _remote.refuse_writing(_remote.locate(path))
    new = Path(to) if "/" in to else path.with_name(to)
    if path.suffix == ".zarr" and not new.name.endswith(".zarr"):
        new = new.with_name(new.name + ".zarr")
    pairs = [(path, new), (folder_of(path), folder_of(new)), (path.with_suffix(".cache"), new.with_suffix(".cache"))]
    begun = not path.exists() and new.exists() and any(old.exists() for old, _ in pairs[1:])
    if not begun:
        EpisodeSet.open(path)
        if new.exists():
            raise AlreadyExists(new, "dataset")
    todo = [(old, target) for old, target in pairs if old.exists()]
    taken = [target for _, target in todo if target.exists()]
    if taken:
        raise DatasetError(f"{taken[0]}: is there already and belongs to another set; move it away, or choose another name")
    if dry_run:
        return todo
    new.parent.mkdir(parents=True, exist_ok=True)
    with sole_editor(path):
        for old, target in todo:
            old.rename(target)
        for old, _ in pairs[:2]:
            old.with_name(f".{old.name}.lock").unlink(missing_ok=True)
        for folder in {path.parent, new.parent}:
            sync_folder(folder)
    return todo


def rename_task(path: Path, task: str, dry_run: bool = False) -> str | None:
    """Makes `task` the task of a set; returns what it was."""
    old = _of_ours(path).task
    if not dry_run:
        with locked(path, "dataset"):
            _zarr.open_group(path, writable=True).attrs["task"] = task
    return old


def rename_key(path: Path, old: str, new: str, dry_run: bool = False) -> None:
    """Renames a key: its array, its entries in keys, spec and cameras. The rows are shared with the old generation."""
    dataset = _of_ours(path)
    if old not in dataset.keys:
        raise UnknownName("key", old, dataset.keys, str(path))
    if "action" in (old, new):
        raise BadInput(f"{path}: 'action' is the name that every reader knows; it cannot be renamed")
    if new in dataset.keys:
        raise DatasetError(f"{path}: there is a key '{new}' already (keys: {', '.join(dataset.keys)})")
    if not _KEY.fullmatch(new):
        raise BadInput(f"{path}: want a key of letters, digits and _.@-, got '{new}'")
    if any(batch.path.is_dir() for batch in trashed(dataset)):
        raise DatasetError(f"{path}: the trash holds episodes that know '{old}' only; `robolearn data undelete` them first")
    if dry_run:
        return
    with locked(path, "dataset"), built_aside(path, overwrite=True) as part:
        shutil.copytree(path, part, copy_function=_link_or_copy)
        (part / "data" / old).rename(part / "data" / new)
        group = zarr.open_group(part, mode="r+")
        group.attrs.update(_renamed(dict(group.attrs), old, new))
    for stale in path.with_suffix(".cache").glob(f"{old}-*.npy"):
        if re.fullmatch(r"[0-9a-f]{16}", stale.stem.removeprefix(f"{old}-")):
            stale.unlink(missing_ok=True)


def _of_ours(path: Path) -> EpisodeSet:
    _remote.refuse_writing(_remote.locate(path))
    if path.is_file():
        raise DatasetError(f"{path}: a zip cannot be changed; `robolearn data convert` makes a set of it that can")
    dataset = EpisodeSet.open(path)
    if "schema" not in dataset.attrs:
        raise DatasetError(f"{path}: a set of another program; `robolearn data convert` makes one that can be edited")
    return dataset


def _renamed(attributes: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Returns the attributes of a set with one key renamed wherever it is named, order kept; one generation on."""

    def swap(named: dict[str, Any]) -> dict[str, Any]:
        return {new if key == old else key: value for key, value in named.items()}

    changed = {"generation": int(attributes.get("generation", 0)) + 1, "keys": swap(attributes["keys"])}
    if "spec" in attributes:
        parts = {part: swap(attributes["spec"].get(part, {})) for part in ("obs", "cameras", "goal")}
        changed["spec"] = {**attributes["spec"], **parts}
    return changed


def _link_or_copy(source: str, target: str) -> None:
    """Shares a file between two generations (files of a set are replaced, never written in place), or copies it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
