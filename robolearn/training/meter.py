"""What a training run counts between two log lines: the loss, and the seconds spent on data and on steps."""

from __future__ import annotations

import time
from collections.abc import Mapping

from accelerate import Accelerator
from torch import Tensor

_WAITS = 0.2  # share of a step spent waiting for data from which on a hint is shown


class Meter:
    """Sums the loss on the device and the seconds spent on data and on steps, between two reads."""

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self._clear()

    def _clear(self) -> None:
        self.loss: Tensor | None = None
        self.parts = self.steps = 0
        self.data_s = self.step_s = 0.0
        self.mark = time.perf_counter()

    def data(self) -> None:
        """The batch has arrived."""
        now = time.perf_counter()
        self.data_s, self.mark = self.data_s + now - self.mark, now

    def add(self, loss: Tensor) -> None:
        """One part's loss."""
        self.loss = loss.detach() if self.loss is None else self.loss + loss.detach()
        self.parts += 1

    def step(self) -> None:
        """The optimiser step is done."""
        now = time.perf_counter()
        self.step_s, self.mark, self.steps = self.step_s + now - self.mark, now, self.steps + 1

    def skip(self) -> None:
        """What happened since the last mark (validation, saving) belongs to neither."""
        self.mark = time.perf_counter()

    def read(self, accelerator: Accelerator) -> dict[str, float]:
        """Returns mean loss over all processes, samples/s, data and step seconds of one step; starts anew."""
        assert self.loss is not None
        loss = accelerator.reduce(self.loss / self.parts, "mean") if accelerator.num_processes > 1 else self.loss / self.parts
        row = {
            "loss": float(loss),
            "samples_per_s": self.batch_size * self.steps / max(self.data_s + self.step_s, 1e-9),
            "data_s": self.data_s / self.steps,
            "step_s": self.step_s / self.steps,
        }
        self._clear()
        return row


def shown(row: Mapping[str, float]) -> str:
    """Returns what stands beside the progress bar: loss, seconds of a step, and those of them spent waiting for data."""
    waits = row["data_s"] / max(row["data_s"] + row["step_s"], 1e-9)
    hint = "; waits for data: try --dataset.workers 2" if waits > _WAITS else ""
    seconds = f"step_s {row['step_s']:.4f}, data_s {row['data_s']:.4f}"
    return f"loss {row['loss']:.4f}, {seconds}, {row['samples_per_s']:.0f} samples/s{hint}"
