"""The set-up of a real-time thread: tried and reported, never required.

A thread under SCHED_FIFO must sleep and never spin: the kernel's throttle would park it for 50 ms of every second.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

_MCL_CURRENT, _MCL_FUTURE = 1, 2
_GOVERNOR = Path("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


def prefer_realtime(priority: int = 50, cores: Sequence[int] = (), root: Path = Path("/")) -> dict[str, str]:
    """Returns what of a real-time set-up took, "ok" or why not, by name; each step is tried for this process, none is required.

    Memory is locked, the garbage of start-up is frozen and the collector switched off (call gc.collect when idle), OpenCV keeps
    to one thread, and the thread runs under SCHED_FIFO on the given cores. root: where sys/ of the machine is.
    """

    def lock_memory() -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        failed = libc.mlockall(_MCL_CURRENT | _MCL_FUTURE)
        return os.strerror(ctypes.get_errno()) if failed else "ok"

    def one_thread() -> str:
        if "cv2" not in sys.modules:
            return "not loaded"
        sys.modules["cv2"].setNumThreads(1)
        return "ok"

    def freeze() -> str:
        gc.collect()
        gc.freeze()
        gc.disable()
        return "ok"

    def pin() -> str:
        if not cores:
            return "no cores given"
        os.sched_setaffinity(0, cores)
        return "ok"

    def fifo() -> str:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
        return "ok"

    steps = {
        "mlockall": lock_memory,
        "gc": freeze,
        "cv2": one_thread,
        "affinity": pin,
        "sched_fifo": fifo,
        "blas_threads": lambda: os.environ.get("OMP_NUM_THREADS", "not set; set OMP_NUM_THREADS=1 before the start"),
        "governor": lambda: (root / _GOVERNOR).read_text().strip(),
    }
    return {name: _tried(step) for name, step in steps.items()}


def _tried(step: Callable[[], str]) -> str:
    try:
        return step()
    except (OSError, ValueError, AttributeError, OverflowError) as error:
        return str(error)
