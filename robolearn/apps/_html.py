"""Report pages: one file that opens offline, with charts as SVG and videos inside. Works in light and dark."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_STYLE = Path(__file__).with_name("_report.css")
W, H, LEFT, BOTTOM = 360, 190, 40, 30  # [px] of the charts


class Raw(str):
    """Text of a table cell that is HTML already."""


def page(title: str, subtitle: str, parts: Sequence[str]) -> str:
    """Returns a complete HTML document."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title><style>{_STYLE.read_text()}</style><main><h1>{html.escape(title)}</h1>"
        f'<p class="sub">{html.escape(subtitle)}</p>{"".join(parts)}</main></html>\n'
    )


def card(title: str, body: str, note: str = "") -> str:
    """Returns a titled box; `body` is HTML, the rest is text."""
    tail = f'<p class="note">{html.escape(note)}</p>' if note else ""
    return f'<section class="card"><h2>{html.escape(title)}</h2>{body}{tail}</section>'


def grid(cards: Sequence[str], least: int = 300) -> str:
    """Returns boxes side by side where there is room for each to be `least` px wide."""
    return f'<div class="grid" style="--least:{least}px">{"".join(cards)}</div>'


def figure(value: str, note: str) -> str:
    """Returns one large figure with a line below it."""
    return f'<div class="big">{html.escape(value)}</div><div class="note">{html.escape(note)}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], tall: bool = False) -> str:
    """Returns a table, scrolling unless `tall`; a cell that is True or False becomes yes or no in colour, Raw stays HTML."""

    def cell(value: Any) -> str:
        if isinstance(value, Raw):
            return f"<td>{value}</td>"
        if isinstance(value, (bool, np.bool_)):
            return f'<td class="{"good" if value else "bad"}">{"yes" if value else "no"}</td>'
        return f"<td>{f'{value:.3f}' if isinstance(value, float) else html.escape(str(value))}</td>"

    if not rows:
        return '<p class="note">none</p>'
    head = "".join(f"<th>{html.escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f'<div class="{"wide" if tall else "scroll"}"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, Any]) -> str:
    """Returns a two-column table of names and values."""
    rows = "".join(f"<tr><th>{html.escape(k)}</th><td><code>{html.escape(str(v))}</code></td></tr>" for k, v in values.items())
    return f"<table>{rows}</table>"


def video(path: Path, caption: str, solved: bool) -> str:
    """Returns a player with the video inside the page."""
    data = base64.b64encode(path.read_bytes()).decode()
    word = '<span class="good">solved</span>' if solved else '<span class="bad">not solved</span>'
    return (
        f'<figure class="card"><video controls autoplay muted loop playsinline src="data:video/mp4;base64,{data}"></video>'
        f"<figcaption>{word} · {html.escape(caption)}</figcaption></figure>"
    )


def intervals(rows: Sequence[tuple[str, float, float, float]]) -> str:
    """Returns a chart of (name, value, low, high) in [0, 1], one line each."""
    step, top = 46, 8
    height = top + step * len(rows) + BOTTOM
    marks = []
    for i, (name, value, low, high) in enumerate(rows):
        y = top + step * i + 30
        marks.append(
            f'<text x="{_x(0)}" y="{y - 14}">{html.escape(name)}: {value:.3f} [{low:.3f}, {high:.3f}]</text>'
            f'<line x1="{_x(low):.1f}" x2="{_x(high):.1f}" y1="{y}" y2="{y}" stroke="var(--{"ab"[i % 2]})" stroke-width="5" '
            f'stroke-linecap="round" opacity=".45"/><circle cx="{_x(value):.1f}" cy="{y}" r="6" fill="var(--{"ab"[i % 2]})"/>'
        )
    axis = _axis_x((0, 0.25, 0.5, 0.75, 1), (0, 1), height, lambda v: f"{100 * v:.0f} %")
    return f'<svg viewBox="0 0 {W} {height}" role="img">{axis}{"".join(marks)}</svg>'


def histogram(values: Sequence[float], bins: int = 20) -> str:
    """Returns how often values in [0, 1] occur."""
    counts, _ = np.histogram(np.clip(values, 0, 1), bins=bins, range=(0, 1))
    peak = max(1, counts.max())
    width = (W - LEFT - 10) / bins
    bars = "".join(
        f'<rect x="{LEFT + i * width + 1:.1f}" width="{width - 2:.1f}" y="{_y(n / peak):.1f}" '
        f'height="{H - BOTTOM - _y(n / peak):.1f}" fill="var(--a)" rx="2"/>'
        for i, n in enumerate(counts)
        if n
    )
    axis = _axis_x((0, 0.25, 0.5, 0.75, 1), (0, 1), H, lambda v: f"{v:g}") + f'<text x="4" y="{_y(1) + 4}">{peak}</text>'
    return f'<svg viewBox="0 0 {W} {H}" role="img">{axis}{bars}</svg>'


def distribution(values: np.ndarray, bins: int = 24) -> str:
    """Returns how often values of any range occur, with their median marked."""
    low, high = float(np.min(values)), float(np.max(values))
    counts, edges = np.histogram(values, bins=bins, range=(low, high if high > low else low + 1))
    peak, width = max(1, int(counts.max())), (_x(1) - _x(0)) / bins
    bars = "".join(
        f'<rect x="{_x(0) + i * width + 1:.1f}" width="{width - 2:.1f}" y="{_y(n / peak):.1f}" '
        f'height="{max(1.5, H - BOTTOM - _y(n / peak)):.1f}" fill="var(--a)" rx="2">'
        f"<title>{n} of {edges[i]:.4g} to {edges[i + 1]:.4g}</title></rect>"
        for i, n in enumerate(counts)
        if n
    )
    middle = float(np.median(values))
    at = _x((middle - edges[0]) / (edges[-1] - edges[0]))
    line = (
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="4" y2="{H - BOTTOM}" stroke="var(--b)" stroke-width="2" stroke-dasharray="4"/>'
        f'<text x="{min(at + 6, _x(1) - 90):.1f}" y="10">median {middle:.3g}</text>'
    )
    axis = _axis_x(np.linspace(edges[0], edges[-1], 4), (edges[0], edges[-1]), H, lambda v: f"{v:.3g}")
    return f'<svg viewBox="0 0 {W} {H}" role="img">{axis}{bars}{line}<text x="4" y="{_y(1) + 4:.0f}">{peak}</text></svg>'


def sparkline(values: Sequence[float], spans: Sequence[tuple[float, float, str]], width: int = 220, height: int = 44) -> str:
    """Returns a small curve; spans: (from, to, name) in shares of its length, drawn as bars below it."""
    peak = max([*values, 1e-9])
    step = width / max(1, len(values) - 1)
    path = " ".join(f"{i * step:.1f},{2 + (height - 4) * (1 - v / peak):.1f}" for i, v in enumerate(values))
    bars = "".join(
        f'<rect x="{min(a * width, width - 4):.1f}" width="{max(4.0, (b - a) * width):.1f}" y="{height + 3 + 6 * i}" height="4" '
        'fill="var(--b)" rx="1">'
        f"<title>{html.escape(name)}</title></rect>"
        for i, (a, b, name) in enumerate(spans[:6])
    )
    total = height + 4 + 6 * max(1, min(6, len(spans)))
    return (
        f'<svg class="spark" viewBox="0 0 {width} {total}" style="width:{width}px" role="img">'
        f'<line x1="0" x2="{width}" y1="{height}" y2="{height}" stroke="var(--line)"/>'
        f'<polyline points="{path}" fill="none" stroke="var(--a)" stroke-width="1.2"/>{bars}</svg>'
    )


def jpeg(data: bytes, words: str, size: tuple[int, int]) -> str:
    """Returns a picture inside the page; words: what it shows; size: (width, height) [px]."""
    code = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(words)}" width="{size[0]}" height="{size[1]}" src="data:image/jpeg;base64,{code}">'


