"""Pictures of the memory study as SVG: success by arm for every task, and success over how long a fact must be remembered."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from robolearn.apps._dots import Row, dots, page

COLORS = {"window_clean": "#7a7a7a", "ptp": "#1f77b4", "sega_bptt": "#d62728"}
Rows = Sequence[Mapping[str, Any]]


def draw(table: Rows, swept: Rows, folder: Path) -> None:
    """Writes tasks.svg and sweep.svg to `folder`."""
    (folder / "tasks.svg").write_text(page(*_bars(table)))
    (folder / "sweep.svg").write_text(page(*_curves(swept)))


def _bars(table: Rows) -> tuple[str, float, float]:
    """Returns one panel a task: a dot with its interval for every arm, chance as a broken line."""
    panels: dict[str, list[Row]] = {}
    for row in table:
        title = f"{row['task']}, {row['memory_steps']} steps"
        panels.setdefault(title, []).append(Row(row["arm"], row["success"], tuple(row["interval95"]), row["chance"]))
    return dots(panels)


def _curves(rows: Rows) -> tuple[str, float, float]:
    """Returns success over memory_steps, which are equally far apart, one line an arm, intervals upright."""
    steps = sorted({row["memory_steps"] for row in rows})
    left, top, high = 60, 30, 220
    parts = [f'<text x="{left}" y="16" font-weight="bold">success over how many steps a fact must be remembered (shell)</text>']
    places = {m: left + 30 + k * 110 for k, m in enumerate(steps)}
    for mark in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = top + high * (1 - mark)
        parts.append(f'<line class="l" x1="{left}" x2="{left + 430}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{mark:g}</text>')
    parts += [f'<text x="{x}" y="{top + high + 18}" text-anchor="middle">{m}</text>' for m, x in places.items()]
    if rows and rows[0]["chance"] is not None:
        y = top + high * (1 - rows[0]["chance"])
        parts.append(f'<line class="c" x1="{left}" x2="{left + 430}" y1="{y:.1f}" y2="{y:.1f}"/>')
    for k, arm in enumerate(dict.fromkeys(row["arm"] for row in rows)):
        mine, color = sorted((r for r in rows if r["arm"] == arm), key=lambda r: r["memory_steps"]), COLORS.get(arm, "#333")
        dots = [(places[r["memory_steps"]] + 5 * (k - 1), top + high * (1 - r["success"]), r["interval95"]) for r in mine]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in dots)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="2"/>')
        for x, y, (low, upper) in dots:
            ends = f'y1="{top + high * (1 - low):.1f}" y2="{top + high * (1 - upper):.1f}"'
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}"/>')
            parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" {ends} stroke="{color}"/>')
        parts.append(f'<rect x="{left + 440}" y="{top + 20 * k}" width="12" height="12" fill="{color}"/>')
        parts.append(f'<text x="{left + 458}" y="{top + 20 * k + 11}">{html.escape(arm)}</text>')
    return "".join(parts), left + 560, top + high + 40
