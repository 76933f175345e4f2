"""From samples of a hand to a target of the robot's hand: clutch, scaling, speed caps, jump guard, gripper; once for all devices.

Engaging latches the hand's pose P0 and the robot's pose X0; while engaged the target is
    p = p_X0 + s M (p_hand - p_P0),   R = M (R_hand R_P0^T) M^T R_X0   (base frame), or
                                      R = R_X0 M (R_P0^T R_hand) M^T   (tool frame),
so that the first engaged target is X0 itself, whatever hand and robot did before. Released: the target stays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from robolearn import geometry
from robolearn.core import TeleopSample
from robolearn.errors import BadInput

Array = np.ndarray
GRIP_DEBOUNCE_S = 0.15
START_GAP_RAD = 0.8  # a leader arm further away than this refuses to start (GELLO)
ALIGN_STEP_RAD = 0.05  # and closes the gap in steps no larger than this


@dataclass(frozen=True)
class Feel:
    """How a device feels.

    scale: of positions, 0.2 .. 2 (turns are 1:1); axis_map (3, 3): device axes to robot axes, a signed permutation with
    determinant +1; deadzone, exponent: of deflections; max_speed [m/s], max_turn [rad/s]: caps of the target; jump_m, jump_rad:
    a hand that moves further between two samples is latched anew; low, high (3,): workspace box [m]; frame: what turns are about.
    """

    scale: float = 1.0
    axis_map: tuple[tuple[float, ...], ...] = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    deadzone: float = 0.1
    exponent: float = 1.5
    max_speed: float = 0.25
    max_turn: float = 0.6 * 3**0.5
    jump_m: float = 0.06
    jump_rad: float = np.deg2rad(25.0)
    low: tuple[float, ...] = (-np.inf, -np.inf, -np.inf)
    high: tuple[float, ...] = (np.inf, np.inf, np.inf)
    frame: Literal["base", "tool"] = "base"

    def __post_init__(self) -> None:
        if not 0.2 <= self.scale <= 2.0:
            raise BadInput(f"clutch scale: want 0.2 to 2, got {self.scale:g}")
        axes = np.asarray(self.axis_map, float)
        signed = axes.shape == (3, 3) and np.isin(np.abs(axes), (0.0, 1.0)).all() and np.array_equal(axes @ axes.T, np.eye(3))
        if not signed or not np.isclose(np.linalg.det(axes), 1.0):
            raise BadInput(f"clutch axis_map: want a signed permutation with determinant +1, got {axes.tolist()}")
        if self.max_speed <= 0 or self.max_turn <= 0:
            raise BadInput(f"clutch caps: want speeds above 0, got {self.max_speed:g} m/s and {self.max_turn:g} rad/s")


@dataclass(frozen=True)
class Target:
    """Where the hand should be. pose: world_from_hand (4, 4) [m]; grip: 0 open .. 1 closed; why: what holds it, "" if nothing."""

    pose: Array
    grip: float
    engaged: bool
    why: str = ""


def shaped(deflection: Array, deadzone: float, exponent: float) -> Array:
    """Returns sign(x) ((|x| - deadzone) / (1 - deadzone))^exponent, 0 within the dead zone: a stick at rest stays at rest."""
    size = np.clip((np.abs(deflection) - deadzone) / (1.0 - deadzone), 0.0, 1.0)
    return np.sign(deflection) * size**exponent


@dataclass
class Clutch:
    """One hand on one arm. `update` takes every sample in order, `target` says where the arm should go now."""

    feel: Feel = field(default_factory=Feel)

    def __post_init__(self) -> None:
        self._axes = np.asarray(self.feel.axis_map, float)
        self.reset(np.eye(4))

    def reset(self, measured: Array) -> None:
        """Begins anew at the robot's hand pose world_from_hand (4, 4), disengaged, gripper open."""
        self._wanted = self._target = np.array(measured, float)  # what the hand asks for; what the caps left of it
        self._hand: Array | None = None  # the last pose of the operator's hand
        self._hand_0: Array | None = None  # where it was latched
        self._robot_0 = self._target
        self._engaged, self._why, self._grip = False, "", 0.0
        self._sample_s: float | None = None
        self._target_s: float | None = None
        self._toggled_s, self._was_closed, self._since = -np.inf, False, 0.0
        self._rate = np.zeros(6)

    def moved(self, measured: Array, grip: float) -> None:
        """Begins anew, while disengaged, where somebody else has brought the hand (4, 4) and its gripper (0 open .. 1 closed)."""
        if not self._engaged:
            self._wanted = self._target = np.array(measured, float)
            self._grip = grip

    def update(self, sample: TeleopSample, measured: Array, t_s: float) -> None:
        """Takes one sample, received at `t_s` [s], the robot's hand being at `measured` (4, 4); one from the past is dropped."""
        if self._sample_s is not None and sample.t_dev_ns * 1e-9 < self._sample_s:
            return
        self._sample_s = sample.t_dev_ns * 1e-9
        held = sample.deadman is not False
        self._take_grip(sample)
        if sample.pose is not None:
            self._take_pose(np.asarray(sample.pose, float), held, measured)
        elif sample.delta is not None:
            self._take_delta(np.asarray(sample.delta, float), held, t_s)
        else:
            self._engaged = held

    def target(self, measured: Array, now_s: float) -> Target:
        """Returns where the hand should be now: the wish, brought nearer no faster than the caps allow, inside the box."""
        elapsed = 0.0 if self._target_s is None else max(0.0, now_s - self._target_s)
        self._target_s = now_s
        if self._engaged and self._rate.any():
            self._integrate(elapsed, now_s)
        wanted = self._wanted.copy()
        wanted[:3, 3] = np.clip(wanted[:3, 3], self.feel.low, self.feel.high)
        why = self._why
        if self._engaged and not np.array_equal(wanted, self._wanted):
            why = why or "at the edge of the workspace"
        self._target = self._capped(wanted, min(elapsed, 0.1))  # a stall is not made up for in one leap
        return Target(self._target, self._grip, self._engaged, why)

    def release(self) -> None:
        """Lets go: the target stays where it is until the hand is engaged again."""
        self._engaged, self._hand_0 = False, None
        self._wanted, self._rate = self._target, np.zeros(6)

    def _take_pose(self, hand: Array, held: bool, measured: Array) -> None:
        if hand.shape != (4, 4) or not np.isfinite(hand).all():
            self._why = "the hand's pose is not a number"
            return
        last, self._hand = self._hand, hand
        if not held:
            if self._engaged:
                self.release()
            self._why = ""
            return
        jumped = last is not None and (
            np.linalg.norm(hand[:3, 3] - last[:3, 3]) > self.feel.jump_m
            or geometry.angle_between(hand[:3, :3], last[:3, :3]) > self.feel.jump_rad
        )
        if not self._engaged or self._hand_0 is None or jumped:
            if not self._engaged:  # measured place, but the turn last commanded: a soft wrist must not add its sag at each clutch
                self._target = geometry.pose(np.asarray(measured, float)[:3, 3], self._target[:3, :3])
            self._engaged, self._hand_0, self._robot_0 = True, hand, self._target
            self._why = "the hand jumped: latched anew" if jumped else ""
        else:
            self._why = ""
        self._wanted = self._mapped(hand)

    def _mapped(self, hand: Array) -> Array:
        assert self._hand_0 is not None
        axes, start = self._axes, self._robot_0
        position = start[:3, 3] + self.feel.scale * axes @ (hand[:3, 3] - self._hand_0[:3, 3])
        if np.array_equal(hand[:3, :3], self._hand_0[:3, :3]):
            return geometry.pose(position, start[:3, :3])
        if self.feel.frame == "base":
            rotation = axes @ (hand[:3, :3] @ self._hand_0[:3, :3].T) @ axes.T @ start[:3, :3]
        else:
            rotation = start[:3, :3] @ axes @ (self._hand_0[:3, :3].T @ hand[:3, :3]) @ axes.T
        return geometry.pose(position, rotation)

    def _take_delta(self, delta: Array, held: bool, t_s: float) -> None:
        if delta.shape != (6,) or not np.isfinite(delta).all():
            self._why, self._rate = "the deflection is not a number", np.zeros(6)
            return
        if not held:
            self.release()
            return
        if not self._engaged:
            self._wanted = self._target
        self._engaged, self._why, self._since = True, "", t_s
        size = shaped(np.clip(delta, -1.0, 1.0), self.feel.deadzone, self.feel.exponent).reshape(2, 3) @ self._axes.T
        self._rate = np.concatenate([size[0] * self.feel.max_speed, size[1] * self.feel.max_turn])

    def _integrate(self, elapsed_s: float, now_s: float) -> None:
        if now_s - self._since > 0.25:  # a deflection that is not renewed is over
            self._rate = np.zeros(6)
            return
        step = self._rate * min(elapsed_s, 0.1)
        turn = geometry.matrix_from_rotvec(step[3:])
        rotation = turn @ self._wanted[:3, :3] if self.feel.frame == "base" else self._wanted[:3, :3] @ turn
        position = np.clip(self._wanted[:3, 3] + step[:3], self.feel.low, self.feel.high)
        self._wanted = geometry.pose(position, rotation)

    def _capped(self, wanted: Array, elapsed_s: float) -> Array:
        gap, turn = wanted[:3, 3] - self._target[:3, 3], wanted[:3, :3] @ self._target[:3, :3].T
        far = float(np.linalg.norm(gap))
        rotvec = geometry.rotvec_from_matrix(turn)
        angle = float(np.linalg.norm(rotvec))
        most, most_turn = self.feel.max_speed * elapsed_s, self.feel.max_turn * elapsed_s
        if far <= most and angle <= most_turn:
            return wanted
        position = wanted[:3, 3] if far <= most else self._target[:3, 3] + gap * (most / far)
        if angle <= most_turn:
            return geometry.pose(position, wanted[:3, :3])
        return geometry.pose(position, geometry.matrix_from_rotvec(rotvec * (most_turn / angle)) @ self._target[:3, :3])

    def _take_grip(self, sample: TeleopSample) -> None:
        """A trigger gives the opening itself; the event toggle_grip turns it over, once in 150 ms. Kept while disengaged."""
        t_s = sample.t_recv_ns * 1e-9
        if "toggle_grip" in sample.events:
            if t_s - self._toggled_s >= GRIP_DEBOUNCE_S:
                self._grip = 0.0 if self._grip > 0.5 else 1.0
                self._toggled_s = t_s
        elif sample.grip is not None and np.isfinite(sample.grip) and sample.deadman is not False:
            self._grip = float(np.clip(sample.grip, 0.0, 1.0))


