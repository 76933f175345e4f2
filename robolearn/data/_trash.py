"""Deleting episodes so that nothing is lost, and bringing them back to where they were.

What is deleted becomes a small set NAME.episodes/.trash/deleted_000001.zarr; its journal folders move to .trash/ too. Then
the next generation of NAME.zarr is built aside and takes its name in one rename, and its attribute `trash` says what the
trash holds of it: that rename alone decides, so that a crash at any instant leaves the old generation or the new one.

Places: the set and its trash together are one sequence, as if nothing had ever been deleted. A deleted episode remembers
its place in it, the others fill the free ones, and so any of them can come back, in any order, to where it stood.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.data import _remote, _zarr
from robolearn.data._compose import Piece, build, travelling, united_facts
from robolearn.data._files import built_aside, locked, sync_folder
from robolearn.data._select import FILTER, Selection, format_ranges, parse_ranges
from robolearn.data.journal import TRASH, folder_of
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError

PLACE = "trash_place"  # the fact of a deleted episode that says where it stood
_BATCH = re.compile(r"deleted_(\d{6,})\.zarr")


@dataclass(frozen=True)
class Batch:
    """The episodes of one delete: its set in the trash, when it was made, and the places of those still deleted."""

    path: Path
    time: str
    places: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Returns what the attributes of the set keep of it."""
        return {"name": self.path.name, "time": self.time, "places": format_ranges(self.places)}

    def open(self) -> tuple[EpisodeSet, np.ndarray]:
        """Returns the set in the trash and the place of each of its episodes."""
        if not self.path.is_dir():
            raise DatasetError(f"{self.path}: is not there any more; somebody emptied the trash")
        dataset = EpisodeSet.open(self.path)
        places = dataset.episode_field(PLACE)
        if places is None or not np.isin(self.places, places).all():
            raise DatasetError(f"{self.path}: want the deleted episodes with their fact '{PLACE}', got another set")
        return dataset, places


@dataclass(frozen=True)
class Change:
    """What a delete or an undelete does (or would do): places in the set (before a delete, after an undelete), ids, steps."""

    episodes: list[int]
    ids: list[int]
    steps: int
    left: int
    generation: int
    journals: list[Path] = field(default_factory=list)


def trashed(dataset: EpisodeSet) -> list[Batch]:
    """Returns what the trash holds of a set, oldest first."""
    folder = folder_of(dataset.path) / TRASH
    batches = dataset.attrs.get("trash", [])
    return [Batch(folder / row["name"], row.get("time", ""), parse_ranges(row["places"])) for row in batches]


def delete(path: Path, selection: Selection, *, time: str, dry_run: bool = False) -> Change:
    """Moves episodes into the trash and returns what was moved; nothing selected: nothing is written. time: now, ISO 8601."""
    if not selection.given:
        raise BadInput("delete: of which episodes? give --episodes, --filter, --where or --flagged")
    with contextlib.nullcontext() if dry_run else sole_editor(path):
        dataset = _editable(path)
        if not dry_run:
            _settle(dataset)
        gone = selection.indices(dataset)
        kept = np.setdiff1d(np.arange(dataset.n_episodes), gone)
        change = _change(dataset, gone, len(kept))
        if dry_run or not len(gone):
            return change
        batches = trashed(dataset)
        places = _alive_places(dataset.n_episodes, batches)[gone]
        batch = Batch(_new_batch_path(dataset, batches), time, places)
        piece, left = Piece(dataset, gone), [Piece(dataset, kept)]
        with _undone_unless_committed(path, batch, change.journals):
            with built_aside(batch.path) as part:
                build(part, [piece], {**united_facts([piece]), PLACE: places}, travelling(dataset.attrs))
            _move(change.journals, batch.path.parent)
            _next_generation(dataset, left, united_facts(left), [*batches, batch])
    return change


