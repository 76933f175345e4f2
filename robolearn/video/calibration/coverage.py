"""Where in the picture, and how tilted, the board has been: what a lens is known from, and what is still missing.

The picture is cut into 4 x 3 cells; each wants corners. The board wants to lean to all four sides, and to have been near once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np

from robolearn import geometry
from robolearn.video.calibration.boards import Board, Sighting
from robolearn.video.calibration.intrinsics import tilts

CELLS = (3, 4)  # rows, columns
_ENOUGH = 8  # corners in a cell
_LEAN = np.radians(15.0)
_LEANS = 2  # pictures for each side
_NEAR = 0.25  # of the picture that the board's corners span
_PICTURES = 12
_NEW_PX = 0.05  # of the picture's width by which corners have to differ from those of any picture taken
_NEW_TURN = np.radians(8.0)
_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("far left", "left", "right", "far right")
_SIDES = ("right side away", "left side away", "lower side away", "upper side away")


@dataclass
class Coverage:
    """What the pictures so far show. size: (width, height) [px]; it grows by `add`."""

    board: Board
    size: tuple[int, int]
    cells: np.ndarray = field(default_factory=lambda: np.zeros(CELLS, int))
    leans: np.ndarray = field(default_factory=lambda: np.zeros(4, int))
    near: int = 0
    taken: list[tuple[Sighting, np.ndarray]] = field(default_factory=list)

    def add(self, seen: Sighting) -> None:
        """Counts one picture."""
        pose = rough_pose(self.board, seen, self.size)
        self.taken.append((seen, pose))
        place = seen.pixels / np.array(self.size) * CELLS[::-1]
        column, row = np.clip(place.astype(int), 0, np.array(CELLS[::-1]) - 1).T
        np.add.at(self.cells, (row, column), 1)
        across, down = tilts(pose)
        self.leans += np.array([across > _LEAN, across < -_LEAN, down > _LEAN, down < -_LEAN])
        self.near += int(span(seen, self.size) >= _NEAR)

    def is_new(self, seen: Sighting) -> bool:
        """Returns whether this sighting differs enough, in place or tilt, from every picture taken."""
        pose = rough_pose(self.board, seen, self.size)
        return all(self._differs(seen, pose, *other) for other in self.taken)

    def missing(self) -> list[str]:
        """Returns what is still wanted, in words, the most useful first; empty when the pictures will do."""
        wanted = [f"lean the board: {name}" for name, n in zip(_SIDES, self.leans, strict=True) if n < _LEANS]
        empty = np.argwhere(self.cells < _ENOUGH)
        wanted += [f"corners at the {_ROWS[row]} {_COLUMNS[column]}" for row, column in empty]
        wanted += ["the board nearer"] if self.near < 1 else []
        wanted += [f"{_PICTURES - len(self.taken)} more pictures"] if len(self.taken) < _PICTURES else []
        return wanted

    def drawn(self) -> list[str]:
        """Returns the cells as lines of text, full and empty squares."""
        return [" ".join("■" if n >= _ENOUGH else "▪" if n else "□" for n in row) for row in self.cells]

    def _differs(self, seen: Sighting, pose: np.ndarray, other: Sighting, other_pose: np.ndarray) -> bool:
        _, here, there = np.intersect1d(seen.ids, other.ids, return_indices=True)
        if not len(here):
            return True
        moved = np.linalg.norm(seen.pixels[here] - other.pixels[there], axis=-1).mean()
        turned = geometry.angle_between(pose[:3, :3], other_pose[:3, :3])
        return bool(moved > _NEW_PX * self.size[0] or turned > _NEW_TURN)


def covered(board: Board, sightings: Sequence[Sighting], size: tuple[int, int]) -> Coverage:
    """Returns the coverage of pictures that are there already."""
    coverage = Coverage(board, size)
    for seen in sightings:
        if len(seen):
            coverage.add(seen)
    return coverage


def span(seen: Sighting, size: tuple[int, int]) -> float:
    """Returns the share of the picture that the hull of the corners covers."""
    hull = cv2.convexHull(seen.pixels.astype(np.float32))
    return float(cv2.contourArea(hull)) / (size[0] * size[1])


def rough_pose(board: Board, seen: Sighting, size: tuple[int, int]) -> np.ndarray:
    """Returns camera_from_board (4, 4) of a lens as wide as most: the tilt is right to some degrees, the distance is not."""
    focal = 0.9 * max(size)
    lens = np.array([[focal, 0, (size[0] - 1) / 2], [0, focal, (size[1] - 1) / 2], [0, 0, 1]])
    found, turn, shift = cv2.solvePnP(board.corners[seen.ids], seen.pixels, lens, None, flags=cv2.SOLVEPNP_IPPE)
    return geometry.pose(np.ravel(shift), cv2.Rodrigues(turn)[0]) if found else np.eye(4)


def still(before: Sighting, now: Sighting, limit_px: float = 0.7) -> bool:
    """Returns whether two pictures in a row show the board at one place: corners that moved are blurred."""
    _, here, there = np.intersect1d(before.ids, now.ids, return_indices=True)
    if len(here) < len(now) / 2 or not len(here):
        return False
    return bool(np.linalg.norm(before.pixels[here] - now.pixels[there], axis=-1).max() <= limit_px)
