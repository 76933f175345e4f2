"""Fetches real human demonstrations: robosuite-human (through pip) or pusht (206 episodes; a download or a local copy)."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tqdm import tqdm

from robolearn.apps import replay
from robolearn.apps._report import write_json
from robolearn.data import fetch
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, DatasetError
from sim_envs import _base as tasks


@dataclass(frozen=True)
class Config:
    """What to fetch, and where to.

    name: robosuite-human or pusht; out: where to write (default data/demos/...); source: --from PATH, a local copy instead
    of the network; dry_run: only say what would be fetched; json: where to write the figures; overwrite: replace what is there.
    """

    name: tyro.conf.Positional[Literal["robosuite-human", "pusht"]]
    out: Path | None = None
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    dry_run: bool = False
    json: Path | None = None
    overwrite: bool = False


def run(cfg: Config) -> int:
    """Fetches, verifies, and says what was written and under which licence."""
    if cfg.dry_run:
        return plan(cfg)
    if cfg.name == "robosuite-human":
        out = cfg.out or Path("data/demos/robosuite-human")
        print(fetch.fetch_robosuite_human(out, cfg.source, cfg.overwrite).strip())
        figures = {"out": out, "files": sorted(fetch.ROBOSUITE_DEMOS), "licence": "MIT"}
        print(f"\n{out}: {len(list(out.glob('*/panda/demo.hdf5')))} human demonstrations, checksums verified")
    else:
        out = cfg.out or Path("data/demos/pusht.zarr")
        made, error = fetch.fetch_pusht(out, _replay_error_px, cfg.source, cfg.overwrite)
        figures = {"out": out, "episodes": made.n_episodes, "steps": made.n_steps, "max_state_error_px": error}
        figures["licence"] = fetch.PUSHT_LICENCE
        print(f"{out}: {made.n_episodes} human episodes, {made.n_steps} steps at 10 Hz; replayed open loop within {error:.1e} px")
        print(f"licence: {fetch.PUSHT_LICENCE}")
    write_json(cfg.json, figures)
    return 0


def plan(cfg: Config) -> int:
    """Says what would be fetched from where to where, and whether something is in the way; asks no network."""
    human = cfg.name == "robosuite-human"
    out = cfg.out or Path("data/demos/robosuite-human" if human else "data/demos/pusht.zarr")
    source = cfg.source or (f"{fetch.ROBOSUITE_WHEEL}, through pip" if human else fetch.PUSHT_URL)
    if isinstance(source, Path) and not source.exists():
        raise DatasetError(f"{source}: no such file or folder")
    if out.exists() and not cfg.overwrite:
        raise AlreadyExists(out, "dataset")
    licence = "MIT" if human else fetch.PUSHT_LICENCE
    print(f"{out}: would be {'replaced' if out.exists() else 'written'} from {source}; licence: {licence}")
    write_json(cfg.json, {"out": out, "source": source})
    return 0


def _replay_error_px(dataset: EpisodeSet) -> float:
    """Returns how far [px] the simulator's states are from the recorded ones, all episodes replayed from their seeds."""
    found = replay.Replay()
    with closing(tasks.make("pusht")) as body:
        for episode in tqdm(range(dataset.n_episodes), desc="replay", unit="episode", leave=False, disable=None):
            replay.replay_episode(dataset, body, episode, found)
    return float(replay.to_figures("pusht", dataset.n_episodes, found)["max_state_error_px"])
