"""`bench crash`, repeated small: no acknowledged episode is lost whatever the moment."""

from __future__ import annotations

import json
from pathlib import Path

from robolearn.cli import main


def test_no_acknowledged_episode_is_lost_to_kill_9(tmp_path: Path) -> None:
    out = tmp_path / "crash.json"
    assert main(["bench", "crash", "--kills", "2", "--peer-kills", "1", "--seed", "7", "--json", str(out)]) == 0
    found = json.loads(out.read_text())
    assert (found["kills"], found["lost"], found["unreadable"]) == (2, 0, 0)
    assert found["acknowledged"] >= 2 and found["inside_writes_share"] >= 0.5
    assert found["peers"]["hdf5"]["lost"] == found["peers"]["hdf5"]["acknowledged"] > 0
