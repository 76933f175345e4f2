"""The terminal screen of a deployment: mode and causes, live rates and ages, what limits cut, monitor scores, keys."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from robolearn.apps._live_screen import LiveScreen
from robolearn.core import Flag, Outcome, Spec, Tick
from robolearn.runtime.state import Change, Machine, Mode

KEYS = {
    "space": "estop", "h": "hold", "r": "resume", "c": "recover", "y": "success", "f": "failure", "s": "stop", "q": "quit",
}  # fmt: skip
"""What a key says; space is an emergency stop by software, which ramps and holds: keep a hand on the real one."""
LEGEND = "space e-stop   h hold   r resume   c clear fault   y success   f failure   s stop   q quit"
_COLOURS = {
    Mode.RUN: "bold green",
    Mode.FAULT: "bold red",
    Mode.ESTOP: "bold white on red",
    Mode.HOLD: "yellow",
    Mode.ALIGN: "cyan",
}
_FLAGS = {Flag.CLAMPED: "clamped", Flag.HELD: "held", Flag.STALE: "stale", Flag.LATE: "late", Flag.INTERVENTION: "person"}
_LAST = 100  # ticks of which rates are told


@dataclass
class Board:
    """What is shown; a sink of the rollout. facts: of the set-up, shown above all; notes: the last things that happened."""

    facts: str
    ages: Callable[[], Mapping[str, float]] = dict
    planning: Callable[[], str] = str
    episode: int = 0
    episodes: int = 1
    hz: float = 0.0
    max_steps: int = 0
    step: int = 0
    notes: deque[str] = field(default_factory=lambda: deque(maxlen=6))
    flags: deque[int] = field(default_factory=lambda: deque(maxlen=_LAST))
    stamps: deque[int] = field(default_factory=lambda: deque(maxlen=_LAST))
    scores: Mapping[str, Any] = field(default_factory=dict)
    tell: Callable[[str], None] = lambda text: None
    machine: Machine = field(default_factory=lambda: Machine(sink=lambda change: None))

    def change(self, change: Change) -> None:
        """Notes a line of the machine's history, where something came of it."""
        if change.target is change.source and change.accepted and change.event not in ("camera_late", "clock_step", "log_dead"):
            return
        led = f"{change.source} -> {change.target}" if change.accepted else f"{change.event} refused: {change.why}"
        self.note(f"{led}  {change.kind or change.event}: {change.reason}")

    def note(self, text: str) -> None:
        """Adds a line, said also where there is no screen."""
        self.notes.append(text)
        self.tell(text)

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        """Begins an episode."""
        del meta
        self.hz, self.step = spec.hz, 0
        self.flags.clear()
        self.stamps.clear()

    def record(self, tick: Tick) -> None:
        """Takes in a tick."""
        self.step = tick.k + 1
        self.flags.append(tick.step.flags)
        self.stamps.append(tick.step.t_ns.get("monotonic", 0))
        self.scores = tick.verdicts

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Notes how the episode ended."""
        self.note(f"episode {self.episode}: {outcome.reason} after {outcome.steps} ticks")

    @property
    def rate(self) -> float:
        """Ticks a second, of the last ones; 0 before there are two."""
        stamps = tuple(self.stamps)
        span = stamps[-1] - stamps[0] if len(stamps) > 1 else 0
        return (len(stamps) - 1) / (span * 1e-9) if span > 0 else 0.0

    def share(self, flag: Flag) -> float:
        """Returns the share of the last ticks with a flag."""
        last = tuple(self.flags)  # at once: the control loop adds to it while the screen is drawn
        return float(np.mean([bool(flags & flag) for flags in last])) if last else 0.0


class Screen(LiveScreen):
    """Shows a board while the block runs; plain lines where `plain`, or where standard output is no terminal."""

    def __init__(self, board: Board, title: str, plain: bool = False, console: Console | None = None) -> None:
        self.board, self.title = board, title
        super().__init__(plain, console)
        if self._live is None:
            board.tell = self._say

    @staticmethod
    def _say(text: str) -> None:
        with suppress(OSError):  # a full disk or a closed terminal at the other end must not stop the control loop
            print(text, flush=True)

    def picture(self) -> Panel:
        """Returns the screen at this instant."""
        board, machine = self.board, self.board.machine
        state = Text(f"{machine.mode}", style=_COLOURS.get(machine.mode, "dim"))
        if machine.causes:
            state.append("  " + ", ".join(machine.causes), style="red")
        table = Table.grid(padding=(0, 3))
        table.add_row("episode", f"{board.episode} of {board.episodes}", f"tick {board.step} of {board.max_steps}")
        table.add_row("rate", f"{board.rate:.1f} of {board.hz:g} Hz", "")
        table.add_row("plans", board.planning(), "")
        ages = "  ".join(f"{name} {1000 * age:.0f} ms" for name, age in board.ages().items())
        table.add_row("ages", ages or "-", "")
        shares = "  ".join(f"{word} {100 * board.share(flag):.0f} %" for flag, word in _FLAGS.items() if board.share(flag))
        table.add_row("ticks", shares or "all as asked", "")
        for name, verdict in board.scores.items():
            table.add_row(f"monitor {name}", f"{verdict.score:.3g} of {verdict.threshold:.3g}", "ALARM" if verdict.alarm else "")
        notes = Text("\n".join(board.notes), style="dim")
        parts = (Text(board.facts), state, table, notes, Text(LEGEND, style="cyan"))
        return Panel(Group(*parts), title=self.title, expand=False)
