"""`People`: who is there during a deployment: keys, a dead-man, and the device with which a person takes over."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial

from hardware._base import Device, make_device
from hardware.real_env import RealEnv
from robolearn.apps._deploy_rig import Rig
from robolearn.apps._deploy_screen import KEYS, Board
from robolearn.apps._robot_file import Part
from robolearn.core import TeleopSample
from robolearn.errors import BadInput, HardwareError, RobolearnError
from robolearn.runtime.schedule import Scheduled
from robolearn.runtime.state import DeadMan
from robolearn.runtime.takeover import TakeOver

HELD, OVER = "dead-man", "take-over"


@dataclass
class People:
    """Who is there. Devices are opened at once and closed through `stack`.

    missing: by part (HELD, OVER), why its device could not be opened; without its device a dead-man is never held.
    """

    rig: Rig
    stack: ExitStack
    deadman: DeadMan | None = None
    keys: Callable[[], Sequence[str]] = list
    missing: dict[str, RobolearnError] = field(default_factory=dict)

    def __post_init__(self) -> None:
        held, over = self.rig.robot.deadman, self.rig.robot.takeover
        self.deadman = None if held is None else DeadMan(held.driver)
        self._holds, self._drives = self._opened(HELD, held), self._opened(OVER, over)
        if held is not None and self._holds is not None and not self._holds.deadman:
            self._holds = None
            self.missing[HELD] = BadInput(f"robot file: deadman: {held.driver} has no dead-man switch")

    def hear(self) -> list[str]:
        """Returns what the keys said, and feeds the dead-man."""
        if self._holds is not None and self.deadman is not None:
            for sample in _samples(self._holds):
                self.deadman.update(sample.deadman, sample.t_recv_ns)
        return [KEYS[key] for key in map(str.lower, self.keys()) if key in KEYS]

    def held(self) -> bool:
        """True where motion is allowed now."""
        return self.deadman is None or self.deadman.held(time.monotonic_ns())

    def over(self, mind: Scheduled, body: RealEnv) -> Scheduled | TakeOver:
        """Returns the mind that a person may overrule, where the robot file names a device for that."""
        part = self.rig.robot.takeover
        if part is None:
            return mind
        if self._drives is None:
            raise self.missing[OVER]
        from robolearn.apps import _cockpit

        _cockpit.may_drive(self._drives, part.driver, body)
        if body.spec.codec not in ("pose_abs", "osc_delta") or not {"eef_pos", "eef_rot6d"} <= set(body.spec.obs):
            raise BadInput(
                f"takeover: {part.driver}: want a policy that reads eef_pos and eef_rot6d and gives poses; leave it out"
            )
        person = _cockpit.pilot(body, self._drives)
        person.read = partial(_samples, self._drives)
        return TakeOver(mind, person)

    def _opened(self, name: str, part: Part | None) -> Device | None:
        if part is None:
            return None
        try:
            device = make_device(part.driver, dict(part.set))
            self.stack.callback(device.close)
            device.connect()
        except RobolearnError as error:
            self.missing[name] = error
            return None
        return device


def invited(board: Board, hear: Callable[[], Sequence[str]], pause: Callable[[float], None] = time.sleep) -> bool:
    """Waits, the arm holding, until the operator says that the next episode may begin; False where the run is to end."""
    board.note("is the scene ready, and nobody near? r begins the next episode, q ends the run")
    while True:
        words = set(hear())
        if words & {"quit", "stop", "estop"}:
            return False
        if "resume" in words:
            return True
        pause(0.05)


def _samples(device: Device) -> Sequence[TeleopSample]:
    with suppress(HardwareError):  # a device that is gone says nothing, which is a release
        return device.read()
    return ()
