"""What keeps two sets from being one: named by key and field, so that a person can decide."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Camera
from robolearn.data.store import EpisodeSet

# What --allow may name: the merged set then says what the first set says. Shapes and dtypes are not among them.
FIELDS = ("rate", "codec", "task", "env", "unit", "frame", "names", "camera", "robot")


@dataclass(frozen=True)
class Difference:
    """One field in which two sets differ; key: "" for what concerns the whole set."""

    key: str
    field: str
    first: Any
    other: Any

    def __str__(self) -> str:
        """Returns the difference in one line."""
        where = f"{self.key}: " if self.key else ""
        return f"{where}{self.field} {_short(self.first)} here, {_short(self.other)} there"


def differences(first: EpisodeSet, other: EpisodeSet, keys: Sequence[str]) -> list[Difference]:
    """Returns in what `other` differs from `first`, as far as `keys` and the whole set are concerned."""
    found = list(_of_whole(first, other))
    for key in keys:
        found += _of_key(key, first.keys.get(key), other.keys.get(key))
        found += _of_camera(key, _camera(first, key), _camera(other, key))
    return found


def _of_whole(first: EpisodeSet, other: EpisodeSet) -> Iterator[Difference]:
    if first.hz != other.hz and not (first.hz and other.hz and np.isclose(first.hz, other.hz, rtol=1e-3)):
        yield Difference("", "rate", first.hz, other.hz)
    codecs = [dataset.spec.codec if dataset.spec else "" for dataset in (first, other)]
    if codecs[0] != codecs[1]:
        yield Difference("action", "codec", *codecs)
    if (first.task or "") != (other.task or ""):
        yield Difference("", "task", first.task, other.task)
    for name in sorted(set(first.env) | set(other.env)):
        if first.env.get(name) != other.env.get(name):
            yield Difference("", "env", f"{name}={first.env.get(name)}", f"{name}={other.env.get(name)}")
    robots = [dataset.attrs.get("robot") or "" for dataset in (first, other)]
    if robots[0] != robots[1]:
        yield Difference("", "robot", *robots)


def _of_key(key: str, first: ArraySpec | None, other: ArraySpec | None) -> Iterator[Difference]:
    if first is None or other is None:
        yield Difference(key, "key", "present" if first else "missing", "present" if other else "missing")
        return
    for name in ("shape", "dtype", "unit", "frame", "names"):
        if getattr(first, name) != getattr(other, name):
            yield Difference(key, name, getattr(first, name), getattr(other, name))


def _of_camera(key: str, first: Camera | None, other: Camera | None) -> Iterator[Difference]:
    if (first is None) != (other is None):
        yield Difference(key, "camera", "calibrated" if first else "not calibrated", "calibrated" if other else "not calibrated")
    elif first is not None and other is not None:
        mine, theirs = first.to_json(), other.to_json()
        for name in mine:
            if mine[name] != theirs[name]:
                yield Difference(key, "camera", f"{name} {mine[name]}", f"{name} {theirs[name]}")


def _camera(dataset: EpisodeSet, key: str) -> Camera | None:
    cameras: Mapping[str, Camera] = dataset.spec.cameras if dataset.spec else {}
    return cameras.get(key)


def _short(value: Any) -> str:
    text = "unknown" if value is None or value in ("", ()) else str(value)
    return text if len(text) <= 60 else text[:57] + "..."
