"""The wire of Universal Robots' Real-Time Data Exchange, protocol 2, on the controller's side: packets, recipes, sessions.

A packet is `u16 size | u8 kind | payload`, big-endian, the size counting all of it. A recipe is a list of variables by name; data
packets hold the number of a recipe and the values in its order (Universal Robots, RTDE guide).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

PROTOCOL, VERSION, TEXT = ord("V"), ord("v"), ord("M")
OUTPUTS, INPUTS, START, PAUSE, DATA = ord("O"), ord("I"), ord("S"), ord("P"), ord("U")
CODES = {
    "BOOL": "?", "UINT8": "B", "UINT32": "I", "UINT64": "Q", "INT32": "i", "DOUBLE": "d",
    "VECTOR3D": "3d", "VECTOR6D": "6d", "VECTOR6INT32": "6i", "VECTOR6UINT32": "6I",
}  # fmt: skip
_SIX = (
    "target_q target_qd target_qdd target_current target_moment actual_q actual_qd actual_current joint_control_output "
    "actual_TCP_pose actual_TCP_speed actual_TCP_force target_TCP_pose target_TCP_speed joint_temperatures actual_joint_voltage "
    "ft_raw_wrench payload_inertia actual_current_as_torque"
)
_ONE = (
    "timestamp actual_execution_time speed_scaling target_speed_fraction actual_momentum actual_main_voltage "
    "actual_robot_voltage actual_robot_current standard_analog_input0 standard_analog_input1 standard_analog_output0 "
    "standard_analog_output1 payload"
)
OUTPUT_TYPES = {
    **dict.fromkeys(_SIX.split(), "VECTOR6D"),
    **dict.fromkeys(_ONE.split(), "DOUBLE"),
    **dict.fromkeys(("actual_tool_accelerometer", "payload_cog"), "VECTOR3D"),
    **dict.fromkeys(("actual_digital_input_bits", "actual_digital_output_bits"), "UINT64"),
    **dict.fromkeys(("runtime_state", "robot_status_bits", "safety_status_bits"), "UINT32"),
    **dict.fromkeys(("robot_mode", "safety_mode"), "INT32"),
    "joint_mode": "VECTOR6INT32",
}
INPUT_TYPES = {
    "speed_slider_mask": "UINT32", "speed_slider_fraction": "DOUBLE", "external_force_torque": "VECTOR6D",
    "standard_digital_output_mask": "UINT8", "standard_digital_output": "UINT8",
    "configurable_digital_output_mask": "UINT8", "configurable_digital_output": "UINT8",
    "tool_digital_output_mask": "UINT8", "tool_digital_output": "UINT8",
    "standard_analog_output_mask": "UINT8", "standard_analog_output_type": "UINT8",
    "standard_analog_output_0": "DOUBLE", "standard_analog_output_1": "DOUBLE",
}  # fmt: skip
_REGISTER = re.compile(r"(input|output)_(int|double)_register_(\d+)")


def packet(kind: int, payload: bytes = b"") -> bytes:
    """Returns a whole packet."""
    return struct.pack(">HB", 3 + len(payload), kind) + payload


def packets(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Returns the whole packets (kind, payload) at the head of a stream, and the rest; ValueError for a size below 3."""
    found = []
    while len(data) >= 3:
        size, kind = struct.unpack_from(">HB", data)
        if size < 3:
            raise ValueError(f"RTDE: a packet of {size} bytes")
        if len(data) < size:
            break
        found.append((kind, data[3:size]))
        data = data[size:]
    return found, data


def type_of(name: str, direction: str) -> str:
    """Returns the type of a variable, "NOT_FOUND" where the controller has none of that name. direction: input or output."""
    register = _REGISTER.fullmatch(name)
    if register and register[1] == direction and int(register[3]) < 48:
        return "INT32" if register[2] == "int" else "DOUBLE"
    return (OUTPUT_TYPES if direction == "output" else INPUT_TYPES).get(name, "NOT_FOUND")


