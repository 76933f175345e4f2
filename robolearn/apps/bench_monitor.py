"""What watching costs: a plan of 32 draws over a plan of one, the scorers over that plan, and a plan scored every other time."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.apps import _bench
from robolearn.apps._report import write_json
from robolearn.core import Ask, Chunk
from robolearn.errors import BadInput
from robolearn.monitors._base import Episode, Layout, Plans
from robolearn.monitors._book import Book
from robolearn.monitors._fit import fit
from robolearn.monitors._recipe import SMALL, Recipe, score_names
from robolearn.monitors._watch import Watch

DRAWS = 32
BOUND = 0.15  # scorers over the plan they watch
PUBLISHED = ("rnd_published", "fiper")  # with networks of the paper's size, whose weights are 137 MB to read for every plan
SUMMARY = Path("docs/results/failure/summary.json")


@dataclass(frozen=True)
class Config:
    """What to time."""

    denoisers: tuple[str, ...] = ("mlp", "unet1d", "transformer")
    repeats: int = 20
    """Interleaved plans of each kind; at least 5."""
    threads: int = 0
    """Threads of torch; 0: as torch chooses."""
    device: str = "cpu"
    results: Path = SUMMARY
    """The table of `study failure`, whose rows are put beside the costs where it is there."""
    json: Path | None = None
    """Write the figures to this file."""

    def __post_init__(self) -> None:
        if self.repeats < 5:
            raise ValueError(f"repeats: want at least 5, got {self.repeats}")


def run(cfg: Config) -> int:
    """Times every denoiser, then the scorers on plans of the first one, and prints a line each."""
    import torch

    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    reference = _bench.reference_per_s()
    plans = [plan_row(denoiser, cfg) for denoiser in cfg.denoisers]
    for row in plans:
        fewer = f"draws of 5 steps {row['half_steps_over_b1']:.2f}, of 4 {row['few_steps_over_b1']:.2f}"
        print(
            f"{row['denoiser']:<12} B=1 {row['plan_b1_ms']:7.2f} ms   B=32 {row['plan_b32_ms']:7.2f} ms   "
            f"ratio {row['plan_b32_over_b1']:.2f}   {fewer}"
        )
    scorers = scorer_rows(cfg)
    for row in scorers:
        shares = "  ".join(f"{p['denoiser']} {row['ms'] / p['plan_b32_ms']:.3f}" for p in plans)
        print(f"{row['scorer']:<20} {row['ms']:7.3f} ms a plan   over a plan of 32: {shares}")
    shares_of_plan, shares_small = (
        {p["denoiser"]: next(row["ms"] for row in scorers if row["scorer"] == name) / p["plan_b32_ms"] for p in plans}
        for name in ("fiper", "fiper_small")
    )
    figures = {
        "plan_b32_over_b1": {p["denoiser"]: p["plan_b32_over_b1"] for p in plans},
        "scorers_over_plan_b32": shares_of_plan,
        "scorers_small_over_plan_b32": shares_small,
        "budget_mode": {p["denoiser"]: p["budget_over_b1"] for p in plans},
        "plans": plans,
        "scorers": scorers,
        "rows": detector_rows(cfg.results),
        "reference_per_s": reference,
        "machine": _bench.machine(torch.get_num_threads()),
        "device": cfg.device,
    }
    write_json(cfg.json, figures, seed=0)
    over = [name for name, share in shares_of_plan.items() if share > BOUND]
    if over:
        print(f"the scorers of fiper take more than {BOUND:.0%} of a plan of {DRAWS} with: {', '.join(over)}")
    return 1 if over else 0


def plan_row(denoiser: str, cfg: Config) -> dict[str, Any]:
    """Returns what a plan costs with one draw, with 32, with 32 of half the steps or of 4, and with 32 every other time.

    The observation is encoded once for all draws; where the draws take fewer steps, the plan that is executed is made apart.
    """
    from robolearn.apps.bench_policy import make_plan

    def of_steps(steps: int) -> Any:
        made = make_plan(denoiser, "ddim", cfg.device)
        fewer: dict[str, Any] = {"steps": steps}
        made.net.config = replace(made.net.config, **fewer)
        return made

    policy = make_plan(denoiser, "ddim", cfg.device)
    half, few = of_steps(5), of_steps(4)  # of 10
    variants: Mapping[str, Callable[[], Any]] = {
        "one": policy.plan,
        "many": lambda: policy.plan(Ask(draws=DRAWS)),
        "half": lambda: (policy.plan(), half.plan(Ask(draws=DRAWS))),
        "few": lambda: (policy.plan(), few.plan(Ask(draws=DRAWS))),
    }
    times = {name: statistics.median(t) * 1e3 for name, t in _bench.interleaved(variants, cfg.repeats, warm=3).items()}
    return {
        "denoiser": denoiser,
        "params": sum(p.numel() for p in policy.net.parameters()),
        "plan_b1_ms": times["one"],
        "plan_b32_ms": times["many"],
        "plan_b32_over_b1": times["many"] / times["one"],
        "half_steps_over_b1": times["half"] / times["one"],
        "few_steps_over_b1": times["few"] / times["one"],
        "budget_over_b1": (times["one"] + times["many"]) / (2 * times["one"]),
        "draws": DRAWS,
    }


def scorer_rows(cfg: Config) -> list[dict[str, Any]]:
    """Returns what each score, and FIPER, take for one plan of 32 draws: a live update with its window and threshold."""
    from robolearn.apps.bench_policy import make_plan

    policy = make_plan("mlp", "ddim", cfg.device)
    chunk = policy.plan(Ask(draws=DRAWS))
    config = policy.net.config
    layout = replace(Layout.of(policy.spec, config.horizon - config.n_past, config.n_past), action=("x", "y"))
    episodes = synthetic(chunk, layout)
    names = [name for name in score_names() if name != "past_disagreement" or layout.n_past]
    recipes = {name: (name,) for name in names} | {
        "rnd_published": ("rnd",),
        "fiper": ("rnd", "ace"),
        "fiper_small": ("rnd", "ace"),
    }
    watches = {}
    for name, scores in recipes.items():
        options = {n: (SMALL.get(n, {}) if name not in PUBLISHED else {}) | BRIEF.get(n, {}) for n in scores}
        watches[name] = Watch(fit(Recipe(scores, options=options, windows=(5,), bands=("constant",)), layout, episodes))
    ticks = {name: iter(range(0, 10**9, layout.execute)) for name in watches}

    def update(name: str) -> Callable[[], Any]:
        return lambda: watches[name].update({}, replace(chunk, tick=next(ticks[name])))

    times = _bench.interleaved({name: update(name) for name in watches}, max(cfg.repeats, 20), warm=3)
    return [
        {"scorer": name, "ms": statistics.median(t) * 1e3, "sizes": "published" if name in PUBLISHED else "small where learned"}
        for name, t in times.items()
    ]


BRIEF: dict[str, dict[str, Any]] = {  # how long a network was fitted does not change what it takes to ask it
    name: {"epochs": 1} for name in ("rnd", "rnd_actions", "logpzo", "safe_mlp", "safe_lstm")
}


def synthetic(chunk: Chunk, layout: Layout, n: int = 24, plans: int = 10) -> list[Episode]:
    """Returns episodes whose plans are that of `chunk` with noise, two thirds of them successes: something to fit to."""
    rng, made = np.random.default_rng(0), []
    if chunk.samples is None or chunk.features is None:
        raise BadInput("bench monitor: want a chunk with draws and an embedding")
    for seed in range(n):
        book, parts = Book(), []
        for k in range(plans):
            noisy = chunk.samples + 0.1 * rng.normal(size=chunk.samples.shape).astype(np.float32)
            features = chunk.features + 0.1 * rng.normal(size=chunk.features.shape).astype(np.float32)
            told = replace(chunk, tick=k * layout.execute, samples=noisy, actions=noisy[0], features=features)
            parts.append(book.add(told))
        made.append(Episode(Plans.join(parts), seed % 3 > 0, plans * layout.execute, seed))
    return made


def detector_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of the study's table, none where it has not been run."""
    return list(json.loads(path.read_text())["rows"]) if path.is_file() else []
