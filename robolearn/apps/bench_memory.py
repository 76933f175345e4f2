"""Measure what remembering costs: the toy of past tokens, training on cached frames, a control step by history, verified plans.

Parts: toy, cost (of driving, by the length of the history), verify (plans of K draws), cached (a training step on cached frames
beside one end to end), validation (time to an equal loss from bounded runs). A part measured alone joins the others in --json.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from robolearn import config, registry
from robolearn.apps import _bench, _memory_cost, _memory_toy
from robolearn.apps._report import meta, write_json
from robolearn.core import Spec
from robolearn.data.normalize import Normalizer
from robolearn.errors import BadInput
from robolearn.nets.vision import Backbone
from robolearn.policies._base import PolicyConfig
from robolearn.policies._learned import Learned
from robolearn.policies._verified import Verification, Verified
from robolearn.training import settings, trainer
from robolearn.training.settings import TrainConfig
from sim_envs import _base as tasks

Part = Literal["toy", "cost", "verify", "cached", "validation"]
PARTS: tuple[Part, ...] = get_args(Part)
PUBLISHED = {"ptp": 0.092, "window_released": 0.681, "window_clean": 0.089}  # of the toy; 0.1 is ideal
TOY_SEEDS = 5
HISTORIES = (1, 16, 64, 256, 1024)  # [ticks]
DRAWS = (1, 5, 10, 30)
TASK = "shell"  # whose observations and actions are driven
_TOKENS = 16  # observations that the ptp arm has at most
_BLOCKS = 10  # stretches driven for each repeat: one takes milliseconds


@dataclass(frozen=True)
class Config:
    """What to measure."""

    only: tuple[Part, ...] = ()
    """Only these parts; empty: all, validation where --dataset is given."""
    repeats: int = 5
    """Interleaved repeats of every timing, at least 5; medians are reported."""
    minutes: float = 10.0
    """Training time of each of the two bounded runs of validation."""
    dataset: Path | None = None
    """A set with pictures to train on in validation, as `robolearn record shell --cameras img` makes one."""
    obs: tuple[str, ...] = ()
    """Observations read in validation; empty: the pictures alone."""
    quick: bool = False
    """Tiny networks and few samples: to see that it works."""
    threads: int = 0
    """Threads of torch; 0: as torch chooses."""
    json: Path | None = None
    """Write the figures to this file."""


def run(cfg: Config) -> int:
    """Measures part after part, prints a line for each and writes the figures after each, for some take many minutes."""
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    if "validation" in cfg.only and cfg.dataset is None:
        raise BadInput(
            "bench memory: validation trains on pictures; give --dataset SET.zarr (robolearn record shell --cameras img)"
        )
    figures = earlier(cfg)
    for part in cfg.only or [p for p in PARTS if p != "validation" or cfg.dataset]:
        facts = {"quick": cfg.quick, "reference_per_s": _bench.reference_per_s(), **_bench.machine(torch.get_num_threads())}
        begin = time.perf_counter()
        figures |= MEASURE[part](cfg)
        facts |= {"seconds": time.perf_counter() - begin, **{k: meta(0)[k] for k in ("command", "commit", "dirty", "date")}}
        figures["parts"][part] = facts
        figures["reference_per_s"] = _bench.reference_per_s()
        write_json(cfg.json, figures, seed=0)
        print(f"{part}: {shown(part, figures)}", flush=True)
    return 0


def earlier(cfg: Config) -> dict[str, Any]:
    """Returns the figures of other parts that --json holds already, where only some are measured now."""
    if not cfg.only or cfg.json is None or not cfg.json.exists():
        return {"parts": {}}
    try:
        return {"parts": {}} | {key: value for key, value in json.loads(cfg.json.read_text()).items() if key != "meta"}
    except (ValueError, AttributeError) as error:
        raise BadInput(
            f"{cfg.json}: want the figures of an earlier bench memory to add to, got something else ({error})"
        ) from error


def toy(cfg: Config) -> dict[str, Any]:
    """Returns mean and spread over the seeds of each arm's error, beside the published one."""
    samples = 4000 if cfg.quick else 20_000
    rows = {}
    for arm in _memory_toy.ARMS:
        found = [_memory_toy.toy(arm, np.random.default_rng(seed), samples) for seed in range(TOY_SEEDS)]
        rows[arm] = {"mean": statistics.mean(found), "spread": statistics.stdev(found), "published": PUBLISHED[arm]}
    return {"toy": rows, "toy_seeds": TOY_SEEDS}


