"""Which episodes are trained on and which are held out."""

from __future__ import annotations

import numpy as np
import torch

from robolearn import config
from robolearn.data._select import filter_episodes, format_ranges
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import split_episodes
from robolearn.errors import DatasetError
from robolearn.training.settings import DatasetConfig


def pick_episodes(cfg: DatasetConfig, dataset: EpisodeSet, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (training, validation) episodes, each rising and none in both.

    filter: only these; val_filter: these are held out, instead of a share drawn by the seed; max_episodes: of what is left
    to train on that many, drawn by the seed.
    """
    pool = _listed(dataset, cfg.filter) if cfg.filter else np.arange(dataset.n_episodes)
    if cfg.val_filter:
        held_out = _listed(dataset, cfg.val_filter)
        train = np.setdiff1d(pool, held_out)
        both = np.intersect1d(pool, held_out)
        if cfg.filter and len(both):
            config.warn(
                f"robolearn: episodes {format_ranges(both)} are in filter '{cfg.filter}' and in val_filter '{cfg.val_filter}': "
                "they are held out"
            )
        if not len(train):
            raise DatasetError(f"{dataset.path}: val_filter '{cfg.val_filter}' leaves no episode to train on")
    else:
        first, second = split_episodes(len(pool), cfg.val_ratio, seed)
        train, held_out = pool[first], pool[second]
    if cfg.max_episodes:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        train = np.sort(train[order[: cfg.max_episodes].numpy()])
    return train, held_out


def _listed(dataset: EpisodeSet, name: str) -> np.ndarray:
    found = filter_episodes(dataset, name)
    if not len(found):
        raise DatasetError(f"{dataset.path}: filter '{name}' holds no episode")
    return found
