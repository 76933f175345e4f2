"""Cards of a report about memory: predictability of the actions, gates, attention over history, what can be read from states.

Everything comes in as plain arrays (`MemoryTrace`), so that the page depends on no network.
"""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from robolearn.apps import _html
from robolearn.errors import ArrayMismatch
from robolearn.training.probe import AtTick, Probe, probe

if TYPE_CHECKING:  # imports torch, which a page does not need
    from robolearn.training.predictability import Comparison

W, H, LEFT, RIGHT, TOP, BOTTOM = 480, 250, 62, 14, 12, 62  # [px] of a chart; BOTTOM holds ticks, their name and the colour bar
_CLEAR = 1.5  # a ratio beyond this factor is put into words; a guide for reading, no test
PREDICTABILITY, HOLDS = "Action predictability", "What the memory holds"
_SHOWN_QUANTILES = (0.01, 0.99)  # of the values, between which the colours run
Span = tuple[float, float]


@dataclass(frozen=True)
class MemoryTrace:
    """One episode as its memory saw it; None: not measured, NaN in an array: not there yet.

    ticks: (updates,) of each update; gates: (updates, slots), 1 overwrites; attention: (updates, n_history) from the update,
    or the action token, to history positions, the last column being now; states: (updates, d); fact: what the episode hides;
    facts: the same at each update (updates,), and `fact` is None where it changed.
    """

    ticks: np.ndarray
    gates: np.ndarray | None = None
    attention: np.ndarray | None = None
    states: np.ndarray | None = None
    fact: int | None = None
    seed: int | None = None
    facts: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, array in (("gates", self.gates), ("attention", self.attention), ("states", self.states)):
            if array is not None and (array.ndim != 2 or len(array) != len(self.ticks)):
                raise ArrayMismatch(f"trace of seed {self.seed}: want {name} ({len(self.ticks)}, n), got {array.shape}")
        if self.facts is not None and self.facts.shape != self.ticks.shape:
            raise ArrayMismatch(f"trace of seed {self.seed}: want facts {self.ticks.shape}, got {self.facts.shape}")

    @property
    def hidden(self) -> np.ndarray | None:
        """What the episode hides at each update (updates,); None: not known."""
        return np.full(len(self.ticks), self.fact) if self.facts is None and self.fact is not None else self.facts

    @property
    def label(self) -> str:
        """Names the episode by seed and fact."""
        parts = [f"seed {self.seed}"] if self.seed is not None else []
        return " · ".join(parts + ([f"fact {self.fact}"] if self.fact is not None else []))


def read_out(traces: Sequence[MemoryTrace], seed: int, folds: int = 5) -> Probe | None:
    """Returns the probe of all traces that have states and a fact, by episode; None for fewer than two facts or episodes."""
    known = [trace for trace in traces if trace.states is not None and trace.hidden is not None and len(trace.ticks)]
    facts = np.concatenate([np.zeros(0, int), *(trace.hidden for trace in known if trace.hidden is not None)])
    if len(known) < 2 or len(np.unique(facts)) < 2:
        return None
    return probe(
        np.concatenate([trace.states for trace in known if trace.states is not None]),
        facts,
        groups=np.repeat(np.arange(len(known)), [len(trace.ticks) for trace in known]),
        ticks=np.concatenate([trace.ticks for trace in known]),
        seed=seed,
        folds=folds,
    )


def cards(
    traces: Sequence[MemoryTrace], comparison: Comparison | None = None, found: Probe | None = None, shown: int = 2
) -> list[str]:
    """Returns the cards of everything given, for `_html.grid(..., least=400)`; of the traces, one a fact and `shown` at most."""
    parts = [] if comparison is None else [predictability_card(comparison)]
    parts += [] if found is None else [probe_card(found)]
    chosen = _one_a_fact(traces, shown)
    gates, attention = _gate_span(chosen), _span([trace.attention for trace in chosen if trace.attention is not None])
    parts += [gates_card(trace, gates) for trace in chosen if trace.gates is not None]
    return parts + [attention_card(trace, attention) for trace in chosen if trace.attention is not None]


