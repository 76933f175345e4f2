"""Reads a dataset with LeRobot's own LeRobotDataset and writes what it sees to an .npz; run by test_convert_lerobot.

torchvision, which LeRobot imports, may be missing: then its ToTensor and its PyAV reader are put in its place.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.metadata
import json
import sys
import types
from unittest.mock import MagicMock

import av
import numpy as np
import torch


class VideoReader:
    """As torchvision.io.VideoReader with its PyAV backend: seek to the key frame before, then picture by picture."""

    def __init__(self, path: str, stream: str) -> None:
        self.container = av.open(path)
        self.stream = self.container.streams.video[0]

    def seek(self, time: float, keyframes_only: bool) -> None:
        self.container.seek(int(time / self.stream.time_base), stream=self.stream, backward=True)

    def __iter__(self):
        for frame in self.container.decode(self.stream):
            data = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
            yield {"data": data, "pts": float(frame.pts * self.stream.time_base)}


class ToTensor:
    """As torchvision.transforms.ToTensor for RGB pictures."""

    def __call__(self, picture):
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255


def stand_in_for_torchvision() -> None:
    def attribute(name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if name in ("io", "transforms"):
            return importlib.import_module(f"torchvision.{name}")
        return {"VideoReader": VideoReader, "ToTensor": ToTensor}.get(name) or MagicMock()

    class Finder:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] == "torchvision":
                return importlib.machinery.ModuleSpec(name, self, is_package=True)
            return None

        def create_module(self, spec):
            module = types.ModuleType(spec.name)
            module.__path__, module.__getattr__ = [], attribute
            return module

        def exec_module(self, module):
            pass

    sys.meta_path.insert(0, Finder())


def main(root: str, out: str, hz: float) -> None:
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    plain = LeRobotDataset("robolearn/test", root=root)
    table = plain.hf_dataset.with_format(None)
    seen = {}
    for name in table.column_names:
        values = table[name][:]
        seen[f"column/{name}"] = np.stack([np.asarray(value) for value in values])
    for key in plain.meta.video_keys:
        frames = [plain[i][key] for i in range(len(plain))]
        seen[f"column/{key}"] = np.stack([(frame.permute(1, 2, 0) * 255).round().byte().numpy() for frame in frames])
    seen["ends"] = np.array([plain.meta.episodes[i]["dataset_to_index"] for i in range(plain.num_episodes)])
    windows = LeRobotDataset("robolearn/test", root=root, delta_timestamps={"action": [-1 / hz, 0.0, 1 / hz]})
    seen["windows/action"] = np.stack([windows[i]["action"].numpy() for i in range(len(windows))])
    seen["windows/pad"] = np.stack([windows[i]["action_is_pad"].numpy() for i in range(len(windows))])
    seen["some_episodes"] = np.array(len(LeRobotDataset("robolearn/test", root=root, episodes=[1])))
    for name, value in plain.meta.stats["action"].items():
        seen[f"stats/{name}"] = np.asarray(value)
    about = {
        "episodes": plain.num_episodes,
        "frames": plain.num_frames,
        "fps": plain.fps,
        "task": plain[0]["task"],
        "cameras": plain.meta.camera_keys,
        "names": plain.meta.names.get("observation.state"),
        "columns": plain.meta.episodes.column_names,
    }
    np.savez(out, about=json.dumps(about), **seen)


if __name__ == "__main__":
    if not list(importlib.metadata.distributions(name="torchvision")):
        stand_in_for_torchvision()
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
