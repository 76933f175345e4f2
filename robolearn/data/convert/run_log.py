"""Run directories of `robolearn.runtime.runlog`: what a policy did on a robot becomes demonstrations, a person's part marked.

Rows are the ticks, equal in every bit, where these came at the spec's rate. Where periods were missed, or --hz asks for another
rate, they are brought onto a grid: numbers between two ticks linearly, turns along the great circle, pictures the nearest; an
action counts until the next one. `flags` marks interventions, faults and periods that no tick had. A run that was cut off by a
crash gives its whole rows, labelled partial.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert._copy import Foreign, Options, Piece, Rows, refuse_emulated, stamp, take_over
from robolearn.data.convert._run_rows import Grid, columns, decoded, grid_for, raw_streams
from robolearn.errors import DatasetError
from robolearn.runtime._segments import unpack
from robolearn.runtime.runs import Logged, Pictures, Run, episodes, open_run

_CARRIED = ("robot", "policy", "git", "devices", "calibration", "limits", "latency", "config_sha256", "emulated")
_Opened = tuple[Run, list[Logged], list[Grid], list[dict[str, Any]]]
_LABELS = ("success", "failure")  # what a person says of an episode


def sniff(path: Path) -> bool:
    """Returns True for a run directory."""
    try:
        about = json.loads((Path(path) / "run.json").read_text())
        return "emulated" in about and (Path(path) / "streams").is_dir()
    except (OSError, ValueError, TypeError):
        return False


def scan(src: Path, *, task: str = "", hz: float | None = None) -> Foreign:
    """Returns what a run holds, emulated or not. task, hz: instead of the run's own."""
    run, logged, grids, found = _opened(Path(src), hz)
    first, about, extra = logged[0], run.about, _extra(logged[0].spec, found)
    tasks = {str(each.meta.get("task") or about.get("task", "")) for each in logged}
    if len(tasks) > 1 and not task:
        raise DatasetError(f"{src}: episodes of several tasks ({', '.join(sorted(tasks))}); give --task")
    return Foreign(
        spec=replace(first.spec, hz=hz or first.spec.hz),
        task=task or tasks.pop(),
        ends=np.cumsum([len(grid.tick) for grid in grids], dtype=np.int64),
        rows=partial(_rows, Path(src), hz),
        extra=extra,
        env=about["env"] if isinstance(about.get("env"), dict) else {},
        meta={name: about[name] for name in _CARRIED if name in about},
        facts=_facts(run, logged),
        lost=tuple(_lost(run, logged, grids) + _unknown(first.spec, extra, found)),
    )


def read(
    src: Path, dst: Path, *, task: str = "", hz: float | None = None, overwrite: bool = False, options: Options = Options()
) -> tuple[str, ...]:
    """Writes the episodes of a run as a set; returns what it could not carry. BadInput for an emulated run, unless asked for.

    Facts of each episode: run (the directory's name), run_episode, seed, success, label, operator, reason, alarm_step.
    """
    foreign = scan(src, task=task, hz=hz)
    refuse_emulated(foreign, src, options)
    return take_over(foreign, dst, overwrite=overwrite, workers=options.workers)


def _opened(src: Path, hz: float | None) -> _Opened:
    """Returns a run, its episodes, their grids and columns; DatasetError where it has none, or they are not of one kind."""
    if not (src / "run.json").is_file():
        raise DatasetError(f"{src}: want a run directory with run.json, got none")
    return _cached(src, stamp(src / "run.json"), hz)


@lru_cache(maxsize=1)
def _cached(src: Path, mark: tuple[int, int, int], hz: float | None) -> _Opened:
    del mark  # Unused: another one is another run.
    run = open_run(src)
    logged = list(episodes(run, emulated=True))
    if not logged:
        raise DatasetError(f"{src}: want a run with an episode, got none with a whole row")
    for each in logged:
        if each.spec != logged[0].spec:
            raise DatasetError(f"{src}: want episodes of one spec, those of {logged[0].index} and {each.index} differ")
        missing = [key for key in each.spec.obs if f"obs/{key}" not in each.arrays]
        if missing:
            raise DatasetError(f"{src}: episode {each.index}: observation '{missing[0]}' of its spec was not logged")
    grids = [grid_for(each, hz or each.spec.hz, src) for each in logged]
    return run, logged, grids, [columns(each, run, grid) for each, grid in zip(logged, grids, strict=True)]


