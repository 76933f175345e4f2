"""A virtual arm in a scene, on simulated time: the driver's loop and guard as on a robot, faster than a robot could go."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Frame, Health, Identity, Setpoint, Stop
from hardware._loop import MakeGuard
from hardware._records import Hosting
from hardware._stepped import SimulatedTime, Stepped
from hardware.robots.virtual import Body, Virtual
from hardware.robots.virtual import Config as VirtualConfig
from robolearn.apps._guarded import MakeGuard as Limits
from robolearn.apps._scene import ArmPlant, FingerPlant, Look, Scene, SceneConfig
from robolearn.apps._scene_body import Judged, Twin, Wiring, body, joints_of, limits_of


class SceneArm:
    """The `Driver` of a virtual arm with the fingers of a scene: `Virtual` for the joints, the scene for the aperture."""

    def __init__(self, scene: Scene, config: VirtualConfig, clock_ns: Callable[[], int]) -> None:
        """config: its speed and watchdog; the arm is the scene's."""
        names, (lower, upper) = joints_of(scene.env), limits_of(scene.env)
        config = replace(config, opening_m=scene.opening_m)
        self._arm = Virtual(config, lambda: Body(ArmPlant(scene), names, lower, upper), clock_ns)
        self._fingers = FingerPlant(scene, open_at=1.0)  # an aperture

    def connect(self) -> Identity:
        """Takes the arm of the scene."""
        return self._arm.connect()

    def capabilities(self) -> Caps:
        """Returns the model's ranges and the configured speed."""
        return self._arm.capabilities()

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Has no settings."""
        return self._arm.configure()

    def activate(self) -> None:
        """Holds the arm where it is."""
        self._arm.activate()

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        """Moves the scene up to now, gives it the setpoint and measures it."""
        if setpoint is not None and setpoint.aperture is not None:
            self._fingers.command(np.array([setpoint.aperture]))
        return replace(self._arm.exchange(setpoint), aperture=float(self._fingers.measure()["q"][0]))

    def health(self) -> Health:
        """Returns the alarm, if there is one."""
        return self._arm.health()

    def deactivate(self, stop: Stop) -> None:
        """Holds, or lets the arm fall."""
        self._arm.deactivate(stop)

    def clear_fault(self) -> None:
        """Forgets the alarm."""
        self._arm.clear_fault()

    def disconnect(self) -> list[Exception]:
        """Lets go of the scene."""
        return self._arm.disconnect()


class DrawnEye:
    """A camera on simulated time: it keeps what there was at each capture, and draws it when it is asked for.

    A picture can be had `latency_s` after its capture.
    """

    def __init__(self, twin: Twin, key: str, time: SimulatedTime, hz: float = 30.0, latency_s: float = 0.0) -> None:
        """twin: with the camera of observation `key` in its config; cameras of one rate share one, and only they use it."""
        self._twin, self._key, self._time, self._latency_ns = twin, key, time, round(latency_s * 1e9)
        self._captures: list[tuple[int, Look]] = []
        self._seq, self._drawn = 0, (-1, np.zeros(0))
        time.every(1.0 / hz, self._capture)
        self._capture()

    def newest(self) -> Frame | None:
        """Returns the newest picture that can be had by now, None before the first."""
        self._forget()
        seq, look = self._captures[0]
        if look.t_ns + self._latency_ns > self._time.now_ns():
            return None
        if self._drawn[0] != seq:
            self._drawn = seq, self._twin.drawn(look.state)[self._key]
        return Frame(self._drawn[1], look.t_ns, look.t_ns + self._latency_ns, 0, seq, domain="sim")

    def _capture(self) -> None:
        self._captures.append((self._seq, self._twin.referee.look()))
        self._seq += 1
        self._forget()

    def _forget(self) -> None:
        """Drops the captures before the newest one that can be had."""
        while len(self._captures) > 1 and self._captures[1][1].t_ns + self._latency_ns <= self._time.now_ns():
            self._captures.pop(0)


@dataclass(frozen=True)
class Rig:
    """How the simulated arm is driven and filmed. guard: None for the limits of `swift`.

    camera_hz, camera_latency_s: of every camera that the task's config names.
    """

    arm: VirtualConfig = VirtualConfig(velocity=3.0)
    guard: MakeGuard | None = None
    hosting: Hosting = Hosting()
    camera_hz: float = 30.0
    camera_latency_s: float = 0.0


def swift(joints: int) -> Limits:
    """Returns limits of an arm of so many joints that can follow a policy closely; slower ramps come late to every target.

    20 rad/s^2 and 1000 rad/s^3, where Franka's data sheet of the Panda says 7.5 to 20 and 3750 to 10000.
    """
    return Limits(share=1.0, more={"acceleration": (20.0,) * joints, "jerk": (1000.0,) * joints})


class SimulatedArm:
    """A virtual arm at work in a scene. body: the `Env` for `rollout`; time: the clock that planners and consumers take.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, config: SceneConfig, keys: Sequence[str] | None = None, rig: Rig = Rig()) -> None:
        """keys: observations that a policy reads, None: all of the task. The cameras are those of the config's overrides."""
        self.time = SimulatedTime()
        cameras = tuple(config.overrides.get("cameras", ()))
        blind = replace(config, overrides={**config.overrides, "cameras": ()})
        self.scene = Scene(blind, self.time.now_ns)
        guard = rig.guard or swift(len(self.scene.q))
        self.arm = Stepped("virtual", SceneArm(self.scene, rig.arm, self.time.now_ns), guard, self.time, rig.hosting)
        self.twin, self._filmed = Twin(blind, self.scene, self.scene.env), [Twin(config, self.scene)] if cameras else []
        eyes = {
            f"{name}_image": DrawnEye(self._filmed[0], f"{name}_image", self.time, rig.camera_hz, rig.camera_latency_s)
            for name in cameras
        }
        plain = self._filmed[0].spec if cameras else self.twin.spec
        self.arm.connect()
        spec = plain if keys is None else plain.select(tuple(keys))
        self.body: Judged = body(self.twin, self.arm, spec, Wiring(eyes, self.time.now_ns, self.time.sleep))

    def close(self) -> None:
        """Ends the arm and frees the scene."""
        self.arm.close()
        for twin in (self.twin, *self._filmed):
            twin.close()

    def __enter__(self) -> SimulatedArm:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
