"""An emulator in a process of its own, with a channel for faults; it ends with its parent."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from hardware._process import die_with_parent
from hardware.emulators._base import make_emulator
from robolearn.core import Plant
from robolearn.errors import BadInput, HardwareError, RobolearnError

MakePlant = Callable[[], Plant]


class Running:
    """An emulator at work. address: what a driver's configuration takes as its port or host.

    Use it as a context manager, or call `close`.
    """

    def __init__(self, name: str, overrides: dict[str, Any] | None = None, make_plant: MakePlant | None = None) -> None:
        """name: of the emulator; overrides: of its Config; make_plant: a function of a module, called in the new process.

        HardwareError with the emulator's own words where it does not come up.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=_serve, args=(name, overrides or {}, make_plant, far, os.getpid()), daemon=True)
        self._process.start()
        far.close()
        self.address = str(self._answer(60.0)["address"])

    def control(self, op: str, **args: Any) -> Mapping[str, Any]:
        """Does one op (`hardware.emulators._base.OPS`) and returns what it says; BadInput for what it has not."""
        with contextlib.suppress(OSError):  # where it is gone, its answer says so
            self._pipe.send_bytes(json.dumps({"op": op, "args": args}).encode())
        return self._answer(10.0)

    @property
    def pid(self) -> int:
        """Of the emulator's process."""
        return int(self._process.pid or 0)

    def close(self) -> None:
        """Ends the emulator; may be called twice."""
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5.0)
        self._pipe.close()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        try:
            said: dict[str, Any] = (
                json.loads(self._pipe.recv_bytes()) if self._pipe.poll(timeout_s) else {"lost": f"no word in {timeout_s:g} s"}
            )
        except (EOFError, OSError):
            said = {"lost": "it ended"}
        if "ok" not in said:
            refused = said.get("refused")
            raise (BadInput if refused else HardwareError)(f"emulator: {refused or said['lost']}")
        return dict(said["ok"])


def _serve(name: str, overrides: dict[str, Any], make_plant: MakePlant | None, pipe: Connection, parent: int) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends us
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # so that ports and folders are cleared away
    try:
        emulator = make_emulator(name, overrides, make_plant() if make_plant else None)
        pipe.send_bytes(json.dumps({"ok": {"address": emulator.open()}}).encode())
    except (RobolearnError, OSError) as error:
        pipe.send_bytes(json.dumps({"lost": str(error)}).encode())
        return
    try:
        while True:
            emulator.turn(0.002)
            while pipe.poll():
                asked = json.loads(pipe.recv_bytes())
                try:
                    said: dict[str, Any] = {"ok": dict(emulator.control(asked["op"], asked["args"]))}
                except (BadInput, KeyError, ValueError) as error:
                    said = {"refused": str(error)}
                pipe.send_bytes(json.dumps(said).encode())
    except (EOFError, OSError):  # whoever wanted it has ended
        return
    finally:
        emulator.close()
