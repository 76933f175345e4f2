"""What the calibration verbs have in common: the flags of a board, pictures by view, and which pictures belong together."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import glob
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from tqdm import tqdm

from robolearn.errors import BadInput, UnknownName
from robolearn.video.calibration.boards import Board, Sighting, detect

PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class BoardFlags:
    """The board."""

    board: Literal["", "charuco", "chessboard"] = ""
    """Kind of board; empty: the one that the calibration names, or charuco."""
    grid: tuple[int, int] = (7, 5)
    """Columns and rows: squares of a ChArUco board, inner corners of a chessboard."""
    square_mm: float = 30.0
    """Side of a square [mm]: measure it on the print."""
    marker_mm: float = 22.0
    """Side of a ChArUco board's marker [mm]."""
    dictionary: str = "4X4_50"
    """OpenCV's dictionary of the markers."""
    legacy: bool = False
    """The pattern of OpenCV before 4.6 and of calib.io; it matters where the number of rows is even."""

    def made(self, known: Board | None = None) -> Board:
        """Returns the board meant; known: that of a calibration, which counts where no kind is said."""
        if not self.board and known is not None:
            if replace(self, board="") != BoardFlags():
                raise BadInput(f"board: the calibration names {known}; give --board too to use another one")
            return known
        kind: Literal["charuco", "chessboard"] = self.board or "charuco"
        sides = self.square_mm / 1000, self.marker_mm / 1000
        return Board(kind, self.grid, *sides, self.dictionary.removeprefix("DICT_"), self.legacy)


@dataclass(frozen=True)
class Shots:
    """The pictures of one view. size: (width, height) [px]; paths and sightings: by moment, what pictures of one time share."""

    size: tuple[int, int]
    paths: Mapping[str, Path]
    sightings: Mapping[str, Sighting]

    @property
    def found(self) -> list[Sighting]:
        """Returns the sightings that show something of the board."""
        return [seen for seen in self.sightings.values() if len(seen)]


def views_of(images: Sequence[Path], views: Sequence[tuple[str, str]], name: str) -> dict[str, list[Path]]:
    """Returns the pictures of each view: those given bare as view `name`, and (view, folder or pattern) pairs."""
    found: dict[str, list[Path]] = {}
    if images:
        found[name] = [path for image in images for path in _pictures(str(image))]
    for view, where in views:
        if view in found:
            raise BadInput(f"--view {view}: it is given twice; want one folder or pattern for each view")
        found[view] = _pictures(where)
    if not found:
        raise BadInput("want pictures: a folder or files, or --view NAME FOLDER for each view, got none")
    return found


def look(board: Board, views: Mapping[str, Sequence[Path]]) -> dict[str, Shots]:
    """Returns what all pictures show of the board; BadInput where pictures of a view differ in size or moment."""
    shots = {}
    total = sum(map(len, views.values()))
    with tqdm(total=total, desc="look for the board", unit="picture", leave=False, disable=not sys.stderr.isatty()) as bar:
        for view, paths in views.items():
            by_moment: dict[str, Path] = {}
            sightings, sizes = {}, {}
            for path in paths:
                image = read(path)
                key = moment(path.name)
                if key in by_moment:
                    raise BadInput(f"{view}: {by_moment[key].name} and {path.name} both count as {key}; want a number each")
                by_moment[key], sightings[key] = path, detect(board, image, path.name)
                sizes[image.shape[1], image.shape[0]] = path.name
                bar.update()
            if len(sizes) > 1:
                raise BadInput(f"{view}: want pictures of one size, got {' and '.join(f'{s} ({n})' for s, n in sizes.items())}")
            shots[view] = Shots(next(iter(sizes)), by_moment, sightings)
    return shots


def read(path: Path) -> np.ndarray:
    """Returns a picture (height, width) uint8, grey; BadInput where it is none."""
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise BadInput(f"{path}: want a picture, got a file that cannot be read as one")
    return np.asarray(image)


def moment(name: str) -> str:
    """Returns what pictures of one time share: the last number in the name ("left_007.png": 7), or the name without one."""
    numbers = re.findall(r"\d+", Path(name).stem)
    return numbers[-1].lstrip("0") or "0" if numbers else Path(name).stem


def known_view(name: str, known: Sequence[str], where: Path) -> None:
    """Raises UnknownName for a view that a calibration does not have."""
    if name not in known:
        raise UnknownName("view", name, known, where=str(where))


def _pictures(where: str) -> list[Path]:
    path = Path(where).expanduser()
    if path.is_dir():
        found = sorted(one for one in path.iterdir() if one.suffix.lower() in PICTURES)
    else:
        found = sorted(map(Path, glob(str(path))))
    if not found:
        raise BadInput(
            f"{where}: want a folder with pictures, or a pattern such as 'pictures/left*.png' in quotes, got none there"
        )
    return found
