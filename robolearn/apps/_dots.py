"""Success with its interval, a line an arm and a panel a task, as SVG."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDE, LINE, LETTER, TOP, GAP = 360, 18, 7, 46, 20  # [px]


@dataclass(frozen=True)
class Row:
    """An arm: its name, success and interval in [0, 1]; chance: what luck alone has, of the panel's first row, None: unknown."""

    name: str
    success: float
    interval: tuple[float, float]
    chance: float | None = None


def page(body: str, width: float, height: float) -> str:
    """Returns an SVG file of what is to be drawn and its size [px]."""
    style = "<style>text{font:12px sans-serif;fill:#222}.l{stroke:#ccc}.c{stroke:#d08a00;stroke-dasharray:4 3}</style>"
    box = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{style}<rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'


def dots(panels: Mapping[str, Sequence[Row]]) -> tuple[str, float, float]:
    """Returns what is to be drawn of the panels, by title and two in a row, and its size [px]."""
    names = max((len(row.name) for rows in panels.values() for row in rows), default=0) * LETTER + GAP
    tall = TOP + max((len(rows) for rows in panels.values()), default=0) * LINE + GAP
    parts, span = [], names + WIDE + 2 * GAP
    for k, (title, rows) in enumerate(panels.items()):
        left, top = (k % 2) * span + names, (k // 2) * tall + TOP
        parts.append(f'<text x="{left}" y="{top - 22}" font-weight="bold">{html.escape(title)}</text>')
        for mark in (0.0, 0.5, 1.0):
            x = left + mark * WIDE
            parts.append(f'<line class="l" x1="{x}" x2="{x}" y1="{top - 8}" y2="{top + len(rows) * LINE}"/>')
            parts.append(f'<text x="{x}" y="{top - 10}" text-anchor="middle">{mark:g}</text>')
        if rows[0].chance is not None:
            x = left + rows[0].chance * WIDE
            parts.append(f'<line class="c" x1="{x:.1f}" x2="{x:.1f}" y1="{top - 8}" y2="{top + len(rows) * LINE}"/>')
        for i, row in enumerate(rows):
            y, (low, high) = top + i * LINE + 8, row.interval
            parts.append(f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{html.escape(row.name)}</text>')
            ends = f'x1="{left + low * WIDE:.1f}" x2="{left + high * WIDE:.1f}" y1="{y}" y2="{y}"'
            parts.append(f'<line {ends} stroke="#1f77b4" stroke-width="3"/>')
            parts.append(f'<circle cx="{left + row.success * WIDE:.1f}" cy="{y}" r="4" fill="#1f77b4"/>')
    return "".join(parts), min(len(panels), 2) * span, -(-len(panels) // 2) * tall
