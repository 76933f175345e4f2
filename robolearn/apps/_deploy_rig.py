"""`Rig`: the devices of a robot file, opened, as a body for a policy's spec; and closed again in order, whatever happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cv2
import numpy as np

from hardware import real_env
from hardware._base import CAMERAS, GRIPPERS, ROBOTS, ArmState, Frame, Identity, Setpoint, State, make
from hardware._camera_host import HostedCamera
from hardware._errors import TransportLost
from hardware._host import Hosted
from hardware._pair import Pair, make_gripper_guard
from hardware._records import Hosting, Sample
from hardware._ring import new_run, sweep
from robolearn import geometry
from robolearn.apps._deploy_aside import Aside, Job
from robolearn.apps._robot_file import RobotFile
from robolearn.core import ArraySpec, Spec
from robolearn.errors import HardwareError, RobolearnError, SpecMismatch
from robolearn.runtime.codecs._base import Codec, Target, make_codec
from robolearn.runtime.codecs.joint_abs import JointAbs
from robolearn.runtime.limits import Limits

_GRIPPER_HZ = 50.0
_FRESH_S = 1.0  # until an arm that was not silent says something new
_ACTIVE_S = 5.0  # until a cycle of an arm that was switched on says so


@dataclass
class Rig:
    """What is open. said: what connecting it brought, by part ("arm", "gripper", a camera's key): an Identity or an error.

    hosting: of the drivers' processes; their rate is the robot file's.
    """

    robot: RobotFile
    run: str = field(default_factory=new_run)
    said: dict[str, Identity | RobolearnError] = field(default_factory=dict)
    cameras: dict[str, HostedCamera] = field(default_factory=dict)
    arm: Hosted | Pair | None = None
    hosting: Hosting = Hosting()
    _aside: Aside = field(default_factory=Aside)

    def open(self) -> None:
        """Connects everything; moves nothing and switches no torque. What cannot be opened is told in `said`."""
        self._open_arm()
        for key, part in self.robot.cameras.items():
            camera = HostedCamera(key, partial(make, CAMERAS, part.driver, dict(part.set), "camera"), self.run)
            try:
                self.said[key] = camera.connect()
                self.cameras[key] = camera
            except RobolearnError as error:
                self.said[key] = error
                camera.close()

    def _open_arm(self) -> None:
        robot = self.robot
        arm = self._hosted("arm", ROBOTS, robot.driver, robot.set, robot.make_guard(), 1.0 / robot.hz)
        gripper = None
        if robot.gripper is not None:
            part = robot.gripper
            gripper = self._hosted("gripper", GRIPPERS, part.driver, part.set, make_gripper_guard, 1.0 / _GRIPPER_HZ)
        if arm is not None and (gripper is not None or robot.gripper is None):
            self.arm = arm if gripper is None else Pair(arm, gripper)
            return
        for alone in filter(None, (arm, gripper)):  # a later try needs its port
            alone.close()

    @property
    def missing(self) -> dict[str, RobolearnError]:
        """Parts that could not be opened, and why."""
        return {part: said for part, said in self.said.items() if isinstance(said, RobolearnError)}

    @property
    def emulated(self) -> bool:
        """True where something that moves is no metal."""
        return any(said.emulated for said in self._moving)

    @property
    def metal(self) -> bool:
        """True where something that moves is metal: it may hit somebody, whatever else is emulated."""
        return not all(said.emulated for said in self._moving)

    @property
    def _moving(self) -> list[Identity]:
        said = (self.said.get(part) for part in ("arm", "gripper"))
        return [one for one in said if isinstance(one, Identity)]

    def activate(self) -> None:
        """Writes the settings that differ and switches the motors on where the arm is; it holds there."""
        assert self.arm is not None
        self.arm.configure()
        self.arm.activate()

    @property
    def busy(self) -> bool:
        """True while a recovery is at work on arm and gripper: nobody else may."""
        return self._aside.busy

    def recover(self) -> Job:
        """Begins to make the arm ready beside the control loop."""
        return self._aside.start(self.make_ready)

    def make_ready(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Brings the arm to where it can be driven, from FAULT too: clears what it holds against us, or opens it anew.

        HardwareError where it cannot, and before its next step once it is `stopped`; another try begins with opening it.
        """
        if self.arm is not None and self.arm.alive:
            with suppress(RobolearnError):
                if self.arm.read().life is State.FAULT:
                    self._unless(stopped)
                    self.arm.clear_fault()
                self._activated(stopped)
                return
        self._unless(stopped)
        self._reopen()
        self._activated(stopped)

    def _activated(self, stopped: Callable[[], bool]) -> None:
        """Switches on what is not, and waits for a cycle of it that is active; TransportLost where no cycle comes at all."""
        assert self.arm is not None
        self.arm.read_fresh(self.arm.read().cycle, _FRESH_S + 3 / self.robot.hz)  # the newest may be of before it fell silent
        if self.arm.read().life is not State.ACTIVE:
            self._unless(stopped)
            self.activate()
        end = time.monotonic() + _ACTIVE_S
        while self.arm.read().life is not State.ACTIVE:
            self._unless(stopped)
            if time.monotonic() > end:
                raise self.arm.fault() or HardwareError(f"{self.robot.driver}: not active after {_ACTIVE_S:g} s")
            time.sleep(0.01)

    def _unless(self, stopped: Callable[[], bool]) -> None:
        if stopped():
            raise HardwareError(f"{self.robot.driver}: it was stopped before it was ready")

    def _reopen(self) -> None:
        """Closes arm and gripper and connects them anew; HardwareError where one does not answer."""
        if self.arm is not None:
            self.arm.close()
            self.arm = None
        self._open_arm()
        for part in ("arm", "gripper"):
            said = self.said.get(part)
            if isinstance(said, RobolearnError):
                raise said

    def mend(self) -> None:
        """Starts the processes of cameras anew that have ended; to be called now and then, it does not wait."""
        for camera in self.cameras.values():
            camera.revive()

    def close(self) -> list[str]:
        """Ramps to rest, holds, and closes everything; returns what went wrong on the way, and tries every step.

        A recovery that is at work is asked to end, and waited for.
        """
        self._aside.rest()
        wrong: list[str] = []
        closers: list[Callable[[], Any]] = [*(camera.close for camera in self.cameras.values())]
        if self.arm is not None:
            closers.insert(0, self.arm.close)
        for close in closers:
            try:
                wrong += close() or []
            except (RobolearnError, OSError) as error:
                wrong.append(str(error))
        self.arm, self.cameras = None, {}
        self._aside.close()
        sweep(self.run)
        return wrong

    def _hosted(
        self, part: str, package: str, driver: str, fields: Mapping[str, Any], guard: Any, period_s: float
    ) -> Hosted | None:
        """Returns a connected driver in a process of its own, None where it could not be opened."""
        what = package.rsplit(".", 1)[1].rstrip("s")
        hosting = replace(self.hosting, period_s=period_s)
        hosted = Hosted(driver, partial(make, package, driver, dict(fields), what), guard, self.run, hosting)
        try:
            self.said[part] = hosted.connect()
        except RobolearnError as error:
            self.said[part] = error
            hosted.close()
            return None
        return hosted


class Live:
    """The arm of a rig, whichever it is after it was opened anew, as `RealEnv` wants it."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.name = rig, rig.robot.driver

    @property
    def arm(self) -> Hosted | Pair:
        """The arm; TransportLost while it is not open, as after a reconnect that failed: another may succeed."""
        if self.rig.arm is None:
            raise TransportLost(self.name, "it is not open")
        return self.rig.arm

    def command(self, setpoint: Setpoint) -> None:
        """Leaves a setpoint."""
        self.arm.command(setpoint)

    def hold(self) -> None:
        """Asks for a ramp to rest."""
        self.arm.hold()

    def read(self) -> Sample:
        """Returns the newest cycle."""
        return self.arm.read()

    def heard(self) -> Mapping[str, int]:
        """Returns when each part was heard of last [ns]."""
        return self.arm.heard()

    def history(self, k: int) -> list[Sample]:
        """Returns up to k cycles."""
        return self.arm.history(k)

    def fault(self) -> Exception | None:
        """Returns what ended the last motion."""
        return self.arm.fault()


class Muted(Live):
    """The same for a dry run: everything is read and nothing is sent. sent: what would have been asked last."""

    sent: Setpoint | None = None

    def command(self, setpoint: Setpoint) -> None:
        """Keeps the setpoint."""
        self.sent = setpoint

    def hold(self) -> None:
        """Sends nothing."""


class Fitted:
    """A camera whose pictures are cut to a policy's shape and scaled: the middle is kept, nothing is stretched."""

    def __init__(self, camera: Any, shape: tuple[int, ...], stretch: bool = False) -> None:
        self.camera, self.shape, self.stretch = camera, shape, stretch
        self._seen: tuple[int, Frame | None] = (-1, None)

    def newest(self) -> Frame | None:
        """Returns the newest frame in the policy's shape."""
        frame = self.camera.newest()
        if frame is None:
            return None
        if self._seen[0] != frame.seq or self._seen[1] is None:
            self._seen = frame.seq, replace(frame, image=fitted(frame.image, self.shape, self.stretch))
        return self._seen[1]


def fitted(image: np.ndarray, shape: tuple[int, ...], stretch: bool = False) -> np.ndarray:
    """Returns a picture (h, w, 3) uint8 in another shape (height, width, 3): its middle at that aspect, scaled by area."""
    height, width = image.shape[:2]
    if not stretch:
        share = min(height / shape[0], width / shape[1])
        rows, columns = round(share * shape[0]), round(share * shape[1])
        top, left = (height - rows) // 2, (width - columns) // 2
        image = image[top : top + rows, left : left + columns]
    if image.shape == shape:
        return image
    way = cv2.INTER_AREA if image.shape[0] >= shape[0] else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (shape[1], shape[0]), interpolation=way))


