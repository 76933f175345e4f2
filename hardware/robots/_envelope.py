"""A controller's clock on ours, from the packets it stamped."""

from __future__ import annotations

from collections import deque


class Envelope:
    """The offset between two clocks as the fastest packet of the last seconds shows it: no packet comes before it was sent."""

    def __init__(self, window_ns: int = 4_000_000_000, parts: int = 8) -> None:
        """window_ns: how long a packet counts; the clocks drift apart, so not for ever; parts: in which it is forgotten."""
        self._part_ns, self._least = window_ns // parts, deque[tuple[int, int]](maxlen=parts)

    def local_ns(self, theirs_ns: int, now_ns: int) -> int:
        """Returns a time of their clock on ours [ns], at most now; theirs_ns: of the packet that has just come."""
        offset, part = now_ns - theirs_ns, now_ns // self._part_ns
        while self._least and self._least[0][0] <= part - (self._least.maxlen or 1):
            self._least.popleft()
        if self._least and self._least[-1][0] == part:
            offset = min(offset, self._least.pop()[1])
        self._least.append((part, offset))
        return theirs_ns + min(least for _, least in self._least)
