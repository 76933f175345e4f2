"""The grid of `study memory`: which cells there are, how one is trained and evaluated, and what is made of them."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robolearn import config
from robolearn.apps import _grid, record
from robolearn.apps._evaluate import EXPERT, Options, Subject, evaluate, find
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, nearest
from robolearn.intervals import wilson95
from robolearn.policies._verified import Verification
from sim_envs import _base as tasks

TRAINED = ("no_history", "window_released", "window_clean", "ptp", "gru", "sega_frozen", "sega_k1", "sega_bptt", "sega_ptp")
VERIFIED = {"ptp_verified": 10, "ptp_verified_5": 5, "ptp_verified_30": 30}  # draws; the weights are those of ptp
ARMS = (*TRAINED[:4], "ptp_verified", *TRAINED[4:], "oracle")
LEAST = 4  # positions of the past, 8 ticks apart, from which on plans are verified: all 15 would take 120 ticks
DRAWS = ("ptp", "ptp_verified_5", "ptp_verified", "ptp_verified_30")
TRANSFORMER = tuple(f"{arm}+transformer" for arm in ("window_released", "window_clean", "ptp"))
KNOWN = tuple(dict.fromkeys((*ARMS, *VERIFIED, *TRANSFORMER)))
SLOTS = 32  # episodes of a batch where gradients go through whole ones
THROUGH = ("gru", "sega_bptt", "sega_ptp")


@dataclass(frozen=True)
class Cell:
    """One figure of the study: a task with the length of its wait, an arm, a training seed."""

    task: str  # NAME-STEPS, such as shell-64
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """TASK/ARM/SEED."""
        return f"{self.task}/{self.arm}/{self.seed}"

    @property
    def base(self) -> str:
        """The arm whose weights are evaluated."""
        return "ptp" if self.arm in VERIFIED else self.arm

    @property
    def memory_steps(self) -> int:
        """How many ticks the fact must be remembered at least."""
        return int(self.task.rpartition("-")[2])

    @property
    def env(self) -> tuple[str, dict[str, Any]]:
        """The task's name and what rebuilds its body."""
        return self.task.rpartition("-")[0], {"memory_steps": self.memory_steps}


@dataclass(frozen=True)
class Plan:
    """How cells are trained and evaluated; picklable."""

    out: Path
    demos: int
    episodes: int
    eval_seed: int
    steps: int = 0  # 0: the arm's own
    threads: int = 1


def parse(name: str) -> Cell:
    """Returns the cell called TASK/ARM/SEED; BadInput with the nearest name."""
    parts = name.split("/")
    if len(parts) != 3 or not parts[2].isdigit():
        raise BadInput(f"cell: want TASK/ARM/SEED, such as shell-64/ptp/0, got '{name}'")
    task, arm, seed = parts
    if arm not in KNOWN:
        raise BadInput(f"cell: no arm '{arm}'{nearest(arm, KNOWN)}")
    if not task.rpartition("-")[2].isdigit() or task.rpartition("-")[0] not in tasks.names():
        raise BadInput(f"cell: want a task and its memory_steps, such as shell-64, got '{task}'")
    return Cell(task, arm, int(seed))


def demonstrations(plan: Plan, task: str) -> Path:
    """Returns the set of the expert's episodes of a task, recorded where it is missing."""
    path = plan.out / f"{task}.zarr"
    name, env = Cell(task, "oracle", 0).env
    fields = tuple(f"{key}={value}" for key, value in env.items())
    if not path.exists() or EpisodeSet.open(path).n_episodes < plan.demos:
        job = record.Config(task=name, out=path, episodes=plan.demos, env_set=fields, resume=path.exists())
        record.run(job)
    made = EpisodeSet.open(path)
    rules, now = made.attrs.get("simulator", {}).get("planar"), tasks.make(name, env).versions().get("planar")  # type: ignore[attr-defined]
    if made.n_episodes != plan.demos or rules != now:
        found = f"{made.n_episodes} episodes under rules {rules}"
        raise BadInput(f"{path}: holds {found}, want {plan.demos} under rules {now}; give another --out, or delete it")
    return path