def undelete(path: Path, batches: Sequence[Batch], ids: Sequence[int] | None = None, dry_run: bool = False) -> Change:
    """Brings the episodes of these batches back to where they were; ids: only those."""
    with contextlib.nullcontext() if dry_run else sole_editor(path):
        dataset = _editable(path)
        if not dry_run:
            _settle(dataset)
        known = {batch.path: batch for batch in trashed(dataset)}
        batches = [known[batch.path] for batch in batches if batch.path in known]
        back = [_coming_back(batch, ids) for batch in batches]
        places = np.concatenate([np.zeros(0, np.int64), *(places for _, places in back)])
        alive = _alive_places(dataset.n_episodes, list(known.values()))
        order = np.sort(np.concatenate([alive, places]))
        change = _change_back(back, np.searchsorted(order, np.sort(places)), dataset, len(order))
        if dry_run or not len(places):
            return change
        pieces = _interleaved([(Piece(dataset, np.arange(dataset.n_episodes)), alive), *back])
        facts = _facts_of_whole(dataset, pieces)
        left = [Batch(b.path, b.time, np.setdiff1d(b.places, places)) for b in known.values()]
        _next_generation(dataset, pieces, facts, [batch for batch in left if len(batch.places)])
        _settle(_editable(path))
        for batch in left:
            if not len(batch.places):
                shutil.rmtree(batch.path)
    return change


@contextlib.contextmanager
def sole_editor(path: Path) -> Iterator[None]:
    """Holds the locks of a set and, where there is one, of its journal: nobody records into it or edits it meanwhile."""
    folder = folder_of(path)
    with contextlib.ExitStack() as held:
        if folder.is_dir():
            held.enter_context(locked(folder, "journal", wait_s=2.0))
        held.enter_context(locked(path, "dataset"))
        yield


def _coming_back(batch: Batch, ids: Sequence[int] | None) -> tuple[Piece, np.ndarray]:
    """Returns the episodes of a batch that are still deleted (and have one of these ids), and their places."""
    dataset, places = batch.open()
    wanted = np.isin(places, batch.places)
    if ids is not None:
        known = dataset.episode_field("id")
        wanted &= np.zeros(len(places), bool) if known is None else np.isin(known, ids)
    chosen = np.flatnonzero(wanted)
    return Piece(dataset, chosen), places[chosen]


def _interleaved(parts: Sequence[tuple[Piece, np.ndarray]]) -> list[Piece]:
    """Returns the episodes of all parts in the order of their places, as few pieces as possible."""
    places = np.concatenate([places for _, places in parts])
    owner = np.repeat(np.arange(len(parts)), [len(places) for _, places in parts])
    episode = np.concatenate([piece.episodes for piece, _ in parts])
    order = np.argsort(places, kind="stable")
    owner, episode = owner[order], episode[order]
    cuts = np.flatnonzero(np.diff(owner)) + 1
    groups = zip(np.split(owner, cuts), np.split(episode, cuts), strict=True)
    return [Piece(parts[int(who[0])][0].dataset, episodes) for who, episodes in groups if len(who)]


def _facts_of_whole(dataset: EpisodeSet, pieces: Sequence[Piece]) -> dict[str, np.ndarray]:
    """Returns all facts of set and returning episodes; a filter that was removed in the meantime stays removed."""
    names = {name for piece in pieces for name in piece.dataset.facts()} - {PLACE}
    gone = {name for name in names if name.startswith(FILTER)} - set(dataset.facts()) if dataset.n_episodes else set()
    return united_facts(pieces, sorted(names - gone))


def _next_generation(
    dataset: EpisodeSet, pieces: Sequence[Piece], facts: dict[str, np.ndarray], batches: Sequence[Batch]
) -> None:
    """Builds the next generation of a set aside and gives it the set's name."""
    attributes = {**dataset.attrs, "generation": int(dataset.attrs.get("generation", 0)) + 1}
    attributes.pop("trash", None)
    if batches:
        attributes["trash"] = [batch.to_json() for batch in batches]
    highest = max(int(facts["id"].max(initial=-1)) if "id" in facts else -1, -1)
    before = dataset.episode_field("id")
    next_id = max(int(attributes.pop("next_id", 0)), 1 + int(before.max(initial=-1)) if before is not None else 0)
    if next_id > highest + 1:
        attributes["next_id"] = next_id
    with built_aside(dataset.path, overwrite=True) as part:
        build(part, pieces, facts, attributes, link=True)


