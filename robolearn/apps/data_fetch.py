"""Fetches real human demonstrations: robosuite-human (through pip) or pusht (206 episodes; a download or a local copy)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from robolearn.apps._report import write_json
from robolearn.data import fetch
from robolearn.data.store import EpisodeSet


@dataclass(frozen=True)
class Config:
    """What to fetch, and where to.

    name: robosuite-human or pusht; out: where to write (default data/demos/...); source: --from PATH, a local copy instead
    of the network; json: where to write the figures; overwrite: replace what is there.
    """

    name: tyro.conf.Positional[Literal["robosuite-human", "pusht"]]
    out: Path | None = None
    source: Annotated[Path | None, tyro.conf.arg(name="from")] = None
    json: Path | None = None
    overwrite: bool = False


def run(cfg: Config) -> int:
    """Fetches, verifies, and says what was written and under which licence."""
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


def _replay_error_px(dataset: EpisodeSet) -> float:
    """Returns how far [px] the simulator's states are from the recorded ones."""
    from robolearn.apps.replay import replay_pusht

    print("robolearn: replaying all episodes open loop", file=sys.stderr)
    return float(replay_pusht(dataset)["max_state_error_px"])
