"""Modbus through pymodbus, RTU on a serial line or TCP, with one request at a time, no retries of its own and our errors.

pymodbus connects again by itself and logs every miss; here a lost line stays lost until `open`, and a miss is an error, once.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hardware._errors import ConfigMismatch, TransportCorrupt, TransportLost, TransportTimeout
from robolearn.errors import ConfigError, MissingDependency

READ_INPUT, WRITE, READ_WRITE, IDENTIFY = 4, 16, 23, 43  # functions
_BUSY = (5, 6, 10, 11)  # exceptions that pass by themselves: not done yet, busy, or a gateway that had no answer itself
Answer = TypeVar("Answer")


class Modbus:
    """One unit behind a port. counters: misses by kind, also those that a second try made good."""

    def __init__(self, name: str, port: str, unit: int, baud: int, timeout_s: float, extra: str) -> None:
        """name: opens every message; port: serial, or tcp://host:port; timeout_s: of one request; extra: what pip installs."""
        self._name, self._port, self._unit, self._baud, self._timeout_s, self._extra = name, port, unit, baud, timeout_s, extra
        self._client: Any = None
        self._heard = b""
        self.counters: Counter[str] = Counter()

    def open(self) -> None:
        """Opens the port; TransportLost where that cannot be done."""
        self._client = self._make()
        if not self._client.connect():
            self._client = None
            way = "name another port or baud, close what else uses it, join the group dialout"
            raise TransportLost(self._name, f"{self._port} cannot be opened; {way}", phase="connect")

    def close(self) -> list[Exception]:
        """Closes the port and returns what went wrong on the way; may be called twice."""
        client, self._client = self._client, None
        if client is not None:
            try:
                client.close()
            except Exception as error:  # whatever a port raises that is gone
                return [TransportLost(self._name, f"{self._port}: {error}", phase="disconnect")]
        return []

    def read(self, address: int, count: int) -> list[int]:
        """Returns input registers (count,)."""
        return self._registers(self._ask("read_input_registers", READ_INPUT, address, count=count), count)

    def write(self, address: int, values: Sequence[int]) -> None:
        """Writes holding registers."""
        self._ask("write_registers", WRITE, address, values=list(values))

    def write_and_read(self, to: int, values: Sequence[int], address: int, count: int) -> list[int]:
        """Writes registers from `to` on, then reads (count,) from `address` on, in one request."""
        answer = self._ask(
            "readwrite_registers", READ_WRITE, read_address=address, read_count=count, write_address=to, values=list(values)
        )
        return self._registers(answer, count)

    def identify(self) -> tuple[str, str, str]:
        """Returns vendor, product and revision as far as the unit tells; ConfigMismatch where it knows no such question."""
        known = self._ask("read_device_information", IDENTIFY, read_code=1, object_id=0).information
        vendor, product, revision = (bytes(known.get(k, b"")).decode("ascii", "replace") for k in range(3))
        return vendor, product, revision

    def tried(self, ask: Callable[[], Answer], tries: int = 3) -> Answer:
        """Returns what `ask` does, asked again where the answer was lost or damaged."""
        for attempt in range(1, tries + 1):
            try:
                return ask()
            except (TransportTimeout, TransportCorrupt):
                if attempt == tries:
                    raise
        raise AssertionError("unreachable")

    def _ask(self, call: str, function: int, *args: Any, **kwargs: Any) -> Any:
        """Returns the answer to one request; every error of pymodbus and below becomes one of ours."""
        from pymodbus.exceptions import ConnectionException, ModbusException

        if self._client is None:
            raise TransportLost(self._name, f"{self._port} is not open")
        who = f"unit {self._unit} on {self._port}"
        try:
            answer = getattr(self._client, call)(*args, device_id=self._unit, **kwargs)
        except (ConnectionException, OSError) as error:
            if isinstance(error, ConnectionException) and self._client.connected:  # only the write took too long
                raise self._silent(f"{who}: no time to send in {1000 * self._timeout_s:g} ms", error) from None
            self.close()
            raise TransportLost(self._name, f"{self._port} is gone ({error}); plug it in and connect again") from None
        except ModbusException as error:
            if self._heard:
                raise self._corrupt(f"{who}: want an answer, got {self._heard.hex(' ')}") from None
            raise self._silent(f"{who}: no answer in {1000 * self._timeout_s:g} ms", error) from None
        if answer.isError() and answer.exception_code in _BUSY:
            raise self._silent(f"{who}: busy, or not behind its gateway", answer.exception_code)
        if answer.isError():
            raise ConfigMismatch(self._name, f"{who} refuses function {function}: exception {answer.exception_code}")
        if answer.function_code != function:
            raise self._corrupt(f"{who}: want an answer to function {function}, got a late one to {answer.function_code}")
        return answer

    def _registers(self, answer: Any, count: int) -> list[int]:
        if len(answer.registers) != count:
            raise self._corrupt(f"unit {self._unit}: want {count} registers, got {len(answer.registers)}")
        return list(answer.registers)

    def _silent(self, message: str, raw: object) -> TransportTimeout:
        self.counters["timeouts"] += 1
        return TransportTimeout(self._name, message, raw=raw)

    def _corrupt(self, message: str) -> TransportCorrupt:
        self.counters["corrupt"] += 1
        return TransportCorrupt(self._name, message, raw=self._heard)

    def _trace(self, sending: bool, data: bytes) -> bytes:
        self._heard = b"" if sending else data
        return data

    def _make(self) -> Any:
        """Returns pymodbus's client for the port."""
        try:
            from pymodbus.client import ModbusSerialClient, ModbusTcpClient
        except ImportError:
            raise MissingDependency("pymodbus", self._name, f"pip install 'robolearn[{self._extra}]'") from None
        logging.getLogger("pymodbus.logging").setLevel(logging.CRITICAL)  # every miss is one of our errors already
        silent: dict[str, Any] = {"timeout": self._timeout_s, "retries": 0, "trace_packet": self._trace}
        if self._port.startswith("tcp://"):
            host, number = host_and_port(self._port, self._name)
            client = ModbusTcpClient(host, port=number, **silent)
            client.set_max_no_responses(1 << 30)  # our own budget decides when it is enough
            return client
        try:
            return ModbusSerialClient(self._port, baudrate=self._baud, **silent)
        except RuntimeError:  # pymodbus takes pyserial for an extra
            raise MissingDependency("pyserial", self._name, f"pip install 'robolearn[{self._extra}]'") from None


def host_and_port(address: str, name: str) -> tuple[str, int]:
    """Returns the parts of tcp://host:port; ConfigError where they are not there."""
    host, _, number = address.removeprefix("tcp://").rpartition(":")
    if not host or not number.isdigit() or not 0 < int(number) < 1 << 16:
        raise ConfigError(f"{name} port: want a serial port or tcp://host:port, got '{address}'")
    return host, int(number)
