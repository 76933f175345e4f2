"""How a set is laid out in LeRobot's format: names of features, how pictures are kept, what an episode is told to do."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec
from robolearn.data.convert._copy import Ahead, extra_keys, own_spec
from robolearn.data.images import is_image
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

STATE = "observation.state"
DEFAULTS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64", "task_index": "int64"}


@dataclass(frozen=True)
class Plan:
    """How a set is laid out for LeRobot. features: our key -> its name there; joined: keys that observation.state is made of."""

    path: Path
    fps: float
    keys: Mapping[str, ArraySpec]
    features: Mapping[str, str]
    joined: tuple[str, ...]
    images: str  # png, jpeg or video
    token: str  # of this conversion

    @property
    def cameras(self) -> tuple[str, ...]:
        """The keys that hold pictures."""
        return tuple(key for key in self.features if is_image(self.keys[key]))


def make_plan(source: EpisodeSet, images: str) -> Plan:
    """Returns the layout; DatasetError where a name or an array has no place in LeRobot's format."""
    spec = own_spec(source)
    for key, array in source.keys.items():
        if len(array.shape) > 5 or 0 in array.shape:
            raise DatasetError(f"{source.path}: {key}: LeRobot takes arrays of 0 to 5 axes, none empty, got {array.shape}")
    features = {key: _feature(key, array) for key, array in spec.obs.items()}
    features["action"] = "action"
    features |= {key: _free_name(key) for key in extra_keys(source)}
    for name in features.values():
        if list(features.values()).count(name) > 1:
            twins = [key for key, other in features.items() if other == name]
            raise DatasetError(f"{source.path}: keys {' and '.join(twins)} would both be '{name}' in LeRobot; rename one of them")
    vectors = tuple(k for k, a in spec.obs.items() if len(a.shape) <= 1 and np.dtype(a.dtype).kind == "f")
    joined = vectors if vectors and STATE not in features.values() else ()
    return Plan(source.path, spec.hz, dict(source.keys), features, joined, images, uuid.uuid4().hex)


def features_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """Returns the features of info.json."""
    made: dict[str, dict[str, Any]] = {}
    for key, name in plan.features.items():
        array = plan.keys[key]
        if key in plan.cameras:
            names = ["height", "width", "channels"]
            made[name] = {"dtype": "video" if plan.images == "video" else "image", "shape": list(array.shape), "names": names}
        else:
            made[name] = {"dtype": array.dtype, "shape": list(array.shape) or [1], "names": list(array.names) or None}
    if plan.joined:
        size = sum(int(np.prod(plan.keys[key].shape)) for key in plan.joined)
        made[STATE] = {"dtype": "float32", "shape": [size], "names": _joined_names(plan)}
    made |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in DEFAULTS.items()}
    return made


def instructions(source: EpisodeSet) -> list[str]:
    """Returns what each episode was told to do: its fact `instruction`, else the task of the set."""
    texts = source.episode_field("instruction")
    told = [""] * source.n_episodes if texts is None else [str(text) for text in texts]
    return [text or source.task or "unnamed task" for text in told]


@lru_cache(maxsize=2)
def opened(path: Path, token: str) -> Ahead:
    """Returns the set of a plan, open: once for each conversion in a process."""
    del token  # another conversion opens the set anew
    return Ahead(EpisodeSet.open(path))


def _feature(key: str, array: ArraySpec) -> str:
    if key.startswith("observation"):
        return key.replace("/", ".")
    return ("observation.images." if is_image(array) else "observation.") + key.replace("/", ".")


def _free_name(key: str) -> str:
    """Returns a name that LeRobot does not take for one of its own columns."""
    name = key.replace("/", ".")
    return f"recorded.{name}" if name in DEFAULTS or name == "action" else name


def _joined_names(plan: Plan) -> list[str]:
    names = []
    for key in plan.joined:
        array = plan.keys[key]
        names += [f"{key}.{name}" for name in array.names or range(int(np.prod(array.shape)))]
    return names
