"""Pictures of a set as the viewer asks for them: some rows of one camera at a time, decoded on demand, as PNG or JPEG."""

from __future__ import annotations

import threading
from collections import OrderedDict

import cv2
import numpy as np

from robolearn.data.images import image_keys, to_uint8
from robolearn.data.store import EpisodeSet

_HELD_BYTES = 192 * 2**20
_LOSSLESS_SIDE = 160  # [px]: smaller pictures are sent as PNG
_QUALITY = 92


class Frames:
    """Pictures of one set; chunks that were decoded are kept up to a bound, so that playing decodes each chunk once."""

    def __init__(self, dataset: EpisodeSet) -> None:
        self.dataset = dataset
        self.keys = image_keys(dataset)
        self._blocks: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._scales: dict[str, float] = {}

    def read(self, key: str, start: int, stop: int) -> np.ndarray:
        """Returns rows [start, stop) of one camera, uint8 (rows, height, width, 3)."""
        step = self.dataset.array(key).chunks[0]
        parts = []
        for first in range(start - start % step, stop, step):
            block = self._block(key, first, step)
            parts.append(block[max(0, start - first) : stop - first])
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def encoded(self, key: str, start: int, stop: int) -> list[bytes]:
        """Returns rows [start, stop) of one camera as PNG (small pictures) or JPEG files."""
        return [encode(image) for image in self.read(key, start, stop)]

    def _block(self, key: str, first: int, step: int) -> np.ndarray:
        with self._lock:
            if (key, first) in self._blocks:
                self._blocks.move_to_end((key, first))
                return self._blocks[key, first]
        last = min(first + step, self.dataset.n_steps)
        block = self.dataset.read(key, first, last)
        if block.dtype != np.uint8:
            block = to_uint8(block * self._scale(key), f"{self.dataset.path}: {key}")
        with self._lock:
            if (key, first) not in self._blocks:
                self._blocks[key, first] = block
                self._held += block.nbytes
            while self._held > _HELD_BYTES and len(self._blocks) > 1:
                self._held -= self._blocks.popitem(last=False)[1].nbytes
        return block

    def _scale(self, key: str) -> float:
        """Returns 255 where the set's first picture holds 0..1, else 1."""
        if key not in self._scales:
            high = float(self.dataset.read(key, 0, 1).max(initial=0))
            self._scales[key] = 255.0 if 0.0 < high <= 1.0 else 1.0
        return self._scales[key]


def encode(image: np.ndarray) -> bytes:
    """Returns one RGB picture (height, width, 3) uint8 as a file: PNG where it is small, else JPEG."""
    bgr = np.ascontiguousarray(image[..., ::-1])
    if max(image.shape[:2]) <= _LOSSLESS_SIDE:
        return cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def pack(files: list[bytes]) -> bytes:
    """Returns files as one: their number, the length of each (uint32, little-endian), then the files end to end."""
    head = np.array([len(files), *map(len, files)], "<u4").tobytes()
    return b"".join([head, *files])
