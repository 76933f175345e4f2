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

from hardware._process import ParentGone, die_with_parent, heard, say
from hardware.emulators._base import Emulator, make_emulator
from robolearn.core import Plant
from robolearn.errors import BadInput, HardwareError, RobolearnError

MakePlant = Callable[[], Plant]
MakeEmulator = Callable[[str, dict[str, Any], Plant | None], Emulator]


class Running:
    """An emulator at work. address: what a driver's configuration takes as its port or host.

    Use it as a context manager, or call `close`. It also ends with the thread that made it: make it in one that lasts.
    """

    def __init__(
        self,
        name: str,
        overrides: dict[str, Any] | None = None,
        make_plant: MakePlant | None = None,
        make: MakeEmulator = make_emulator,
    ) -> None:
        """name: of the emulator; overrides: of its Config.

        make_plant, make: of the plant, None for the emulator's own, and of the emulator; functions of a module, or partials of
        one, called in the new process.

        HardwareError with the emulator's own words where it does not come up.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        arguments = (name, overrides or {}, make_plant, make, far, os.getpid())
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
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


def _serve(
    name: str, overrides: dict[str, Any], make_plant: MakePlant | None, make: MakeEmulator, pipe: Connection, parent: int
) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and that ends us
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # so that ports and folders are cleared away
    try:
        emulator = make(name, overrides, make_plant() if make_plant else None)
        address = emulator.open()
    except (RobolearnError, OSError) as error:
        with contextlib.suppress(ParentGone):
            say(pipe, {"lost": str(error)})
        return
    try:
        say(pipe, {"ok": {"address": address}})
        while True:
            emulator.turn(0.002)  # an error of its own is raised: it is not the end of whoever wanted it
            while (asked := heard(pipe)) is not None:
                try:
                    said: dict[str, Any] = {"ok": dict(emulator.control(asked["op"], asked["args"]))}
                except (BadInput, KeyError, ValueError) as error:
                    said = {"refused": str(error)}
                say(pipe, said)
    except ParentGone:
        return
    finally:
        emulator.close()
