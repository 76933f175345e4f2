"""The figures of `study teleop`: success with intervals, pairs, smoothness of what was recorded and of what policies ask."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.apps import _smoothness
from robolearn.data.store import EpisodeSet
from robolearn.intervals import mcnemar_exact, mean95, wilson95

FOLLOWERS = ("sew", "hand")
MEASURES = ("sparc", "log_jerk", "rms_jerk", "largest_step")

Joints = Callable[[EpisodeSet, int, int], np.ndarray]  # (set, first row, last row + 1) -> joint angles (n, 7) [rad]


def collect(
    sets: Mapping[str, Path], runs: Mapping[str, Mapping[int, Path]], columns: np.ndarray
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the figures and one row per episode.

    sets: recorded, by follower; runs: states of evaluations by training seed; columns (7,): the joints in `sim_state`.
    """
    rows: list[dict[str, Any]] = []
    figures: dict[str, Any] = {}

    def moved(dataset: EpisodeSet, low: int, high: int) -> np.ndarray:
        return dataset.read("sim_state", low, high)[:, columns]

    for follower in FOLLOWERS:
        recorded = _episodes(sets[follower], moved, "recorded", follower, "")
        policies: list[dict[str, Any]] = []
        asked: list[dict[str, Any]] = []
        for seed, path in runs[follower].items():
            policies += _episodes(path, moved, "policy", follower, str(seed))
            asked += _episodes(path, _asked, "policy asked", follower, str(seed))
        rows += recorded + policies + asked
        figures[follower] = {"recorded": _summary(recorded) | _yield(sets[follower]), "policy": _policy(policies)}
        figures[follower]["policy"]["asked"] = _summary([row for row in asked if row["success"]])
    figures["paired"] = paired(rows)
    return figures, rows


def _asked(dataset: EpisodeSet, low: int, high: int) -> np.ndarray:
    return dataset.read("action", low, high)[:, :7]


def _episodes(path: Path, joints: Joints, kind: str, follower: str, training: str) -> list[dict[str, Any]]:
    """Returns a row per episode of a set with the smoothness of its joint angles, as they moved or as they were asked for."""
    dataset = EpisodeSet.open(path)
    ends = dataset.episode_ends
    starts, seeds, good = [0, *ends[:-1]], dataset.episode_field("seed"), dataset.episode_field("success")
    assert seeds is not None and good is not None and dataset.spec is not None
    rows = []
    for low, high, seed, success in zip(starts, ends, seeds, good, strict=True):
        facts = {"kind": kind, "follower": follower, "training": training, "seed": int(seed), "success": bool(success)}
        smooth = _smoothness.of_joints(joints(dataset, int(low), int(high)), dataset.spec.hz)
        rows.append(facts | {"steps": int(high - low)} | smooth)
    return rows


def _yield(path: Path) -> dict[str, Any]:
    """Returns how many attempts of the person the recorded successes took, and why the others failed."""
    found = EpisodeSet.open(path).episode_field("failures_before")
    failures = [reason.split(" ", 1)[1] for text in (found if found is not None else []) for reason in json.loads(text)]
    return {"attempts": len(failures) + (len(found) if found is not None else 0), "failures": dict(Counter(failures))}


def _summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns number, length, and the mean of every measure with its 95 % interval (bootstrap over episodes)."""
    out: dict[str, Any] = {"n": len(rows), "steps_mean": float(np.mean([row["steps"] for row in rows])) if rows else None}
    for name in MEASURES:
        values = [row[name] for row in rows if np.isfinite(row[name])]
        out[name] = {"mean": float(np.mean(values)), "interval95": mean95(values)} if values else None
    return out


def _policy(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns success with its 95 % interval, over all trainings and for each, and smoothness of the solved episodes."""
    good = sum(row["success"] for row in rows)
    trainings = sorted({row["training"] for row in rows})
    each = {t: sum(row["success"] for row in rows if row["training"] == t) for t in trainings}
    low, high = wilson95(good, len(rows))
    solved = _summary([row for row in rows if row["success"]])
    return {"n": len(rows), "successes": good, "wilson95": [low, high], "by_training": each, "solved": solved}


def paired(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns who solved what the other did not, on the same evaluation seeds and training seeds (exact McNemar test)."""
    solved = {
        name: {(r["training"], r["seed"]): r["success"] for r in rows if r["kind"] == "policy" and r["follower"] == name}
        for name in FOLLOWERS
    }
    both = solved["sew"].keys() & solved["hand"].keys()
    only = {a: sum(solved[a][key] and not solved[b][key] for key in both) for a, b in (("sew", "hand"), ("hand", "sew"))}
    return {"pairs": len(both), "only_sew": only["sew"], "only_hand": only["hand"], "p": mcnemar_exact(*only.values())}


def text(figures: dict[str, Any]) -> str:
    """Returns what the terminal shows: a line per follower for its recordings and for its policies."""
    lines = []
    for follower in FOLLOWERS:
        recorded, policy = figures[follower]["recorded"], figures[follower]["policy"]
        lines.append(f"{follower:5s} recorded {recorded['n']} of {recorded['attempts']} attempts{_measures(recorded)}")
        low, high = policy["wilson95"]
        lines.append(
            f"      policy   {policy['successes']} of {policy['n']} (95 % {low:.3f} .. {high:.3f}){_measures(policy['solved'])}"
        )
    pair = figures["paired"]
    lines.append(f"pairs {pair['pairs']}: only sew {pair['only_sew']}, only hand {pair['only_hand']}, p {pair['p']:.3f}")
    return "\n".join(lines)


def _measures(summary: dict[str, Any]) -> str:
    parts = []
    for name in MEASURES[:3]:
        found = summary[name]
        if found is not None:
            low, high = found["interval95"]
            parts.append(f"{name} {found['mean']:.2f} ({low:.2f} .. {high:.2f})")
    return "; " + ", ".join(parts) if parts else ""
