"""Write a calibration board to be printed at its true size, as PDF or PNG."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from robolearn.apps._board_flags import BoardFlags
from robolearn.apps._report import write_json
from robolearn.errors import BadInput
from robolearn.video.calibration import printing


@dataclass(frozen=True)
class Config:
    """Which board, and on what paper."""

    out: tyro.conf.Positional[Path]
    """Where to write: a name that ends in .pdf (exact at any size) or .png."""
    board: Annotated[BoardFlags, tyro.conf.arg(name="")] = field(default_factory=BoardFlags)
    """The board."""
    paper: Literal["a4", "a3", "a2", "letter"] = "a4"
    """Paper, landscape."""
    dpi: int = 300
    """Resolution of a .png [1/inch]."""
    json: Path | None = None
    """Write what was drawn to this file."""
    overwrite: bool = False
    """Replace what is there."""

    def __post_init__(self) -> None:
        """Refuses a resolution that no printer has; ValueError names the field."""
        if not 50 <= self.dpi <= 2400:
            raise ValueError(f"dpi: want 50 to 2400, got {self.dpi}")


def run(cfg: Config) -> int:
    """Writes the page and says how to print it."""
    board, paper = cfg.board.made(), printing.PAPERS[cfg.paper]
    if cfg.out.suffix == ".pdf":
        printing.write_pdf(cfg.out, board, paper, cfg.overwrite)
    elif cfg.out.suffix == ".png":
        printing.write_png(cfg.out, board, paper, cfg.dpi, cfg.overwrite)
    else:
        raise BadInput(f"{cfg.out}: want a name that ends in .pdf or .png")
    print(f"{cfg.out}: {board}, on {cfg.paper} landscape")
    print(
        "Print it at 100 % (not fitted to the page), glue it on something flat, and give the size of a square that a ruler says."
    )
    write_json(cfg.json, {"out": str(cfg.out), "board": vars(board), "paper_mm": paper})
    return 0
