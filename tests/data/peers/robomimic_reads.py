"""Reads a file with robomimic's own SequenceDataset and writes what it sees to an .npz; run by test_convert_robomimic."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import sys
import types
from unittest.mock import MagicMock

import numpy as np


def stand_in_for(package: str) -> None:
    def attribute(name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock()

    class Finder:
        def find_spec(self, name, path=None, target=None):
            return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] == package else None

        def create_module(self, spec):
            module = types.ModuleType(spec.name)
            module.__path__, module.__getattr__ = [], attribute
            return module

        def exec_module(self, module):
            pass

    sys.meta_path.insert(0, Finder())


def main(path: str, out: str, keys: list[str], mask: str | None) -> None:
    import robomimic.utils.file_utils as files
    from robomimic.utils.dataset import SequenceDataset

    dataset = SequenceDataset(
        path,
        obs_keys=keys,
        dataset_keys=("actions", "rewards", "dones"),
        frame_stack=1,
        seq_length=1,
        pad_frame_stack=True,
        pad_seq_length=True,
        goal_mode=None,
        hdf5_cache_mode=None,
        hdf5_use_swmr=True,
        filter_by_attribute=mask,
        load_next_obs=True,
    )
    items = [dataset[i] for i in range(len(dataset))]
    seen = {name: np.concatenate([item[name] for item in items]) for name in ("actions", "rewards", "dones")}
    for key in keys:
        seen[f"obs/{key}"] = np.concatenate([item["obs"][key] for item in items])
        seen[f"next_obs/{key}"] = np.concatenate([item["next_obs"][key] for item in items])
    env = files.get_env_metadata_from_dataset(path)
    np.savez(out, demos=np.array(dataset.demos), env_name=env["env_name"], env_type=env["type"], **seen)


if __name__ == "__main__":
    if not list(importlib.metadata.distributions(name="torchvision")):
        stand_in_for("torchvision")
    main(sys.argv[1], sys.argv[2], sys.argv[3].split(","), sys.argv[4] if len(sys.argv) > 4 else None)
