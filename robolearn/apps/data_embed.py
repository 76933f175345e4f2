"""Encode every frame of a dataset with a run's frozen encoder, once: `robolearn data embed RUN SET`; heads then train on that."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robolearn.apps._report import write_json
from robolearn.data.store import EpisodeSet


@dataclass(frozen=True)
class Config:
    """Whose encoder, which frames."""

    run: Annotated[Path, tyro.conf.Positional]
    """The run whose encoder is used."""
    dataset: Annotated[Path, tyro.conf.Positional]
    """The set to encode; the cache is written beside it."""
    crops: int = 0
    """Random crops of every frame; 0: the centre crop."""
    device: str = "cpu"
    """cpu, cuda."""
    rebuild: bool = False
    """Encode anew where there is a cache."""
    json: Path | None = None
    """Write frames, width and size to this file."""


def run(cfg: Config) -> int:
    """Encodes, unless that is done, and says how much it was."""
    import torch

    from robolearn.apps.train import fit_task
    from robolearn.policies._base import EMBEDDING
    from robolearn.training import checkpoint, embed, trainer

    trained = checkpoint.read_config(checkpoint.resolve(cfg.run))
    dataset = EpisodeSet.open(cfg.dataset)
    trained = dataclasses.replace(trained, encoder=str(cfg.run), cache_crops=cfg.crops, rebuild_cache=cfg.rebuild)
    trained, spec = fit_task(trained, dataset)
    frozen = embed.Frozen.load(cfg.run)
    made = embed.frames(trained, frozen, dataset, trainer.policy_spec(trained, spec), torch.device(cfg.device))[EMBEDDING]
    variants, steps, dim = made.shape
    print(f"{cfg.dataset}: {steps} frames x {variants} of width {dim}, {made.nbytes / 1e6:.1f} MB")
    write_json(
        cfg.json, {"steps": steps, "variants": variants, "dim": dim, "bytes": made.nbytes, "encoder_sha256": frozen.sha256}
    )
    return 0
