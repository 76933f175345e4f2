"""Makes episodes, labelled partial, of what a crash left while recording, and packs the journal into the set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from robolearn.apps._report import write_json
from robolearn.data._files import locked
from robolearn.data.journal import Journal, folder_of
from robolearn.data.pack import pack
from robolearn.errors import DatasetError, Findings


@dataclass(frozen=True)
class Config:
    """Which set's journal to look through."""

    path: tyro.conf.Positional[Path]
    """The set, NAME.zarr (it need not exist yet: the journal is NAME.episodes beside it)."""
    dry_run: bool = False
    """Say what would be done, and do nothing."""
    json: Path | None = None
    """Where to write what was found."""


def run(cfg: Config) -> int:
    """Prints what was salvaged and packed; exit code 1 where something could not be."""
    folder = folder_of(cfg.path)
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no journal for {cfg.path}")
    if cfg.dry_run:
        found = Journal(folder, make=False).leftovers()
        for number, steps in found.items():
            print(f"episode {number}: {steps} complete steps would be kept")
        write_json(cfg.json, {"salvageable": found})
        return 0
    journal = Journal(folder)
    with locked(folder, "journal", wait_s=0.0):
        for note in journal.recover():
            print(note)
        left = journal.crashed()
        done = {number: journal.salvage(number).steps for number, steps in left.items() if steps}
        packed = pack(journal, cfg.path)
    for number, steps in done.items():
        print(f"episode {number}: {steps} steps, labelled partial")
    for number in left:
        if number not in done:
            print(f"episode {number}: no complete step; its files stay in {folder / '.crashed'}")
    print(f"{cfg.path}: {len(packed.packed)} episodes packed, {len(journal.ids())} in the journal")
    for number, why in packed.refused.items():
        print(f"not packed: episode {number}: {why}")
    write_json(cfg.json, {"salvaged": done, "packed": packed.packed, "refused": packed.refused, "episodes": len(journal.ids())})
    if packed.refused:
        raise Findings(f"{cfg.path}: {len(packed.refused)} episodes of the journal do not fit the set")
    return 0