def cached(cfg: Config) -> dict[str, Any]:
    """Returns the cost of a training step on cached frames and end to end, with ResNet-18 and (`small`) the encoder for CPUs."""
    sizes, repeats = (_memory_cost.QUICK, 2) if cfg.quick else (_memory_cost.Sizes(), max(5, cfg.repeats))
    nets: tuple[Backbone, ...] = get_args(Backbone)
    rows = {net: _memory_cost.beside(dataclasses.replace(sizes, image_net=net), repeats) for net in nets}
    return {**rows["resnet18"], "small": rows["small"]}


def validation(cfg: Config) -> dict[str, Any]:
    """Returns when two bounded runs, on cached frames and end to end, first reach the worse of their final losses."""
    assert cfg.dataset is not None  # `run` has refused that
    base = dataclasses.replace(preset("memory_ptp"), batch_size=8 if cfg.quick else 32)
    points = 3 if cfg.quick else _memory_cost.POINTS
    return _memory_cost.equal_validation(base, cfg.dataset, cfg.obs, 60 * cfg.minutes, points)


def cost(cfg: Config) -> dict[str, Any]:
    """Returns the milliseconds of a control step, an observation and its share of a plan, by arm and history [ticks]."""
    spec, histories = body_spec(), HISTORIES[1::3] if cfg.quick else HISTORIES
    policies = {(arm, h): learned(c, spec) for h in histories for arm, c in arms(h).items()}
    stretches = {key: steady(policy, key[1]) for key, policy in policies.items()}
    times = _bench.interleaved(stretches, max(5, cfg.repeats) * (1 if cfg.quick else _BLOCKS))
    costs: dict[str, dict[str, float]] = {}
    for (arm, h), policy in policies.items():
        costs.setdefault(arm, {})[str(h)] = statistics.median(times[arm, h]) / policy.spec.execute * 1e3
    study, released = overhead(arms(1)["sega"], cfg), overhead(released_sega(), cfg)
    return {
        "per_step_cost": costs,
        "per_step_arms": {arm: described(c) for arm, c in arms(HISTORIES[-1]).items()},
        "sega_16_to_1024": costs["sega"]["1024"] / costs["sega"]["16"],
        "sega_overhead_over_sampler": study["sega_update_ms"] / study["sampler_ms"],
        **study,
        "sega_released_size": released | {"overhead_over_sampler": released["sega_update_ms"] / released["sampler_ms"]},
    }


def verify(cfg: Config) -> dict[str, Any]:
    """Returns the milliseconds of a plan that is chosen among K draws, and how many were drawn for it."""
    verified = {k: ready(k, arms(128)["ptp"]) for k in DRAWS}
    before = {k: v.draws_taken for k, v in verified.items()}
    repeats = max(5, cfg.repeats) * (1 if cfg.quick else 4)
    times = _bench.interleaved({k: v.plan for k, v in verified.items()}, repeats)
    return {
        "verify_latency_ms": {str(k): statistics.median(times[k]) * 1e3 for k in DRAWS},
        "verify_draws": {str(k): (v.draws_taken - before[k]) / (repeats + 1) for k, v in verified.items()},
    }


MEASURE: dict[Part, Callable[[Config], dict[str, Any]]] = {
    "toy": toy, "cost": cost, "verify": verify, "cached": cached, "validation": validation,
}  # fmt: skip


def shown(part: Part, figures: dict[str, Any]) -> str:
    """Returns a part's main figures as one line for people."""
    if part == "toy":
        return ", ".join(f"{arm} {row['mean']:.3f} (published {row['published']})" for arm, row in figures["toy"].items())
    if part == "cost":
        costs = {arm: " ".join(f"{h}: {ms:.2f}" for h, ms in row.items()) for arm, row in figures["per_step_cost"].items()}
        sega = f"SEGA 16 to 1024 {figures['sega_16_to_1024']:.2f}, of its sampler {figures['sega_overhead_over_sampler']:.1%}"
        return "; ".join(f"{arm} {row} ms" for arm, row in costs.items()) + f"; {sega}"
    if part == "verify":
        return ", ".join(f"K = {k} {ms:.1f} ms" for k, ms in figures["verify_latency_ms"].items())
    if part == "validation":
        times = figures["time_to_equal_validation_s"]
        return f"loss {times['loss']:.4f} after {times['cached']:.0f} s on cached frames, {times['end_to_end']:.0f} s end to end"
    rows = {"resnet18": figures, "small": figures["small"]}
    return "; ".join(
        f"{net} {row['cached_step_ms']:.0f} ms on cached frames, {row['end_to_end_step_ms']:.0f} ms end to end "
        f"(x {row['ratio']:.1f}), a frame {row['encode_frame_ms']:.1f} ms"
        for net, row in rows.items()
    )


def preset(name: str) -> TrainConfig:
    """Returns a shipped training config."""
    return settings.load(config.find("train", name))


def body_spec() -> Spec:
    """Returns what the driven task shows and takes."""
    body = tasks.make(TASK, {})
    try:
        return body.spec
    finally:
        body.close()


