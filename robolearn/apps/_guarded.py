"""The limits of `robolearn.runtime` as the guard of a hosted driver: the only thing that knows both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware._base import ArmState, Caps, Setpoint
from robolearn.errors import BadInput
from robolearn.runtime.filters import Chain, Filtered, Measured, Points, SafeShare
from robolearn.runtime.guard import Guard
from robolearn.runtime.limits import Limits, defaults

if TYPE_CHECKING:  # a guard without workspace and collision starts without MuJoCo
    import mujoco


class Guarded:
    """A `hardware._base.Guard` that keeps declared limits."""

    def __init__(self, guard: Guard) -> None:
        self._guard, self.filters = guard, guard.filters
        self.wants_temperature = guard.limits.on("temperature")

    def reset(self, q: np.ndarray, aperture: float | None, now_s: float) -> None:
        """Begins at rest at q (n,) [rad]."""
        self._guard.reset(q, aperture, now_s)

    def step(self, setpoint: Setpoint, state: ArmState, now_s: float) -> tuple[Setpoint, tuple[str, ...]]:
        """Returns what may be sent, and which limits changed it."""
        left = self._guard.towards(setpoint.q, setpoint.aperture, setpoint.qd, _measured(state), now_s)
        return _setpoint(left), left.which

    def stop(self, state: ArmState, now_s: float) -> tuple[Setpoint, bool]:
        """Returns the next step of a ramp to rest, and whether it rests."""
        left, resting = self._guard.rest(_measured(state), now_s)
        return _setpoint(left), resting

    def feel(self, temperature: Mapping[str, float]) -> None:
        """Takes note of temperatures [deg C] by joint; until all are known, a limit of temperature refuses to move."""
        joints = self._guard.limits.names
        if all(name in temperature for name in joints):
            self._guard.temperature = np.array([temperature[name] for name in joints])


@dataclass(frozen=True)
class MakeGuard:
    """Makes the guard of an arm once its driver has said what it is; it crosses to the driver's process as it stands.

    share: of the device's own speed; more: further fields of `robolearn.runtime.limits.Limits`; without: limits switched off;
    make_points, make_safe_share (of the margin [m] to keep): what the workspace and collision limits ask, as `filters_of` says;
    functions of a module or partials of one, such as `points_of` and `safe_share_of`, called in the driver's process.
    """

    share: float = 0.25
    more: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ("workspace", "collision", "effort", "temperature")
    make_points: Callable[[], Points] | None = None
    make_safe_share: Callable[[float], SafeShare] | None = None

    def limits(self, caps: Caps) -> Limits:
        """Returns the declared limits of a connected arm; BadInput where one has no number."""
        return defaults(
            caps.joints,
            tuple(caps.lower.tolist()),
            tuple(caps.upper.tolist()),
            tuple(caps.velocity.tolist()),
            share=self.share,
            without=self.without,
            **self.more,
        )

    def __call__(self, caps: Caps, period_s: float) -> Guarded:
        """Returns the guard; BadInput where a limit has no number."""
        limits = self.limits(caps)
        points = self.make_points() if self.make_points and limits.on("workspace") else None
        safe = self.make_safe_share(limits.collision_margin_m) if self.make_safe_share and limits.on("collision") else None
        return Guarded(Guard(Chain(limits, period_s, points, safe), period_s))


def points_of(model: str, joints: Sequence[str], tips: Sequence[str]) -> Points:
    """Returns where sites or bodies of an MJCF file are: q (n,) [rad] -> (k, 3) [m]; BadInput for one that is not there."""
    from robolearn.runtime.kinematics import Hand

    free = np.full(len(joints), np.inf)
    hands = [Hand(_model(model), joints, tip, -free, free) for tip in tips]
    return lambda q: np.stack([hand.pose(q)[:3, 3] for hand in hands])


def safe_share_of(model: str, joints: Sequence[str], rest: Sequence[float], ignore: Sequence[str], margin_m: float) -> SafeShare:
    """Returns how much of a way an MJCF file's arm can go without coming nearer than margin_m [m] to itself or its surroundings.

    rest: (n,) [rad] where nothing touches; ignore: bodies that may be touched. BadInput as `collision.Checker`.
    """
    from robolearn.runtime.collision import Checker

    return Checker(_model(model), joints, np.array(rest, dtype=float), margin_m, ignore).safe_share


def _model(path: str) -> mujoco.MjModel:
    import mujoco

    try:
        return mujoco.MjModel.from_xml_path(path)
    except ValueError as error:
        raise BadInput(f"limits: {path}: {str(error).splitlines()[0]}") from None


def _measured(state: ArmState) -> Measured:
    return Measured(state.q, state.effort if np.isfinite(state.effort).all() else None)


def _setpoint(left: Filtered) -> Setpoint:
    return Setpoint(left.q, left.aperture)
