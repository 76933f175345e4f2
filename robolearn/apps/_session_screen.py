"""The terminal screen of a recording session: count, state, bars for time, rate, lag and limits, last messages, keys.

It draws a snapshot (`Board`) in a thread of its own eight times a second, so that the loop never waits for a terminal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console, Group
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from robolearn.apps._live_screen import LiveScreen
from robolearn.apps._session import Board, State
from robolearn.core import Flag

KEYS = "enter start/stop   y success   f failure   r redo   backspace delete last   u undo   q quit"
_COLOURS = {State.WAITING: "yellow", State.RECORDING: "bold red", State.DONE: "green"}
_LIMITS = {Flag.CLAMPED: "limits hold back", Flag.HELD: "held still", Flag.STALE: "no input", Flag.DISENGAGED: "hand is off"}


class Screen(LiveScreen):
    """Shows `board()` while the block runs; plain lines where `plain`, or where standard output is no terminal."""

    def __init__(
        self,
        board: Callable[[], Board],
        title: str,
        hz: float,
        plain: bool = False,
        beep: bool = False,
        console: Console | None = None,
    ) -> None:
        self.board, self.title, self.hz, self.beep = board, title, hz, beep
        super().__init__(plain, console)

    def tell(self, text: str) -> None:
        """Says one thing: a line that stays, and a bell if wanted."""
        if self._live is None:
            print(text, flush=True)
        if self.beep and sys.stderr.isatty():
            sys.stderr.write("\a")
            sys.stderr.flush()

    def announce(self, text: str) -> None:
        """Says something that must stay in sight whole, such as an address: above the screen, never cut or folded."""
        if self._live is None:
            print(text, flush=True)
        else:
            self._live.console.print(text, soft_wrap=True, markup=False, highlight=False)

    def picture(self) -> Panel:
        """Returns the screen at this instant."""
        board = self.board()
        running = board.state is State.RECORDING
        spent = time.monotonic() - board.began_s
        rate = board.step / spent if running and board.step > 2 and spent > 0 else 0.0
        age_s = getattr(board.panel, "age_s", 0.0)
        table = Table.grid(padding=(0, 2))
        rows = [
            ("episodes", board.kept, board.target, f"{board.kept} of {board.target}"),
            ("ticks", board.step, board.max_steps, f"{board.step} of {board.max_steps}"),
            ("rate", rate, self.hz, f"{rate:.1f} of {self.hz:g} Hz"),
            ("late ticks", board.late, 1.0, f"{100 * board.late:.1f} %"),
            ("input lag", age_s, 0.5, f"{1e3 * age_s:.0f} ms"),
        ]
        for name, value, most, text in rows:
            table.add_row(name, ProgressBar(total=max(most, 1e-9), completed=min(value, most), width=30), text)
        table.add_row("limits", Text(limits(board), style="yellow"), getattr(board.panel, "why", ""))
        state = Text(f"{board.state}" + (f", seed {board.seed}" if running else ""), style=_COLOURS[board.state])
        notes = Text("\n".join(board.notes), style="dim")
        return Panel(Group(state, table, notes, Text(KEYS, style="cyan")), title=self.title, expand=False)


def limits(board: Board) -> str:
    """Returns what held the body back at the last tick, in words; "-" where nothing did."""
    return ", ".join(word for flag, word in _LIMITS.items() if board.flags & flag) or "-"
