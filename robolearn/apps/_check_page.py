"""The page of `data check --html`: the set's card, how its numbers are spread, and the worst episodes. Opens offline."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from robolearn.apps import _html
from robolearn.data.check import CODES, Card, Context, Report, motion_of
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

_SHOWN = 24  # episodes with a picture
_THUMB = 72  # [px] height
_POINTS = 160  # of a curve
_SPREADS = {  # number: (title, what it says)
    "duration_s": ("Duration [s]", ""),
    "rate_hz": ("Rate [Hz]", "from the clock, median of an episode"),
    "worst_gap_s": ("Longest step [s]", ""),
    "late_share": ("Late ticks", "share of an episode"),
    "worst_age_ms": ("Oldest input [ms]", "while engaged"),
    "lag_ms": ("Lag [ms]", "how long the body takes to follow the action"),
    "worst_sparc": ("Smoothness (SPARC)", "worst joint or position; nearer to 0 is smoother"),
    "idle_tail": ("Idle tail [steps]", ""),
    "saturated_share": ("Action at its limit", "share of an episode"),
    "joint_margin_rad": ("Joint margin [rad]", "least distance to a limit"),
    "intervention_share": ("Interventions", "share of an episode"),
    "replay_error": ("Replay error", "of the last state, share of its range"),
}


def write(path: Path, dataset: EpisodeSet, report: Report) -> None:
    """Writes the page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(dataset, report))


def page(dataset: EpisodeSet, report: Report) -> str:
    """Returns the page as HTML."""
    flagged = report.worst(len(report.cards))
    worst = flagged[:_SHOWN]
    parts = [_html.grid(_figures(dataset, report, len(flagged)), 220), _set_card(report)]
    if worst:
        rest = f", the worst {len(worst)} of {len(flagged)}" if len(flagged) > len(worst) else ""
        parts.append(_html.card(f"Flagged episodes{rest}", _episodes(dataset, worst, report.context), _LEGEND))
    if len(flagged) > len(worst):
        rows = [[card.episode, card.grade, card.steps, "; ".join(card.flags)] for card in flagged[_SHOWN:]]
        parts.append(_html.card("The other flagged episodes", _html.table(("episode", "grade", "steps", "flags"), rows)))
    if not worst:
        some = [report.cards[i] for i in np.unique(np.linspace(0, len(report.cards) - 1, 6).astype(int))] if report.cards else []
        parts.append(_html.card("A look at some episodes", _episodes(dataset, some, report.context), _LEGEND))
    parts.append(_spreads(report.cards))
    task = f", task {dataset.task}" if dataset.task else ""
    rate = f" at {dataset.hz:g} Hz" if dataset.hz else ""
    return _html.page(f"Check of {dataset.path.name}", f"{dataset.n_episodes} episodes{rate}{task}", parts)


_GRADES = "A no flag · B up to 2 points · C more · D an error"
_LEGEND = "Curve: how fast the body moves, over the steps of the episode; bars below it: the rows of its flags."


def _figures(dataset: EpisodeSet, report: Report, flagged: int) -> list[str]:
    grades = [card.grade for card in report.cards]
    seconds = sum(card.numbers.get("duration_s", 0.0) for card in report.cards)
    spread = ", ".join(f"{grades.count(grade)} {grade}" for grade in "ABCD" if grade in grades)
    return [
        _html.card(
            "Grade", f'<div class="big grade {report.grade}">{report.grade}</div><div class="note">{spread}</div>', _GRADES
        ),
        _html.card("Episodes", _html.figure(f"{len(grades):,}", f"{flagged:,} flagged")),
        _html.card(
            "Steps", _html.figure(f"{dataset.n_steps:,}", f"{seconds / 60:.1f} minutes" if dataset.hz else "no rate known")
        ),
        _html.card("Errors", _html.figure(str(report.n_errors), "unfit for training" if report.n_errors else "fit for training")),
    ]


def _set_card(report: Report) -> str:
    per_code = report.episodes_per_code()
    rows = [[code, CODES[code], n, f"{n / max(1, len(report.cards)):.1%}"] for code, n in per_code.items()]
    body = (
        _html.table(("flag", "meaning", "episodes", "share"), rows, tall=True)
        if rows
        else '<p class="note">No episode is flagged.</p>'
    )
    if report.whole:
        body += "<h2>Of the whole set</h2><ul>" + "".join(f"<li>{html.escape(flag)}</li>" for flag in report.whole) + "</ul>"
    return _html.card("What was found", body, " · ".join(report.notes))


def _spreads(cards: Sequence[Card]) -> str:
    """Returns a histogram of every number that differs between episodes."""
    charts = []
    for name, (title, note) in _SPREADS.items():
        values = np.array([card.numbers[name] for card in cards if np.isfinite(card.numbers.get(name, np.nan))])
        if len(values) > 1 and np.ptp(values) > 0:
            charts.append(_html.card(title, _html.distribution(values), note))
    return _html.grid(charts)


def _episodes(dataset: EpisodeSet, cards: Sequence[Card], context: Context | None) -> str:
    """Returns a table with the first frames, the speed of the body and the flags of some episodes."""
    images = context.roles.images[:2] if context is not None else ()
    rows = []
    for card in cards:
        pictures = "".join(_picture(dataset, key, card, context) for key in images)
        flags = "".join(f"<div><b>{html.escape(mark.code)}</b> {html.escape(mark.text)}</div>" for mark in card.marks)
        rows.append(
            [card.episode, _html.Raw(f'<span class="grade {card.grade}">{card.grade}</span>'), card.steps]
            + ([_html.Raw(pictures)] if images else [])
            + [_html.Raw(_curve(dataset, card, context)), _html.Raw(flags or '<span class="note">no flag</span>')]
        )
    header = ["episode", "grade", "steps", *(["first frame"] if images else []), "motion", "flags"]
    return _html.table(header, rows, tall=True)


def _picture(dataset: EpisodeSet, key: str, card: Card, context: Context | None) -> str:
    start = dataset.span(card.episode)[0]
    try:
        frame = dataset.read(key, start, start + 1)[0].astype(np.float32)
    except DatasetError:
        return '<span class="note">unreadable</span>'
    scale = context.image_scale[key] if context is not None else 1.0
    frame = np.clip(frame * scale, 0, 255).astype(np.uint8)
    size = (max(1, round(_THUMB * frame.shape[1] / frame.shape[0])), _THUMB)
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    jpeg = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return _html.jpeg(jpeg.tobytes(), f"{key}, first frame of episode {card.episode}", size)


def _curve(dataset: EpisodeSet, card: Card, context: Context | None) -> str:
    if context is None or not context.roles.body:
        return ""
    try:
        speed = motion_of(dataset, card.episode, context)
    except DatasetError:
        return ""
    pieces = np.array_split(speed, min(_POINTS, len(speed)))
    spans = [(mark.rows[0] / len(speed), (mark.rows[1] + 1) / len(speed), mark.code) for mark in card.marks if mark.rows]
    return _html.sparkline([float(piece.max()) for piece in pieces], spans)
