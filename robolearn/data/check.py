"""Looks for what spoils training, as a doctor does: a card per episode, a card of the set, warnings, no change to anything.

Pass 1 (`survey`) streams the vectors once: ranges, what is a joint or a clock, which action is the target of what. Pass 2
judges each episode, in blocks that fan out and in which every picture is read once. Last, episodes are compared.

    report = check(EpisodeSet.open(path), workers=2)
    context = context_of(dataset); card = check_episode(dataset, 3, context)      # one episode, for a viewer
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tqdm import tqdm

from robolearn.data import _zarr
from robolearn.data._check_card import CODES, ERRORS, Card, Limits, Mark, Report
from robolearn.data._check_clocks import check_clocks, check_flags
from robolearn.data._check_extent import vector_rows
from robolearn.data._check_images import Frames, check_images, frames_of
from robolearn.data._check_motion import (
    body_of,
    check_following,
    check_gripper,
    check_idle,
    check_joint_limits,
    check_saturation,
    check_smoothness,
)
from robolearn.data._check_relative import (
    check_against_typical,
    check_duplicates,
    check_labels,
    offset_of_the_set,
    typical_of,
    without_notes_of_all,
)
from robolearn.data._check_replay import Replayed, check_replay
from robolearn.data._check_roles import BOOKS, is_time
from robolearn.data._check_signal import runs
from robolearn.data._check_survey import Context, survey
from robolearn.data._fan import Workers, fan_out
from robolearn.data.images import image_keys
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

__all__ = [
    "CODES",
    "ERRORS",
    "Card",
    "Context",
    "Limits",
    "Mark",
    "Replayed",
    "Report",
    "check",
    "check_episode",
    "check_replay",
    "context_of",
    "motion_of",
    "runs",
    "survey",
]

_BLOCK_BYTES = 64 * 1024 * 1024  # of vectors; pictures are read in smaller ones
_BLOCK_ROWS = 8192
_COMPARED = 64  # episodes that tell what is typical, where only one is asked for


@dataclass(frozen=True)
class _Block:
    """Episodes [first, last) to be judged in one go."""

    context: Context
    first: int
    last: int


def check(dataset: EpisodeSet, limits: Limits = Limits(), workers: Workers = 0) -> Report:
    """Returns the cards of all episodes and what is odd about the set; reads each picture once, in blocks.

    workers: processes, or "ray"; the report does not depend on it.
    """
    whole = _layout(dataset)
    context, found = survey(dataset, limits)
    whole += found
    judge = _judge_here if workers in ("ray",) or (isinstance(workers, int) and workers > 1) else partial(_judge, dataset)
    cards: list[Card] = []
    blocks = _blocks(dataset, replace(context, facts={}))
    with tqdm(total=dataset.n_steps, desc="check", unit="row", leave=False, disable=not sys.stderr.isatty()) as bar:
        for judged, problems in fan_out(judge, blocks, workers):
            cards += judged
            whole += problems
            bar.update(sum(card.steps for card in judged))
    context = replace(context, typical=typical_of(cards, context))
    for card in cards:
        check_against_typical(card, context)
    check_labels(cards, context.facts, dataset.n_episodes)
    check_duplicates(cards, context.facts)
    whole += offset_of_the_set(cards, context)
    notes = [*context.notes, *without_notes_of_all(cards)]
    return Report(cards, list(dict.fromkeys(whole)), notes, medians(cards), context)


def context_of(dataset: EpisodeSet, limits: Limits = Limits()) -> Context:
    """Returns what `check_episode` needs; what is typical comes from up to 64 episodes, without their pictures."""
    context, _ = survey(dataset, limits)
    count = min(_COMPARED, dataset.n_episodes)
    some = np.unique(np.linspace(0, dataset.n_episodes - 1, count).astype(int)) if count else np.zeros(0, int)
    bare = replace(context, roles=replace(context.roles, images=()))
    cards = [card for index in some for card in _judge(dataset, _Block(bare, int(index), int(index) + 1))[0]]
    return replace(context, typical=typical_of(cards, context))


def check_episode(dataset: EpisodeSet, index: int, context: Context) -> Card:
    """Returns the card of one episode; `context` from `context_of`. Duplicates are found by `check` only."""
    dataset.span(index)
    cards, problems = _judge(dataset, _Block(context, index, index + 1))
    check_against_typical(cards[0], context)
    check_labels(cards, context.facts, dataset.n_episodes)
    for problem in problems:
        code, text = problem.split(": ", 1)
        cards[0].add(code, text)
    return cards[0]


def motion_of(dataset: EpisodeSet, index: int, context: Context) -> np.ndarray:
    """Returns how fast the body moves in an episode (steps,): the largest change of a number per step, in shares of its range."""
    start, stop = dataset.span(index)
    keys = {group.key for group in context.roles.body}
    body = body_of(
        {key: vector_rows(dataset, key, start, stop) for key in sorted(keys)} or {"": np.zeros((stop - start, 1))}, context
    )
    return np.concatenate([[0.0], np.abs(np.diff(body, axis=0)).max(1, initial=0.0)])


def _layout(dataset: EpisodeSet) -> list[str]:
    """Returns flags of arrays of other lengths than the episodes, lost chunks, unfinished appends, images kept as floats."""
    own, flags = "schema" in dataset.attrs, []
    if not dataset.n_episodes:
        flags.append("empty: no episode")
    if dataset.ends_left_out:
        flags.append(f"length: {dataset.ends_left_out} episode ends lie outside the arrays or do not rise")
    for key in dataset.keys:
        rows = dataset.array(key).shape[0]
        if rows != dataset.n_steps and not own:
            flags.append(f"length: {key} has {rows} rows, the episodes have {dataset.n_steps}")
        lost = _zarr.missing_chunks(dataset.path / "data" / key, dataset.array(key)) if rows == dataset.n_steps else 0
        if lost:
            flags.append(f"{'lost' if own else 'sparse'}: {key}: {lost} chunk files are missing and read as zeros")
    if own:
        flags += [f"unfinished: {note}" for note in dataset.notes if "after the last" in note]
    for key in image_keys(dataset):
        kind = dataset.keys[key].dtype
        if kind != "uint8":
            flags.append(f"float_images: {key} holds images as {kind}; `robolearn data convert` makes them uint8")
    return flags


def _blocks(dataset: EpisodeSet, context: Context) -> Iterator[_Block]:
    """Yields blocks of whole episodes whose vectors fit in some tens of MB."""
    vectors = [dataset.array(key) for key in context.roles.vectors]
    row_bytes = sum(int(np.prod(array.shape[1:], dtype=int)) * max(8, array.dtype.itemsize) for array in vectors)
    most = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // max(1, row_bytes)))
    first = 0
    while first < dataset.n_episodes:
        start = dataset.span(first)[0]
        last = max(first + 1, int(np.searchsorted(dataset.episode_ends, start + most, side="right")))
        yield _Block(context, first, last)
        first = last


def _judge_here(block: _Block) -> tuple[list[Card], list[str]]:
    """Returns the same as `_judge`, in a process that has to open the set itself."""
    return _judge(EpisodeSet.open(block.context.path), block)


def _judge(dataset: EpisodeSet, block: _Block) -> tuple[list[Card], list[str]]:
    """Returns the cards of a block's episodes and flags of what could not be read."""
    context, problems = block.context, []
    start, stop = dataset.span(block.first)[0], dataset.span(block.last - 1)[1]
    vectors: dict[str, np.ndarray] = {}
    for key in context.roles.vectors:
        try:
            vectors[key] = vector_rows(dataset, key, start, stop)
        except DatasetError as error:
            problems.append(f"corrupt: {error}")
    frames = {}
    for key in context.roles.images:
        frames[key], found = frames_of(dataset, key, start, stop, context.image_scale[key])
        problems += found
    finite = {key: np.isfinite(rows).all(1) for key, rows in vectors.items() if rows.dtype.kind == "f"}
    cards = []
    for index in range(block.first, block.last):
        first, last = (row - start for row in dataset.span(index))
        rows = {key: values[first:last] for key, values in vectors.items()}
        shown = {key: Frames(f.mean[first:last], f.same[first:last]) for key, f in frames.items()}
        card = Card(index, last - first)
        _check_numbers(rows, {key: good[first:last] for key, good in finite.items()}, context, card)
        if rows:
            _check_one(rows, shown, context, card)
        cards.append(card)
    return cards, problems


