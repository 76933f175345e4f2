"""A virtual arm: a plant in the place of motors, for any arm of robosuite or any MJCF file; no wire, and it says so.

It keeps the promises of a driver (life cycle, hard limits, a watchdog that latches): what works with it should work with metal.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hardware._base import ArmState, Caps, Health, Identity, Sampled, Setpoint, Stop
from hardware._errors import TransportLost
from robolearn.core import Plant
from robolearn.errors import ConfigError, MissingDependency

NEEDS = ()  # no library beside what every installation has
EMULATOR = ""  # it is one itself
EMULATION: dict[str, object] = {}  # no fields of what is not there
_UNLIMITED = 2 * np.pi  # [rad] either way, of a joint that the model lets turn for ever
WATCHDOG = 1  # the alarm bit of a watchdog that has run out


@dataclass(frozen=True)
class Config:
    """Which arm it is."""

    arm: str = "panda"
    """A folder of robosuite's arms (panda, ur5e, iiwa, kinova3, ...); ignored where model is given."""
    model: str = ""
    """An MJCF file with the arm, and perhaps a scene around it."""
    joints: tuple[str, ...] = ()
    """Names of its joints in the model; empty: all hinges."""
    q: tuple[float, ...] = ()
    """Where they begin [rad]; empty: the middle of their ranges, as far as 0 is outside."""
    velocity: float = 2.0
    """Fastest joint speed [rad/s]."""
    opening_m: float = 0.0
    """Widest opening of a gripper, which follows at once; 0: none."""
    brakes: bool = True
    """Whether it stays where it is while the torque is off, as industrial arms do; without, it falls, as servo arms do."""
    watchdog_s: float = 0.5
    """Without a cycle for so long the torque goes off and an alarm is raised, as a servo's bus watchdog does; 0: none."""

    def __post_init__(self) -> None:
        if self.velocity <= 0 or self.watchdog_s < 0 or self.opening_m < 0:
            got = f"{self.velocity:g}, {self.watchdog_s:g} and {self.opening_m:g}"
            raise ConfigError(f"virtual: want velocity above 0, watchdog_s and opening_m of at least 0, got {got}")
        if self.joints and self.q and len(self.joints) != len(self.q):
            raise ConfigError(f"virtual q: want {len(self.joints)} angles, one for each of joints, got {len(self.q)}")


def make(config: Config, clock_ns: Callable[[], int] = time.monotonic_ns) -> Virtual:
    """Returns the arm that the config names, not connected."""
    return Virtual(config, lambda: _plant(config), clock_ns)


@dataclass(frozen=True)
class Body:
    """What a plant moves, as its maker knows it. joints: names; lower, upper: (n,) hard limits [rad]."""

    plant: Plant
    joints: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray


