"""Every error robolearn raises on purpose, and the exit code each one ends a command with.

    RobolearnError
      BadInput                 2   something the caller gave us is wrong; nothing was written
        ConfigError                a YAML file or a flag
        UnknownName                a plug-in, key or verb that does not exist (says the nearest one)
        ArrayMismatch              one array: shape, dtype or NaN
        SpecMismatch               two parts that do not fit each other (dataset, policy, body)
        DatasetError               a dataset that is missing, broken or of another kind
        CheckpointError            a run folder that is missing, broken or unsafe to load
        AlreadyExists              an output that would be overwritten
        MissingDependency          an optional package or library (says the line that installs it)
        HardwareError              a device or robot that is not there, not permitted, or stopped answering
      Findings                 1   the command worked and found something, or a bar was missed
      TrainingDiverged         1   the loss is not a number any more
      Halted                   3   stopped by an alarm
      EpisodeStopped           1   a sink cannot take any more: `rollout` ends the episode with this reason

A message says where, what was wanted, what came and what would work, in one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RobolearnError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line ends with."""

    exit_code = 2


class BadInput(RobolearnError):
    """Something the caller gave is wrong; nothing was written."""


class ConfigError(BadInput):
    """A YAML file or a flag does not fit the configuration."""


class ArrayMismatch(BadInput):
    """An array has another shape or dtype than its spec, or holds NaN or infinity."""


class SpecMismatch(BadInput):
    """Two parts that should meet do not fit."""


class DatasetError(BadInput):
    """A dataset is missing, broken or of another kind."""


class CheckpointError(BadInput):
    """A checkpoint is missing, broken or unsafe to load."""


class AlreadyExists(BadInput):
    """An output exists and neither --resume nor --overwrite was given."""

    def __init__(self, path: object, what: str = "output", resume: bool = False) -> None:
        way = "--resume to continue it, --overwrite to replace it" if resume else "--overwrite to replace it"
        super().__init__(f"{path}: this {what} exists already; give {way}, or another path")


class MissingDependency(BadInput):
    """An optional package or library is not installed."""

    def __init__(self, name: str, needed_for: str, install: str) -> None:
        super().__init__(f"{name} is not installed, and {needed_for} needs it; install it with: {install}")


class UnknownName(BadInput):
    """A name that is not among the known ones; the message holds the nearest and the whole list."""

    def __init__(self, what: str, name: str, known: Iterable[str], where: str = "") -> None:
        known = sorted(known)
        super().__init__(f"{where + ': ' if where else ''}unknown {what} '{name}'{nearest(name, known)}")


class HardwareError(BadInput):
    """A device or robot is not there, not permitted, or has stopped answering."""


class Findings(RobolearnError):
    """The command ran to its end and found something, or missed a bar."""

    exit_code = 1


class TrainingDiverged(RobolearnError):
    """The training loss is NaN or infinite."""

    exit_code = 1


class Halted(RobolearnError):
    """A run was stopped by an alarm."""

    exit_code = 3


class EpisodeStopped(RobolearnError):
    """A sink can take no more of this episode (its message says why); `rollout` ends the episode, nothing before it is lost."""

    exit_code = 1


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns "; did you mean 'x'? (known: a, b, x)", the list alone where nothing is near, nothing where there is none."""
    known = list(known)
    if not known:
        return ""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"{hint} (known: {', '.join(known)})"