def _editable(path: Path) -> EpisodeSet:
    """Returns a set whose episodes can be taken apart; DatasetError for a zip, and where meta/ holds what is not known to us."""
    _remote.refuse_writing(_remote.locate(path))
    if path.is_file():
        raise DatasetError(f"{path}: a zip cannot be changed; `robolearn data convert` makes a set of it that can")
    dataset = EpisodeSet.open(path)
    meta = _zarr.open_group(path)["meta"]
    strange = [name for name in meta.array_keys() if not name.startswith("episode_")]
    if strange:
        raise DatasetError(
            f"{path}: meta/{strange[0]} is unknown here and cannot be cut by episode; "
            f"`robolearn data convert` makes a set without it"
        )
    return dataset


def _alive_places(count: int, batches: Sequence[Batch]) -> np.ndarray:
    """Returns the place of each of the set's episodes: the lowest that no deleted one holds."""
    taken = np.concatenate([np.zeros(0, np.int64), *(batch.places for batch in batches)])
    return np.setdiff1d(np.arange(count + len(taken)), taken)[:count]


def _new_batch_path(dataset: EpisodeSet, batches: Sequence[Batch]) -> Path:
    """Returns a name in the trash that was never used, by leftovers of a crash neither."""
    folder = folder_of(dataset.path) / TRASH
    names = [batch.path.name for batch in batches] + [p.name for p in folder.glob("deleted_*.zarr")]
    used = [int(match[1]) for name in names if (match := _BATCH.fullmatch(name))]
    return folder / f"deleted_{1 + max(used, default=0):06d}.zarr"


def _ids(piece: Piece) -> list[int]:
    ids = piece.fact("id")
    return [] if ids is None else [int(number) for number in ids if number >= 0]


def _change(dataset: EpisodeSet, gone: np.ndarray, left: int) -> Change:
    piece = Piece(dataset, gone)
    ids, generation = _ids(piece), int(dataset.attrs.get("generation", 0)) + bool(len(gone))
    folder = folder_of(dataset.path)
    journals = [path for number in ids if (path := folder / f"ep_{number:06d}").is_dir()]
    return Change(gone.tolist(), ids, int(piece.lengths.sum()), left, generation, journals)


def _change_back(back: Sequence[tuple[Piece, np.ndarray]], episodes: np.ndarray, dataset: EpisodeSet, total: int) -> Change:
    ids = [number for piece, _ in back for number in _ids(piece)]
    steps = sum(int(piece.lengths.sum()) for piece, _ in back)
    folder = folder_of(dataset.path)
    journals = [path for number in ids if (path := folder / TRASH / f"ep_{number:06d}").is_dir()]
    generation = int(dataset.attrs.get("generation", 0)) + bool(len(episodes))
    return Change([int(i) for i in episodes], sorted(ids), steps, total, generation, journals)


def _settle(dataset: EpisodeSet) -> None:
    """Puts journal folders where the set says they belong: a crash may have come between its rename and theirs."""
    folder = folder_of(dataset.path)
    ids = dataset.episode_field("id")
    if ids is None or not (folder / TRASH).is_dir():
        return
    alive = {int(number) for number in ids}
    for path in (folder / TRASH).glob("ep_*"):
        number = path.name.removeprefix("ep_")
        if number.isdecimal() and int(number) in alive and not (folder / path.name).exists():
            path.replace(folder / path.name)
    sync_folder(folder)
    sync_folder(folder / TRASH)


def _move(paths: Sequence[Path], folder: Path) -> None:
    """Moves journal folders into `folder`, durably."""
    for path in paths:
        path.replace(folder / path.name)
    for changed in {folder, *(path.parent for path in paths)}:
        sync_folder(changed)


@contextlib.contextmanager
def _undone_unless_committed(path: Path, batch: Batch, journals: Sequence[Path]) -> Iterator[None]:
    """Takes the batch and the journals out of the trash again where the block fails before the set says it is there."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(DatasetError):  # a set that cannot be read may need what is in the trash
            if batch.path.name not in [row["name"] for row in EpisodeSet.open(path).attrs.get("trash", [])]:
                trash = batch.path.parent
                for journal in journals:
                    if (trash / journal.name).is_dir() and not journal.exists():
                        (trash / journal.name).replace(journal)
                shutil.rmtree(batch.path, ignore_errors=True)
        raise