class Virtual:
    """A `Driver` over a plant that moves in real time, whenever it is looked at."""

    def __init__(self, config: Config, make_body: Callable[[], Body], clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """make_body: called by `connect`; the app hands over a whole scene this way."""
        self._config, self._make_body, self._clock_ns = config, make_body, clock_ns
        self._body: Body | None = None
        self._seq, self._seen_ns, self._armed, self._alarm, self._aperture = 0, 0, False, 0, 1.0

    def connect(self) -> Identity:
        """Builds the model; ConfigError or MissingDependency where that cannot be done."""
        self._body = self._make_body()
        self._seen_ns = self._clock_ns()
        self._torque(False)
        return Identity("virtual", serial="EMULATED", parts=self._body.joints, emulated=True)

    def capabilities(self) -> Caps:
        """Returns the model's ranges and the configured speed."""
        body = self._there()
        watchdog = (self._config.watchdog_s, self._config.watchdog_s) if self._config.watchdog_s else None
        return Caps(
            body.joints, body.lower, body.upper, np.full(len(body.joints), self._config.velocity), (10.0, 100.0, 500.0),
            watchdog_s=watchdog, brakes=self._config.brakes, opening_m=self._config.opening_m,
            stops=(Stop.HOLD, Stop.RAMP_STOP, Stop.RELEASE),
        )  # fmt: skip

    def configure(self) -> Mapping[str, tuple[Any, Any]]:
        """Has no settings."""
        self._there()
        return {}

    def activate(self) -> None:
        """Holds the arm where it is."""
        body = self._there()
        self._move_on()
        body.plant.command(body.plant.measure()["q"])
        self._armed = True
        self._torque(True)

    def exchange(self, setpoint: Setpoint | None) -> ArmState:
        """Moves the plant up to now, gives it the setpoint and measures it."""
        body, sent_ns = self._there(), self._clock_ns()
        self._move_on()
        if setpoint is not None:
            body.plant.command(setpoint.q)
            self._aperture = self._aperture if setpoint.aperture is None else setpoint.aperture
        seen, now = body.plant.measure(), self._clock_ns()
        self._seq += 1
        aperture = self._aperture if self._config.opening_m else float("nan")
        return ArmState(
            seen["q"], seen["qd"], seen["effort"], (sent_ns + now) // 2, now, (now - sent_ns) // 2, self._seq,
            aperture, Sampled.EMULATED, self._alarm,
        )  # fmt: skip

    def health(self) -> Health:
        """Returns the alarm, if there is one."""
        return Health(alarm={"all": ("watchdog",)} if self._alarm else {})

    def deactivate(self, stop: Stop) -> None:
        """Holds, or lets the arm fall."""
        self._armed = False
        if stop is Stop.RELEASE:
            self._torque(False)

    def clear_fault(self) -> None:
        """Forgets the alarm."""
        self._alarm, self._seen_ns = 0, self._clock_ns()

    def disconnect(self) -> list[Exception]:
        """Lets go of the model."""
        self._body = None
        return []

    def _there(self) -> Body:
        if self._body is None:
            raise TransportLost("virtual", "it is not connected")
        return self._body

    def _move_on(self) -> None:
        """Runs the plant up to now; a host that was away for longer than the watchdog finds the torque off."""
        body, now = self._there(), self._clock_ns()
        passed = (now - self._seen_ns) / 1e9
        self._seen_ns = now
        if self._armed and self._config.watchdog_s and passed > self._config.watchdog_s:
            self._armed, self._alarm = False, WATCHDOG
            self._torque(False)
        body.plant.advance(min(passed, 1.0))  # a long sleep need not be lived through in full

    def _torque(self, on: bool) -> None:
        plant = self._there().plant
        if not on and self._config.brakes:
            plant.command(plant.measure()["q"])  # as if it were bolted there
            return
        torque = getattr(plant, "torque", None)  # not every plant can fall
        if torque is not None:
            torque[:] = on


def _plant(config: Config) -> Body:
    import mujoco

    from hardware.emulators._plants import MujocoPlant

    path = Path(config.model) if config.model else robosuite_model(config.arm)
    try:
        model = mujoco.MjModel.from_xml_path(str(path))
    except ValueError as error:
        raise ConfigError(f"virtual model: {path}: {str(error).splitlines()[0]}") from None
    hinges = [j for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_HINGE]
    names = config.joints or tuple(model.joint(j).name for j in hinges)
    known = [model.joint(j).name for j in hinges]
    if not names or not set(names) <= set(known):
        raise ConfigError(f"virtual joints: {path} has hinges {known}, want {list(names)}")
    ids = [model.joint(name).id for name in names]
    lower, upper = np.where(model.jnt_limited[ids], model.jnt_range[ids].T, [[-_UNLIMITED], [_UNLIMITED]])
    start = np.array(config.q) if config.q else np.where((lower > 0) | (upper < 0), (lower + upper) / 2, 0.0)
    return Body(MujocoPlant(model, names, start), tuple(names), lower, upper)


def robosuite_model(arm: str) -> Path:
    """Returns the MJCF file of one of robosuite's arms, without importing robosuite; ConfigError where it has no such arm."""
    spec = importlib.util.find_spec("robosuite")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency("robosuite", "its arms", "pip install robosuite==1.5.1")
    folder = Path(spec.submodule_search_locations[0]) / "models/assets/robots"
    path = folder / arm / "robot.xml"
    if not path.is_file():
        known = ", ".join(sorted(entry.parent.name for entry in folder.glob("*/robot.xml")))
        raise ConfigError(f"robosuite has no arm '{arm}' (known: {known}); name one, or an .xml file")
    return path
