"""Makes simulated bodies by name: a task is a module of sim_envs.tasks with `Config`, `make(config)` and `expert(env, rng)`.

What every task promises (tests/contracts/test_tasks.py runs it over all of them): a SimEnv with `.task`, `.config` and
`.versions()`; observations that fit its spec; equal seeds give bit-equal episodes; `restore(state())` continues bit-equal;
a scripted expert.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any

import numpy as np

from robolearn import config, registry
from robolearn.core import Policy, SimEnv

TASKS = "sim_envs.tasks"
NO_OVERRIDES: Mapping[str, Any] = MappingProxyType({})


def names() -> tuple[str, ...]:
    """Returns the names of all tasks."""
    return registry.names(TASKS)


def module(task: str) -> ModuleType:
    """Returns the module of one task; UnknownName with the nearest one."""
    return registry.load(TASKS, task)


def configure(task: str, overrides: Mapping[str, Any] = NO_OVERRIDES) -> Any:
    """Returns the task's Config with `overrides` applied; ConfigError names the field that does not fit."""
    return config.from_mapping(module(task).Config, overrides, where=f"task {task}")


def make(task: str, overrides: Mapping[str, Any] = NO_OVERRIDES) -> SimEnv:
    """Returns the body of one task, ready to be reset."""
    return module(task).make(configure(task, overrides))


def expert(env: SimEnv, seed: int = 0) -> Policy:
    """Returns the scripted expert of a body made by `make`; its noise, if any, comes from `seed`."""
    return module(env.task).expert(env, np.random.default_rng(seed))  # type: ignore[attr-defined]


def with_cameras(overrides: Mapping[str, Any], image_keys: Iterable[str]) -> dict[str, Any]:
    """Returns `overrides` with those cameras only that film the observations `image_keys` (NAME or NAME_image)."""
    cameras = [key.removesuffix("_image") for key in image_keys]
    return {**overrides, "cameras": cameras} if cameras or "cameras" in overrides else dict(overrides)
