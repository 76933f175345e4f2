"""What watching costs: a plan of 32 draws over a plan of one, cheaper ways to have the draws, and the scorers over that plan."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.apps import _bench, _bench_antithetic
from robolearn.apps._report import write_json
from robolearn.core import Ask, Chunk
from robolearn.errors import BadInput
from robolearn.monitors._base import Episode, Layout, Plans
from robolearn.monitors._book import Book
from robolearn.monitors._fit import fit
from robolearn.monitors._recipe import PUBLISHED, SMALL, Recipe, score_names
from robolearn.monitors._watch import Watch

DRAWS = 32
BOUND = 0.15  # scorers over the plan they watch
FIPER: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {  # rnd and ace, by the size of rnd's networks
    "fiper_32bit": ("published", {"rnd": {}}),  # 34 million weights, 137 MB to read for every plan
    "fiper": ("published, 8 bits", PUBLISHED),
    "fiper_small": ("small", SMALL),
}
SUMMARY = Path("docs/results/failure/summary.json")


@dataclass(frozen=True)
class Config:
    """What to time."""

    denoisers: tuple[str, ...] = ("mlp", "unet1d", "transformer")
    repeats: int = 20
    """Interleaved plans of each kind; at least 5."""
    pairs: int = 400
    """Plans of each kind for what draws in pairs would be worth (a minute); 0: none."""
    threads: int = 0
    """Threads of torch; 0: as torch chooses."""
    device: str = "cpu"
    results: Path = SUMMARY
    """The table of `study failure`, whose rows are put beside the costs where it is there."""
    json: Path | None = None
    """Write the figures to this file."""

    def __post_init__(self) -> None:
        if self.repeats < 5 or self.pairs < 0:
            raise ValueError(f"want repeats of at least 5 and pairs of at least 0, got {self.repeats} and {self.pairs}")


def run(cfg: Config) -> int:
    """Times every denoiser, then the scorers on plans of the first one, and prints a line each."""
    import torch

    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    reference = _bench.reference_per_s()
    plans = [plan_row(denoiser, cfg) for denoiser in cfg.denoisers]
    for row in plans:
        print(
            f"{row['denoiser']:<12} B=1 {row['plan_b1_ms']:7.2f} ms   B=32 {row['plan_b32_ms']:7.2f} ms   "
            f"over B=1: {row['plan_b32_over_b1']:.2f}, draws of 5 steps {row['half_steps_over_b1']:.2f}, "
            f"of 4 {row['few_steps_over_b1']:.2f}, every other plan {row['budget_over_b1']:.2f}, "
            f"B=16 {row['plan_b16_over_b1']:.2f}, B=8 {row['plan_b8_over_b1']:.2f}"
        )
    scorers = scorer_rows(cfg)
    for row in scorers:
        shares = "  ".join(f"{name} {share:.3f}" for name, share in row["over_plan_b32"].items())
        print(f"{row['scorer']:<20} {row['ms']:7.3f} ms a plan   over a plan of {DRAWS}: {shares}")
    shares_of = {row["scorer"]: row["over_plan_b32"] for row in scorers}
    pairs = _bench_antithetic.rows(cfg.pairs) if cfg.pairs else []
    if pairs:
        print(_bench_antithetic.text(pairs))
    figures = {
        "plan_b32_over_b1": {p["denoiser"]: p["plan_b32_over_b1"] for p in plans},
        "scorers_over_plan_b32": shares_of["fiper"],
        "scorers_32bit_over_plan_b32": shares_of["fiper_32bit"],
        "scorers_small_over_plan_b32": shares_of["fiper_small"],
        "half_steps_over_b1": {p["denoiser"]: p["half_steps_over_b1"] for p in plans},
        "few_steps_over_b1": {p["denoiser"]: p["few_steps_over_b1"] for p in plans},
        "budget_mode": {p["denoiser"]: p["budget_over_b1"] for p in plans},
        "plans": plans,
        "scorers": scorers,
        "pairs": pairs,
        "rows": detector_rows(cfg.results),
        "reference_per_s": reference,
        "machine": _bench.machine(torch.get_num_threads()),
        "device": cfg.device,
    }
    write_json(cfg.json, figures, seed=0)
    over = [name for name, share in shares_of["fiper"].items() if share > BOUND]
    if over:
        print(f"the scorers of fiper take more than {BOUND:.0%} of a plan of {DRAWS} with: {', '.join(over)}")
    return 1 if over else 0


def plan_row(denoiser: str, cfg: Config) -> dict[str, Any]:
    """Returns what a plan costs with one draw, 8, 16 and 32, with 32 of half the steps or of 4, and with 32 every other time.

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
        "b8": lambda: policy.plan(Ask(draws=8)),
        "b16": lambda: policy.plan(Ask(draws=16)),
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
        "plan_b8_over_b1": times["b8"] / times["one"],
        "plan_b16_over_b1": times["b16"] / times["one"],
        "half_steps_over_b1": times["half"] / times["one"],
        "few_steps_over_b1": times["few"] / times["one"],
        "budget_over_b1": (times["one"] + times["many"]) / (2 * times["one"]),
        "draws": DRAWS,
    }


def scorer_rows(cfg: Config) -> list[dict[str, Any]]:
    """Returns what each score, and FIPER, take for one plan of 32 draws: a live update with its window and threshold.

    Timed in turn with the plans of every denoiser, whose shares they are; a plan leaves little of a network in the caches.
    """
    from robolearn.apps.bench_policy import make_plan

    policies = {denoiser: make_plan(denoiser, "ddim", cfg.device) for denoiser in cfg.denoisers}
    policy = policies[cfg.denoisers[0]]
    chunk = policy.plan(Ask(draws=DRAWS))
    config = policy.net.config
    layout = replace(Layout.of(policy.spec, config.horizon - config.n_past, config.n_past), action=("x", "y"))
    episodes = synthetic(chunk, layout)
    names = [name for name in score_names() if name != "past_disagreement" or layout.n_past]
    watches = {name: fitted((name,), SMALL, layout, episodes) for name in names}
    watches |= {name: fitted(("rnd", "ace"), networks, layout, episodes) for name, (_, networks) in FIPER.items()}
    ticks = {name: iter(range(0, 10**9, layout.execute)) for name in watches}

    def update(name: str) -> Callable[[], Any]:
        return lambda: watches[name].update({}, replace(chunk, tick=next(ticks[name])))

    def plan(denoiser: str) -> Callable[[], Any]:
        return lambda: policies[denoiser].plan(Ask(draws=DRAWS))

    variants: dict[tuple[str, str], Callable[[], Any]] = {("plan", denoiser): plan(denoiser) for denoiser in policies}
    variants |= {("score", name): update(name) for name in watches}
    times = {key: statistics.median(t) * 1e3 for key, t in _bench.interleaved(variants, max(cfg.repeats, 20), warm=3).items()}
    return [
        {
            "scorer": name,
            "ms": times["score", name],
            "over_plan_b32": {denoiser: times["score", name] / times["plan", denoiser] for denoiser in policies},
            "sizes": FIPER[name][0] if name in FIPER else "small where learned",
        }
        for name in watches
    ]


def fitted(scores: tuple[str, ...], networks: Mapping[str, Any], layout: Layout, episodes: Sequence[Episode]) -> Watch:
    """Returns scores at work, fitted in the shortest way, their networks as given."""
    options = {name: networks.get(name, {}) | BRIEF.get(name, {}) for name in scores}
    return Watch(fit(Recipe(scores, options=options, windows=(5,), bands=("constant",)), layout, episodes))


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
