"""How a command leads a person through work by hand: questions, and a line of what is measured until Enter is pressed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from hardware.devices._tty import Keys
from robolearn.errors import BadInput

_LOOK_S = 0.01  # between two looks while a person moves something


def consent(question: str, yes: bool) -> None:
    """Returns once a person has typed yes; BadInput where none does. yes: it was said on the command line."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInput(f"{question} Nobody can answer here: run it in a terminal, or give --yes")
    if input(f"{question} Type yes: ").strip().lower() != "yes":
        raise BadInput("stopped: want yes; nothing was done")


def until_enter(task: str, look: Callable[[], str]) -> None:
    """Says what to do, and shows what `look` returns until Enter is pressed; HardwareError without a terminal."""
    print(f"{task} Then press Enter.")
    with Keys() as keys:
        while "enter" not in keys.read():
            print(f"\r\x1b[K  {look()}", end="", flush=True)
            time.sleep(_LOOK_S)
    print()