def _rows(src: Path, hz: float | None, piece: Piece) -> Rows:
    found, cut = _opened(src, hz)[-1][piece.episode], slice(piece.start, piece.stop)
    return {key: decoded(Pictures(v.segment, v.places[cut])) if isinstance(v, Pictures) else v[cut] for key, v in found.items()}


def _extra(spec: Spec, found: Sequence[Mapping[str, Any]]) -> dict[str, ArraySpec]:
    """Returns the keys besides observations and action that are known of every row."""
    made = {}
    for key, values in found[0].items():
        if key in spec.obs or key == "action":
            continue
        alike = all(key in other and other[key].shape[1:] == values.shape[1:] for other in found)
        same = key == "action_filtered"
        unit = "ns" if key.startswith("t_") else spec.action.unit if same else ""
        if alike and all(np.isfinite(other[key]).all() for other in found):
            made[key] = ArraySpec(values.shape[1:], str(values.dtype), spec.action.names if same else (), unit)
    return made


def _unknown(spec: Spec, extra: Mapping[str, ArraySpec], found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the keys that are known of some rows only: a monitor's scores up to its alarm, and the like."""
    keys = {key: [columns[key] for columns in found if key in columns] for columns in found for key in columns}
    left = {key: values for key, values in keys.items() if key not in {*spec.obs, "action", *extra}}
    return [f"key '{key}': not known of every tick" for key, values in left.items() if any(np.isfinite(v).any() for v in values)]


def _facts(run: Run, logged: Sequence[Logged]) -> dict[str, list[Any]]:
    said = _said(run)
    rows = []
    for each in logged:
        outcome: Mapping[str, Any] = each.outcome or {}
        label, by = said.get(each.index, ("", ""))
        if each.outcome is None:
            label, by = "partial", "run log"
        elif not label and outcome.get("success") is not None:
            label, by = _LABELS[not outcome["success"]], "env"
        rows.append({
            "run": run.path.resolve().name,
            "run_episode": each.index,
            "seed": each.meta.get("seed"),
            "success": outcome.get("success"),
            "label": label,
            "label_by": by,
            "operator": str(each.meta.get("operator") or run.about.get("operator", "")),
            "reason": outcome.get("reason", "cut off"),
            "alarm_step": outcome.get("alarm_step"),
        })  # fmt: skip
    known = {name: [row[name] for row in rows] for name in rows[0]}
    return {name: values for name, values in known.items() if any(value is not None for value in values)}


def _said(run: Run) -> dict[int, tuple[str, str]]:
    """Returns a person's last word on each episode, and who said it."""
    found = {}
    for body in run.streams["chunks"].values if "chunks" in run.streams else ():
        facts, _ = unpack(body)
        for event in (event for event in facts["events"] if event in _LABELS):
            found[facts["episode"]] = event, "operator"
    return found


def _lost(run: Run, logged: Sequence[Logged], grids: Sequence[Grid]) -> list[str]:
    """Returns what the set has no place for, and where rows are not the ticks as they were."""
    spec, asked = logged[0].spec, logged[0].arrays["asked"].dtype
    found = [*run.notes, *([f"actions as {asked}: the spec says {spec.action.dtype}"] if asked != spec.action.dtype else [])]
    for each, grid in zip(logged, grids, strict=True):
        if not grid.exact:
            ticks, rows, held = len(each.arrays["k"]), len(grid.tick), int(grid.held.sum())
            found.append(f"episode {each.index} tick by tick: {ticks} ticks became {rows} rows, {held} of them in missed periods")
    kept = {segment.name for segment in raw_streams(run).values()} | {*spec.obs}
    for name, segment in run.streams.items():
        if name not in kept and "spec" not in segment.attributes:
            found.append(f"stream '{name}': {len(segment.t_ns)} records")
    others = sum(event.get("event") not in ("begin", "end", "close") for event in run.events)
    return [*found, *([f"{others} events; those of faults are marked in `flags`"] if others else [])]
