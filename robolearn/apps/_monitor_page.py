"""The report of a failure monitor: promises beside what was measured, score traces with their threshold, films with both."""

from __future__ import annotations

import html
from collections.abc import Iterator

import cv2
import numpy as np

from robolearn.monitors import _conformal

W, H, LEFT, BOTTOM, TOP = 360, 170, 44, 30, 10  # [px] of a chart
STRIP = 48  # [px] under a film
ALPHAS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
CALM, ALARM, LIMIT = (90, 160, 90), (210, 60, 50), (120, 120, 120)  # RGB


def trace_chart(seconds: np.ndarray, trace: np.ndarray, threshold: float, alarm: int) -> str:
    """Returns one episode's combined score over time [s] as SVG: the threshold broken, the alarm (a plan, -1 none) as a dot."""
    shown = trace[np.isfinite(trace)]
    top = max([*shown, *([threshold] if np.isfinite(threshold) else [])], default=1.0)
    low = min([*shown, 0.0], default=0.0)
    span = max(top - low, 1e-9)
    last = max(float(seconds[-1]), 1e-9)

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / last * (W - LEFT - 8), TOP + (1 - (y - low) / span) * (H - TOP - BOTTOM)

    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(s, v) for s, v in zip(seconds, trace, strict=True)))
    parts = [f'<polyline points="{points}" fill="none" stroke="var(--ink)" stroke-width="1.6"/>']
    if np.isfinite(threshold):
        y = place(0, threshold)[1]
        parts.append(f'<line x1="{LEFT}" x2="{W - 8}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d08a00" stroke-dasharray="4 3"/>')
    if alarm >= 0:
        x, y = place(float(seconds[alarm]), float(trace[alarm]))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="rgb{ALARM}"/>')
    parts += [f'<text x="{LEFT - 6}" y="{place(0, v)[1] + 4:.1f}" text-anchor="end">{v:.1f}</text>' for v in (low, top)]
    parts.append(f'<text x="{LEFT}" y="{H - 10}">0</text><text x="{W - 8}" y="{H - 10}" text-anchor="end">{last:.1f} s</text>')
    words = "score over time, " + (f"alarm at {seconds[alarm]:.1f} s" if alarm >= 0 else "no alarm")
    return f'<svg viewBox="0 0 {W} {H}" role="img" aria-label="{html.escape(words)}">{"".join(parts)}</svg>'


def reliability_chart(peaks: np.ndarray, test_peaks: np.ndarray) -> str:
    """Returns measured against promised false-alarm rate over several alphas as SVG, each with where chance may put it.

    peaks: (n,) of the calibration; test_peaks: (m,) of good test episodes.
    """
    side = W - LEFT - 8
    high = H + 110 - TOP - BOTTOM
    limit = ALPHAS[-1] * 1.2

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + x / limit * side, TOP + (1 - min(y, limit) / limit) * high

    (x0, y0), (x1, y1) = place(0, 0), place(limit, limit)
    parts = [f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" stroke="#999" stroke-dasharray="3 3"/>']
    for alpha in ALPHAS:
        measured = float(np.mean(test_peaks > _conformal.conformal_threshold(peaks, alpha)))
        low, top = _conformal.alarms_interval(len(peaks), len(test_peaks), alpha)
        x = place(_conformal.promised(len(peaks), alpha), 0)[0]
        ends = f'y1="{place(0, low)[1]:.1f}" y2="{place(0, top)[1]:.1f}"'
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" {ends} stroke="#1f77b4" stroke-width="5" stroke-opacity="0.35"/>')
        inside = low - 1e-12 <= measured <= top + 1e-12
        colour = "#1f77b4" if inside else f"rgb{ALARM}"
        parts.append(f'<circle cx="{x:.1f}" cy="{place(0, measured)[1]:.1f}" r="4" fill="{colour}"/>')
    for mark in (0.0, 0.2, 0.4, 0.6):
        x, y = place(mark, mark)
        parts.append(f'<text x="{x:.1f}" y="{H + 110 - BOTTOM + 16}" text-anchor="middle">{mark:g}</text>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{mark:g}</text>')
    parts.append(f'<text x="{LEFT + side / 2:.0f}" y="{H + 108}" text-anchor="middle">promised false-alarm rate</text>')
    return f'<svg viewBox="0 0 {W} {H + 112}" role="img" aria-label="measured over promised rate">{"".join(parts)}</svg>'


def with_strip(
    pictures: Iterator[np.ndarray], ticks: np.ndarray, trace: np.ndarray, threshold: float, alarm: int
) -> Iterator[np.ndarray]:
    """Yields the pictures (height, width, 3) of an episode, one a tick, each with the score so far in a strip below it.

    ticks, trace: (T,) of the plans; the frame turns red at the alarm (a plan, -1 none).
    """
    last, high = max(int(ticks[-1]), 1), max(float(np.max(trace)), threshold if np.isfinite(threshold) else 0.0)
    low = min(0.0, float(np.min(trace)))
    span = max(high - low, 1e-9)
    for k, picture in enumerate(pictures):
        wide = picture.shape[1]
        strip = np.full((STRIP, wide, 3), 250, np.uint8)

        def place(x: float, y: float, wide: int = wide) -> tuple[int, int]:
            return round(x / last * (wide - 5)) + 2, round((1 - (y - low) / span) * (STRIP - 9)) + 4

        if np.isfinite(threshold):
            cv2.line(strip, place(0, threshold), place(last, threshold), LIMIT, 1)
        n = int(np.searchsorted(ticks, k, side="right"))
        alarmed = 0 <= alarm < n
        points = np.array([place(float(ticks[i]), float(trace[i])) for i in range(n)], np.int32)
        cv2.polylines(strip, [points.reshape(-1, 1, 2)], False, ALARM if alarmed else CALM, 2, cv2.LINE_AA)
        frame = np.ascontiguousarray(picture)
        if alarmed:
            cv2.rectangle(frame, (0, 0), (wide - 1, frame.shape[0] - 1), ALARM, 4)
        yield np.concatenate([frame, strip])
