"""JPEG pictures on the wire: the size a stranger's file claims is read from its header before anything is decoded."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from robolearn.errors import MissingDependency
from robolearn.runtime.serve.reader import ProtocolError

_START, _SCAN = 0xD8, 0xDA
_BASELINE = (0xC0, 0xC1)  # progressive files may hold thousands of scans for one small picture
_FRAMES = tuple(code for code in range(0xC0, 0xD0) if code not in (0xC4, 0xC8, 0xCC))


def encode_jpeg(picture: np.ndarray, quality: int) -> bytes:
    """Returns the JPEG file of an RGB picture (height, width, 3) uint8; quality 1..100."""
    cv2 = _cv2()
    done, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ProtocolError(f"wire: a picture of shape {picture.shape} cannot be written as JPEG")
    return bytes(data)


def decode_jpeg(data: bytes | memoryview, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the RGB picture of `shape` (height, width, 3) in a JPEG file; ProtocolError where its header says another shape."""
    found = _shape(memoryview(data))
    if found != shape:
        raise ProtocolError(f"wire: want a JPEG picture of shape {shape}, got {found}")
    cv2 = _cv2()
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        picture = None
    if picture is None or picture.shape != shape:
        raise ProtocolError(f"wire: a JPEG picture of {len(data)} bytes is broken")
    return picture[..., ::-1]


def _shape(data: memoryview) -> tuple[int, int, int]:
    """Returns (height, width, 3) from the frame header; only baseline files of three colours have one here."""
    at = 2
    if bytes(data[:2]) != bytes((0xFF, _START)):
        raise ProtocolError("wire: the picture is no JPEG file")
    while at + 4 <= len(data) and data[at] == 0xFF:
        code = data[at + 1]
        if code == _SCAN:
            break
        if code in _FRAMES and at + 10 <= len(data):
            height, width, colours = struct.unpack(">HHB", data[at + 5 : at + 10])
            if code not in _BASELINE or colours != 3:
                raise ProtocolError("wire: want a baseline JPEG picture of three colours")
            return height, width, colours
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    raise ProtocolError("wire: the JPEG picture has no frame header")


def _cv2() -> Any:
    try:
        import cv2
    except ImportError:
        raise MissingDependency("opencv-python", "a picture sent as JPEG", "pip install opencv-python") from None
    return cv2
