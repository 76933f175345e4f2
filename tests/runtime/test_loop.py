"""The set-up of a real-time thread is tried and reported, and none of it is required."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from robolearn.runtime.loop import prefer_realtime


def test_a_real_time_set_up_reports_each_step_and_requires_none(tmp_path: Path) -> None:
    code = (  # of a process of its own, because it changes the process
        "import gc, json, sys\nfrom pathlib import Path\nfrom robolearn.runtime.loop import prefer_realtime\n"
        "told = prefer_realtime(priority=1000, cores=(99999,), root=Path(sys.argv[1]))\n"
        "print(json.dumps([told, gc.isenabled(), gc.get_freeze_count()]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    told, collecting, frozen = json.loads(done.stdout)
    assert set(told) == {"mlockall", "gc", "cv2", "affinity", "sched_fifo", "blas_threads", "governor"}
    assert told["gc"] == "ok" and not collecting and frozen > 0
    for name in ("affinity", "sched_fifo", "governor"):
        assert told[name] and told[name] != "ok", f"{name} cannot have taken"
    assert told["cv2"] == "not loaded"
    assert callable(prefer_realtime)
