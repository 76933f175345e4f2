"""The connections to a controller of Universal Robots through ur_rtde, with what it lacks: time limits, and the truth on a loss.

After a connection is gone the library returns the last values for ever, says yes to `servoJ`, and hangs in every slower call; its
control client also connects again on its own and uploads its program. So `there` is asked first, slow calls go through `within`,
and a link that was lost is closed before another one is opened. A client that is made while the controller takes connections and
says nothing waits for ever, and stops every thread of the process: so the controller must first answer plain sockets of ours.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from hardware._errors import NotReady, TransportLost, TransportTimeout
from robolearn.errors import MissingDependency

STREAM_HZ = 500.0  # of an e-Series controller's own cycle
RUNNING, IDLE = 7, 5  # robot modes
_DASHBOARD, _RTDE = 29999, 30004
_HELLO = b"\x00\x05V\x00\x02"  # RTDE: asks for protocol version 2
_READ = [
    "timestamp", "actual_q", "actual_qd", "actual_current", "robot_mode", "safety_mode", "robot_status_bits",
    "safety_status_bits", "joint_temperatures", "actual_joint_voltage", "payload",
]  # fmt: skip
_TRIES, _UPLOADS = 3, 3
_PROGRAM_S, _POWER_S, _CALL_S, _START_S = 2.0, 30.0, 2.0, 10.0


class Link:
    """RTDE both ways, and the dashboard, of one controller. receive, control: ur_rtde's own clients, None where not open."""

    def __init__(self, device: str, host: str, clock_ns: Callable[[], int]) -> None:
        """device: opens every message."""
        self._device, self._host, self._clock_ns = device, host, clock_ns
        self.receive: Any = None  # compiled modules without types
        self.control: Any = None
        self._dashboard: Any = None

    def open(self, timeout_s: float) -> None:
        """Opens what reads, and the dashboard; three tries, as a controller that has just started refuses the first.

        MissingDependency without ur_rtde; TransportLost where nobody answers.
        """
        try:
            import dashboard_client
            import rtde_receive
        except ImportError:
            raise MissingDependency("ur_rtde", "the UR5e", "pip install 'robolearn[ur]'") from None
        for attempt in range(1, _TRIES + 1):
            try:
                self._answers(timeout_s)
                self.receive = rtde_receive.RTDEReceiveInterface(self._host, STREAM_HZ, _READ)
                self._dashboard = dashboard_client.DashboardClient(self._host)
                self._dashboard.connect(int(1000 * timeout_s))
                return
            except (OSError, RuntimeError) as error:
                self.close()
                if attempt == _TRIES:
                    gone = f"no controller at {self._host} in {_TRIES} tries: {str(error).strip()}"
                    raise TransportLost(self._device, gone, phase="connect") from error
                time.sleep(0.1 * attempt)

    def _answers(self, timeout_s: float) -> None:
        """Returns where dashboard and RTDE answer; OSError where one of them does not."""
        for port, ask in ((_DASHBOARD, b""), (_RTDE, _HELLO)):  # the dashboard greets
            with socket.create_connection((self._host, port), timeout=timeout_s) as plain:
                plain.sendall(ask)
                if not plain.recv(1):
                    raise OSError(f"port {port} was closed again")

    def there(self) -> Any:
        """Returns the receiving client; TransportLost where a connection is gone."""
        lost = self.receive is None or not self.receive.isConnected()
        if lost or (self.control is not None and not self.control.isConnected()):
            gone = f"the controller at {self._host} is not connected; disconnect and connect again"
            raise TransportLost(self._device, gone)
        return self.receive

    def ask(self, line: str) -> str:
        """Returns the dashboard's answer to one line; TransportLost where it is gone."""
        try:
            if self._dashboard is None:
                raise RuntimeError("not connected")
            self._dashboard.send(line + "\n")
            return str(self._dashboard.receive())
        except RuntimeError as error:
            raise TransportLost(self._device, f"dashboard: '{line}': {error}") from error

    def start_program(self) -> None:
        """Uploads the control program unless ours runs; NotReady where another one runs, which is somebody's and stays."""
        import rtde_control

        kind = rtde_control.RTDEControlInterface
        if self.control is None:
            if self.there().getRobotStatus() & 2:
                raise NotReady(self._device, "another program runs on the controller; stop it at the pendant", phase="activate")
            try:
                self._answers(_CALL_S)
                flags = kind.FLAG_UPLOAD_SCRIPT | kind.FLAG_NO_EXT_FT
                self.control = self.within(lambda: kind(self._host, STREAM_HZ, flags), _START_S)
            except (TransportLost, OSError, ValueError) as error:
                raise NotReady(self._device, f"the control program did not start: {error}", phase="activate") from error
        for left in reversed(range(_UPLOADS)):  # an upload that meets the end of the program before it is swallowed
            if not self.control.isProgramRunning():
                self.within(self.control.reuploadScript, _START_S)
            try:
                self.poll(self.control.isProgramRunning, "the control program does not run", _PROGRAM_S)
            except NotReady:
                if not left:
                    raise
            else:
                return

    def end_program(self, brake: float) -> None:
        """Brakes the tool [m/s^2] and ends the control program; NotReady where it runs on."""
        try:
            self.within(lambda: self.control.servoStop(brake))
        finally:
            self.within(self.control.stopScript)
        self.poll(lambda: not self.control.isProgramRunning(), "the control program does not end", _PROGRAM_S)

    def power_on(self) -> None:
        """Switches the arm on and releases its brakes."""
        self.ask("power on")
        self.poll(lambda: self.receive.getRobotMode() >= IDLE, "the arm does not power on", _POWER_S)
        self.ask("brake release")
        self.poll(lambda: self.receive.getRobotMode() == RUNNING, "the brakes are not released", _POWER_S)

    def poll(self, true: Callable[[], bool], otherwise: str, seconds: float = _PROGRAM_S) -> None:
        """Waits until something is true; NotReady says otherwise after so long, TransportLost where the controller goes."""
        until = self._clock_ns() + int(seconds * 1e9)
        while not true():
            self.there()
            if self._clock_ns() > until:
                raise NotReady(self._device, f"{otherwise} within {seconds:g} s")
            time.sleep(0.002)

    def do(self, call: Callable[[], Any]) -> Any:
        """Returns what a quick call of ur_rtde returns; TransportLost where it fails."""
        try:
            return call()
        except RuntimeError as error:
            raise TransportLost(self._device, f"the controller at {self._host} has gone: {error}") from error

    def within(self, call: Callable[[], Any], seconds: float = _CALL_S) -> Any:
        """Returns what a slow call returns, which hangs for ever on a dead connection; TransportTimeout after so long."""
        answers: list[tuple[Any, Exception | None]] = []

        def run() -> None:
            try:
                answers.append((call(), None))
            except Exception as error:  # for the thread that waits
                answers.append((None, error))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(seconds)
        if not answers:
            raise TransportTimeout(self._device, f"the controller did not finish a command in {seconds:g} s")
        answer, error = answers[0]
        if isinstance(error, RuntimeError):
            raise TransportLost(self._device, f"the controller at {self._host} has gone: {error}") from error
        if error is not None:
            raise error
        return answer

    def close(self) -> list[Exception]:
        """Closes everything and returns what went wrong; half a second for each client, as ur_rtde joins its threads slowly."""
        errors: list[Exception] = []
        try:
            if self._dashboard is not None:
                self._dashboard.disconnect()
        except RuntimeError as error:
            errors.append(error)
        self._dashboard = self.control = self.receive = (
            None  # their destructors close; `disconnect` first would take twice as long
        )
        return errors
