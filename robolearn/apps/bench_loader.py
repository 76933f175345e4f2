"""Times the loader: windows/s of 2 images and 16 actions in random order, against zarr per sample and parquet with PNG frames."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import tyro
import zarr
from torch.utils.data import DataLoader, Dataset

from robolearn.apps._bench import interleaved, machine, reference_per_s
from robolearn.apps._report import write_json
from robolearn.data.images import image_keys, load_frames
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import DatasetError
from robolearn.training.loader import Loader

_TO, _HORIZON = 2, 16
_CHUNK = 161  # rows a chunk of the original PushT file
_PEER = "parquet, one PNG a frame, in memory (the layout of LeRobot's image sets), pyarrow + cv2, torch DataLoader"


@dataclass(frozen=True)
class Config:
    """What to time."""

    dataset: tyro.conf.Positional[Path] = Path("data/demos/pusht.zarr")
    """A set with images."""
    workers: int = 2
    """Of every loader: threads of ours, processes of the others."""
    batch_size: int = 64
    """Windows a batch."""
    repeats: int = 5
    """Interleaved rounds; the medians are kept."""
    rows: int = 4096
    """Rows of the set that the slow layouts are built of (ours runs over all of it)."""
    json: Path | None = None
    """Where to write the figures."""


class ZarrPerSample(Dataset):
    """Reads every window from zarr when it is asked for, chunks of 161 float images as in the original file."""

    def __init__(self, path: Path, last: int) -> None:
        self.path, self.last = path, last
        self._data: Any = None

    def __len__(self) -> int:
        return self.last

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        if self._data is None:
            self._data = zarr.open_group(self.path, mode="r")["data"]
        return self._data["img"][row : row + _TO].astype(np.uint8), self._data["action"][row : row + _HORIZON]


class ParquetFrames(Dataset):
    """Decodes every window's frames from PNG bytes in a parquet table."""

    def __init__(self, path: Path, last: int) -> None:
        self.path, self.last = path, last
        self._table: Any = None

    def __len__(self) -> int:
        return self.last

    def __getitem__(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        if self._table is None:
            import pyarrow.parquet

            self._table = pyarrow.parquet.read_table(self.path)
        pictures: list[Any] = [
            cv2.imdecode(np.frombuffer(raw.as_py(), np.uint8), 1) for raw in self._table["img"][row : row + _TO]
        ]
        return np.stack(pictures), np.asarray(self._table["action"][row : row + _HORIZON].to_pylist(), np.float32)


def run(cfg: Config) -> int:
    """Times all layouts in turn and prints windows/s."""
    torch.set_num_threads(1)
    dataset = EpisodeSet.open(cfg.dataset)
    keys = image_keys(dataset)
    if not keys:
        raise DatasetError(f"{cfg.dataset}: want a set with images, got keys {', '.join(dataset.keys)}")
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        windows = Windows(dataset, keys[:1], _TO, _HORIZON, cache=Path(scratch) / "cache")
        next(iter(Loader(windows, cfg.batch_size, 0)))
        cold = time.perf_counter() - begin
        variants, why = _variants(cfg, dataset, keys[0], windows, Path(scratch))
        seconds = interleaved({name: run_one for name, (run_one, _) in variants.items()}, cfg.repeats)
        reference = reference_per_s()
    rates = {name: variants[name][1] * cfg.batch_size / statistics.median(times) for name, times in seconds.items()}
    figures: dict[str, Any] = {
        "window": f"{_TO} uint8 {'x'.join(map(str, dataset.keys[keys[0]].shape))} frames, {_HORIZON} actions, random order, "
        f"torch batch {cfg.batch_size}, {cfg.workers} workers",
        "cold_start_s": cold,
        "ours_windows_per_s": rates["ours"],
        "naive_zarr_windows_per_s": rates["naive"],
        "peer": _PEER if "peer" in rates else {"holds": None, "why": why},
        "peer_windows_per_s": rates.get("peer"),
        "repeats": cfg.repeats,
        "reference_per_s": reference,
        "machine": machine(1),
        "rows": [{"layout": name, "windows_per_s": rates[name], "seconds": times} for name, times in seconds.items()],
    }
    print(f"{figures['window']}\n  first batch from a cold start (decodes all images once): {cold:.1f} s")
    for name, label in (("ours", "ours"), ("naive", "zarr per sample"), ("peer", "parquet with PNG frames")):
        print(f"  {label:<26} {rates[name]:>9,.0f} windows/s" if name in rates else f"  {label:<26} not measured: {why}")
    write_json(cfg.json, figures, seed=0)
    return 0


def _variants(
    cfg: Config, dataset: EpisodeSet, key: str, windows: Windows, scratch: Path
) -> tuple[dict[str, tuple[Callable[[], None], int]], str]:
    """Returns by name what to time and how many batches it takes, and why the peer is missing ("" where it is not)."""
    rows = min(cfg.rows, dataset.n_steps)
    frames, actions = load_frames(dataset, key, scratch / "cache")[:rows], dataset.read("action", 0, rows).astype(np.float32)
    naive = zarr.create_group(scratch / "naive.zarr", zarr_format=2)
    naive.create_array("data/img", data=frames.astype(np.float32), chunks=(_CHUNK, *frames.shape[1:]))
    naive.create_array("data/action", data=actions, chunks=(_CHUNK, *actions.shape[1:]))
    variants = {
        "ours": (lambda: _drain(iter(Loader(windows, cfg.batch_size, 0, workers=cfg.workers)), 200), 200),
        "naive": (_others(ZarrPerSample(scratch / "naive.zarr", rows - _HORIZON), cfg, 4), 4),
    }
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        return variants, "pyarrow is not installed; pip install pyarrow"
    png = [cv2.imencode(".png", frame)[1].tobytes() for frame in frames]
    pyarrow.parquet.write_table(pyarrow.table({"img": png, "action": actions.tolist()}), scratch / "peer.parquet")
    variants["peer"] = (_others(ParquetFrames(scratch / "peer.parquet", rows - _HORIZON), cfg, 60), 60)
    return variants, ""


def _others(dataset: Dataset, cfg: Config, batches: int) -> Callable[[], None]:
    """Returns what draws `batches` random batches with torch's own loader; starting its processes counts."""
    context = "fork" if cfg.workers and sys.platform == "linux" else None
    loader = DataLoader(dataset, cfg.batch_size, shuffle=True, num_workers=cfg.workers, multiprocessing_context=context)
    return lambda: _drain(iter(loader), batches)


def _drain(batches: Any, count: int) -> None:
    for _ in islice(batches, count):
        pass
