"""The latency file of a robot: the delays of each device, and for people how they were measured, joint by joint.

devices:
  koch: {observe_s: 0.004, act_s: 0.09}     # of its joints the largest; what schedules use
measured:
  koch:
    joints:
      elbow_flex: {observe_s: 0.004, act_s: 0.09, gain: 0.97}
      wrist_roll: {observe_s: 0.003, act_s: 0.06, gain: 0.99}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from robolearn import config
from robolearn.errors import AlreadyExists, ConfigError
from robolearn.runtime.latency import Latency, LatencyModel

_JOINTS, _DELAYS = "joints", ("observe_s", "act_s")
_WHO = ("model", "serial", "emulated")  # what was measured says of itself


@dataclass(frozen=True)
class _File:
    """What a latency file holds. measured: how each device was measured, for people to read."""

    devices: Mapping[str, Any]
    measured: Mapping[str, Any] = field(default_factory=dict)

    def joints(self, device: str) -> dict[str, dict[str, Any]]:
        """Returns what was measured of each joint of a device, its delays among it; none where its figure is of no joint."""
        said = self.measured.get(device)
        if not isinstance(said, Mapping) or device not in self.devices:
            return {}
        if isinstance(said.get("joint"), str):  # a file of one joint alone
            return {said["joint"]: {**self.devices[device], **said}}
        joints = said.get(_JOINTS)
        return {name: dict(facts) for name, facts in joints.items()} if isinstance(joints, Mapping) else {}


def read(path: Path) -> LatencyModel:
    """Returns the delays in a latency file; ConfigError names file, device and field."""
    return LatencyModel.from_json(_read(path).devices, f"{path}: devices")


def check_free(path: Path, device: str, joint: str | None = None, who: Mapping[str, Any] | None = None) -> None:
    """Raises AlreadyExists where the file has the delays of a device; of one joint, where it has that joint's, or another arm's.

    joint: "" for one that is not named yet; who: model, serial and whether it is emulated, of the arm at hand, None: not known
    yet. A figure that is of no joint, as one by hand, stands for all of them.
    """
    file = _read(path) if path.exists() else _File({})
    known = file.joints(device)
    if joint is not None and joint in known:
        raise AlreadyExists(path, f"latency of {device}: {joint}")
    others = [name for name, facts in known.items() if not _of(facts, who)]
    if others:
        raise AlreadyExists(path, f"latency of {device}, {', '.join(others)} of another arm")
    if device in file.devices and (joint is None or not known):
        raise AlreadyExists(path, f"latency of {device}")


def write_device(
    path: Path, device: str, latency: Latency, facts: Mapping[str, Any], *, joint: str | None = None, overwrite: bool = False
) -> Latency:
    """Puts delays into a latency file, whole or not at all, and returns those of the device; other devices in it stay.

    facts: how they were measured, plain values; joint: whose they are, and then the other joints of the same arm stay and the
    device has the largest of all. AlreadyExists as `check_free`, unless `overwrite`.
    """
    if not overwrite:
        check_free(path, device, joint, facts)
    before, said = _read(path) if path.exists() else _File({}), dict(facts)
    if joint is not None:
        same = {name: one for name, one in before.joints(device).items() if _of(one, facts)}
        joints = {**same, joint: {**config.to_mapping(latency), **facts}}
        said = {_JOINTS: joints}
        each = [_delays(one, f"{path}: measured: {device}: {name}") for name, one in joints.items()]
        latency = Latency(max(one.observe_s for one in each), max(one.act_s for one in each))
    after = _File({**before.devices, device: config.to_mapping(latency)}, {**before.measured, device: said})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(yaml.safe_dump(config.to_mapping(after), sort_keys=False))
    part.replace(path)
    return latency


def joints_of(path: Path, device: str) -> tuple[str, ...]:
    """Returns the joints of a device that were measured."""
    return tuple(_read(path).joints(device)) if path.exists() else ()


def _of(facts: Mapping[str, Any], who: Mapping[str, Any] | None) -> bool:
    """Returns whether a joint was measured on this arm, as far as both say whose they are."""
    return who is None or all(facts[name] == who[name] for name in _WHO if name in facts and name in who)


def _delays(facts: Mapping[str, Any], where: str) -> Latency:
    return config.from_mapping(Latency, {name: facts[name] for name in _DELAYS if name in facts}, where)


def _read(path: Path) -> _File:
    try:
        return config.from_mapping(_File, config.read_yaml(path), where=str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such latency file; make one with robolearn calibrate latency") from None
