"""What a controller of Universal Robots does behind its ports: safety, power, the control program and its registers, the motion.

The control program is the one that ur_rtde uploads, as its registers show it: input integer 0 is the command, output integer 0 is
1 (ready) or 2 (done); commands that are given all the time leave it at 1, others set 2 and wait for command 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware.emulators._goals import Goals
from robolearn.core import Plant

MOVE_J, SERVO_J, SPEED_STOP, SERVO_STOP, SET_PAYLOAD, SET_WATCHDOG, KICK, STOP_SCRIPT = 1, 11, 15, 16, 17, 35, 99, 255
REAL_TIME = {6, 9, 10, SERVO_J, 24, 25, 26, 27, 38, 58, *range(66, 72)}
RUNNING, IDLE, POWER_OFF = 7, 5, 3
MODES = {POWER_OFF: "POWER_OFF", IDLE: "IDLE", RUNNING: "RUNNING"}
NORMAL, PROTECTIVE, ESTOP = 1, 3, 7
SAFETY = {NORMAL: "NORMAL", PROTECTIVE: "PROTECTIVE_STOP", ESTOP: "ROBOT_EMERGENCY_STOP"}
SAFETY_BITS = {NORMAL: 1 << 0, PROTECTIVE: 1 << 2 | 1 << 10, ESTOP: 1 << 6 | 1 << 7 | 1 << 10}
_START_S = 0.02  # a program that was sent runs so much later
_STALL_S = 0.02  # a longer pause of this process is its own, not the client's
_SETTLED = 1e-3  # [rad] a move has arrived


@dataclass(frozen=True)
class Move:
    """A joint move along the straight line with a trapezoid of speed.

    start, goal: (6,) [rad]; speed [rad/s], acceleration [rad/s^2]: of the leading axis; begun_s: controller time.
    """

    start: np.ndarray
    goal: np.ndarray
    speed: float
    acceleration: float
    begun_s: float

    def at(self, t_s: float) -> np.ndarray:
        """Returns the joints (6,) [rad] at a controller time."""
        way = float(np.abs(self.goal - self.start).max())
        a = self.acceleration
        v = min(self.speed, np.sqrt(way * a))
        passed = t_s - self.begun_s
        ramp, flat = v / a, way / v - v / a if v > 0 else 0.0
        if way == 0.0 or passed >= 2 * ramp + flat:
            return self.goal
        if passed < ramp:
            done = a * passed**2 / 2
        elif passed < ramp + flat:
            done = v * (passed - ramp / 2)
        else:
            done = way - a * (2 * ramp + flat - passed) ** 2 / 2
        return self.start + done / way * (self.goal - self.start)


class Controller:
    """The state behind all ports. Its time is what `advance` adds up. unlock_s: how long a protective stop must have lasted."""

    def __init__(self, plant: Plant, unlock_s: float = 5.0) -> None:
        self.plant, self._unlock_s = plant, unlock_s
        self.t_s, self.mode, self.safety, self.program, self.frozen = 0.0, RUNNING, NORMAL, False, False
        self.payload, self.remote = (0.0, (0.0, 0.0, 0.0)), True
        self.goals, self.counts = Goals(), Counter({"watchdog": 0, "programs": 0, "unsupported": 0})
        self._in: dict[str, Any] = {}
        self._out_int, self._starting_s, self._stopped_s = 0, 0.0, 0.0
        self._watchdog_s, self._quiet_s = 0.0, 0.0  # no watchdog
        self._move: Move | None = None
        self._awaited = False  # the client waits for the end of the move
        self._target = np.asarray(plant.measure()["q"], dtype=float)
        self._measured: Mapping[str, np.ndarray] = dict(plant.measure())

    def take(self, values: Mapping[str, Any]) -> None:
        """Takes the input registers of one packet and does the command in them."""
        self._in.update(values)
        if "input_int_register_0" in values and self.program:
            self._quiet_s = 0.0
            self._do(int(values["input_int_register_0"]))

    def script(self, text: str) -> None:
        """Starts a program that was sent, in place of the one that runs; nothing where the arm cannot move."""
        if "def " in text and self.mode == RUNNING and self.safety == NORMAL:
            self.stop_program()
            self.counts["programs"] += 1
            self._starting_s = _START_S

    def stop_program(self) -> None:
        """Ends the control program; the arm stays where it is."""
        self.program, self._starting_s, self._watchdog_s, self._out_int = False, 0.0, 0.0, 0
        self._halt()

    def stop(self, safety: int) -> None:
        """Raises a protective (PROTECTIVE) or an emergency stop (ESTOP), which takes the power too."""
        self.safety, self._stopped_s = safety, self.t_s
        self.stop_program()
        if safety == ESTOP:
            self.mode = POWER_OFF

    def unlock(self) -> bool:
        """Ends a protective stop; False where it is too young."""
        if self.safety == PROTECTIVE and self.t_s - self._stopped_s < self._unlock_s:
            return False
        self.safety = NORMAL if self.safety == PROTECTIVE else self.safety
        return True

    def advance(self, seconds: float) -> None:
        """Lets so much time pass: the program, its watchdog, the motion."""
        self.t_s += seconds
        if self._starting_s > 0.0:
            self._starting_s -= seconds
            if self._starting_s <= 0.0:
                self.program, self._out_int, self._quiet_s = True, 1, 0.0
        self._quiet_s += min(seconds, _STALL_S)
        if self.program and 0.0 < self._watchdog_s < self._quiet_s:
            self.counts["watchdog"] += 1
            self.stop_program()
        if self._move is not None:
            self._aim(self._move.at(self.t_s))
        self.plant.advance(seconds)
        measured = self.plant.measure()
        if self._move is not None and np.abs(measured["q"] - self._move.goal).max() < _SETTLED:
            self._move, self._out_int = None, 2 if self._awaited else self._out_int
        if not self.frozen:
            self._measured = dict(measured)

    def outputs(self) -> dict[str, Any]:
        """Returns the output variables by name, as RTDE gives them; what this controller does not model is left out."""
        seen = self._measured
        powered = self.mode != POWER_OFF
        return {
            "timestamp": self.t_s,
            "actual_q": seen["q"], "actual_qd": seen["qd"], "actual_current": seen["effort"],
            "target_q": self._target, "target_moment": seen["effort"],
            "joint_temperatures": (30.0,) * 6, "actual_joint_voltage": (48.0 * powered,) * 6,
            "actual_main_voltage": 48.0, "actual_robot_voltage": 48.0 * powered,
            "speed_scaling": 1.0, "target_speed_fraction": 1.0,
            "robot_mode": self.mode, "safety_mode": self.safety, "joint_mode": (253 if powered else 239,) * 6,
            "robot_status_bits": powered | self.program << 1, "safety_status_bits": SAFETY_BITS[self.safety],
            "runtime_state": 2 if self.program else 1, "output_int_register_0": self._out_int,
            "payload": self.payload[0], "payload_cog": self.payload[1],
        }  # fmt: skip

    def stats(self) -> dict[str, Any]:
        """Returns counters, goals as they came over the wire, and the state, as JSON takes it."""
        return {
            **self.counts, "goals": self.goals.stats(), "program": self.program, "mode": MODES[self.mode],
            "safety": SAFETY[self.safety], "q": np.asarray(self.plant.measure()["q"]).tolist(), "t_s": self.t_s,
            "watchdog_s": self._watchdog_s,
        }  # fmt: skip

    def _do(self, command: int) -> None:
        doubles = [float(self._in.get(f"input_double_register_{k}", 0.0)) for k in range(8)]
        if command == 0:
            self._out_int = 1
        elif command == SERVO_J:
            if self.goals.note(doubles[:6]):
                self._move = None
                self._aim(np.array(doubles[:6]))
        elif command == STOP_SCRIPT:
            self.stop_program()
        elif command in REAL_TIME or command == KICK:
            self.counts["unsupported"] += command != KICK
        elif self._out_int == 1:  # after 2 the client has to say 0 first
            self._once(command, doubles)

    def _once(self, command: int, doubles: list[float]) -> None:
        """Does a command that ends; output integer 0 says so, of a move when it has arrived."""
        if command == MOVE_J:
            if self.goals.note(doubles[:6]) and min(doubles[6:]) > 0:
                here = np.asarray(self.plant.measure()["q"], dtype=float)
                self._move = Move(here, np.array(doubles[:6]), doubles[6], doubles[7], self.t_s)
                self._awaited = not self._in.get("input_int_register_1", 0)
                if self._awaited:
                    return
        elif command in (SPEED_STOP, SERVO_STOP):
            self._halt()
        elif command == SET_PAYLOAD:
            self.payload = (doubles[0], (doubles[1], doubles[2], doubles[3]))
        elif command == SET_WATCHDOG:
            self._watchdog_s = 1.0 / doubles[0] if doubles[0] > 0 else 0.0
        else:
            self.counts["unsupported"] += 1
        self._out_int = 2

    def _halt(self) -> None:
        self._move = None
        self._aim(np.asarray(self.plant.measure()["q"], dtype=float))

    def _aim(self, target: np.ndarray) -> None:
        self._target = target
        self.plant.command(target)
