"""The layouts that `bench loader` times beside ours, each read as its users read it: one window a sample, torch's DataLoader."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import zarr
from torch.utils.data import Dataset

from robolearn.errors import MissingDependency

CHUNK = 161  # rows a chunk of the original PushT file
GOP, CRF = 2, 30  # pictures between two whole ones, and the quality: what LeRobot encodes with
ENCODERS = ("libsvtav1", "libx264")  # LeRobot's own, and what stands in where it is not built in


class Rows(NamedTuple):
    """What every layout is made of: frames (n, height, width, 3) uint8, actions (n, d) float32, episode ends, rate [1/s]."""

    frames: np.ndarray
    actions: np.ndarray
    ends: np.ndarray
    hz: float


class Window(NamedTuple):
    """Frames and actions of one sample."""

    frames: int
    actions: int


class ZarrPerSample(Dataset):
    """Reads every window from zarr when it is asked for, chunks of 161 float images as in the original file."""

    name = f"zarr of the original PushT file ({CHUNK} float32 frames a chunk), read a window at a time"

    def __init__(self, rows: Rows, window: Window, folder: Path) -> None:
        self.path, self.window, self.last = folder / "naive.zarr", window, len(rows.frames) - window.actions
        made = zarr.create_group(self.path, zarr_format=2)
        made.create_array("data/img", data=rows.frames.astype(np.float32), chunks=(CHUNK, *rows.frames.shape[1:]))
        made.create_array("data/action", data=rows.actions, chunks=(CHUNK, *rows.actions.shape[1:]))
        self._data: Any = None

    def __len__(self) -> int:
        return self.last

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        if self._data is None:  # in the worker
            self._data = zarr.open_group(self.path, mode="r")["data"]
        frames = self._data["img"][row : row + self.window.frames].astype(np.uint8)
        return frames, self._data["action"][row : row + self.window.actions]


class ParquetPng(Dataset):
    """Decodes every window's frames from PNG bytes in a parquet table that is held in memory."""

    name = "parquet, one PNG a frame, held in memory (LeRobot's image sets), pyarrow + cv2"

    def __init__(self, rows: Rows, window: Window, folder: Path) -> None:
        pyarrow, parquet = _pyarrow()
        self.path, self.window, self.last = folder / "png.parquet", window, len(rows.frames) - window.actions
        png = [cv2.imencode(".png", frame)[1].tobytes() for frame in rows.frames]
        parquet.write_table(pyarrow.table({"img": png, "action": list(rows.actions)}), self.path)
        self._held: Any = None

    def __len__(self) -> int:
        return self.last

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        if self._held is None:
            table = _pyarrow()[1].read_table(self.path)
            self._held = table["img"], np.stack(table["action"].to_numpy())
        png, actions = self._held
        pictures: list[Any] = [
            cv2.imdecode(np.frombuffer(raw.as_py(), np.uint8), 1) for raw in png[row : row + self.window.frames]
        ]
        return np.stack(pictures), actions[row : row + self.window.actions]


class ParquetVideo(Dataset):
    """Decodes every window's frames from one mp4 that each worker holds open; the actions lie in memory."""

    def __init__(self, rows: Rows, window: Window, folder: Path) -> None:
        pyarrow, parquet = _pyarrow()
        self.folder, self.window, self.last = folder, window, len(rows.frames) - window.actions
        self.hz = max(1, round(rows.hz))
        self.encoder = encode(rows.frames, folder / "video.mp4", self.hz)
        self.name = f"parquet and mp4 ({self.encoder}, a whole picture every {GOP}, crf {CRF}; LeRobot's video sets), PyAV"
        parquet.write_table(pyarrow.table({"action": list(rows.actions)}), folder / "video.parquet")
        self._held: Any = None

    def __len__(self) -> int:
        return self.last

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        if self._held is None:
            import av

            table = _pyarrow()[1].read_table(self.folder / "video.parquet")
            self._held = av.open(str(self.folder / "video.mp4")), np.stack(table["action"].to_numpy())
        video, actions = self._held
        frames = list(decode(video, row, self.window.frames, self.hz))
        return np.stack(frames), actions[row : row + self.window.actions]


