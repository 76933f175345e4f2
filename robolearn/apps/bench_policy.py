"""Time one plan at batch 1, observation to chunk, for every denoiser and sampler: medians and 95th percentiles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn import registry
from robolearn.apps import _bench, _peer_lerobot
from robolearn.apps._peer_unet import PeerUNet
from robolearn.apps._report import write_json
from robolearn.core import ArraySpec, Spec
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import Stats
from robolearn.policies._learned import Learned

SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddpm": ("diffusion", {"sampler": "ddpm", "steps": 100}),
    "ddim": ("diffusion", {"sampler": "ddim", "steps": 10}),
    "flow-10": ("flow", {"sampler": "euler", "steps": 10}),
    "flow-2": ("flow", {"sampler": "euler", "steps": 2}),
}
PEER = "conv1d_unet"  # the peers' U-Net, of nn.Conv1d layers
LEROBOT = "lerobot"  # LeRobot's diffusion policy itself, where it is installed
PRESETS: dict[str, dict[str, Any]] = {
    "mlp": {},
    "unet1d": {},
    PEER: {"denoiser": "unet1d"},
    "transformer": {"width": 256, "depth": 8},
}


COND = 5 + 9 * 2  # numbers of one observation of PushT: state and keypoints


@dataclass(frozen=True)
class Config:
    """What to time."""

    denoisers: tuple[str, ...] = ("mlp", "unet1d", PEER, "transformer")
    """conv1d_unet is the unet1d as peers build it, of the library's layers; LeRobot's own stands beside it where installed."""
    repeats: int = 40
    """Interleaved plans of each sampler; at least 5. Of 100 steps a quarter as many."""
    threads: int = 0
    """Threads of torch; 0: as torch chooses."""
    device: str = "auto"
    """cpu, cuda; auto: cuda where there is one."""
    json: Path | None = None
    """Write the figures to this file."""


def run(cfg: Config) -> int:
    """Times every denoiser with every sampler and prints one line each."""
    device = ("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    rows = []
    for denoiser in cfg.denoisers:
        for row in bench(denoiser, cfg, device):
            rows.append(row)
            print(
                f"{row['denoiser']:<12} {row['sampler']:<8} {row['steps']:>3} steps  p50 {row['p50_ms']:7.2f} ms  "
                f"p95 {row['p95_ms']:7.2f} ms  on {row['device']}"
            )
    write_json(cfg.json, {"rows": rows, "machine": _bench.machine(torch.get_num_threads())}, seed=0)
    return 0


def bench(denoiser: str, cfg: Config, device: str) -> list[dict[str, Any]]:
    """Returns one row for each sampler on one denoiser, LeRobot's beside the peers' U-Net."""
    policies = {name: make_plan(denoiser, name, device) for name in SAMPLERS}
    plans: dict[tuple[str, str], Callable[[], Any]] = {(denoiser, name): p.plan for name, p in policies.items()}
    params = {denoiser: sum(p.numel() for p in policies["ddim"].net.parameters())}
    if denoiser == PEER and not _peer_lerobot.why_not():
        c = policies["ddim"].net.config
        sizes = _peer_lerobot.Sizes(c.horizon, c.n_obs_steps, COND, policies["ddim"].net.action_dim)
        params[LEROBOT] = sum(p.numel() for p in _peer_lerobot.model(sizes).parameters())
        for name in ("ddpm", "ddim"):
            plans[LEROBOT, name] = _peer_lerobot.plan(sizes, name, SAMPLERS[name][1]["steps"], device)
    reference = _bench.reference_per_s()
    slow = {key: plan for key, plan in plans.items() if SAMPLERS[key[1]][1]["steps"] >= 100}
    times = _bench.interleaved({k: p for k, p in plans.items() if k not in slow}, max(5, cfg.repeats), warm=3)
    times |= _bench.interleaved(slow, max(5, cfg.repeats // 4))
    return [
        {
            "denoiser": who,
            "params": params[who],
            "sampler": name.split("-")[0],
            "steps": SAMPLERS[name][1]["steps"],
            "p50_ms": float(np.quantile(times[who, name], 0.5)) * 1e3,
            "p95_ms": float(np.quantile(times[who, name], 0.95)) * 1e3,
            "plans": len(times[who, name]),
            "device": device,
            "version": _peer_lerobot.version() if who == LEROBOT else None,
            "reference_per_s": reference,
            "load_1min": _bench.machine(0)["load_1min"],
        }
        for who, name in plans
    ]


def make_plan(denoiser: str, sampler: str, device: str) -> Learned:
    """Returns an untrained policy of PushT's shapes that has seen its first observation."""
    torch.manual_seed(0)
    spec = Spec(obs={"state": ArraySpec((5,)), "keypoint": ArraySpec((9, 2))}, action=ArraySpec((2,)), hz=10.0)
    policy, fields = SAMPLERS[sampler]
    module = registry.load("robolearn.policies", policy, what="policy")
    config = dataclasses.replace(module.Config(), **{"denoiser": denoiser, **PRESETS[denoiser], **fields})
    arrays = {**spec.obs, "action": spec.action}
    stats = {k: Stats(np.zeros(a.shape), np.ones(a.shape), np.full(a.shape, 0.5), np.ones(a.shape), 1) for k, a in arrays.items()}
    learned = Learned(module.Net(config, spec), spec, Normalizer.fit(stats, {}), device=device)
    if denoiser == PEER:  # called operation by operation, as its peers do
        net = PeerUNet(spec.action.shape[0], config.horizon, config.n_obs_steps, COND)
        learned.net.denoiser = net.to(device).eval()
    learned.reset(0)
    learned.observe({k: np.zeros(a.shape, np.float32) for k, a in spec.obs.items()}, None)
    return learned