class Gripless:
    """A codec of an arm without gripper: what a policy says of one goes nowhere."""

    def __init__(self, codec: Codec) -> None:
        self.codec, self.action = codec, codec.action

    def target(self, action: np.ndarray, q: np.ndarray) -> Target:
        """Returns the joint target, with no word for a gripper."""
        return replace(self.codec.target(action, q), aperture=None)

    def action_of(self, q: np.ndarray, aperture: float, before: np.ndarray) -> np.ndarray:
        """Returns the action that asks for q (n,) [rad]."""
        return self.codec.action_of(q, aperture, before)


def codec_of(spec: Spec, robot: RobotFile, joints: int) -> Codec:
    """Returns what turns the policy's actions into joint targets of this robot."""
    if spec.codec in ("", "joint_abs"):
        if spec.action.shape != (joints + 1,):
            got = f"the policy gives actions of shape {spec.action.shape}"
            raise SpecMismatch(f"{got}, {robot.driver} has {joints} joints and a grip")
        return JointAbs(joints)
    return make_codec(spec.codec, robot.hand)


def shown(spec: Spec, robot: RobotFile, opening_m: float) -> dict[str, real_env.Shown]:
    """Returns how each of a policy's keys comes from a state of the arm, for those that do (names as in `sim_envs`)."""

    def pose(state: ArmState) -> np.ndarray:
        return robot.hand.pose(state.q)

    ways: dict[str, Callable[[ArmState], np.ndarray]] = {
        "joint_pos": lambda state: state.q,
        "joint_vel": lambda state: state.qd,
        "eef_pos": lambda state: pose(state)[:3, 3],
        "eef_rot6d": lambda state: geometry.rot6d_from_matrix(pose(state)[:3, :3]),
        "eef_quat_wxyz": lambda state: geometry.quat_wxyz_from_matrix(pose(state)[:3, :3]),
        "gripper": lambda state: np.array([state.aperture * opening_m]),
        "gripper_open": lambda state: np.array([state.aperture]),
    }
    known = [key for key in spec.obs if key in ways and (key != "gripper" or opening_m > 0)]
    return {key: real_env.Shown(spec.obs[key], _typed(ways[key], spec.obs[key])) for key in known}