@dataclass(frozen=True)
class Recipe:
    """Variables in the order of a data packet."""

    names: tuple[str, ...]
    types: tuple[str, ...]

    @cached_property
    def layout(self) -> struct.Struct:
        """How their values lie in a packet."""
        return struct.Struct(">" + "".join(CODES[kind] for kind in self.types))

    def unpack(self, payload: bytes) -> dict[str, Any]:
        """Returns the values by name, vectors as tuples; struct.error for another length."""
        flat, at, values = self.layout.unpack(payload), 0, {}
        for name, kind in zip(self.names, self.types, strict=True):
            n = int(CODES[kind][:-1] or 1)
            values[name] = flat[at : at + n] if n > 1 else flat[at]
            at += n
        return values

    def pack(self, values: Mapping[str, Any]) -> bytes:
        """Returns the packet's values; a variable that is missing counts as 0."""
        flat: list[Any] = []
        for name, kind in zip(self.names, self.types, strict=True):
            n = int(CODES[kind][:-1] or 1)
            value = values.get(name, 0)
            flat += list(value) if n > 1 and not isinstance(value, int) else [value] * n
        return self.layout.pack(*flat)


class Session:
    """One client's conversation. hz: at which it wants data; started: whether it gets them."""

    def __init__(
        self,
        version: tuple[int, int, int, int],
        take: Callable[[Mapping[str, Any]], None],
        owners: dict[str, object],
    ) -> None:
        """version: of the controller; take: gets the values of a data packet by name; owners: which session writes a variable."""
        self.hz, self.started, self.sent, self.received = 0.0, False, 0, 0
        self._version, self._take, self._owners = version, take, owners
        self._output: Recipe | None = None
        self._inputs: dict[int, Recipe] = {}
        self._buffer = b""

    def greet(self) -> bytes:
        """Says nothing: the client begins."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """Takes bytes however they are cut; returns the answers to the whole packets among them."""
        found, self._buffer = packets(self._buffer + data)
        return b"".join(self.answer(kind, payload) for kind, payload in found)

    def end(self) -> None:
        """Gives back the variables that this client wrote."""
        for name in [name for name, owner in self._owners.items() if owner is self]:
            del self._owners[name]

    def answer(self, kind: int, payload: bytes) -> bytes:
        """Returns the answer to one packet; nothing to data, a text to what is unknown."""
        if kind == DATA:
            self.received += 1
            recipe = self._inputs.get(payload[0]) if payload else None
            if recipe is not None and len(payload) == 1 + recipe.layout.size:
                self._take(recipe.unpack(payload[1:]))
            return b""
        if kind == PROTOCOL:
            return packet(kind, bytes([payload == b"\x00\x02"]))
        if kind == VERSION:
            return packet(kind, struct.pack(">4I", *self._version))
        if kind == OUTPUTS:
            self.hz = min(500.0, max(1.0, struct.unpack_from(">d", payload)[0]))
            self._output, answer = _recipe(payload[8:], lambda name: type_of(name, "output"))
            return packet(kind, bytes([1 if self._output else 0]) + answer)
        if kind == INPUTS:
            return packet(kind, self._set_up_inputs(payload))
        if kind in (START, PAUSE):
            self.started = kind == START and self._output is not None
            return packet(kind, bytes([self._output is not None]))
        return packet(TEXT, _text(f"unknown packet {kind}"))

    def sample(self, values: Mapping[str, Any]) -> bytes:
        """Returns a data packet with the controller's state; nothing before the client has started."""
        if not self.started or self._output is None:
            return b""
        self.sent += 1
        return packet(DATA, b"\x01" + self._output.pack(values))

    def _set_up_inputs(self, payload: bytes) -> bytes:
        """Returns the number of the new recipe, 0 where it has none, and the types; a variable has one writer."""

        def kind(name: str) -> str:
            taken = self._owners.get(name, self) is not self
            return "IN_USE" if taken else type_of(name, "input")

        recipe, answer = _recipe(payload, kind)
        if recipe is None:
            return b"\x00" + answer
        self._inputs[len(self._inputs) + 1] = recipe
        self._owners.update(dict.fromkeys(recipe.names, self))
        return bytes([len(self._inputs)]) + answer


def _recipe(csv: bytes, kind: Callable[[str], str]) -> tuple[Recipe | None, bytes]:
    """Returns the recipe of comma-separated names, None where one cannot be had, and the types as the answer lists them."""
    names: Sequence[str] = [name for name in csv.decode("ascii", "replace").split(",") if name]
    types = [kind(name) for name in names]
    whole = bool(names) and all(one in CODES for one in types)
    return Recipe(tuple(names), tuple(types)) if whole else None, ",".join(types).encode()


def _text(message: str) -> bytes:
    """Returns a text message's payload: message, source, and 3 for information."""
    return bytes([len(message)]) + message.encode() + b"\x04RTDE\x03"
