"""The journal NAME.episodes: what a recorder wrote, episode by episode, never changed afterwards.

    ep_000123/          a zarr group: rows/<key>, cameras/<key>/{bytes, ends, t}, streams/<name>/{values, t}, states, attributes
    .staging/           the episode that is being recorded
    .crashed/           what a crash left there: `salvage` makes an episode of its complete rows
    .trash/             deleted episodes: `untrash` brings them back
    index.jsonl         one line for every episode ever saved: ids are never given twice
    labels.jsonl        labels that people set later, the last one counts

An episode is saved ("acknowledged") when all its files are on the disk and its folder has its name; nothing that happens
afterwards touches it. The folder is the truth, index.jsonl only remembers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from robolearn.data._codec import Codec, decode
from robolearn.data._files import append_durably, read_lines, sync_folder
from robolearn.data._leftovers import complete_rows, copy_rows
from robolearn.data._stage import LAYOUT, Stage
from robolearn.errors import DatasetError

SCHEMA = 1
STAGING, CRASHED, TRASH = ".staging", ".crashed", ".trash"
_NAME = re.compile(r"ep_(\d{6,})")


@dataclass(frozen=True)
class Saved:
    """An acknowledged episode: its id, the sha256 of its zarr.json (which holds the hashes of all its files), its steps."""

    id: int
    sha256: str
    steps: int


def folder_of(dataset: Path) -> Path:
    """Returns the journal's folder of the set `dataset`: NAME.episodes beside NAME.zarr."""
    return dataset.with_name(dataset.name.removesuffix(".zarr") + ".episodes")