def _check_one(rows: Mapping[str, np.ndarray], frames: Mapping[str, Frames], context: Context, card: Card) -> None:
    """Adds everything that one episode alone can tell."""
    steps = card.steps
    if steps < max(context.limits.min_steps, 0.1 * context.typical_steps):
        card.add("short", f"{steps} steps (median {context.typical_steps:g})")
    check_clocks(rows, context, card)
    check_flags(rows, context, card)
    check_saturation(rows, context, card)
    check_joint_limits(rows, context, card)
    body = body_of(rows, context)
    if "short" not in card.codes:
        check_gripper(rows, context, card)
    if steps > 1:
        check_smoothness(rows, context, card)
        check_idle(rows, body, context, card)
        check_following(rows, context, card)
    check_images(frames, rows, body, context, card)


def _check_numbers(rows: Mapping[str, np.ndarray], finite: Mapping[str, np.ndarray], context: Context, card: Card) -> None:
    """Flags NaN, infinity and numbers far from all others; keeps the hash of the rows, clocks left out."""
    for key, good in finite.items():
        bad = np.flatnonzero(~good)
        if len(bad):
            card.add("nan", f"{key} row {bad[0]}, {len(bad)} rows in all", key, (bad[0], bad[-1]))
        extent = context.extents.get(key)
        if extent is None or key in BOOKS or is_time(key):
            continue
        width = np.where(extent.usual > 0, extent.usual, np.inf)
        far = np.abs(rows[key] - extent.middle) > context.limits.outlier_ranges * width
        if far.any():
            row, column = (int(n) for n in np.argwhere(far)[0])
            usual = f"{extent.middle[column]:.3g} +- {extent.usual[column]:.3g}"
            card.add(
                "outlier", f"{key}[{column}] is {rows[key][row, column]:.3g} in row {row}, the set has {usual}", key, (row, row)
            )
    digest = hashlib.blake2b(digest_size=16)
    kept = [key for key in sorted(rows) if not is_time(key) and key != "late_ms"]
    for key in kept:
        digest.update(np.ascontiguousarray(rows[key]).data)
    card.digest = digest.digest() if kept else b""


def medians(cards: list[Card]) -> dict[str, float]:
    """Returns the median of every number over the episodes that have it."""
    names = sorted({name for card in cards for name in card.numbers})
    return {name: float(np.median([card.numbers[name] for card in cards if name in card.numbers])) for name in names}
