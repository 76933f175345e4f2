"""How many bytes a conversion will take, from a few rows of every key."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numcodecs
import numpy as np

from robolearn.core import ArraySpec
from robolearn.data.convert import _pictures
from robolearn.data.convert._copy import Foreign, Piece, Rows, row_bytes
from robolearn.data.images import is_image

SAMPLE = 16  # rows


def first_rows(foreign: Foreign) -> Rows:
    """Returns the first rows of a foreign dataset."""
    return foreign.rows(Piece(0, 0, int(min(SAMPLE, foreign.ends[0]))))


def estimated_bytes(keys: Mapping[str, ArraySpec], steps: int, sample: Mapping[str, np.ndarray], images: str, hz: float) -> int:
    """Returns the bytes of `steps` rows: vectors uncompressed, pictures as the sample comes out ("zarr": as in our sets)."""
    total = 0
    for key, array in keys.items():
        rows = sample.get(key)
        if is_image(array) and rows is not None and len(rows):
            total += round(_picture_bytes(rows.astype(np.uint8), images, hz) / len(rows) * steps)
        else:
            total += row_bytes(array) * steps
    return total


def _picture_bytes(rows: np.ndarray, images: str, hz: float) -> int:
    if images in ("png", "jpeg"):
        return sum(len(_pictures.encode_image(image, images)) for image in rows)
    if images == "video":
        with tempfile.TemporaryDirectory() as folder:
            _pictures.write_video(Path(folder) / "sample.mp4", rows, hz)
            return (Path(folder) / "sample.mp4").stat().st_size
    return len(numcodecs.Blosc("zstd", 3, numcodecs.Blosc.NOSHUFFLE).encode(np.ascontiguousarray(rows)))


def first_episode(foreign: Foreign) -> Foreign:
    """Returns the first rows of the first episode as a dataset of its own."""
    steps = int(min(SAMPLE, foreign.ends[0]))
    facts = {name: list(values[:1]) for name, values in foreign.facts.items()}
    return replace(foreign, ends=np.array([steps]), facts=facts, blocks=None, rows=_Complete(foreign))


class _Complete:
    """Reads the rows of a piece; keys that `rows` leaves to `blocks` are zero, which is enough for a sample."""

    def __init__(self, foreign: Foreign) -> None:
        self.foreign = foreign

    def __call__(self, piece: Piece) -> Rows:
        steps, rows = piece.stop - piece.start, self.foreign.rows(piece)
        return {
            key: rows[key].astype(array.dtype) if key in rows else np.zeros((steps, *array.shape), array.dtype)
            for key, array in self.foreign.keys.items()
        }
