"""Programs that record until they are killed, for `bench crash`: `python -m robolearn.apps._crash KIND FOLDER`.

Every episode that was acknowledged is a line "saved N HASH" on standard output, which the killer reads.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Obs, Outcome, Spec, Step, Tick

STEPS, SIZE, HZ = 100, 64, 20.0
CAMERAS = ("front", "wrist")
SPEC = Spec(
    {"joints": ArraySpec((7,), unit="rad"), **{camera: ArraySpec((SIZE, SIZE, 3), "uint8") for camera in CAMERAS}},
    ArraySpec((7,)),
    HZ,
)


def ticks(episode: int) -> list[Tick]:
    """Returns the 100 ticks of an episode: smooth pictures, joints that count."""
    rng = np.random.default_rng(episode)
    ground = np.add.outer(np.arange(SIZE), np.arange(SIZE))[..., None] + rng.integers(0, 64, 3)
    made = []
    for k in range(STEPS):
        joints = np.full(7, episode + k / STEPS, np.float32)
        obs: Obs = {c: ((ground + 3 * k + 40 * i) % 256).astype(np.uint8) for i, c in enumerate(CAMERAS)}
        obs["joints"] = joints
        step = Step(obs=obs, filtered=joints, sent=joints, success=k == STEPS - 1)
        made.append(Tick(k, obs, joints, step, "operator", None))
    return made


def record_ours(folder: Path) -> None:
    """Records with `EpisodeWriter`, each episode packed before the next begins."""
    from robolearn.data.recorder import EpisodeWriter, Recording

    with EpisodeWriter(folder / "set.zarr", {"task": "toy"}, Recording(buffer_mib=32, pack="each")) as recorder:
        for episode in range(10**6):
            recorder.begin(SPEC, {"seed": episode})
            for tick in ticks(episode):
                recorder.record(tick)
            recorder.end(Outcome(episode, STEPS, True, 1.0, "success"))
            _say(recorder.saved[-1].id, recorder.saved[-1].sha256)


def record_parquet(folder: Path) -> None:
    """Keeps one ParquetWriter open for the whole session, as LeRobot 0.4's recorder does."""
    import pyarrow
    import pyarrow.parquet

    writer: Any = None
    for episode in range(10**6):
        rows = ticks(episode)
        table = pyarrow.table({"joints": [tick.asked.tolist() for tick in rows], "episode_index": [episode] * STEPS})
        writer = writer or pyarrow.parquet.ParquetWriter(folder / "file-000.parquet", table.schema)
        writer.write_table(table)
        _say(episode, _digest(rows))


def record_hdf5(folder: Path) -> None:
    """Keeps one HDF5 file open and never flushes it."""
    import h5py

    file = h5py.File(folder / "data.hdf5", "w")
    for episode in range(10**6):
        rows = ticks(episode)
        file[f"data/demo_{episode}/actions"] = np.stack([tick.asked for tick in rows])
        _say(episode, _digest(rows))


def _digest(rows: list[Tick]) -> str:
    return hashlib.sha256(np.stack([tick.asked for tick in rows]).tobytes()).hexdigest()


def _say(episode: int, sha256: str) -> None:
    sys.stdout.write(f"saved {episode} {sha256}\n")
    sys.stdout.flush()


VERIFY_OURS = """
import hashlib, json, pathlib, sys
import zarr
folder, lines = pathlib.Path(sys.argv[1]), json.load(sys.stdin)
bad = []
for number, want in lines:
    episode = folder / "set.episodes" / f"ep_{number:06d}"
    try:
        root = (episode / "zarr.json").read_bytes()
        assert hashlib.sha256(root).hexdigest() == want, "hash of zarr.json"
        for name, digest in json.loads(root)["attributes"]["sha256"].items():
            assert hashlib.sha256((episode / name).read_bytes()).hexdigest() == digest, name
        group = zarr.open_group(episode, mode="r")
        assert group["rows/action"][:].shape == (100, 7) and group["rows/joints"][-1, 0] > number, "rows"
        assert group["cameras/front/ends"][:][-1] == group["cameras/front/bytes"].shape[0], "pictures"
    except Exception as error:
        bad.append([number, f"{type(error).__name__}: {error}"])
group = zarr.open_group(folder / "set.zarr", mode="r") if (folder / "set.zarr").exists() else None
packed = []
if group is not None and "meta/episode_ends" in group:
    ends = group["meta/episode_ends"][:]
    for index, end in enumerate(ends):
        start = ends[index - 1] if index else 0
        rows = group["data/action"][start:end]
        if len(rows) != 100 or int(rows[0, 0]) != group["meta/episode_id"][index] or group["data/front"][end - 1].max() == 0:
            bad.append([index, "set: rows"])
        packed.append(int(end))
print(json.dumps({"bad": bad, "packed": len(packed)}))
"""
"""Opens every acknowledged episode with plain zarr, and every episode of the set: run by another process, without robolearn."""

RECORDERS: dict[str, Callable[[Path], None]] = {"ours": record_ours, "parquet": record_parquet, "hdf5": record_hdf5}

if __name__ == "__main__":
    RECORDERS[sys.argv[1]](Path(sys.argv[2]))
