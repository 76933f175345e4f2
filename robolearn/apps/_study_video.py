"""The grid of `study video`: which cells there are, what one learns from, how it is trained and evaluated."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import config
from robolearn.apps import _grid
from robolearn.apps._dots import Row
from robolearn.apps._evaluate import Options, evaluate, find
from robolearn.apps._two_hands_sets import Wanted, record_tracks
from robolearn.data._files import locked
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, nearest
from robolearn.intervals import wilson95
from robolearn.video.noise import HandNoise
from robolearn.video.pack import Packing, pack

TASKS = ("drawer-left", "drawer-right", "reach_lift", "fork_plate")
POLICIES = ("dp", "act", "mt_pi", "mt_pi_joint")
OF_TRACKS = ("mt_pi", "mt_pi_joint")
SHOWN = {"drawer": "right"}  # to which side the drawer stands out in the robot's demonstrations; people show both
PATIENCE_S = 7200.0  # for another process that trains the same weights
HUMAN_SEED = 20_000  # of the first scene that a person performs; the robot's begin at 0


@dataclass(frozen=True)
class Cell:
    """One figure of the study: a task, a policy, how many demonstrations of robots and of people, a training seed."""

    task: str  # NAME or NAME-DIRECTION
    policy: str
    robot_demos: int
    human_demos: int
    seed: int

    @property
    def arm(self) -> str:
        """POLICY-ROBOT-HUMAN."""
        return f"{self.policy}-{self.robot_demos}-{self.human_demos}"

    @property
    def name(self) -> str:
        """TASK/POLICY-ROBOT-HUMAN/SEED."""
        return f"{self.task}/{self.arm}/{self.seed}"

    @property
    def scene(self) -> str:
        """The task without its direction: what is trained for."""
        return self.task.partition("-")[0]

    @property
    def env(self) -> dict[str, Any]:
        """What the scenes of the test are told."""
        direction = self.task.partition("-")[2]
        return {"direction": direction} if direction else {}


@dataclass(frozen=True)
class Plan:
    """How cells are trained and evaluated; picklable."""

    out: Path
    episodes: int
    eval_seed: int
    image_size: int = 64
    steps: int = 0  # 0: the config's own
    exact: bool = False
    threads: int = 1


def parse(name: str) -> Cell:
    """Returns the cell called TASK/POLICY-ROBOT-HUMAN/SEED; BadInput with the nearest name."""
    parts = name.split("/")
    arm = parts[1].split("-") if len(parts) == 3 else []
    if len(arm) != 3 or not all(number.isdigit() for number in (*arm[1:], parts[2])):
        raise BadInput(f"cell: want TASK/POLICY-ROBOT-HUMAN/SEED, such as drawer-left/mt_pi-30-60/0, got '{name}'")
    if parts[0] not in TASKS:
        raise BadInput(f"cell: no task '{parts[0]}'{nearest(parts[0], TASKS)}")
    if arm[0] not in POLICIES:
        raise BadInput(f"cell: no policy '{arm[0]}'{nearest(arm[0], POLICIES)}")
    cell = Cell(parts[0], arm[0], int(arm[1]), int(arm[2]), int(parts[2]))
    if cell.policy not in OF_TRACKS and cell.human_demos:
        raise BadInput(f"cell: {cell.policy} learns from actions, which people's videos have not; want {cell.policy}-{arm[1]}-0")
    if not cell.robot_demos:
        raise BadInput(f"cell: want robot demonstrations, got '{name}'")
    return cell


def demonstrations(plan: Plan, cell: Cell) -> Path:
    """Returns the set that a cell learns from, made where it is missing."""
    robot = _recorded(plan, cell.scene, "robot", cell.robot_demos)
    if cell.policy not in OF_TRACKS:
        return robot
    people = [_recorded(plan, cell.scene, "human", cell.human_demos)] if cell.human_demos else []
    joint = cell.policy == "mt_pi_joint"
    out = plan.out / f"{cell.scene}_{cell.robot_demos}_{cell.human_demos}{'_joint' if joint else ''}.zarr"
    if not out.exists():
        pack([robot, *people], out, Packing(joint=joint, size=plan.image_size))
    return out


def _recorded(plan: Plan, scene: str, embodiment: str, episodes: int) -> Path:
    """Returns the motion-track set of one embodiment; a person's landmarks have a hand detector's errors unless `exact`."""
    path = plan.out / f"{scene}_{embodiment}_{episodes}.zarr"
    if path.exists():
        return path
    given: dict[str, Any] = {"image_size": plan.image_size}
    if embodiment == "human":
        noise = None if plan.exact else HandNoise()
        wanted = Wanted(scene, episodes, HUMAN_SEED, "human", noise, overrides=given)
    else:
        given |= {"direction": SHOWN[scene]} if scene in SHOWN else {}
        wanted = Wanted(scene, episodes, 0, "robot", overrides=given)
    record_tracks(wanted, path)
    return path


def minutes_of(path: Path) -> float:
    """Returns how long all episodes of a set take together [min]."""
    dataset = EpisodeSet.open(path)
    assert dataset.hz is not None
    return dataset.n_steps / dataset.hz / 60.0


def run_cell(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Trains (what is there is kept) and evaluates one cell; returns its figures with the outcome of every episode."""
    import torch

    torch.set_num_threads(plan.threads)
    began = time.monotonic()
    trained = train(plan, cell)
    subject = find(str(run_folder(plan, cell)))
    subject = dataclasses.replace(subject, env={**subject.env, **cell.env})
    done = evaluate(subject, Options(plan.episodes, plan.eval_seed, workers=0, envs_per_worker=min(25, plan.episodes)))
    people = plan.out / f"{cell.scene}_human_{cell.human_demos}.zarr"
    return {
        "cell": cell.name,
        **_grid.measured(done, began),
        "human_minutes": round(minutes_of(people), 2) if cell.human_demos else 0.0,
        "robot_minutes": round(minutes_of(plan.out / f"{cell.scene}_robot_{cell.robot_demos}.zarr"), 2),
        "human_noise": not plan.exact,
        **done.tally,
        **trained,
    }


