"""Pictures of the memory study as SVG: success by arm for every task, and success over how long a fact must be remembered."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WIDE, LINE, NAME, TOP = 360, 18, 130, 46  # [px]
COLORS = {"window_clean": "#7a7a7a", "ptp": "#1f77b4", "sega_bptt": "#d62728"}
Rows = Sequence[Mapping[str, Any]]


def draw(table: Rows, swept: Rows, folder: Path) -> None:
    """Writes tasks.svg and sweep.svg to `folder`."""
    (folder / "tasks.svg").write_text(_page(*_bars(table)))
    (folder / "sweep.svg").write_text(_page(*_curves(swept)))


def _page(body: str, width: float, height: float) -> str:
    style = "<style>text{font:12px sans-serif;fill:#222}.l{stroke:#ccc}.c{stroke:#d08a00;stroke-dasharray:4 3}</style>"
    box = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{style}<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'


def _bars(table: Rows) -> tuple[str, float, float]:
    """Returns one panel a task: a dot with its interval for every arm, chance as a broken line."""
    panels: dict[str, list[Mapping[str, Any]]] = {}
    for row in table:
        panels.setdefault(f"{row['task']}, {row['memory_steps']} steps", []).append(row)
    parts, tallest = [], 0
    span = NAME + WIDE + 40
    for k, (title, rows) in enumerate(panels.items()):
        left, top = (k % 2) * span + NAME, (k // 2) * (TOP + 12 * LINE + 20) + TOP
        tallest = max(tallest, top + 12 * LINE)
        parts.append(f'<text x="{left}" y="{top - 22}" font-weight="bold">{html.escape(title)}</text>')
        for mark in (0.0, 0.5, 1.0):
            x = left + mark * WIDE
            parts.append(f'<line class="l" x1="{x}" x2="{x}" y1="{top - 8}" y2="{top + len(rows) * LINE}"/>')
            parts.append(f'<text x="{x}" y="{top - 10}" text-anchor="middle">{mark:g}</text>')
        if rows[0]["chance"] is not None:
            x = left + rows[0]["chance"] * WIDE
            parts.append(f'<line class="c" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{top + len(rows) * LINE}"/>')
        for i, row in enumerate(rows):
            y, (low, high) = top + i * LINE + 8, row["interval95"]
            parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{html.escape(row["arm"])}</text>')
            ends = f'x1="{left + low * WIDE:.1f}" x2="{left + high * WIDE:.1f}" y1="{y}" y2="{y}"'
            parts.append(f'<line {ends} stroke="#1f77b4" stroke-width="3"/>')
            parts.append(f'<circle cx="{left + row["success"] * WIDE:.1f}" cy="{y}" r="4" fill="#1f77b4"/>')
    return "".join(parts), 2 * span, tallest + 20


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
