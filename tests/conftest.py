"""What every test may count on: a renderer that draws, few threads, and the real demonstrations where they are at hand."""

from __future__ import annotations

import os
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):  # read when numpy and torch are imported
    os.environ.setdefault(variable, "2")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from robolearn.apps.doctor import working_gl  # noqa: E402

settings.register_profile("robolearn", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("robolearn")

ROOT = Path(__file__).resolve().parent.parent
if "MUJOCO_GL" not in os.environ:  # mujoco chooses its GL library when it is imported
    os.environ["MUJOCO_GL"] = working_gl() or "disabled"


@pytest.fixture(scope="session")
def root() -> Path:
    """Returns the root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Returns the folder with the real demonstrations (ROBOLEARN_SHARED, or ../shared); skips aloud without it."""
    folder = Path(os.environ.get("ROBOLEARN_SHARED") or ROOT.parent / "shared")
    if not (folder / "data").is_dir():
        pytest.skip(f"no real demonstrations at {folder}; set ROBOLEARN_SHARED to the folder that holds data/")
    return folder
