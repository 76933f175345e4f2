"""How much memory may still be taken here, and sizes as people read them."""

from __future__ import annotations

import os
from pathlib import Path

_SPARE = 0.9  # share of what is free that one array may take


def free_memory() -> int:
    """Returns the bytes that can be taken without swapping, within the limit of this container (0: not known)."""
    free = _available()
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        top, taken = _number(Path("/sys/fs/cgroup") / limit), _number(Path("/sys/fs/cgroup") / used)
        if top is not None and taken is not None:
            free = min(free, max(0, top - taken)) if free else max(0, top - taken)
    return free


def fits(need: int, free: int) -> bool:
    """Returns whether `need` bytes can be taken of `free`, with some left for everything else; True where `free` is unknown."""
    return not free or need <= free * _SPARE


def as_size(count: float) -> str:
    """Returns a number of bytes in MiB, or in GiB from 10 GiB on."""
    return f"{count / 2**30:.1f} GiB" if count >= 10 * 2**30 else f"{count / 2**20:.0f} MiB"


def _available() -> int:
    meminfo = Path("/proc/meminfo")  # of Linux
    for line in meminfo.read_text().splitlines() if meminfo.is_file() else ():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (ValueError, OSError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
