"""Pictures of other programs: PNG and JPEG bytes, and mp4 videos read and written by presentation time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from robolearn.errors import DatasetError

CODEC = "libx264"
_OPTIONS = {"crf": "18", "preset": "veryfast", "g": "2", "bf": "0"}  # every second picture stands alone: random access
_JPEG_QUALITY = 95
_SMALL = 256 * 256  # pixels, up to which threads cost more than they give


def encode_image(image: np.ndarray, kind: str) -> bytes:
    """Returns a picture (height, width, 3) uint8 RGB as the bytes of a PNG (lossless) or a JPEG (q95)."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 3]
    done, buffer = cv2.imencode(".jpg" if kind == "jpeg" else ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), flags)
    assert done
    return buffer.tobytes()


def decode_image(raw: bytes, where: str) -> np.ndarray:
    """Returns the picture (height, width, 3) uint8 RGB in the bytes of an image file; DatasetError where they are none."""
    image = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_COLOR) if raw and _is_whole(raw) else None
    if image is None:
        raise DatasetError(f"{where}: want a PNG or JPEG, got {len(raw)} bytes that are none, or cut off")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _is_whole(raw: bytes) -> bool:
    """Returns False for a PNG or JPEG without its end, of which OpenCV would return the part that is there."""
    if raw.startswith(b"\x89PNG"):
        return b"IEND" in raw[-64:]
    return not raw.startswith(b"\xff\xd8") or b"\xff\xd9" in raw[-64:]


def write_video(path: Path, pictures: Iterable[np.ndarray], hz: float) -> None:
    """Writes pictures (height, width, 3) uint8 RGB as an H.264 mp4; picture i is shown at i / hz seconds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(hz).limit_denominator(1001)
    reformatter = VideoReformatter()  # kept: making one for each picture costs more than the rest
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream: Any = None
        for index, picture in enumerate(pictures):
            if stream is None:
                stream = container.add_stream(CODEC, rate=rate)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p" if picture.shape[0] % 2 == 0 == picture.shape[1] % 2 else "yuv444p"
                stream.options = dict(_OPTIONS)
                stream.codec_context.time_base = 1 / rate
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame = reformatter.reformat(frame, format=stream.pix_fmt)
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode())


def video_facts(path: Path) -> dict[str, Any]:
    """Returns size, rate, codec, pixel format and number of pictures of a video; DatasetError where it cannot be opened."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        return {
            "height": stream.height,
            "width": stream.width,
            "fps": float(stream.average_rate or 0.0),
            "codec": stream.codec_context.name,
            "pix_fmt": stream.pix_fmt,
            "frames": stream.frames,
        }


def frames_at(path: Path, times: np.ndarray, tolerance: float) -> np.ndarray:
    """Returns the pictures (n, height, width, 3) uint8 RGB shown at rising `times` [s], the nearest within `tolerance` [s].

    DatasetError where a time has no picture of its own.
    """
    found = _collect(path, times, tolerance, seek=True)
    if len(found) < len(times):  # a seek may land too late where the index of the file is poor
        found = _collect(path, times, tolerance, seek=False)
    missing = [i for i in range(len(times)) if i not in found]
    if missing:
        raise DatasetError(
            f"{path}: no picture within {tolerance * 1e3:.3g} ms of {times[missing[0]]:.4f} s "
            f"({len(missing)} of {len(times)} missing)"
        )
    return np.stack([found[i] for i in range(len(times))])


def all_times(path: Path) -> np.ndarray:
    """Returns the presentation times (n,) [s] of every picture, rising, without decoding one."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        times = sorted(packet.pts * packet.time_base for packet in container.demux(stream) if packet.pts is not None)
    return np.array([float(time) for time in times])


def psnr(squared_error: float, count: int) -> float:
    """Returns the peak signal-to-noise ratio [dB] of uint8 pictures; infinite where they are equal."""
    return 10 * math.log10(255.0**2 * count / squared_error) if squared_error else math.inf


def squared_errors(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Returns the summed squared error (n,) of each picture."""
    return np.square(got.astype(np.float32) - want.astype(np.float32)).reshape(len(got), -1).sum(axis=1, dtype=np.float64)


def _collect(path: Path, times: np.ndarray, tolerance: float, seek: bool) -> dict[int, np.ndarray]:
    """Returns the pictures found, by index of the time each is nearest to."""
    found: dict[int, np.ndarray] = {}
    distance = np.full(len(times), np.inf)
    reformatter = VideoReformatter()
    for time, frame in _decoded(path, times[0] - tolerance if seek else 0.0):
        if time > times[-1] + tolerance:
            break
        nearest = int(np.argmin(np.abs(times - time)))
        off = abs(times[nearest] - time)
        if off <= tolerance and off < distance[nearest]:
            distance[nearest], found[nearest] = off, reformatter.reformat(frame, format="rgb24").to_ndarray()
    return found


def _decoded(path: Path, start: float) -> Iterator[tuple[float, Any]]:
    """Yields (presentation time [s], frame) from the last key frame before `start` on."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO" if stream.height * stream.width > _SMALL else "NONE"
        try:
            if start > 0:
                container.seek(int(start / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                if frame.pts is not None:
                    yield float(frame.pts * stream.time_base), frame
        except av.FFmpegError as error:
            raise DatasetError(f"{path}: cannot be decoded after {start:.3f} s ({error}); restore it from a copy") from error


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise DatasetError(f"{path}: this video is missing")
    try:
        container = av.open(str(path))
    except (av.FFmpegError, ValueError) as error:
        raise DatasetError(f"{path}: want a video, got a file that cannot be opened as one ({error})") from error
    if not container.streams.video:
        container.close()
        raise DatasetError(f"{path}: want a video, got a file without pictures")
    return container
