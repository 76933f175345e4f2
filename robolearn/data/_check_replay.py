"""What a replay of the recorded actions says of an episode. The simulator is the caller's: this layer knows none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from robolearn.data._check_card import Card, Limits


@dataclass(frozen=True)
class Replayed:
    """One replay: how far each number of each key was from its record at the last row, its range in the set, and success.

    errors, widths: (n,) by key; solved: whether the task was solved again, None where the task does not say.
    """

    errors: Mapping[str, np.ndarray]
    widths: Mapping[str, np.ndarray]
    solved: bool | None


def check_replay(card: Card, replayed: Replayed, solved_before: bool | None, limits: Limits) -> None:
    """Adds replay_error, the largest error of the last state in shares of its range, and flags a replay that went elsewhere."""
    worst, where, by = 0.0, "", 0.0
    for key, error in replayed.errors.items():
        width = replayed.widths[key]
        share = np.where(width > 0, np.abs(error) / np.where(width > 0, width, 1.0), 0.0)
        column = int(np.argmax(share)) if len(share) else 0
        if len(share) and share[column] > worst:
            worst, where, by = float(share[column]), f"{key}[{column}]", float(abs(error[column]))
    card.numbers["replay_error"] = worst
    if replayed.solved is not None:
        card.numbers["replay_solved"] = float(replayed.solved)
    last = (card.steps - 1, card.steps - 1)
    if worst > limits.replay_share:
        card.add("replay", f"the simulator ends {by:.3g} off {where}, {worst:.0%} of its range", where.split("[")[0], last)
    elif solved_before and replayed.solved is False:
        card.add("replay", "solved when it was recorded, not when replayed", "", last)
