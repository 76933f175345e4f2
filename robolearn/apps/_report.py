"""What every command's `--json` file keeps: one object, `meta` beside the figures; NaN and infinity are null."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import math
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import __version__

_PACKAGES = ("torch", "diffusers", "mujoco", "robosuite", "pymunk", "numpy", "zarr", "opencv-python", "einops")


def write_json(path: str | Path | None, figures: dict[str, Any], seed: int | None = None) -> None:
    """Writes `figures` with their `meta` to `path` (atomically, replacing an older one); nothing when `path` is None."""
    if path is None:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(plain({"meta": meta(seed), **figures}), indent=1, allow_nan=False)
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n")
    os.replace(part, path)


def meta(seed: int | None) -> dict[str, Any]:
    """Returns command, commit, dirty, seed, date and versions of this process."""
    commit, dirty = git_state()
    return {
        "command": " ".join(["robolearn", *sys.argv[1:]]),
        "commit": commit,
        "dirty": dirty,
        "seed": seed,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Returns the versions of python, robolearn, the processor and the packages that results depend on."""
    found = {"python": platform.python_version(), "robolearn": __version__, "cpu": f"{platform.machine()} x{os.cpu_count()}"}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "missing"
    return found


def git_state() -> tuple[str | None, bool | None]:
    """Returns (commit, dirty) of the checkout this package runs from, (None, None) outside one."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return None, None

    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=False).stdout.strip()

    return git("rev-parse", "HEAD") or None, bool(git("status", "--porcelain", "--untracked-files=no"))


def plain(value: Any) -> Any:
    """Returns `value` as plain JSON values: numpy becomes lists and numbers, NaN and infinity become null."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Path):
        return str(value)
    return value
