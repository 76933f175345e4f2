"""A driver in a process of its own: the policy's interpreter never waits for the wire, and a crash of one leaves the other.

Calls that may block (connect, configure, ...) go through a pipe; setpoints and samples through shared memory. Without a new
setpoint for `Hosting.hold_after_s` the arm ramps to rest and holds; when the parent ends, it ramps, ends as `Hosting.on_orphan`
says, and goes.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import time
from typing import Any

from hardware._asked import Asked, raised
from hardware._base import Identity
from hardware._errors import DriverEnded, NotReady, TransportLost
from hardware._loop import MakeDriver, MakeGuard, host
from hardware._records import Hosting, Sample
from robolearn.errors import HardwareError


class Hosted(Asked):
    """A driver at work in another process. Reading and commanding copy memory; all else is a call that waits for its answer.

    Its process also ends with the thread that made it: make it in one that lasts, as the main thread does.
    """

    def __init__(self, name: str, make_driver: MakeDriver, make_guard: MakeGuard, run: str, hosting: Hosting = Hosting()) -> None:
        """name: in messages and segments; run: of `new_run`.

        make_driver, make_guard: functions of a module, or partials of one; they are called in the new process.
        """
        self.name, self._run, self._hosting = name, run, hosting
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        arguments = (name, make_driver, make_guard, hosting, far, os.getpid())
        self._process = context.Process(target=host, args=arguments, name=f"driver {name}", daemon=True)
        self._process.start()
        far.close()
        self._calls = 0

    @property
    def pid(self) -> int:
        """Of the driver's process."""
        return int(self._process.pid or 0)

    @property
    def alive(self) -> bool:
        """Whether the driver's process runs."""
        return self._process.is_alive()

    def connect(self, timeout_s: float = 20.0) -> Identity:
        """Opens the device in its process and starts the loop, which reads only until `activate`.

        Raises what the device says at the first sample: the fault that it already has, an emergency stop that is pressed.
        """
        return self._begun(self._run, timeout_s)

    def read(self) -> Sample:
        """Returns the newest cycle, without the wire. NotReady before the first, TransportLost where the process is gone."""
        if not self.alive:
            raise DriverEnded(self.name, f"its driver process has ended (exit code {self._process.exitcode})")
        return super().read()

    def read_fresh(self, after: int, timeout_s: float) -> Sample:
        """Returns the first cycle after number `after`; TransportLost where none comes in time."""
        end = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(NotReady):
                sample = self.read()
                if sample.cycle > after:
                    return sample
            if time.monotonic() > end:
                raise TransportLost(self.name, f"no new cycle in {timeout_s:g} s")
            time.sleep(min(0.001, self._hosting.period_s / 4))

    def close(self, timeout_s: float = 5.0) -> list[str]:
        """Ramps to rest, closes the device, ends the process (by force at last); returns what went wrong, never raises."""
        went_wrong: list[str] = []
        if self.alive:
            try:
                went_wrong += self._call("close", timeout_s)["errors"]
            except (HardwareError, OSError) as error:
                went_wrong.append(str(error))
            self._process.join(timeout_s)
            if self.alive:
                self._process.kill()
                self._process.join()
                went_wrong.append(f"{self.name}: its driver process had to be killed")
        self._unlink()
        self._pipe.close()
        return went_wrong

    def _now_ns(self) -> int:
        return time.monotonic_ns()

    def _call(self, what: str, timeout_s: float, **arguments: Any) -> dict[str, Any]:
        self._calls += 1
        said: dict[str, Any] = {}
        end = time.monotonic() + timeout_s
        try:
            self._pipe.send_bytes(json.dumps({"call": what, "id": self._calls, **arguments}).encode())
            while said.get("id") != self._calls:  # what answers an earlier call came too late for it
                if not self._pipe.poll(max(0.0, end - time.monotonic())):
                    raise TransportLost(self.name, f"{what}: its driver process does not answer in {timeout_s:g} s")
                said = dict(json.loads(self._pipe.recv_bytes()))
        except (EOFError, OSError):
            raise DriverEnded(self.name, f"{what}: its driver process has ended (exit code {self._process.exitcode})") from None
        del said["id"]
        if "error" in said:
            raise raised(said)
        return said