def _typed(way: Callable[[ArmState], np.ndarray], spec: ArraySpec) -> Callable[[ArmState], np.ndarray]:
    return lambda state: np.asarray(way(state)).astype(spec.dtype)


def body_of(
    rig: Rig, spec: Spec, begin: Callable[[int | None], None], *, dry: bool = False, sensed: Mapping[str, Any] | None = None
) -> real_env.RealEnv:
    """Returns the robot as a body for a policy's spec; SpecMismatch names what the policy reads and nothing shows."""
    assert rig.arm is not None
    caps = rig.arm.caps
    codec = codec_of(spec, rig.robot, len(caps.joints))
    codec = codec if caps.gripper else Gripless(codec)
    eyes = {}
    for key, camera in rig.cameras.items():
        if key in spec.obs:
            eyes[key] = Fitted(camera, spec.obs[key].shape, rig.robot.cameras[key].wants == "stretch")
    arm = Muted(rig) if dry else Live(rig)
    whole = replace(spec, execute=1)
    return real_env.RealEnv(whole, arm, codec, shown(spec, rig.robot, caps.opening_m), eyes, sensed or {}, begin)


def limits_of(rig: Rig) -> Limits:
    """Returns the declared limits of the connected arm; BadInput where one has no number."""
    assert rig.arm is not None
    return rig.robot.make_guard().limits(rig.arm.caps)


def wait_for_pictures(rig: Rig, timeout_s: float = 5.0) -> list[str]:
    """Waits until every camera has shown a frame; returns those that have not."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        blind = [key for key, camera in rig.cameras.items() if camera.newest() is None]
        if not blind:
            return []
        time.sleep(0.02)
    return blind
