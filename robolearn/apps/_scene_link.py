"""The referee of a scene in another process: a line of JSON there, a line back, on a port beside the robot's wire.

{"op": "reset", "seed": 3} · {"op": "go"} · {"op": "look"} · {"op": "hello"}
{"op": "fault", "on": "robot", "fault": "drop", "p": 0.1}
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from hardware.emulators._tcp import Ports
from robolearn.apps._scene import Look, Scene, SceneConfig
from robolearn.errors import BadInput, HardwareError, RobolearnError, nearest

PORT = 30010
_LINE = 1 << 20  # [bytes] that an answer has at most

Control = Callable[[str, str, Mapping[str, Any]], Mapping[str, Any]]
"""Causes a fault: on which emulator, which of `hardware.emulators._base.OPS`, with which arguments."""


class SceneServer:
    """Answers for a scene, whenever the scene is moved on. Faults go to `control`."""

    def __init__(self, scene: Scene, control: Control | None = None, host: str = "") -> None:
        """host: an address of this machine; empty: one of 127.x.y.z that is free. HardwareError where none can be had."""
        self._scene, self._control = scene, control
        self._ports = Ports({PORT: lambda: _Talk(self._answer)})
        self.address = f"{self._ports.open(host)}:{PORT}"
        scene.on_turn = self.turn

    def turn(self) -> None:
        """Answers what has come, without waiting."""
        self._ports.wait(0.0)

    def close(self) -> None:
        """Stops answering; may be called twice."""
        self._scene.on_turn = lambda: None
        self._ports.close()

    def _answer(self, asked: Mapping[str, Any]) -> Mapping[str, Any]:
        op = asked.get("op", "")
        if op == "hello":
            return asdict(self._scene.config)
        if op == "look":
            look = self._scene.look()
            return {**asdict(look), "state": base64.b64encode(look.state.astype("<f8").tobytes()).decode()}
        if op == "reset":
            self._scene.reset(int(asked["seed"]))
        elif op == "go":
            self._scene.go()
        elif op == "fault" and self._control is not None:
            rest = {key: value for key, value in asked.items() if key not in ("op", "on", "fault")}
            return self._control(str(asked["on"]), str(asked["fault"]), rest)
        else:
            raise BadInput(f"scene: unknown op '{op}'{nearest(str(op), ('hello', 'look', 'reset', 'go', 'fault'))}")
        return {}


class _Talk:
    """One client, as `Ports` wants it."""

    def __init__(self, answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
        self._answer, self._rest = answer, b""

    def greet(self) -> bytes:
        """Returns nothing: the client speaks first."""
        return b""

    def feed(self, data: bytes) -> bytes:
        """Returns the answers to the whole lines among the bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return b"".join(json.dumps(self._said(line)).encode() + b"\n" for line in lines)

    def end(self) -> None:
        """Keeps nothing."""

    def _said(self, line: bytes) -> Mapping[str, Any]:
        try:
            asked = json.loads(line)
            if not isinstance(asked, dict):
                raise BadInput("scene: want an object with op")
            return {"ok": self._answer(asked)}
        except KeyError as error:
            return {"error": f"scene: {error.args[0]} is missing"}
        except (RobolearnError, ValueError, TypeError) as error:
            return {"error": str(error)}


class SceneLink:
    """The `Referee` of a scene that another process owns; config: of that scene."""

    def __init__(self, address: str, timeout_s: float = 10.0) -> None:
        """address: HOST:PORT as `emulate` prints it. HardwareError in one line where nobody answers in time."""
        self.address, self._rest = address, b""
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit():
            raise BadInput(f"scene: want HOST:PORT, got '{address}'")
        try:
            self._socket = _connected(host, int(port), timeout_s)
        except OSError as error:
            raise HardwareError(f"scene: nobody at {address} ({error.strerror or error}); is `emulate` running?") from None
        self._socket.settimeout(timeout_s)
        self.config = SceneConfig(**self._ask("hello"))

    def reset(self, seed: int) -> None:
        """Places arm and objects as the plain task does with this seed, and holds the world still."""
        self._ask("reset", seed=seed)

    def go(self) -> None:
        """Lets time run."""
        self._ask("go")

    def look(self) -> Look:
        """Returns what there is to see; t_ns is monotonic, of this machine."""
        said = self._ask("look")
        return Look(**{**said, "state": np.frombuffer(base64.b64decode(said["state"]), "<f8")})

    def fault(self, on: str, fault: str, **arguments: Any) -> Mapping[str, Any]:
        """Causes a fault in the emulator `on` (robot, gripper) and returns what it says."""
        return self._ask("fault", on=on, fault=fault, **arguments)

    def close(self) -> None:
        """Lets go of the scene; may be called twice."""
        self._socket.close()

    def _ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        try:
            self._socket.sendall(json.dumps({"op": op, **arguments}).encode() + b"\n")
            while b"\n" not in self._rest:
                came = self._socket.recv(65536)
                if not came or len(self._rest) > _LINE:
                    raise OSError("it has ended")
                self._rest += came
        except OSError as error:
            self._rest = b""
            with contextlib.suppress(OSError):
                self._socket.close()
            raise HardwareError(f"scene: {op}: no answer from {self.address} ({error})") from None
        line, _, self._rest = self._rest.partition(b"\n")
        said = json.loads(line)
        if "error" in said:
            raise BadInput(said["error"])
        return dict(said["ok"])


def _connected(host: str, port: int, timeout_s: float) -> socket.socket:
    """Returns a connection; a server that is not up yet is waited for."""
    end = time.monotonic() + timeout_s
    while True:
        try:
            return socket.create_connection((host, port), timeout_s)
        except ConnectionRefusedError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)
