"""Runs the reader of another program in an interpreter that has it; skips aloud where none has."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

PEERS = Path(__file__).parent / "peers"


def read_with(peer: str, package: str, args: list[str], folder: Path, version: str = "") -> dict[str, np.ndarray]:
    """Returns what peers/PEER_reads.py saw. The interpreter: ROBOLEARN_<PEER>_PYTHON, or this one."""
    variable = f"ROBOLEARN_{peer.upper()}_PYTHON"
    python = os.environ.get(variable, sys.executable)
    look = f"import importlib.metadata as m, sys; sys.exit(not m.version('{package}').startswith('{version}'))"
    if subprocess.run([python, "-c", look], capture_output=True, check=False).returncode:
        pytest.skip(f"{package} {version} is not installed in {python}; set {variable} to an interpreter that has it")
    out = folder / f"{peer}.npz"
    given = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "home")}
    done = subprocess.run(
        [python, str(PEERS / f"{peer}_reads.py"), args[0], str(out), *args[1:]],
        capture_output=True,
        text=True,
        check=False,
        env={**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **given},
    )
    assert not done.returncode, f"{peer} cannot read it: {done.stderr[-2000:]}"
    with np.load(out) as arrays:
        return dict(arrays)