def predictability_card(comparison: Comparison) -> str:
    """Returns the ratio of the errors of a_{t-1} -> a_t, large, on its scale, and the errors themselves."""
    value = comparison.ratio
    if value > _CLEAR:
        words = "the policy is more predictable than the expert: it seems to copy its own past"
    elif value < 1 / _CLEAR:
        words = "the policy is less predictable than the expert: it seems to make too little of its history"
    else:
        words = "the policy is about as predictable as the expert"
    sides = (("expert", comparison.expert), ("policy", comparison.policy))
    rows = [(who, f"{side.mse:.3g}", f"{side.variance:.3g}", f"{side.pairs[0]:,} + {side.pairs[1]:,}") for who, side in sides]
    columns = ("", "held-out error", "variance", "pairs fitted + held out")
    shown = "∞" if math.isinf(value) else f"{value:.3g}"
    body = _html.figure(shown, words) + _ratio_scale(value) + _html.table(columns, rows, tall=True)
    explained = "Held-out squared error of an MLP a(t-1) → a(t), in units of the expert's range; ratio: expert / policy."
    return _html.card(
        PREDICTABILITY, body, " ".join(filter(None, (explained, comparison.note[:1].upper() + comparison.note[1:])))
    )


def gates_card(trace: MemoryTrace, span: Span | None = None) -> str:
    """Returns the gates of one episode as slots x updates; span: the colours' ends, the trace's own unless given."""
    assert trace.gates is not None
    values = np.asarray(trace.gates, float).T
    last = len(values) - 1
    chart = heat_map(values, trace.ticks, {0: "0", last: str(last)}, ("slot", "gate"), span or _gate_span([trace]))
    return _html.card(f"Gates ({trace.label})" if trace.label else "Gates", chart, "1: the slot is overwritten, 0: it is kept.")


