"""Real human demonstrations from where their authors put them: verified, and never over something that exists."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from robolearn import config
from robolearn.core import ArraySpec, Spec
from robolearn.data.convert._copy import built_aside
from robolearn.data.images import row_blocks
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError

ROBOSUITE_WHEEL = "robosuite==1.0.1"
ROBOSUITE_WHEEL_SHA256 = "92d45d7ad57e6d8a63becc96d14a038e17ab1919c00d771a4bbb6e6fc7aa4810"
ROBOSUITE_DEMOS = {  # sha256 of every file
    "door/panda/demo.hdf5": "d53be75d5a906d6355be05a882197c9cfdc6ddedd15f577311d51d4efe07a4a2",
    "lift/panda/demo.hdf5": "694f2701136b57354e6b45c0b06a70f147416030239ce8fbc7a28984c5a2b989",
    "nut-assembly/panda/demo.hdf5": "876a5bc9fa6f05f9a3dcd9e0e4f05675f3c8fed76b61122a6ac17ddccd88ce86",
    "pick-place/panda/demo.hdf5": "01d72fbe67b917c93df411779fa7037170509f435c6dcf8d1aa705ccb9b7f93c",
    "stack/panda/demo.hdf5": "6d5dc16f2f32fd87a25f8e71efd6edb405d77ca500aed62733c6c036fd6b3899",
    "wipe/panda/demo.hdf5": "06c164a9fc609d6374b5ecc30e14e3f331e7f18e2ea6d7cb5888b14f16630a5f",
    "door/panda/models/model_1.xml": "121ce7358ac0d03f87aeb5ab483e857d860038d62614ae1b0de8ccb6030f93fb",
    "lift/panda/models/model_1.xml": "3076b6b1e4ade819f2625773751a1b3b2557b7ede3624ac00dbfd02bcd4c04d1",
    "nut-assembly/panda/models/model_1.xml": "8e91969d39ae1ca1610586a61533b0d3d6c5401c07d7f4a07c0ef527c82e2cf3",
    "pick-place/panda/models/model_1.xml": "3d4a2ad7ad1515adb9a414c594c11f81df25e9ca7a6d8fbb7f35157181c90501",
    "stack/panda/models/model_1.xml": "7d0eedd1d3005999df8f55e4b387de62b612f0933206959c2e8cca073c66df34",
    "wipe/panda/models/model_1.xml": "317d7085f96b603e86f9987a3540c784d47c2f20d77fb57acbfb6305f3701a09",
}
PUSHT_URL = "https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip"
PUSHT_EPISODES, PUSHT_STEPS = 206, 25650
PUSHT_REPLAY_PX = 1e-3
PUSHT_LICENCE = "MIT (Columbia Artificial Intelligence and Robotics Lab)"
PUSHT_SPEC = Spec(
    obs={
        "state": ArraySpec((5,), "float32", ("agent_x", "agent_y", "block_x", "block_y", "block_angle"), "px, rad", "table"),
        "keypoint": ArraySpec((9, 2), "float32", ("x", "y"), "px", "table"),
        "img": ArraySpec((96, 96, 3), "uint8"),
    },
    action=ArraySpec((2,), "float32", ("x", "y"), "px", "table"),
    hz=10.0,
)


def fetch_robosuite_human(out: Path, source: Path | None = None, overwrite: bool = False) -> str:
    """Writes the human demonstrations of the robosuite 1.0.1 wheel to `out`/<task>/panda/demo.hdf5; returns their licence.

    source: the wheel, or a folder that holds the wheel or the demonstrations; None asks pip.
    """
    with built_aside(out, overwrite) as part, tempfile.TemporaryDirectory() as scratch:
        demos = _demo_folder(source, Path(scratch)) if source else _unpack(_wheel_from_pip(Path(scratch)), Path(scratch))
        for name, want in ROBOSUITE_DEMOS.items():
            if not (demos / name).is_file():
                raise DatasetError(f"{source or ROBOSUITE_WHEEL}: want {name}, it is missing")
            verify_sha256(demos / name, want)
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(demos / name, part / name)
        shutil.copyfile(demos / "LICENSE", part / "LICENSE")
    return (out / "LICENSE").read_text()


def verify_sha256(file: Path, want: str) -> None:
    """Raises DatasetError unless the file has this checksum."""
    with file.open("rb") as stream:
        got = hashlib.file_digest(stream, "sha256").hexdigest()
    if got != want:
        raise DatasetError(f"{file}: want sha256 {want[:16]}..., got {got[:16]}...; it is damaged or another version")


def _wheel_from_pip(scratch: Path) -> Path:
    """Returns the wheel that pip finds (in its cache, an index or --find-links)."""
    if importlib.util.find_spec("pip") is None:
        raise BadInput(f"pip is missing in {sys.executable}, so {ROBOSUITE_WHEEL} cannot be fetched; give --from WHEEL_OR_FOLDER")
    config.warn(f"robolearn: asking pip for {ROBOSUITE_WHEEL} (88 MiB)")
    command = [sys.executable, "-m", "pip", "download", ROBOSUITE_WHEEL, "--no-deps", "--only-binary", ":all:"]
    options = ["--disable-pip-version-check", "--retries", "1", "--timeout", "20", "--quiet", "--dest", str(scratch)]
    done = subprocess.run(command + options, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("robosuite-1.0.1*.whl"))
    if done.returncode or not wheels:
        reason = (
            [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines() or ["no wheel"]
        )
        raise BadInput(
            f"pip could not fetch {ROBOSUITE_WHEEL} ({reason[-1].removeprefix('ERROR: ')[:160]}); "
            f"with a copy from another machine: robolearn data fetch robosuite-human --from WHEEL_OR_FOLDER"
        )
    verify_sha256(wheels[0], ROBOSUITE_WHEEL_SHA256)
    return wheels[0]


def _demo_folder(source: Path, scratch: Path) -> Path:
    """Returns the folder with <task>/panda/demo.hdf5 and LICENSE that a wheel or a folder given by the user holds."""
    if source.is_file() and zipfile.is_zipfile(source):
        return _unpack(source, scratch)
    wheels = sorted(source.glob("robosuite-1.0.1*.whl")) if source.is_dir() else []
    if wheels:
        return _unpack(wheels[0], scratch)
    for folder in (source, source / "1.0.1"):
        if (folder / "lift").is_dir() and (folder / "LICENSE").is_file():
            return folder
    raise DatasetError(
        f"{source}: want the wheel robosuite-1.0.1-py3-none-any.whl, or a folder with lift/panda/demo.hdf5, ... and LICENSE, "
        f"got {_kind(source)}"
    )


def _unpack(wheel: Path, scratch: Path) -> Path:
    """Unpacks the demonstrations and the licence of a wheel and returns their folder."""
    inside = "robosuite/models/assets/demonstrations/"
    out = scratch / "demonstrations"
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            target = out / ("LICENSE" if name.endswith(".dist-info/LICENSE") else name.removeprefix(inside))
            if (name.startswith(inside) or target.name == "LICENSE") and not name.endswith("/"):
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.read(name))
    return out


def fetch_pusht(
    out: Path, replay_error_px: Callable[[EpisodeSet], float], source: Path | None = None, overwrite: bool = False
) -> tuple[EpisodeSet, float]:
    """Returns the 206 human PushT demonstrations of Diffusion Policy, written to `out`, and their replay error [px].

    replay_error_px: replays a set open loop in the simulator and says how far its states are from the recorded ones;
    source: pusht.zip, the .zarr folder, or a folder that holds either; None downloads the zip from its official address.
    """
    with built_aside(out, overwrite) as part, tempfile.TemporaryDirectory() as scratch:
        found = _pusht_zarr(source or download(PUSHT_URL, Path(scratch) / "pusht.zip"), Path(scratch))
        original = EpisodeSet.open(found)
        if (original.n_episodes, original.n_steps) != (PUSHT_EPISODES, PUSHT_STEPS):
            raise DatasetError(
                f"{found}: want {PUSHT_EPISODES} episodes with {PUSHT_STEPS} steps, "
                f"got {original.n_episodes} with {original.n_steps}"
            )
        error = replay_error_px(copy_pusht(original, part))
        if error > PUSHT_REPLAY_PX:
            raise DatasetError(f"{found}: replayed, it ends up {error:g} px off its own states, want {PUSHT_REPLAY_PX:g}")
    return EpisodeSet.open(out), error


def copy_pusht(original: EpisodeSet, out: Path) -> EpisodeSet:
    """Returns `original` (the arrays of Diffusion Policy's file) as a set with units, names, rate and seeds."""
    meta = {"robot": "agent", "source": PUSHT_URL, "licence": PUSHT_LICENCE, "operator": "human"}
    extra = {"n_contacts": ArraySpec((1,), "float32")}
    made = EpisodeSet.create(out, PUSHT_SPEC, task="pusht", env={}, meta=meta, extra=extra, durable=False)
    made.extend(original.episode_ends, row_blocks(original, made.keys), seed=range(original.n_episodes))
    return made


def _pusht_zarr(source: Path, scratch: Path) -> Path:
    """Returns the .zarr folder that a zip or a folder given by the user holds."""
    if source.is_file() and zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            archive.extractall(scratch / "pusht")
        source = scratch / "pusht"
    if (source / "meta" / "episode_ends").exists():
        return source
    found = sorted(p.parent.parent for p in source.glob("**/meta/episode_ends")) if source.is_dir() else []
    if not found:
        raise DatasetError(f"{source}: want pusht.zip, or a folder with the PushT .zarr, got {_kind(source)}")
    return found[0]


def _kind(path: Path) -> str:
    return "a folder without it" if path.is_dir() else "another file" if path.exists() else "nothing (no such path)"


def download(url: str, target: Path) -> Path:
    """Returns `target` with the content of `url`; BadInput in one line where the network does not give it."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer, target.open("wb") as file:
            total = int(answer.headers.get("Content-Length", 0)) or None
            with tqdm(total=total, unit="B", unit_scale=True, desc=target.name, disable=not sys.stderr.isatty()) as bar:
                while block := answer.read(1 << 20):
                    file.write(block)
                    bar.update(len(block))
    except (OSError, urllib.error.URLError) as error:
        reason = getattr(error, "reason", error)
        raise BadInput(
            f"{url} cannot be downloaded ({reason}); with a copy from another machine: robolearn data fetch pusht --from PATH"
        ) from error
    return target