@dataclass
class Aligner:
    """A leader arm's joint angles, taken over without a leap: far away it refuses, near it closes the gap in small steps."""

    joints: int
    start_gap: float = START_GAP_RAD  # [rad]
    step: float = ALIGN_STEP_RAD  # [rad] per tick while closing the gap

    def __post_init__(self) -> None:
        self.aligned, self.why = False, ""

    def __call__(self, leader: Array, command: Array) -> Array:
        """Returns the joint angles (n,) to command; `why` says what holds the arm where it refuses."""
        leader = np.asarray(leader, float)
        if leader.shape != command.shape or not np.isfinite(leader).all():
            self.why = f"the leader has {leader.shape[-1] if leader.ndim else 0} joints or no numbers, want {len(command)}"
            return command
        gap = geometry.wrap(leader - command)  # a joint that passed half a turn is where it was (GELLO issue 19)
        if not self.aligned and np.max(np.abs(gap)) > self.start_gap:
            worst = int(np.argmax(np.abs(gap)))
            self.why = f"joint {worst} of the leader is {abs(gap[worst]):.2f} rad away, want {self.start_gap:g}: move it nearer"
            return command
        if not self.aligned and np.max(np.abs(gap)) <= self.step:
            self.aligned = True
        self.why = "" if self.aligned else "closing the gap to the leader"
        return command + (gap if self.aligned and np.max(np.abs(gap)) <= self.start_gap else np.clip(gap, -self.step, self.step))
