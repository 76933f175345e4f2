"""What robosuite's and robomimic's HDF5 files have in common: numbered demonstrations, and JSON in attributes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py

from robolearn.errors import DatasetError


def demo_names(data: h5py.Group, path: Path) -> list[str]:
    """Returns the names of the demonstrations demo_1, demo_2, ... in the order of their numbers."""
    odd = [name for name in data if not name.rsplit("_", 1)[-1].isdigit()]
    if odd:
        raise DatasetError(f"{path}: want demonstrations data/demo_1, ..., got data/{odd[0]}")
    return sorted(data, key=lambda name: int(name.rsplit("_", 1)[-1]))


def json_attribute(attrs: Any, path: Path, name: str) -> dict[str, Any]:
    """Returns the JSON that an HDF5 attribute holds, {} where there is none."""
    text = attrs.get(name, "{}")
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path}: attribute '{name}': want JSON, got {str(text)[:60]!r}") from error
