"""A run directory that `robolearn.runtime.runlog` wrote, read back: whole, or as much of it as a crash has left.

    for episode in episodes(open_run(Path("runs/cups_12"))): ...

An episode ends where the first picture is missing: a crash between two files leaves rows that point at none.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import config
from robolearn.core import SOURCES, Flag, Spec
from robolearn.errors import BadInput, DatasetError
from robolearn.runtime import _segments as seg
from robolearn.runtime.state import Mode


@dataclass(frozen=True)
class Run:
    """A run read back. about: run.json; events: lines; streams: raw streams, ticks and chunks; notes: what a crash has cost."""

    path: Path
    about: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]
    streams: Mapping[str, seg.Segment]
    notes: tuple[str, ...]


def open_run(path: Path) -> Run:
    """Returns a run, whole or cut off by a crash; what is missing is said on standard error and in `notes`.

    DatasetError where there is no run.json of this format. A black box is read by `_segments.read_streams`.
    """
    try:
        about = json.loads((path / "run.json").read_text())
        known = about["format"] == seg.FORMAT
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: want a run directory with run.json, got {type(error).__name__}") from error
    if not known:
        raise DatasetError(f"{path}: run format {about['format']}, this robolearn reads {seg.FORMAT}")
    streams, notes = seg.read_streams(path / "streams")
    events, note = seg.read_lines(path / "events.jsonl")
    notes += [note] if note else []
    for each in notes:
        config.warn(f"robolearn: {path}: {each}")
    return Run(path, about, tuple(events), streams, tuple(notes))


@dataclass(frozen=True)
class Pictures:
    """Pictures (n, height, width, 3) uint8 RGB of an episode, decoded one by one."""

    segment: seg.Segment
    places: Sequence[int]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, row: int) -> np.ndarray:
        import cv2

        raw = np.frombuffer(self.segment.values[self.places[row]], np.uint8)
        return np.asarray(cv2.imdecode(raw, cv2.IMREAD_COLOR_RGB))


@dataclass(frozen=True)
class Logged:
    """An episode read back. outcome: None where a crash cut it off.

    arrays: (n, ...) by name: obs/KEY (pictures: `Pictures`), asked, filtered, sent, t_ns (capture of the observation, monotonic),
    t/CLOCK, flags, source, success, task_score, chunk, intervention and fault (n,) bool, ...
    """

    index: int
    spec: Spec
    meta: Mapping[str, Any]
    outcome: Mapping[str, Any] | None
    arrays: Mapping[str, Any]

    def spans(self, mark: str) -> list[tuple[int, int]]:
        """Returns the runs of rows [first, last) that carry a mark, such as intervention or fault."""
        edges = np.flatnonzero(np.diff(np.concatenate([[0], self.arrays[mark].astype(np.int8), [0]])))
        return [(int(first), int(last)) for first, last in edges.reshape(-1, 2)]


def episodes(run: Run, emulated: bool = False) -> Iterator[Logged]:
    """Yields the episodes of a run, those that a crash cut off too, up to their last whole row.

    BadInput for a run in which no metal moved, unless `emulated` says that it is wanted.
    """
    if run.about["emulated"] and not emulated:
        raise BadInput(f"{run.path}: an emulated run, want one of a robot; pass emulated=True to take it all the same")
    for segment in run.streams.values():
        if "spec" in segment.attributes:
            episode = _episode(run, segment.attributes, np.asarray(segment.values))
            if len(episode.arrays["t_ns"]):
                yield episode


def _episode(run: Run, about: Mapping[str, Any], table: np.ndarray) -> Logged:
    arrays: dict[str, Any] = {column: table[column] for column in table.dtype.names or ()}
    spec, rows = Spec.from_json(about["spec"]), len(table)
    for key in (key for key, kind in spec.obs.items() if kind.is_image):
        place = {int(stamp): i for i, stamp in enumerate(run.streams[key].t_ns)} if key in run.streams else {}
        places = [place.get(int(stamp), -1) for stamp in arrays[f"t/dev/{key}"]]
        rows = min(rows, (places + [-1]).index(-1))  # a crash between two files: the row is there and its picture is not
        if rows:
            arrays[f"obs/{key}"] = Pictures(run.streams[key], places)
    acts = arrays["source"] == SOURCES.index("policy")
    taken_over = (arrays["source"] == SOURCES.index("operator")) & acts.any()
    arrays["intervention"] = taken_over | ((arrays["flags"] & Flag.INTERVENTION) > 0)
    arrays["t_ns"] = arrays["t/monotonic"]
    arrays["fault"] = _faulty(run.events, arrays["t_ns"])
    cut = {key: Pictures(v.segment, v.places[:rows]) if isinstance(v, Pictures) else v[:rows] for key, v in arrays.items()}
    ends = [each["outcome"] for each in run.events if each["event"] == "end" and each["episode"] == about["episode"]]
    if rows < len(table):  # its end was not seen: what it came to is not known of what is left
        left = f"{len(table) - rows} of {len(table)} rows are left out, since a picture is missing"
        config.warn(f"robolearn: {run.path}: episode {about['episode']}: {left}")
        ends = []
    return Logged(about["episode"], spec, about["meta"], ends[0] if ends else None, cut)


def _faulty(events: Sequence[Mapping[str, Any]], t_ns: np.ndarray) -> np.ndarray:
    """Returns which instants lie between the entry into a fault or an emergency stop and the way out of it."""
    marked, since = np.zeros(len(t_ns), bool), None
    for event in (event for event in events if event["event"] == "mode"):
        if event["target"] in (Mode.FAULT, Mode.ESTOP):
            since = event["at_ns"] if since is None else since
        elif since is not None:
            marked |= (t_ns >= since) & (t_ns < event["at_ns"])
            since = None
    return marked if since is None else marked | (t_ns >= since)
