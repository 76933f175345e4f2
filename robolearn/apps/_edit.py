"""What the editing verbs share: the time of day, and how they say what they do or would do."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np

from robolearn.data.edit import format_ranges


def now() -> str:
    """Returns this instant, ISO 8601 UTC."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def say(lines: Sequence[str], dry_run: bool) -> None:
    """Prints what was done; of a dry run, what would be done."""
    print("\n".join([*(["nothing is written (--dry-run); without it:"] if dry_run else []), *lines]))


def counted(n: int, what: str) -> str:
    """Returns "1 episode", "2 episodes"."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def listed(places: Sequence[int] | np.ndarray, most: int = 20) -> str:
    """Returns places as "0,3,5-9", cut off where it would be a long line."""
    parts = format_ranges(places).split(",")
    return ",".join(parts[:most]) + (f",... ({len(places)} in all)" if len(parts) > most else "")
