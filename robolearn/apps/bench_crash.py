"""Kills recorders at random moments (SIGKILL, all their processes) and counts what acknowledged episodes were lost."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from robolearn.apps._crash import VERIFY_OURS
from robolearn.apps._report import write_json
from robolearn.data._writer import PHASES
from robolearn.data.journal import Journal
from robolearn.data.pack import pack
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, Findings

_INSIDE = ("row", "save", "pack")  # phases in which the recorder's process writes
_AIMED = ("save", "pack", "save", "pack", None)  # where the kills aim; None: at a random moment


@dataclass(frozen=True)
class Config:
    """How often to kill."""

    kills: int = 100
    """Of our recorder."""
    peer_kills: int = 10
    """Of an open Parquet writer, and of an HDF5 file that is never flushed."""
    seed: int = 0
    """Of the moments."""
    json: Path | None = None
    """Where to write the figures."""


def run(cfg: Config) -> int:
    """Prints what was lost; exit code 1 where an acknowledged episode of ours was."""
    if cfg.kills < 1 or cfg.peer_kills < 0:
        raise BadInput(f"bench crash: want kills of 1 and more, got {cfg.kills} and {cfg.peer_kills}")
    rng, rows = random.Random(cfg.seed), []
    for number in tqdm(range(cfg.kills), desc="kill", disable=not sys.stderr.isatty()):
        with tempfile.TemporaryDirectory(prefix="robolearn-crash-") as folder:
            rows.append(kill_ours(Path(folder), _AIMED[number % len(_AIMED)], rng))
    peers = {name: kill_peer(name, cfg.peer_kills, rng) for name in ("parquet", "hdf5")}
    acknowledged = sum(row["acknowledged"] for row in rows)
    phases = Counter(row["phase"] for row in rows)
    figures: dict[str, Any] = {
        "kills": cfg.kills,
        "inside_writes_share": sum(phases[name] for name in _INSIDE) / cfg.kills,
        "phases": dict(phases),
        "acknowledged": acknowledged,
        "lost": sum(row["lost"] for row in rows),
        "unreadable": sum(row["unreadable"] for row in rows),
        "salvageable_steps": sum(row["salvageable_steps"] for row in rows),
        "lost_upper95": 1 - 0.05 ** (1 / acknowledged) if acknowledged else None,
        "peers": peers,
        "rows": rows,
    }
    print(f"{cfg.kills} kills, {figures['inside_writes_share']:.0%} inside a write or a pack ({dict(phases)})")
    print(f"ours: {acknowledged} acknowledged, {figures['lost']} lost, {figures['unreadable']} unreadable")
    for name, found in peers.items():
        print(f"{name}: {found if 'holds' in found else _sentence(found)}")
    write_json(cfg.json, figures, seed=cfg.seed)
    if figures["lost"] or figures["unreadable"]:
        raise Findings(f"bench crash: {figures['lost']} acknowledged episodes lost, {figures['unreadable']} unreadable")
    return 0


def kill_ours(folder: Path, aim: str | None, rng: random.Random) -> dict[str, Any]:
    """Records, kills when the recorder's process is in phase `aim`, and returns what is left."""
    trace = folder / "phase"
    trace.write_bytes(b"\0")
    with trace.open("r+b") as file:
        phase = mmap.mmap(file.fileno(), 1)
    process = _start("ours", folder, {"ROBOLEARN_RECORDER_TRACE": os.fspath(trace)})
    lines, deadline = _read_until(process, rng.randint(1, 4)), time.monotonic() + rng.uniform(0.0, 0.3)
    while time.monotonic() < deadline or (aim and phase[0] != PHASES.index(aim) and time.monotonic() < deadline + 5):
        time.sleep(0.0002)
    time.sleep(rng.uniform(0.0, 0.02) if aim else 0.0)
    os.killpg(process.pid, signal.SIGKILL)
    at = PHASES[phase[0]]
    lines += _rest(process)
    done = subprocess.run(
        [sys.executable, "-c", VERIFY_OURS, os.fspath(folder)],
        input=json.dumps(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"bad": [[-1, done.stderr[-300:]]], "packed": 0}
    journal = Journal(folder / "set.episodes")
    missing = [n for n, _ in lines if not journal.path(n).is_dir()]
    journal.recover()
    pack(journal, folder / "set.zarr")
    if (now := EpisodeSet.open(folder / "set.zarr").n_episodes) != len(journal.ids()):
        found["bad"].append([-1, f"packed again, the set has {now} of {len(journal.ids())} episodes"])
    return {
        "phase": at,
        "aimed": aim or "any",
        "acknowledged": len(lines),
        "packed": found["packed"],
        "lost": len(missing),
        "unreadable": len(found["bad"]) - len(missing),
        "why": found["bad"][:3],
        "salvageable_steps": sum(journal.crashed().values()),
    }


def kill_peer(name: str, kills: int, rng: random.Random) -> dict[str, Any]:
    """Returns how many acknowledged episodes another writer lost over `kills` kills."""
    if name == "parquet":
        try:
            import pyarrow  # noqa: F401
        except ModuleNotFoundError:
            return {"holds": None, "why": "pyarrow is not installed; pip install robolearn[lerobot]"}
    totals = Counter[str]()
    for _ in range(kills):
        with tempfile.TemporaryDirectory(prefix="robolearn-crash-") as folder:
            process = _start(name, Path(folder), {})
            lines = _read_until(process, 3)
            time.sleep(rng.uniform(0.0, 0.2))
            os.killpg(process.pid, signal.SIGKILL)
            lines += _rest(process)
            whole = _read_peer(name, Path(folder))
            totals["acknowledged"] += len(lines)
            totals["files_that_open"] += whole is not None
            totals["lost"] += sum((whole or {}).get(number) != want for number, want in lines)
    return {"kills": kills, **{key: totals[key] for key in ("acknowledged", "files_that_open", "lost")}}


def _read_peer(name: str, folder: Path) -> dict[int, str] | None:
    """Returns the hash of every episode that can be read, None where the file does not open."""
    try:
        if name == "hdf5":
            import h5py

            with h5py.File(folder / "data.hdf5") as file:
                actions = {int(key[5:]): group["actions"][:] for key, group in file["data"].items()}
        else:
            import pyarrow.parquet

            table = pyarrow.parquet.read_table(folder / "file-000.parquet")
            joints = np.asarray(table["joints"].to_pylist(), np.float32)
            episodes = np.asarray(table["episode_index"])
            actions = {int(n): joints[episodes == n] for n in np.unique(episodes)}
    except Exception:  # whatever a broken file makes its library raise
        return None
    return {number: hashlib.sha256(values.tobytes()).hexdigest() for number, values in actions.items()}


def _start(kind: str, folder: Path, extra: dict[str, str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "robolearn.apps._crash", kind, os.fspath(folder)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True, env={**os.environ, **extra}
    )


def _read_until(process: subprocess.Popen[bytes], count: int) -> list[tuple[int, str]]:
    """Returns the first acknowledgements, at least `count` of them."""
    assert process.stdout is not None
    lines: list[tuple[int, str]] = []
    while len(lines) < count:
        line = process.stdout.readline()
        if not line:
            raise Findings("bench crash: a recorder ended by itself before it was killed")
        lines.append(_parsed(line))
    return lines


def _rest(process: subprocess.Popen[bytes]) -> list[tuple[int, str]]:
    """Returns the whole acknowledgements that a killed recorder had still sent."""
    assert process.stdout is not None
    text = process.stdout.read()
    process.wait()
    return [_parsed(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]


def _parsed(line: bytes) -> tuple[int, str]:
    _, number, digest = line.decode().split()
    return int(number), digest


def _sentence(found: dict[str, Any]) -> str:
    return (
        f"{found['acknowledged']} acknowledged, {found['lost']} lost; the file opened after "
        f"{found['files_that_open']} of {found['kills']} kills"
    )
