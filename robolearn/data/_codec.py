"""Pictures as bytes: JPEG (quality 95, 4:2:0) for live recording, PNG or JPEG XL where every bit counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from robolearn.errors import DatasetError, MissingDependency

CodecName = Literal["jpeg", "png", "jxl"]


@dataclass(frozen=True)
class Codec:
    """How frames (height, width, 3) uint8 RGB are written; quality: of JPEG, 1 to 100."""

    name: CodecName = "jpeg"
    quality: int = 95

    def __post_init__(self) -> None:
        if self.name not in ("jpeg", "png", "jxl") or not 1 <= self.quality <= 100:
            raise DatasetError(f"codec: want jpeg, png or jxl and a quality of 1 to 100, got {self.name} and {self.quality}")

    @property
    def lossless(self) -> bool:
        """True where decoding gives back every bit."""
        return self.name != "jpeg"

    def encoder(self) -> Callable[[np.ndarray], bytes]:
        """Returns the function that makes bytes of a frame; MissingDependency where its library is not there."""
        if self.name == "jxl":
            encode = _imagecodecs().jpegxl_encode
            return lambda frame: bytes(encode(frame, lossless=True, effort=1))
        suffix, options = {
            "jpeg": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, self.quality]),
            "png": (".png", [cv2.IMWRITE_PNG_COMPRESSION, 1]),
        }[self.name]
        return lambda frame: cv2.imencode(suffix, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def decode(raw: bytes | memoryview | np.ndarray, codec: str) -> np.ndarray:
    """Returns the frame (height, width, 3) uint8 RGB in `raw`; DatasetError where it is damaged."""
    if codec == "jxl":
        return np.asarray(_imagecodecs().jpegxl_decode(bytes(raw)))
    data = np.frombuffer(raw, np.uint8)
    frame = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if data.size else None
    if frame is None:
        raise DatasetError(f"want a {codec} picture, got {data.size} bytes that are none")
    return frame


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ModuleNotFoundError as error:
        raise MissingDependency("imagecodecs", "JPEG XL", "pip install robolearn[jxl]") from error
    return imagecodecs
