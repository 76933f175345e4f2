"""CSV files of numbers: read as text first, so that nanoseconds and every digit of a float survive."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from robolearn.data.convert._copy import stamp
from robolearn.errors import DatasetError, nearest

STAMPS = "_timestamps.csv"


@dataclass(frozen=True)
class Table:
    """A CSV file. cells: (rows, columns) text."""

    path: Path
    header: tuple[str, ...]
    cells: np.ndarray

    @property
    def rows(self) -> int:
        """Number of rows below the header."""
        return len(self.cells)


def read_table(path: Path) -> Table:
    """Returns a CSV file; DatasetError names file and line where it is not a table of numbers under names."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: want a CSV file, got one that cannot be read ({error})") from error
    if len(lines) < 2:
        raise DatasetError(f"{path}: want a line of column names and at least one row, got {len(lines)} lines")
    header = tuple(name.strip() for name in lines[0])
    if len(set(header)) != len(header) or any(_is_number(name) for name in header):
        raise DatasetError(f"{path}: want different column names in the first line, got {', '.join(header[:8])}")
    for number, line in enumerate(lines[1:], start=2):
        if len(line) != len(header):
            raise DatasetError(
                f"{path}:{number}: want {len(header)} cells as in the first line, got {len(line)}; was it cut off?"
            )
    return Table(path, header, np.array([[cell.strip() for cell in line] for line in lines[1:]]))


def cached_table(path: Path) -> Table:
    """Returns a CSV file; the last two are kept, because an episode is read in pieces."""
    return _cached(path, stamp(path))


@lru_cache(maxsize=2)
def _cached(path: Path, state: tuple[int, int, int]) -> Table:
    del state
    return read_table(path)


def groups(table: Table) -> dict[str, tuple[str, ...]]:
    """Returns the columns of each key: those that share what stands before the last dot."""
    made: dict[str, list[str]] = {}
    for name in table.header:
        made.setdefault(name.rsplit(".", 1)[0], []).append(name)
    return {key: tuple(names) for key, names in made.items()}


def values(table: Table, names: Sequence[str], dtype: str) -> np.ndarray:
    """Returns columns as an array (rows, len(names)); DatasetError names file, line and column of a cell that is no number."""
    lost = [name for name in names if name not in table.header]
    if lost:
        raise DatasetError(f"{table.path}: column '{lost[0]}' is missing{nearest(lost[0], table.header)}")
    cells = table.cells[:, [table.header.index(name) for name in names]]
    try:
        return cells.astype(np.int64).astype(bool) if dtype == "bool" else cells.astype(dtype)
    except ValueError as error:
        row, column = next((r, c) for r, c in np.ndindex(cells.shape) if not _fits(str(cells[r, c]), dtype))
        raise DatasetError(f"{table.path}:{row + 2}: {names[column]}: want {dtype}, got {str(cells[row, column])!r}") from error


def times_of(table: Table) -> np.ndarray:
    """Returns the column `timestamp` [s] (or the only one); DatasetError where it does not rise or holds NaN."""
    name = "timestamp" if "timestamp" in table.header else table.header[0]
    found = values(table, [name], "float64")[:, 0]
    if not np.isfinite(found).all():
        raise DatasetError(f"{table.path}:{int(np.argmin(np.isfinite(found))) + 2}: {name}: want a time, got NaN or infinity")
    if not (np.diff(found) > 0).all():
        raise DatasetError(f"{table.path}:{int(np.argmin(np.diff(found) > 0)) + 3}: {name}: does not rise")
    return found


def kind_of(table: Table, name: str) -> str:
    """Returns the narrowest of int64, float32, float64 that keeps every digit of a column."""
    cells = table.cells[:, table.header.index(name)]
    if all(cell.lstrip("+-").isdigit() for cell in cells.tolist()):
        return "int64"
    wide = values(table, [name], "float64")[:, 0]
    with np.errstate(over="ignore"):
        narrow = np.array([float(str(value)) for value in wide.astype(np.float32)])
    return "float32" if np.array_equal(narrow, wide, equal_nan=True) else "float64"


def write_table(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Writes columns (rows,) by name; floats with the fewest digits that read back as the same number."""
    texts = [[str(value) for value in (v.astype(np.int8) if v.dtype == bool else v)] for v in columns.values()]
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(columns)
        out.writerows(zip(*texts, strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fits(cell: str, dtype: str) -> bool:
    try:
        np.array([cell]).astype("int64" if dtype == "bool" else dtype)
    except ValueError:
        return False
    return True