def arms(history: int) -> dict[str, PolicyConfig]:
    """Returns policies that know of `history` ticks, sized as in the memory study.

    Windows hold an observation a tick; ptp at most 16, as many ticks apart as it takes; SEGA and GRU keep a state of fixed size.
    """
    window, tokens = preset("memory_window_clean").policy, min(history, _TOKENS)
    dense = dataclasses.replace(window, n_obs_steps=history, history_stride=1)
    ptp = preset("memory_ptp").policy
    future = ptp.horizon - ptp.n_past
    return {
        "window_mlp": dense,
        "window_transformer": dataclasses.replace(dense, denoiser="transformer"),
        "ptp": dataclasses.replace(
            ptp, n_obs_steps=tokens, history_stride=max(1, history // tokens), horizon=tokens - 1 + future
        ),
        "gru": preset("memory_gru").policy,
        "sega": preset("memory_sega_bptt").policy,
    }


def released_sega() -> PolicyConfig:
    """Returns SEGA and transformer at the sizes of SeedPolicy (arXiv 2603.05117): 60 slots of 256, 6 layers; 8 layers of 256."""
    sizes: dict[str, Any] = dict(memory_width=256, memory_slots=60, memory_layers=6, memory_heads=8, width=256, depth=8)
    return dataclasses.replace(preset("memory_sega_bptt").policy, denoiser="transformer", **sizes)


def described(c: PolicyConfig) -> str:
    """Returns a policy in one line."""
    memory = "" if c.memory == "none" else f"{c.memory} {c.memory_layers} x {c.memory_width} every {c.update_every} ticks, "
    seen = f"{c.n_obs_steps} observations {c.history_stride} ticks apart, {c.n_past} past tokens"
    return f"{memory}{seen}, {c.denoiser} {c.depth} x {c.width}, {c.execute} executed"


def learned(c: PolicyConfig, spec: Spec) -> Learned:
    """Returns an untrained policy that leaves numbers as they are."""
    torch.manual_seed(0)
    spec = trainer.policy_spec(TrainConfig(policy=c), spec)
    arrays = {**spec.obs, "action": spec.action}
    one, zero = ({k: np.full(a.shape, number, np.float32) for k, a in arrays.items()} for number in (1, 0))
    net = registry.load("robolearn.policies", c.name, what="policy").Net(c, spec)
    return Learned(net, spec, Normalizer(dict.fromkeys(arrays, "identity"), one, zero))


def steady(policy: Learned | Verified, history: int) -> Callable[[], None]:
    """Returns a function that drives on for one stretch: `execute` observations, then a plan.

    At least `history` ticks lie behind already; as in a rollout, the plans fall on ticks that `execute` divides.
    """
    rng, spec, ticks = np.random.default_rng(0), policy.spec, itertools.count()
    rows = {key: rng.uniform(-1, 1, (64, *array.shape)).astype(np.float32) for key, array in spec.obs.items()}
    action = np.zeros(spec.action.shape, np.float32)

    def drive(steps: int) -> None:
        for k in itertools.islice(ticks, steps):
            policy.observe({key: values[k % 64] for key, values in rows.items()}, action if k else None)
        policy.plan()

    policy.reset(0)
    drive(1 + spec.execute * math.ceil((history - 1) / spec.execute))
    return lambda: drive(spec.execute)


def ready(draws: int, c: PolicyConfig) -> Verified:
    """Returns a verified policy that has executed as many actions as its comparison needs."""
    inner = learned(c, body_spec())
    verified = Verified(inner, Verification(draws=draws), inner.normalizer.scale["action"])
    steady(verified, inner.net.config.layout.span + 1)()
    return verified


def overhead(c: PolicyConfig, cfg: Config) -> dict[str, float]:
    """Returns the milliseconds of one update of a policy's memory and of one run of its sampler, at batch 1."""
    net = learned(c, body_spec()).net
    assert net.memory is not None
    features, keeps = torch.randn(1, c.n_obs_steps, net.encoder.dim), torch.zeros(1, dtype=torch.bool)
    noise = torch.randn(net.noise_draws(), 1, c.horizon, net.action_dim)
    state = net.memory.begin(1)
    with torch.inference_mode():
        context = net.remember(state, features, keeps)[1]
        variants: dict[str, Callable[[], Any]] = {
            "update": lambda: net.remember(state, features, keeps),
            "sampler": lambda: net.sample(context, noise),
        }
        times = _bench.interleaved(variants, max(5, cfg.repeats) * (1 if cfg.quick else _BLOCKS), warm=3)
    return {"sega_update_ms": statistics.median(times["update"]) * 1e3, "sampler_ms": statistics.median(times["sampler"]) * 1e3}
