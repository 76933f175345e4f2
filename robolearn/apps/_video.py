"""Films an episode by replaying its actions from its seed, and writes pictures as an mp4 that browsers play."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from robolearn.core import SimEnv
from robolearn.rollout_vector import Record

_HOLD_S = 0.6  # the last picture stands still, so that the end can be seen


def film(make: Callable[[], SimEnv], records: Iterable[Record], folder: Path) -> dict[int, Path]:
    """Writes one video a record, of a body that `make` returns, and returns the files by seed.

    Equal seeds and actions give equal episodes, so nothing needs to be filmed while policies are being evaluated.
    """
    files: dict[int, Path] = {}
    with closing(make()) as body:
        for record in records:
            outcome = record.outcome
            assert outcome.seed is not None
            body.reset(outcome.seed)
            name = f"{'success' if outcome.success else 'failure'}_{outcome.seed}.mp4"
            files[outcome.seed] = write_mp4(folder / name, frames(body, record.actions), body.spec.hz)
    return files


def frames(body: SimEnv, actions: np.ndarray) -> Iterable[np.ndarray]:
    """Yields the picture (height, width, 3) uint8 RGB of a body before, and after each of, `actions` (n, action)."""
    yield body.render()
    for action in actions:
        body.step(action)
        yield body.render()


def write_mp4(path: Path, pictures: Iterable[np.ndarray], hz: float, hold_s: float = _HOLD_S) -> Path:
    """Writes pictures (height, width, 3) uint8 RGB at `hz` pictures a second as H.264, the last for `hold_s`; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = None
        picture = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(hz).limit_denominator(1000))
                stream.height, stream.width = (n - n % 2 for n in picture.shape[:2])
                stream.pix_fmt = "yuv420p"
                stream.options = {"crf": "24", "preset": "veryfast"}
            _encode(container, stream, picture)
        if stream is not None and picture is not None:
            for _ in range(round(hold_s * hz)):
                _encode(container, stream, picture)
            container.mux(stream.encode())
    return path


def _encode(container: Any, stream: Any, picture: np.ndarray) -> None:
    even = np.ascontiguousarray(picture[: stream.height, : stream.width])
    container.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
