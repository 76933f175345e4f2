"""Counters, gauges and histograms of a server, as the text that Prometheus reads (exposition format 0.0.4)."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from types import MappingProxyType

BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
HELP: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "robolearn_connections": ("gauge", "Open websocket connections."),
        "robolearn_leases": ("gauge", "Robots that a session controls now."),
        "robolearn_departed_total": ("counter", "Connections that their peer ended, or that were cut off."),
        "robolearn_received_total": ("counter", "Messages received, by kind."),
        "robolearn_received_bytes_total": ("counter", "Bytes of messages received."),
        "robolearn_sent_bytes_total": ("counter", "Bytes of messages sent."),
        "robolearn_refused_total": ("counter", "Messages and connections refused, by code."),
        "robolearn_watch_dropped_total": ("counter", "Chunks not shown to an observer that was too slow."),
        "robolearn_wait_seconds": ("histogram", "From a request's arrival to the beginning of its work."),
        "robolearn_plan_seconds": ("histogram", "The work of one plan request, its observations included."),
    }
)
"""Every metric there is: type and meaning."""


class Metrics:
    """Numbers to watch a server by, changed from any thread. Labels come from our own code, never from a peer."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str], float] = {}  # (name, label) -> value
        self._counts: dict[str, list[int]] = {}  # histogram -> how many in each bucket, the last for all beyond
        self._sums: dict[str, float] = {}
        for name, (kind, _) in HELP.items():
            if kind == "histogram":
                self._counts[name], self._sums[name] = [0] * (len(BUCKETS_S) + 1), 0.0

    def add(self, name: str, by: float = 1.0, label: str = "") -> None:
        """Adds to a counter or a gauge; `label` is like 'kind="plan"'."""
        with self._lock:
            self._values[name, label] = self._values.get((name, label), 0.0) + by

    def took(self, name: str, seconds: float) -> None:
        """Adds one duration to a histogram."""
        with self._lock:
            self._counts[name][sum(seconds > bound for bound in BUCKETS_S)] += 1
            self._sums[name] += seconds

    def value(self, name: str, label: str = "") -> float:
        """Returns a counter or gauge as it is now."""
        with self._lock:
            return self._values.get((name, label), 0.0)

    def text(self) -> str:
        """Returns everything, one metric a block."""
        lines: list[str] = []
        with self._lock:
            for name, (kind, meaning) in HELP.items():
                lines += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
                if kind == "histogram":
                    lines += self._histogram(name)
                    continue
                found = {label: value for (known, label), value in sorted(self._values.items()) if known == name} or {"": 0.0}
                lines += [
                    f"{name}{{{label}}} {value:.17g}" if label else f"{name} {value:.17g}" for label, value in found.items()
                ]
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> list[str]:
        counts, total, lines = self._counts[name], 0, []
        for bound, count in zip((*BUCKETS_S, None), counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{"+Inf" if bound is None else bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sums[name]:.9g}", f"{name}_count {total}"]
