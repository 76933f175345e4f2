"""Packs motion-track sets of people and robots into one set that `train` learns a motion-track policy (mt_pi) from."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from robolearn.apps._edit import counted
from robolearn.apps._report import write_json
from robolearn.video.pack import Packed, Packing, pack


@dataclass(frozen=True)
class Config:
    """Which sets, and how they become one."""

    sources: tyro.conf.Positional[tuple[Path, ...]]
    """Motion-track sets (.zarr): of `tracks extract`, of a robot, or both."""
    out: Path
    """Where to write."""
    views: tuple[str, ...] = ()
    """Which views, in this order, such as left right; those that all sets show where nothing is said."""
    joint: bool = False
    """Both views in one row, for a network that predicts them together; without it every view is an episode of its own."""
    size: int = 96
    """Side of the square pictures [px]; 0: as stored."""
    max_filled: float = 0.5
    """Leave out a view of an episode in which more than this share of the rows was filled in between detections."""
    json: Path | None = None
    """Where to write the figures."""
    overwrite: bool = False
    """Replace what is there."""

    def __post_init__(self) -> None:
        """Refuses what cannot be packed; ValueError names the field."""
        if self.size < 0 or not 0.0 <= self.max_filled <= 1.0:
            raise ValueError(f"want size >= 0 and 0 <= max_filled <= 1, got {self.size} and {self.max_filled}")


def run(cfg: Config) -> int:
    """Packs and says what came from where."""
    packed = pack(cfg.sources, cfg.out, Packing(cfg.views, cfg.joint, cfg.size, cfg.max_filled, cfg.overwrite))
    for note in packed.notes:
        print(f"robolearn: {note}", file=sys.stderr)
    print("\n".join(lines(cfg.out, packed)))
    write_json(cfg.json, {"out": cfg.out, **dataclasses.asdict(packed), "rows": packed.sources})
    return 0


def lines(out: Path, packed: Packed) -> list[str]:
    """Returns what was packed as text."""
    said = [f"{out}: {counted(packed.episodes, 'episode')}, {packed.steps} steps, views {', '.join(packed.views)}"]
    for row in packed.sources:
        left = "".join(f"; left out, {why}: {count}" for why, count in row["left_out"].items())
        kinds = ", ".join(row["embodiment"])
        said.append(f"  {row['name']} ({kinds}): {counted(row['episodes'], 'episode')}, {row['steps']} steps{left}")
    return said