def curves(lines: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Returns curves (x, y) by name on a logarithmic y axis; points with y <= 0 are left out."""
    shown = {name: [(x, y) for x, y in points if y > 0 and np.isfinite(y)] for name, points in lines.items()}
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        return '<p class="note">no metrics</p>'
    xs = [x for points in shown.values() for x, _ in points]
    ys = [np.log10(y) for points in shown.values() for _, y in points]
    x0, x1, y0, y1 = min(xs), max(max(xs), min(xs) + 1), min(ys), max(max(ys), min(ys) + 0.1)
    marks = []
    for i, (name, points) in enumerate(shown.items()):
        path = " ".join(f"{_x((x - x0) / (x1 - x0)):.1f},{_y((np.log10(y) - y0) / (y1 - y0)):.1f}" for x, y in points)
        colour = ("var(--a)", "var(--b)", "var(--good)")[i % 3]
        marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        marks.append(
            f'<text x="{W - 12}" y="{_y(1) + 12 + 16 * i}" text-anchor="end" style="fill:{colour}">{html.escape(name)}</text>'
        )
    ticks = [v for v in range(int(np.floor(y0)), int(np.ceil(y1)) + 1) if y0 <= v <= y1] or [y0, y1]
    labels = "".join(
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**v:.2g}</text>'
        f'<line x1="{LEFT}" x2="{W - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
        for v, y in ((v, _y((v - y0) / (y1 - y0))) for v in ticks)
    )
    axis = _axis_x(np.linspace(x0, x1, 5), (x0, x1), H, lambda v: f"{v:,.0f}")
    return f'<svg viewBox="0 0 {W} {H}" role="img">{axis}{labels}{"".join(marks)}</svg>'


def _x(share: float) -> float:
    return LEFT + share * (W - LEFT - 24)


def _y(share: float) -> float:
    return 14 + (1 - share) * (H - BOTTOM - 14)


def _axis_x(ticks: Any, span: tuple[float, float], height: int, label: Any) -> str:
    base = height - BOTTOM
    marks = "".join(
        f'<text x="{_x((v - span[0]) / (span[1] - span[0])):.1f}" y="{base + 18}" text-anchor="middle">{label(v)}</text>'
        for v in ticks
    )
    return f'<line x1="{LEFT}" x2="{W - 10}" y1="{base}" y2="{base}" stroke="var(--line)"/>{marks}'
