"""A picture in the terminal that is drawn anew in a thread of its own, so that no loop waits for a terminal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live

REFRESH_HZ = 8


class LiveScreen(ABC):
    """Shows `picture()` while the block runs; nothing where `plain`, or where standard output is no terminal."""

    def __init__(self, plain: bool, console: Console | None) -> None:
        """Draws once at once: what `picture` reads must be there before."""
        self.console = console or Console()
        self._live: Live | None = None
        if not plain and self.console.is_terminal:
            self._live = Live(get_renderable=self.picture, console=self.console, refresh_per_second=REFRESH_HZ)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    @abstractmethod
    def picture(self) -> RenderableType:
        """Returns the screen at this instant."""