class Journal:
    """The journal in `folder`, made when it is missing (unless `make` is False: then it is only looked at)."""

    def __init__(self, folder: Path, make: bool = True) -> None:
        self.folder = folder
        if not make:
            return
        try:
            for name in ("", STAGING, CRASHED, TRASH):
                (folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DatasetError(f"{folder}: cannot be written to ({error.strerror}); give a folder that can") from error

    def ids(self) -> list[int]:
        """Returns the ids of the saved episodes, rising."""
        return sorted(int(match[1]) for p in self.folder.iterdir() if (match := _NAME.fullmatch(p.name)))

    def path(self, episode: int, under: str = "") -> Path:
        """Returns the folder of an episode, in the journal itself or one of its corners."""
        return self.folder / under / f"ep_{episode:06d}"

    def next_id(self) -> int:
        """Returns the lowest id above every id that was ever given."""
        known = [self.folder, *(self.folder / corner for corner in (STAGING, CRASHED, TRASH))]
        found = [int(match[1]) for folder in known for p in folder.iterdir() if (match := _NAME.match(p.name))]
        return 1 + max([*found, *(line["id"] for line in self.index())], default=-1)

    def index(self) -> list[dict[str, Any]]:
        """Returns the lines of index.jsonl; a line that a crash cut off is left out."""
        return list(read_lines(self.folder / "index.jsonl"))

    def recover(self) -> list[str]:
        """Moves what a crash left in staging into quarantine, completes the index, and says what was found."""
        said = []
        for left in sorted((self.folder / STAGING).iterdir()):
            target = self.folder / CRASHED / left.name
            if target.exists():  # a salvage that was itself cut off: what it copied from is still there
                shutil.rmtree(left)
                continue
            left.replace(target)
            rows = complete_rows(target)
            if rows:
                said.append(f"{left.name}: recording was cut off after {rows} steps; `robolearn data salvage` keeps them")
        indexed = {line["id"] for line in self.index()}
        for episode in self.ids():
            if episode not in indexed:
                try:
                    entry = self.episode(episode)
                    entry.verify()
                    self._note(Saved(episode, entry.sha256, entry.steps))
                except DatasetError as error:
                    said.append(f"left as it is: {error}")
        sync_folder(self.folder / CRASHED)
        sync_folder(self.folder / STAGING)
        return said

    def stage(self, codec: Codec | None = None, episode: int | None = None) -> tuple[int, Stage]:
        """Returns (id, stage) of a new episode."""
        number = self.next_id() if episode is None else episode
        return number, Stage(self.path(number, STAGING), codec)

    def save(self, episode: int, stage: Stage, attributes: Mapping[str, Any]) -> Saved:
        """Makes a staged episode a saved one: files, folders, then its name, each on the disk before the next."""
        steps = stage.rows
        sha256 = stage.finish({**attributes, "journal_schema": SCHEMA, "id": episode, "steps": steps})
        sync_folder(stage.folder)
        stage.folder.replace(self.path(episode))
        sync_folder(self.folder)
        saved = Saved(episode, sha256, steps)
        self._note(saved)
        return saved

    def _note(self, saved: Saved) -> None:
        append_durably(self.folder / "index.jsonl", json.dumps({"id": saved.id, "sha256": saved.sha256, "steps": saved.steps}))

    def episode(self, episode: int) -> Episode:
        """Returns a saved episode; DatasetError where there is none."""
        path = self.path(episode)
        if not path.is_dir():
            where = (
                "in the trash; `robolearn data undelete` brings it back" if self.path(episode, TRASH).is_dir() else "not there"
            )
            raise DatasetError(f"{path}: episode {episode} is {where}")
        return Episode(path)

    def trash(self, episode: int) -> None:
        """Takes an episode out of the journal; it stays in the trash until somebody empties that by hand."""
        self.episode(episode)
        self.path(episode).replace(self.path(episode, TRASH))
        sync_folder(self.folder / TRASH)
        sync_folder(self.folder)

    def untrash(self, episode: int) -> None:
        """Brings an episode back from the trash."""
        if not self.path(episode, TRASH).is_dir():
            raise DatasetError(f"{self.folder}: no episode {episode} in the trash (there: {self.trashed() or 'none'})")
        self.path(episode, TRASH).replace(self.path(episode))
        sync_folder(self.folder)

    def trashed(self) -> list[int]:
        """Returns the ids in the trash."""
        return sorted(int(match[1]) for p in (self.folder / TRASH).iterdir() if (match := _NAME.fullmatch(p.name)))

    def crashed(self) -> dict[int, int]:
        """Returns the complete steps, by id, of what crashes left in quarantine."""
        found = {int(match[1]): p for p in (self.folder / CRASHED).glob("ep_*") if (match := _NAME.fullmatch(p.name))}
        return {episode: complete_rows(path) for episode, path in sorted(found.items())}

    def quarantine(self, episode: int) -> None:
        """Moves the staged episode into quarantine as it is."""
        self.path(episode, STAGING).replace(self.path(episode, CRASHED))

    def leftovers(self) -> dict[int, int]:
        """Returns the complete steps, by id, of what a crash left in staging, where nobody has looked yet, and in quarantine."""
        staged = (p for p in (self.folder / STAGING).glob("ep_*") if _NAME.fullmatch(p.name))
        return {int(p.name[3:]): complete_rows(p) for p in sorted(staged)} | self.crashed()

    def salvage(self, episode: int, about: Mapping[str, Any] = MappingProxyType({"reason": "salvaged"})) -> Saved:
        """Makes a saved episode, labelled partial, of the complete rows that a crash left; the leftovers go to the trash.

        about: further attributes of it, besides those it was begun with.
        """
        source = self.path(episode, CRASHED)
        rows = complete_rows(source)
        if not rows:
            raise DatasetError(f"{source}: holds no complete step, so nothing can be salvaged")
        layout = {line["array"]: line for line in read_lines(source / LAYOUT)}
        codecs = {line["attributes"]["codec"] for line in layout.values() if "codec" in line["attributes"]}
        begun = source / "begin.json"
        attributes = json.loads(begun.read_text()) if begun.is_file() else {}
        attributes |= dict(about)
        attributes["labels"] = [*attributes.get("labels", ()), {"label": "partial", "by": "recorder", "time": ""}]
        _, stage = self.stage(Codec(codecs.pop()) if codecs else None, episode)
        try:
            copy_rows(source, stage, layout, rows)
            saved = self.save(episode, stage, attributes)
        except OSError:
            stage.abandon()
            shutil.rmtree(stage.folder, ignore_errors=True)
            raise
        source.replace(self.folder / TRASH / f"{source.name}.leftovers")
        return saved


class Episode:
    """A saved episode of the journal, open for reading: memory maps of its arrays, pictures decoded one by one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            root = (path / "zarr.json").read_bytes()
            self.attrs: dict[str, Any] = json.loads(root)["attributes"]
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(f"{path}: want a saved episode with zarr.json, got {type(error).__name__}") from error
        if self.attrs.get("journal_schema", SCHEMA) > SCHEMA:
            raise DatasetError(f"{path}: journal schema {self.attrs['journal_schema']}, this robolearn reads up to {SCHEMA}")
        self.sha256 = hashlib.sha256(root).hexdigest()
        self.id, self.steps = int(self.attrs["id"]), int(self.attrs["steps"])

    def names(self, group: str) -> list[str]:
        """Returns what lies below rows, cameras or streams."""
        folder = self.path / group
        found = (p.parent for p in folder.rglob("zarr.json") if json.loads(p.read_text())["node_type"] == "array")
        arrays = sorted(os.fspath(p.relative_to(folder)) for p in found)
        return arrays if group == "rows" else sorted({name.rsplit("/", 1)[0] for name in arrays})

    def array(self, name: str) -> np.ndarray:
        """Returns one array, read-only: rows/<key> (steps, ...), states (steps + 1, n), streams/<name>/values (n, ...), ..."""
        file = self.path / name / "zarr.json"
        if not file.is_file():
            raise DatasetError(f"{self.path}: no array '{name}'")
        described = json.loads(file.read_text())
        shape = tuple(described["shape"])
        raw = self.path / name / ".".join(["c", *["0"] * len(shape)])
        if not all(shape):
            return np.zeros(shape, described["data_type"])
        return np.memmap(raw, described["data_type"], "r", shape=shape)

    def attributes(self, name: str) -> dict[str, Any]:
        """Returns the attributes of one array."""
        return dict(json.loads((self.path / name / "zarr.json").read_text())["attributes"])

    def frame(self, camera: str, index: int) -> np.ndarray:
        """Returns picture `index` of a camera's stream, (height, width, 3) uint8."""
        ends = self.array(f"cameras/{camera}/ends")
        start = int(ends[index - 1]) if index else 0
        raw = self.array(f"cameras/{camera}/bytes")[start : int(ends[index])]
        return decode(raw, self.attributes(f"cameras/{camera}/bytes")["codec"])

    def verify(self) -> None:
        """Raises DatasetError, naming the file, unless every file has the hash it was saved with."""
        for name, want in self.attrs["sha256"].items():
            file = self.path / name
            if not file.is_file():
                raise DatasetError(f"{self.path}: {name} is missing; restore it from a copy")
            with file.open("rb") as stream:
                got = hashlib.file_digest(stream, "sha256").hexdigest()
            if got != want:
                raise DatasetError(f"{self.path}: {name} is damaged (sha256 {got[:12]}..., want {want[:12]}...)")