def encode(frames: np.ndarray, path: Path, hz: int) -> str:
    """Writes frames (n, height, width, 3) uint8 as an mp4 and returns the encoder that was built in."""
    import av

    encoder = next(name for name in ENCODERS if name in av.codecs_available)
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream(encoder, hz, options={"g": str(GOP), "crf": str(CRF)})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        out.mux(stream.encode())
    return encoder


def decode(video: Any, row: int, count: int, hz: int) -> Iterator[np.ndarray]:
    """Yields `count` frames (height, width, 3) uint8 from frame number `row` on, from the nearest whole picture before it."""
    stream = video.streams.video[0]
    video.seek(round(Fraction(row, hz) / stream.time_base), stream=stream)
    for frame in video.decode(stream):
        number = round(frame.pts * stream.time_base * hz)
        if number >= row + count:
            return
        if number >= row:
            yield frame.to_ndarray(format="rgb24")
        if number == row + count - 1:
            return


class LeRobotOwn(Dataset):
    """LeRobot's own dataset, written and read by LeRobot: mp4 with torchcodec, or pictures inside parquet."""

    def __init__(self, rows: Rows, window: Window, folder: Path, video: bool) -> None:
        import importlib.metadata

        from lerobot.datasets.lerobot_dataset import LeRobotDataset

        kind = "video" if video else "image"
        path, hz = folder / f"lerobot_{kind}", max(1, round(rows.hz))
        shape, names = rows.frames.shape[1:], ["height", "width", "channels"]
        features = {
            "observation.image": {"dtype": kind, "shape": shape, "names": names},
            "action": {"dtype": "float32", "shape": rows.actions.shape[1:], "names": None},
        }
        made = LeRobotDataset.create("bench/rows", fps=hz, features=features, root=path, use_videos=video)
        for first, last in zip(np.r_[0, rows.ends[:-1]], rows.ends, strict=True):
            for row in range(first, last):
                made.add_frame({"observation.image": rows.frames[row], "action": rows.actions[row], "task": "rows"})
            made.save_episode()
        made.finalize()
        times = {
            "observation.image": [(k - window.frames + 1) / hz for k in range(window.frames)],
            "action": [k / hz for k in range(window.actions)],
        }
        self.inner = LeRobotDataset("bench/rows", root=path, delta_timestamps=times)
        decoder = f" with {self.inner.video_backend}" if video else ""
        self.name = f"lerobot {importlib.metadata.version('lerobot')}, its own {kind} set and loader{decoder}"

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, row: int) -> dict[str, Any]:
        sample = self.inner[row]
        return {key: sample[key] for key in ("observation.image", "action")}


def lerobot_why_not(video: bool) -> str:
    """Returns why LeRobot's own loader cannot be timed here, in one line; empty where it can: ten frames are tried."""
    rng = np.random.default_rng(0)
    rows = Rows(rng.integers(0, 256, (10, 96, 96, 3), np.uint8), np.zeros((10, 2), np.float32), np.array([10]), 10.0)
    try:
        with tempfile.TemporaryDirectory() as folder:
            sample = LeRobotOwn(rows, Window(2, 4), Path(folder), video)[3]
            if tuple(sample["observation.image"].shape) != (2, 3, 96, 96):
                return f"its images are {sample['observation.image']!r:.60}"
    except Exception as error:  # whatever fails inside another program
        return f"{type(error).__name__}: {error}".splitlines()[0][:160]
    return ""


def read_back_psnr(frames: np.ndarray, path: Path, hz: int) -> float:
    """Returns how like the frames the video at `path` is, over its first 64 [dB]."""
    import av

    with closing(av.open(str(path))) as video:
        seen = np.stack(list(decode(video, 0, min(64, len(frames)), hz))).astype(np.float64)
    error = np.square(seen - frames[: len(seen)]).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingDependency("pyarrow", "the parquet layouts", "pip install 'robolearn[lerobot]'") from error
    return pyarrow, pyarrow.parquet