def run_folder(plan: Plan, cell: Cell) -> Path:
    """Returns where the weights of a cell are; both directions of a task have the same."""
    return plan.out / f"{cell.scene}_{cell.arm}_{cell.seed}"


def train(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Trains one arm, unless that is done; half of a training is resumed. Whoever wants the same weights waits for them."""
    run = run_folder(plan, cell)
    done = run / "trained.json"
    with locked(run, "training", wait_s=PATIENCE_S):
        if not done.exists():
            done.write_text(json.dumps(_trained(plan, cell, run)))
    found: dict[str, Any] = json.loads(done.read_text())
    return found


def _trained(plan: Plan, cell: Cell, run: Path) -> dict[str, Any]:
    from robolearn.apps.train import fit_task
    from robolearn.training import settings, trainer
    from robolearn.training.checkpoint import load_policy

    began, dataset = time.monotonic(), EpisodeSet.open(demonstrations(plan, cell))
    cfg = settings.load(config.find("train", f"drawer_{cell.policy}"))
    data = dataclasses.replace(cfg.dataset, path=str(dataset.path), balance="embodiment" if cell.human_demos else "")
    cfg = dataclasses.replace(
        cfg,
        dataset=data,
        out=str(run),
        task=cell.scene,
        env={},
        seed=cell.seed,
        steps=plan.steps or cfg.steps,
        threads=plan.threads,
        device="cpu",
        precision="fp32",
    )
    cfg, spec = fit_task(cfg, dataset)
    trainer.train(cfg, dataset, spec, resume=run.exists())
    count = sum(p.numel() for p in load_policy(run).net.parameters())
    return {"train_s": round(time.monotonic() - began, 1), "params": count, "train_steps": cfg.steps}


def rows(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row a task and arm: success over all training seeds with its Wilson interval, and seeds apart."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for found in cells:
        cell = parse(found["cell"])
        groups.setdefault((cell.task, cell.arm), []).append(found)
    out = []
    for (task, _), members in groups.items():
        cell = parse(members[0]["cell"])
        outcomes = [solved for found in members for solved in found["success"]]
        out.append(
            {
                "task": task,
                "policy": cell.policy,
                "robot_demos": cell.robot_demos,
                "human_demos": cell.human_demos,
                "human_minutes": members[0]["human_minutes"],
                "train_seeds": len(members),
                "episodes": len(members[0]["success"]),
                "success": float(np.mean(outcomes)),
                "interval95": list(wilson95(sum(outcomes), len(outcomes))),
                "by_seed": {found["cell"].rpartition("/")[2]: float(np.mean(found["success"])) for found in members},
                "params": members[0]["params"],
                "train_s": float(np.median([found["train_s"] for found in members])),
            }
        )
    return sorted(
        out, key=lambda row: (TASKS.index(row["task"]), row["robot_demos"], row["human_demos"], POLICIES.index(row["policy"]))
    )


def panels(table: Sequence[Mapping[str, Any]]) -> dict[str, list[Row]]:
    """Returns the rows of a picture, by task."""
    found: dict[str, list[Row]] = {}
    for row in table:
        people = f" + {row['human_minutes']:.1f} min of people" if row["human_demos"] else ""
        name = f"{row['policy']}, {row['robot_demos']} robot demos{people}"
        found.setdefault(row["task"], []).append(Row(name, row["success"], tuple(row["interval95"])))
    return found


def text(table: Sequence[Mapping[str, Any]]) -> str:
    """Returns what the terminal shows: a line per task and arm."""
    lines = [f"{'task':<14} {'policy':<12} {'robot':>6} {'human':>6} {'success':>8}   95 % interval    seeds"]
    for row in table:
        low, high = row["interval95"]
        seeds = " ".join(f"{value:.2f}" for value in row["by_seed"].values())
        counts = f"{row['robot_demos']:>6} {row['human_demos']:>6}"
        lines.append(f"{row['task']:<14} {row['policy']:<12} {counts} {row['success']:8.3f}   {low:.3f} .. {high:.3f}   {seeds}")
    return "\n".join(lines)