def attention_card(trace: MemoryTrace, span: Span | None = None) -> str:
    """Returns the attention of one episode as history positions x updates, the newest on top; span: as in `gates_card`."""
    assert trace.attention is not None
    values = np.asarray(trace.attention, float).T[::-1]
    last = len(values) - 1
    names = {row: f"-{row}" for row in (last // 2, last)} | {0: "now"}
    chart = heat_map(values, trace.ticks, names, ("position", "attention"), span or _span([values]))
    note = "Each column: one update over the history it looks back on; blank: before the episode began."
    return _html.card(f"Attention over history ({trace.label})" if trace.label else "Attention over history", chart, note)


def probe_card(found: Probe) -> str:
    """Returns how often the hidden fact can be read from the memory, as a whole and over the ticks."""
    low, high = found.interval95
    note = f"95 % {100 * low:.0f} to {100 * high:.0f} % over {found.n_episodes} episodes, chance {100 * found.chance:.0f} %"
    body = _html.figure(f"{100 * found.accuracy:.1f} %", note) + (_accuracy_line(found) if found.by_tick else "")
    explained = "Linear read-out of the hidden fact from the memory, on episodes it was not fitted on. Band: 95 % (Wilson)."
    return _html.card(HOLDS, body, explained)


def missing_card(title: str, why: str) -> str:
    """Returns a card that says why there is nothing to show."""
    return _html.card(title, f'<p class="note">{html.escape(why)}</p>')


def heat_map(values: np.ndarray, ticks: np.ndarray, rows: Mapping[int, str], words: tuple[str, str], span: Span) -> str:
    """Returns values (rows, ticks) as colours with a colour bar; NaN stays blank.

    rows: names of some rows; words: what a row and what a value is; span: where the colours begin and end.
    """
    known = values[np.isfinite(values)]
    if not known.size:
        return '<p class="note">nothing measured</p>'
    low, high = span
    width, height = W - LEFT - RIGHT, H - TOP - BOTTOM
    box = (LEFT, TOP, width, height)
    names = "".join(
        f'<text x="{LEFT - 8}" y="{TOP + (row + 0.5) * height / len(values) + 4:.1f}" text-anchor="end">{name}</text>'
        for row, name in rows.items()
    )
    below, above = "≤ " if known.min() < low else "", "≥ " if known.max() > high else ""
    y, edge = H - 14, 110
    bar = _image(np.linspace(low, high, 64)[None], span, (LEFT + edge, y - 8, width - 2 * edge, 8))
    ends = (
        f'<text x="{LEFT + edge - 8}" y="{y}" text-anchor="end">{words[1]} {below}{low:.3g}</text>'
        f'<text x="{W - RIGHT - edge + 8}" y="{y}">{above}{high:.3g}</text>'
        f'<text transform="translate(14 {TOP + height / 2}) rotate(-90)" text-anchor="middle">{words[0]}</text>'
    )
    centres = [LEFT + (i + 0.5) * width / len(ticks) for i in range(len(ticks))]
    picture, axis = f"{_frame(box)}{_image(values, span, box)}", _tick_axis(ticks, centres)
    return _chart(
        f"{words[1]} by {words[0]} and tick, {known.min():.3g} to {known.max():.3g}", picture + names + bar + ends + axis
    )


def _span(arrays: Sequence[np.ndarray]) -> Span:
    """Returns where colours begin and end for these values: near their extremes, so that one outlier does not flatten them."""
    values = np.concatenate([np.ravel(array) for array in arrays]) if len(arrays) else np.zeros(0)
    values = values[np.isfinite(values)]
    low, high = (float(v) for v in np.quantile(values, _SHOWN_QUANTILES)) if values.size else (0.0, 1.0)
    return (low, high) if high > low else (low, low + 1e-9)


def _gate_span(traces: Sequence[MemoryTrace]) -> Span:
    """Returns the colours' ends for gates; an update that overwrites every slot begins a chain and says nothing of the others."""
    arrays = [np.asarray(trace.gates, float) for trace in traces if trace.gates is not None]
    return _span([array[~(array == 1).all(axis=1)] for array in arrays])


def _image(values: np.ndarray, span: tuple[float, float], box: tuple[float, float, float, float]) -> str:
    """Returns an SVG image, one pixel a value, stretched to box (x, y, width, height) [px]."""
    share = np.clip((values - span[0]) / (span[1] - span[0]), 0, 1)
    colour = cv2.applyColorMap((255 * np.nan_to_num(share)).round().astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    alpha = np.where(np.isfinite(values), 255, 0).astype(np.uint8)
    code = base64.b64encode(cv2.imencode(".png", np.dstack([colour, alpha]))[1].tobytes()).decode()
    x, y, width, height = box
    return (
        f'<image x="{x}" y="{y}" width="{width}" height="{height}" preserveAspectRatio="none" '
        f'style="image-rendering:pixelated" href="data:image/png;base64,{code}"/>'
    )


def _accuracy_line(found: Probe) -> str:
    """Returns the accuracy over ticks, its interval as a band, and chance as a dashed line."""
    ticks = np.array([row.tick for row in found.by_tick])
    span = max(1, ticks[-1] - ticks[0])
    bottom = H - BOTTOM + 18  # no colour bar here
    xs = [LEFT + (W - LEFT - RIGHT) * (tick - ticks[0]) / span for tick in ticks]

    def y(share: float) -> float:
        return TOP + (1 - share) * (bottom - TOP)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return " ".join(f"{x:.1f},{y(share):.1f}" for x, share in points)

    lows = [(x, row.interval95[0]) for x, row in zip(xs, found.by_tick, strict=True)]
    highs = [(x, row.interval95[1]) for x, row in zip(xs, found.by_tick, strict=True)]
    grid = "".join(
        f'<line x1="{LEFT}" x2="{W - RIGHT}" y1="{y(v):.1f}" y2="{y(v):.1f}" stroke="var(--line)"/>'
        f'<text x="{LEFT - 8}" y="{y(v) + 4:.1f}" text-anchor="end">{100 * v:.0f} %</text>'
        for v in (0, 0.25, 0.5, 0.75, 1)
    )
    chance = (
        f'<line x1="{LEFT}" x2="{W - RIGHT}" y1="{y(found.chance):.1f}" y2="{y(found.chance):.1f}" stroke="var(--b)" '
        f'stroke-width="1.5" stroke-dasharray="5 4"/>'
        f'<text x="{W - RIGHT}" y="{y(found.chance) + 15:.1f}" text-anchor="end" style="fill:var(--b)">chance</text>'
    )
    line = [(x, row.accuracy) for x, row in zip(xs, found.by_tick, strict=True)]
    radius = 2.5 if len(xs) > 20 else 4
    dots = "".join(
        f'<circle cx="{x:.1f}" cy="{y(row.accuracy):.1f}" r="{radius}" fill="var(--a)"><title>{_told(row)}</title></circle>'
        for x, row in zip(xs, found.by_tick, strict=True)
    )
    band = f'<polygon points="{path([*lows, *highs[::-1]])}" fill="var(--a)" opacity=".25"/>'
    curve = f'<polyline points="{path(line)}" fill="none" stroke="var(--a)" stroke-width="2"/>'
    axis = _tick_axis(ticks, xs, bottom)
    return _chart("accuracy of the read-out over ticks", f"{grid}{band}{chance}{curve}{dots}{axis}", bottom + 44)


def _told(row: AtTick) -> str:
    low, high = row.interval95
    return f"tick {row.tick}: {100 * row.accuracy:.0f} % of {row.n}, 95 % {100 * low:.0f} to {100 * high:.0f} %"


def _ratio_scale(value: float) -> str:
    """Returns a logarithmic line from 0.01 to 100 with 1 in the middle and the ratio marked."""
    width = W - LEFT - RIGHT - 40

    def x(ratio: float) -> float:
        return LEFT + width * float(np.clip(math.log10(max(ratio, 1e-9)), -2, 2) + 2) / 4

    ticks = "".join(
        f'<line x1="{x(v):.1f}" x2="{x(v):.1f}" y1="30" y2="42" stroke="var(--{"ink" if v == 1 else "line"})" stroke-width="2"/>'
        f'<text x="{x(v):.1f}" y="58" text-anchor="middle">{v:g}</text>'
        for v in (0.01, 0.1, 1, 10, 100)
    )
    words = ((0.01, "start", "less predictable"), (1, "middle", "expert"), (100, "end", "more predictable"))
    ends = "".join(f'<text x="{x(v):.1f}" y="22" text-anchor="{anchor}">{word}</text>' for v, anchor, word in words)
    line = f'<line x1="{x(0.01):.1f}" x2="{x(100):.1f}" y1="36" y2="36" stroke="var(--line)" stroke-width="2"/>'
    return _chart(f"ratio {value:.3g}", f'{line}{ticks}{ends}<circle cx="{x(value):.1f}" cy="36" r="7" fill="var(--a)"/>', 68)


def _tick_axis(ticks: np.ndarray, xs: Sequence[float], bottom: float = H - BOTTOM) -> str:
    """Returns some ticks below a chart at their places xs [px], evenly chosen."""
    chosen = sorted({round(i) for i in np.linspace(0, len(ticks) - 1, min(6, len(ticks)))})
    marks = "".join(f'<text x="{xs[i]:.1f}" y="{bottom + 16}" text-anchor="middle">{int(ticks[i])}</text>' for i in chosen)
    return f'{marks}<text x="{(LEFT + W - RIGHT) / 2}" y="{bottom + 31}" text-anchor="middle">tick</text>'


def _frame(box: tuple[float, float, float, float]) -> str:
    x, y, width, height = box
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="var(--page)" stroke="var(--line)"/>'


def _chart(words: str, body: str, height: float = H) -> str:
    return f'<svg viewBox="0 0 {W} {height}" role="img" aria-label="{html.escape(words)}">{body}</svg>'


def _one_a_fact(traces: Sequence[MemoryTrace], shown: int) -> list[MemoryTrace]:
    """Returns up to `shown` traces, the first of every fact before the second of any."""
    seen: dict[int | None, int] = {}
    turn = []
    for trace in traces:
        turn.append(seen.get(trace.fact, 0))
        seen[trace.fact] = turn[-1] + 1
    return [traces[i] for i in sorted(np.argsort(turn, kind="stable")[:shown])]
