"""Turns two-view human video (its motion tracks) into demonstrations of a simulated arm or gripper, playable by `replay`."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from tqdm import tqdm

from robolearn.apps import _to_demos
from robolearn.apps._report import write_json
from robolearn.apps._to_demos import Demo, Human, Refused, Scene
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, Findings
from robolearn.video.playback import Pace
from robolearn.video.wrist import ROBUST, WristRule
from sim_envs import _base


@dataclass(frozen=True)
class Config:
    """Which human episodes, performed by which body, how."""

    dataset: Annotated[Path, tyro.conf.Positional]
    """A human motion-track set (`tracks extract`)."""
    task: str
    """The task whose body performs them."""
    out: Path
    """The dataset to write."""
    robot: str = ""
    """The arm, where the task has one; empty: the task's own."""
    action: Literal["", "pose_abs", "joint_abs"] = ""
    """What the body is told; empty: the task's own."""
    views: tuple[str, ...] = ()
    """Which views to triangulate; empty: all."""
    gripper: Literal["set", "distance"] = "set"
    """When the gripper closes: by the set's label, or by the distance of thumb and index finger (--wrist.close-m)."""
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Where the origin of the cameras' world lies in the body's [m]."""
    turn_deg: float = 0.0
    """How the cameras' world is turned about z in the body's."""
    tip: float = 0.0
    """How far before the body's hand frame its fingertips are [m]: 0 on robosuite's arms, 0.15 on the bench."""
    most_miss: float = 0.02
    """An episode whose path the arm would miss by more than this is left out [m]."""
    only_success: bool = False
    """Keep only what solved the task."""
    seed: int = 0
    """Of the first episode's reset, where the set names no seeds; episode i uses seed + i."""
    episodes: int = 0
    """How many human episodes, 0: all."""
    cameras: tuple[str, ...] = ()
    """Pictures of the body to record."""
    image_size: int = 0
    """Of the pictures [px]; 0: the task's own."""
    wrist: WristRule = ROBUST
    pace: Pace = Pace()
    json: Path | None = None
    """Write the figures to this file."""
    overwrite: bool = False
    """Replace an existing set."""

    @property
    def env(self) -> dict[str, Any]:
        """Overrides that rebuild the body."""
        given = {name: getattr(self, name) for name in ("robot", "action", "image_size") if getattr(self, name)}
        return given | ({"cameras": list(self.cameras)} if self.cameras else {})


def run(cfg: Config) -> int:
    """Performs every human episode that gives a path the arm can follow, and prints what became of each."""
    if cfg.out.exists() and not cfg.overwrite:
        raise AlreadyExists(cfg.out, "dataset")
    human = _to_demos.open_human(EpisodeSet.open(cfg.dataset), cfg.views)
    place = _to_demos.scene_pose(cfg.shift, cfg.turn_deg)
    scene = Scene(place, cfg.tip, cfg.wrist, cfg.pace, cfg.gripper == "set", cfg.most_miss)
    n = min(cfg.episodes or human.dataset.n_episodes, human.dataset.n_episodes)
    rows: list[dict[str, Any]] = []
    with closing(_base.make(cfg.task, cfg.env)) as body:
        done: EpisodeSet | None = None
        for episode in tqdm(range(n), desc=f"to-demos {cfg.task}", unit="episode", disable=None):
            row, demo = perform(cfg, human, body, episode, scene)
            rows.append(row)
            if demo is None:
                continue
            done = create(cfg, body.spec, demo) if done is None else done
            done.append(demo.rows, **{name: demo.figures[name] for name in ("seed", "success")}, human_episode=episode)
    print(text(cfg, rows))
    write_json(cfg.json, figures(cfg, rows), cfg.seed)
    if done is None:
        raise Findings(f"{cfg.out}: none of {n} human episodes gave a demonstration, so nothing was written")
    return 0


def perform(cfg: Config, human: Human, body: Any, episode: int, scene: Scene) -> tuple[dict[str, Any], Demo | None]:
    """Returns the report's row of one human episode, and its demonstration where it is kept."""
    seed = seed_of(cfg, human, episode)
    try:
        demo = _to_demos.demonstrate(body, seed, human, episode, scene)
    except Refused as why:
        return {"episode": episode, "seed": seed, "kept": False, "why": str(why), "success": False}, None
    kept = bool(demo.figures["success"]) or not cfg.only_success
    row = {"episode": episode, "kept": kept, "why": "" if kept else "unsolved", **demo.figures}
    return row, demo if kept else None


def seed_of(cfg: Config, human: Human, episode: int) -> int:
    """Returns the seed of the body's reset: the episode's own where the set knows it, so that things lie where they lay."""
    seeds = human.dataset.episode_field("seed")
    return cfg.seed + episode if seeds is None or seeds[episode] < 0 else int(seeds[episode])


def create(cfg: Config, spec: Spec, demo: Demo) -> EpisodeSet:
    """Returns a new, empty set for the body's observations, actions and simulator states."""
    extra = {"sim_state": ArraySpec(demo.rows["sim_state"].shape[1:], "float64")}
    meta = {"to_demos": {"source": str(cfg.dataset), "wrist": asdict(cfg.wrist), "pace": asdict(cfg.pace)}}
    return EpisodeSet.create(cfg.out, spec, task=cfg.task, env=cfg.env, meta=meta, extra=extra, overwrite=cfg.overwrite)


def figures(cfg: Config, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns what `--json` keeps."""
    kept = [row for row in rows if row["kept"]]
    return {
        "task": cfg.task,
        "env": cfg.env,
        "out": cfg.out,
        "human_episodes": len(rows),
        "episodes": len(kept),
        "successes": sum(row["success"] for row in rows),
        "success_rate": float(np.mean([row["success"] for row in rows])) if rows else None,
        "reasons": dict(Counter(row["why"].split(":")[0] for row in rows if row["why"])),
        "rows": rows,
    }


def text(cfg: Config, rows: list[dict[str, Any]]) -> str:
    """Returns what the terminal shows."""
    found = figures(cfg, rows)
    lines = [f"{cfg.dataset}: {len(rows)} human episodes -> {found['episodes']} demonstrations of {cfg.task} -> {cfg.out}"]
    lines.append(f"  {found['successes']} of {len(rows)} solve the task, open loop")
    kept = [row for row in rows if row["kept"]]
    for name, title in (("miss_max_mm", "arm's largest miss of the path"), ("lag_mean_mm", "hand behind what was asked")):
        values = [row[name] for row in kept if row[name] is not None]
        if values:
            lines.append(f"  {title}: {np.median(values):.1f} mm (median of episodes), {max(values):.1f} mm at most")
    lines += [f"  episode {row['episode']} left out: {row['why']}" for row in rows if not row["kept"]]
    return "\n".join(lines)
