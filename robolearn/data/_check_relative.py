"""What shows only beside the other episodes: jerky motion, another lag, duplicates, labels that the others have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from robolearn.data._check_card import Card
from robolearn.data._check_survey import Context, Typical

_LEAST = 8  # episodes, for a median to compare with
_UNSURE = 10  # episodes: the spread of so few is taken as twice what they show
_FEW_EPISODES = 0.05  # share
_TURNED = -0.25  # ticks: a lag below is negative
_BROKEN_OFF = ("stopped", "interrupted", "alarm", "crash", "salvaged")
_HIGHER_IS_WORSE = {"jerk": 1.0, "sparc": -1.0}


def typical_of(cards: Sequence[Card], context: Context) -> Typical:
    """Returns the medians of the episodes' numbers; series that fewer than eight episodes have are left out."""
    names = sorted({name for card in cards for name in card.series})
    spread: dict[str, tuple[float, float]] = {}
    for name in names:
        for number, sign in _HIGHER_IS_WORSE.items():
            values = np.array([sign * card.series[name][number] for card in cards if name in card.series])
            logs = np.log(values[np.isfinite(values) & (values > 0)])
            if len(logs) >= _LEAST:
                middle = float(np.median(logs))
                scatter = 1.4826 * float(np.median(np.abs(logs - middle)))
                spread[f"{name}:{number}"] = (middle, scatter * (1 + _UNSURE / len(logs)))
    lags = np.array([card.numbers["lag_ms"] for card in cards if "lag_ms" in card.numbers]) * context.rate / 1000
    offsets = {
        f"offset:{pair.name}": float(np.median(found))
        for pair in context.pairs
        if (found := [card.numbers[f"offset:{pair.name}"] for card in cards if f"offset:{pair.name}" in card.numbers])
    }
    far = Counter(key for card in cards for key in {mark.key for mark in card.marks if mark.code == "outlier"})
    bursts = frozenset(key for key, count in far.items() if count > max(1, _FEW_EPISODES * len(cards)))
    return Typical(spread, float(np.median(lags)) if len(lags) >= _LEAST else np.nan, offsets, bursts)


def check_against_typical(card: Card, context: Context) -> None:
    """Flags an episode that is jerkier than the others, or whose body followed the action at another lag."""
    card.marks = [mark for mark in card.marks if mark.code != "outlier" or mark.key not in context.typical.bursts]
    limits, jerky = context.limits, []
    broken = {mark.key for mark in card.marks if mark.code in ("nan", "outlier")}
    for name, numbers in card.series.items():
        if name.split("[")[0] in broken:
            continue
        for number, sign in _HIGHER_IS_WORSE.items():
            known, value = context.typical.spread.get(f"{name}:{number}"), sign * numbers[number]
            if known is None or not np.isfinite(value) or value <= 0:
                continue
            above = np.log(value) - known[0]
            if above > np.log(limits.jerky_factor) and above > limits.jerky_z * known[1]:
                jerky.append((above / max(known[1], 1e-6), name, number, np.exp(above)))
    if jerky:
        _, name, number, factor = max(jerky)
        card.numbers["jerky_series"] = len({name for _, name, _, _ in jerky})
        card.add("jerky", f"{number} of {name} is {factor:.1f} times the set's median", name.split("[")[0])
    if "lag_ms" in card.numbers:
        ticks = card.numbers["lag_ms"] * context.rate / 1000
        if ticks < _TURNED:
            card.add("lag", f"the state leads the action by {-card.numbers['lag_ms']:.0f} ms: rows are shifted", "action")
        elif abs(ticks - context.typical.lag) > limits.lag_ticks:
            usual = 1000 * context.typical.lag / context.rate
            card.add(
                "lag", f"the body follows the action after {card.numbers['lag_ms']:.0f} ms, elsewhere {usual:.0f} ms", "action"
            )


def check_labels(cards: Sequence[Card], facts: Mapping[str, np.ndarray], total: int) -> None:
    """Flags episodes that broke off, and those without a label in a set that has labels."""
    labels, reasons, success = (facts.get(name) for name in ("label", "reason", "success"))
    solved = np.nan_to_num(success.astype(np.float64), nan=-1).astype(int) if success is not None else np.full(total, -1)
    labelled = labels is not None and any(label in ("success", "failure") for label in labels.tolist()[:total])
    for card in cards:
        label = str(labels[card.episode]) if labels is not None else ""
        reason = str(reasons[card.episode]) if reasons is not None else ""
        if label == "partial" or reason.startswith(_BROKEN_OFF):
            card.add("partial", f"ended by {reason}" if reason.startswith(_BROKEN_OFF) else "labelled as partial")
        elif labelled and not label:
            card.add("unlabelled", "no label, the set has labels")
        if label in ("success", "failure") and solved[card.episode] in (0, 1):
            card.numbers["label_agrees_with_env"] = float((label == "success") == bool(solved[card.episode]))
        if labels is None and solved[card.episode] < 0:
            card.notes.append("label: not checked, none recorded")


def check_duplicates(cards: Sequence[Card], facts: Mapping[str, np.ndarray]) -> None:
    """Flags episodes whose numbers, time left out, equal those of an earlier one bit for bit, or that carry its uuid."""
    seen: dict[bytes, int] = {}
    names: dict[str, int] = {}
    uuids = facts.get("uuid")
    for card in cards:
        uuid = str(uuids[card.episode]) if uuids is not None else ""
        if card.digest and card.digest in seen:
            card.add("duplicate", f"the same as episode {seen[card.digest]}")
        elif uuid and uuid in names:
            card.add("duplicate", f"the uuid of episode {names[uuid]}: the same recording, changed")
        seen.setdefault(card.digest, card.episode)
        names.setdefault(uuid, card.episode)


def offset_of_the_set(cards: Sequence[Card], context: Context) -> list[str]:
    """Returns a flag of the set for every number whose offset most episodes share."""
    flags = []
    for pair in context.pairs:
        of = [card for card in cards if f"offset:{pair.name}" in card.numbers]
        shared = sum(any(mark.code == "offset" and f" {pair.name} of " in mark.text for mark in card.marks) for card in of)
        if len(of) >= _LEAST and shared > 0.5 * len(of):
            usual = context.typical.offset[f"offset:{pair.name}"]
            flags.append(f"offset: action[{pair.action}] is {usual:+.3g} off {pair.name} in {shared} of {len(of)} episodes")
    return flags


def without_notes_of_all(cards: Sequence[Card]) -> list[str]:
    """Returns the notes that every episode has, once, and takes them off the cards."""
    if not cards:
        return []
    shared = [note for note in dict.fromkeys(cards[0].notes) if all(note in card.notes for card in cards)]
    for card in cards:
        card.notes = [note for note in card.notes if note not in shared]
    return shared