def run_cell(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Trains and evaluates one cell (what is there is kept) and returns its figures with the outcome of every episode."""
    import torch

    torch.set_num_threads(plan.threads)
    began = time.monotonic()
    name, env = cell.env
    if cell.arm == "oracle":
        subject, trained = Subject(EXPERT + name, name, env), {}
    else:
        trained = train(plan, Cell(cell.task, cell.base, cell.seed))
        subject = find(str(run_folder(plan, cell)))
    draws = VERIFIED.get(cell.arm, 1)
    options = Options(
        plan.episodes,
        plan.eval_seed,
        workers=1 if cell.arm == "oracle" else 0,
        envs_per_worker=min(50, plan.episodes),
        verify=Verification(draws=draws, least=LEAST),
    )
    done = evaluate(subject, options)
    return {
        "cell": cell.name,
        **_grid.measured(done, began),
        "demos": plan.demos,
        "chance": getattr(tasks.module(name), "CHANCE", None),
        **trained,
    }


def run_folder(plan: Plan, cell: Cell) -> Path:
    """Returns where the weights of a cell are."""
    return plan.out / f"{cell.task}_{cell.base}_{cell.seed}"


def train(plan: Plan, cell: Cell) -> dict[str, Any]:
    """Trains one arm on one task, unless that is done; half of a training is resumed."""
    from robolearn.apps.train import fit_task
    from robolearn.training import precision, settings, trainer

    run = run_folder(plan, cell)
    dataset = EpisodeSet.open(plan.out / f"{cell.task}.zarr")
    arm, _, denoiser = cell.arm.partition("+")
    cfg = settings.load(config.find("train", f"memory_{arm}"))
    if denoiser:  # of the papers: narrower, more and smaller steps
        policy = dataclasses.replace(cfg.policy, denoiser="transformer", width=64, depth=2)
        cfg = dataclasses.replace(cfg, policy=policy, batch_size=64, steps=2 * cfg.steps)
    name, env = cell.env
    chain = updates(dataset, cfg.policy.update_every) if cell.arm in THROUGH else cfg.chain
    compiles = cell.arm in ("sega_bptt", "sega_ptp") and not precision.why_not_compile("cpu")  # halves their minutes
    cfg = dataclasses.replace(
        cfg,
        dataset=dataclasses.replace(cfg.dataset, path=str(dataset.path), filter="", max_episodes=0),
        out=str(run),
        seed=cell.seed,
        task=name,
        env=env,
        chain=chain,
        batch_size=SLOTS * chain if cell.arm in THROUGH else cfg.batch_size,
        precision="compile" if compiles else cfg.precision,
        steps=plan.steps or cfg.steps,
        threads=plan.threads,
        device="cpu",
    )
    done = run / "trained.json"
    if done.exists() and (was := json.loads(done.read_text())["train_steps"]) != cfg.steps:
        raise BadInput(f"{run}: was trained for {was} steps, want {cfg.steps}; give another --out or the same --steps")
    if not done.exists():
        began = time.monotonic()
        cfg, spec = fit_task(cfg, dataset)
        trainer.train(cfg, dataset, spec, resume=run.exists())
        from robolearn.training.checkpoint import load_policy

        count = sum(p.numel() for p in load_policy(run).net.parameters())
        facts = {"train_s": round(time.monotonic() - began, 1), "params": count, "train_steps": cfg.steps}
        done.write_text(json.dumps(facts | {"chain": chain, "batch_size": cfg.batch_size, "precision": cfg.precision}))
    found: dict[str, Any] = json.loads(done.read_text())
    return found


def updates(dataset: EpisodeSet, stride: int) -> int:
    """Returns how many updates of a memory the longest episode has."""
    return math.ceil(int(np.diff(dataset.episode_ends, prepend=0).max()) / stride)


def rows(cells: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns one row a task and arm: success over all training seeds with its Wilson interval, seeds apart, chance."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for found in cells:
        cell = parse(found["cell"])
        groups.setdefault((cell.task, cell.arm), []).append(found)
    out = []
    for (task, arm), members in groups.items():
        outcomes = [s for found in members for s in found["success"]]
        low, high = wilson95(sum(outcomes), len(outcomes))
        by_seed = {found["cell"].rpartition("/")[2]: sum(found["success"]) / len(found["success"]) for found in members}
        out.append(
            {
                "task": task.rpartition("-")[0],
                "arm": arm,
                "memory_steps": parse(members[0]["cell"]).memory_steps,
                "train_seeds": len(members),
                "episodes": len(members[0]["success"]),
                "success": sum(outcomes) / len(outcomes),
                "interval95": [low, high],
                "by_seed": dict(sorted(by_seed.items())),
                "chance": members[0]["chance"],
                "params": members[0].get("params"),
                "train_s": float(np.median([found["train_s"] for found in members])) if "train_s" in members[0] else None,
            }
        )
    return sorted(out, key=lambda row: (row["task"], row["memory_steps"], KNOWN.index(row["arm"])))


def text(table: Sequence[Mapping[str, Any]]) -> str:
    """Returns what the terminal shows: a line per task and arm."""
    lines = [f"{'task':<14} {'arm':<16} {'success':>8}   95 % interval    chance  seeds"]
    for row in table:
        low, high = row["interval95"]
        chance = "" if row["chance"] is None else f"{row['chance']:.3f}"
        seeds = " ".join(f"{value:.2f}" for value in row["by_seed"].values())
        name = f"{row['task']}-{row['memory_steps']}"
        lines.append(f"{name:<14} {row['arm']:<16} {row['success']:8.3f}   {low:.3f} .. {high:.3f}   {chance:>6}  {seeds}")
    return "\n".join(lines)
