"""Where a run's numbers go: metrics.jsonl always, tensorboard and wandb when asked; and which checkpoints are kept."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robolearn import config
from robolearn.errors import MissingDependency
from robolearn.training import checkpoint
from robolearn.training.settings import TrainConfig


def read_metrics(run: Path) -> list[dict[str, float]]:
    """Returns the rows of RUN/metrics.jsonl; a last line cut off by a crash is left out."""
    rows = []
    path = run / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


class Logs:
    """Writes one row at a time; rows after `first` of an interrupted run are dropped, for they are computed again."""

    def __init__(self, run: Path, cfg: TrainConfig, first: int) -> None:
        rows = [row for row in read_metrics(run) if row["step"] <= first]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        self.file = (run / "metrics.jsonl").open("a", buffering=1)
        self.errors = {int(row["step"]): row["val_action_mse"] for row in rows if "val_action_mse" in row}
        self.board: Any = None
        self.wandb: Any = None
        if cfg.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(run / "tensorboard"), purge_step=first + 1)
        if cfg.wandb:
            try:
                import wandb
            except ModuleNotFoundError as error:
                raise MissingDependency("wandb", "logging to wandb", "pip install wandb") from error
            self.wandb = wandb.init(project=cfg.wandb, name=run.name, config=config.to_mapping(cfg), resume="allow")

    def write(self, step: int, row: Mapping[str, float]) -> None:
        """Adds the row of one step."""
        if "val_action_mse" in row:
            self.errors[step] = row["val_action_mse"]
        clean = {key: value if math.isfinite(value) else None for key, value in row.items()}
        self.file.write(json.dumps({"step": step, **clean}) + "\n")
        if self.board is not None:
            for key, value in row.items():
                self.board.add_scalar(key, value, step)
        if self.wandb is not None:
            self.wandb.log(dict(row), step=step)

    def keep_best(self, run: Path, n: int) -> None:
        """Removes all checkpoints but the last and the `n` with the lowest validation action error; names the best."""
        folders = {int(p.name.split("_")[1]): p for p in (run / "checkpoints").glob("step_*")}
        ranked = sorted((self.errors[step], step) for step in folders if step in self.errors)
        keep = {max(folders)} | {step for _, step in ranked[:n]}
        for step, folder in folders.items():
            if step not in keep:
                shutil.rmtree(folder)
        if ranked and n:
            checkpoint.point(run, "best", folders[ranked[0][1]])

    def close(self) -> None:
        """Flushes everything."""
        self.file.close()
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()
