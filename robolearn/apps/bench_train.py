"""Time one training step of each denoiser: fp32, bf16, compiled; what binds, and the share of this machine's matmul peak."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from robolearn.apps import _bench, _peer_lerobot
from robolearn.apps._peer_unet import PeerUNet
from robolearn.apps._report import write_json
from robolearn.nets.mlp import MLP
from robolearn.nets.transformer import Transformer
from robolearn.nets.unet1d import UNet1d
from robolearn.training import precision

DENOISERS: dict[str, Callable[..., nn.Module]] = {"mlp": MLP, "unet1d": UNet1d, "transformer": Transformer}
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "convolution", "scaled_dot_product", "_flash_attention")
PEAK_SIZE = 1024
LEARN = 20  # steps from the same weights, after which fp32 and the default must have the same loss


@dataclass(frozen=True)
class Config:
    """What to time."""

    denoisers: tuple[str, ...] = ("mlp", "unet1d", "transformer")
    batch: int = 256
    horizon: int = 16
    n_obs_steps: int = 2
    action_dim: int = 2
    cond_dim: int = 23
    """Numbers of one observation; PushT's state and keypoints are 23."""
    repeats: int = 7
    """Interleaved repeats, at least 5; medians are reported."""
    compile: bool = True
    """Also torch.compile, which takes a minute or more for each denoiser."""
    threads: int = 0
    """Threads of torch; 0: as torch chooses."""
    device: str = "auto"
    """cpu, cuda; auto: cuda where there is one."""
    json: Path | None = None
    """Write the figures to this file."""


def run(cfg: Config) -> int:
    """Times every denoiser and prints one line each."""
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if cfg.device == "auto" else cfg.device)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler is talkative
    if cfg.threads:
        torch.set_num_threads(cfg.threads)
    rows = []
    for name in cfg.denoisers:
        rows.append(bench(name, cfg, device))
        print(line(rows[-1]), flush=True)
    figures = {"rows": rows, "machine": _bench.machine(torch.get_num_threads()), "device": str(device)}
    write_json(cfg.json, figures, seed=0)
    return 0


def bench(name: str, cfg: Config, device: torch.device) -> dict[str, Any]:
    """Returns the row of one denoiser; a step is forward, backward, clipping and AdamW."""
    torch.manual_seed(0)
    sizes = (cfg.action_dim, cfg.horizon, cfg.n_obs_steps, cfg.cond_dim)
    net = Wrapped(DENOISERS[name](*sizes)).to(device)
    start = {key: value.clone() for key, value in net.state_dict().items()}
    step = make_step(net, cfg, device)
    peer = Wrapped(PeerUNet(*sizes)).to(device) if name == "unet1d" else None
    with FlopCounterMode(display=False) as counter:
        step("fp32")
    gflop = counter.get_total_flops() / 1e9
    square = torch.randn(PEAK_SIZE, PEAK_SIZE, device=device)
    names, compile_s, why = ["fp32", "bf16"], None, "asked not to" if not cfg.compile else precision.why_not_compile(device)
    if not why:
        begin = time.perf_counter()
        try:
            precision.compile_parts(net)
            step("compile")
            compile_s = time.perf_counter() - begin
            names.append("compile")
        except Exception as error:  # whatever a compiler says, the other figures stand
            why = precision.first_line(error)
            precision.undo_compile(net)
    reset_peak_memory(device)
    sync = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    variants: dict[str, Callable[[], Any]] = {n: partial(step, n) for n in names}
    once = _bench.interleaved(variants, 1, sync, warm=0)
    hopeless = [n for n in names if once[n][0] > precision.HOPELESS * once["fp32"][0]]  # timed once, not repeated
    variants = {n: run for n, run in variants.items() if n not in hopeless}
    others: dict[str, Callable[[], Any]] = {"matmul": lambda: square @ square}
    no_lerobot = ""
    if peer is not None:
        others["peer"] = partial(make_step(peer, cfg, device), "fp32")
        no_lerobot = _peer_lerobot.why_not()
        if not no_lerobot:
            theirs = _peer_lerobot.Sizes(cfg.horizon, cfg.n_obs_steps, cfg.cond_dim, cfg.action_dim)
            others["lerobot"] = _peer_lerobot.training_step(theirs, cfg.batch, device)
    times = _bench.interleaved({**variants, **others}, max(5, cfg.repeats), sync)
    times |= {n: once[n] for n in hopeless}
    memory = peak_memory_mb(device)
    ms = {n: statistics.median(values) * 1e3 for n, values in times.items()}
    peak = 2 * PEAK_SIZE**3 / ms.pop("matmul") / 1e6  # [GFLOP/s]
    peer_ms, lerobot_ms = ms.pop("peer", None), ms.pop("lerobot", None)
    default = precision.fastest(ms)
    losses = {how: learn(net, start, cfg, device, how) for how in ("fp32", default)}
    return {
        "denoiser": name,
        "params": sum(p.numel() for p in net.parameters()),
        "batch": cfg.batch,
        "eager_fp32_ms": ms["fp32"],
        "bf16_ms": ms["bf16"],
        "compile_ms": ms.get("compile"),
        "compile_s": compile_s,
        "compile_why_not": why or None,
        "default_ms": ms[default],
        "default_is": default,
        "loss_after_steps": LEARN,
        "eager_fp32_loss": losses["fp32"],
        "default_loss": losses[default],
        "peer": "the same U-Net of nn.Conv1d layers, eager fp32" if peer else None,
        "peer_params": sum(p.numel() for p in peer.parameters()) if peer else None,
        "peer_ms": peer_ms,
        "lerobot_ms": lerobot_ms,
        "lerobot": _peer_lerobot.version() if lerobot_ms else None,
        "lerobot_why_not": no_lerobot or None,
        "samples_per_s": cfg.batch / ms[default] * 1e3,
        "gflop": gflop,
        "matmul_peak_gflops": peak,
        "share_of_peak": gflop / (ms[default] / 1e3) / peak,
        "peak_memory_mb": memory,
        "time_shares": time_shares(lambda: step("fp32"), device),
        "reference_per_s": _bench.reference_per_s(),
        "load_1min": _bench.machine(0)["load_1min"],
    }


class Wrapped(nn.Module):
    """Holds a denoiser as a policy does, so that it is compiled as in training."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser


def learn(net: Wrapped, start: dict[str, torch.Tensor], cfg: Config, device: torch.device, how: str) -> float:
    """Returns the loss after `LEARN` steps from the weights `start`; the same data and random numbers for every precision."""
    net.load_state_dict(start)
    torch.manual_seed(0)
    step = make_step(net, cfg, device)
    for _ in range(LEARN):
        loss = step(how)
    return float(loss)


def make_step(net: Wrapped, cfg: Config, device: torch.device) -> Callable[[str], torch.Tensor]:
    """Returns a function that takes one training step under the precision it is named, and returns its loss."""
    x = torch.randn(cfg.batch, cfg.horizon, cfg.action_dim, device=device)
    t, cond = torch.rand(cfg.batch, device=device), torch.randn(cfg.batch, cfg.n_obs_steps, cfg.cond_dim, device=device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)

    def step(name: str) -> torch.Tensor:
        with precision.compiled(net, "compile" in name), torch.autocast(device.type, torch.bfloat16, enabled="bf16" in name):
            loss = nn.functional.mse_loss(net.denoiser(x, t, cond), x)
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def time_shares(step: Callable[[], object], device: torch.device) -> dict[str, float]:
    """Returns the shares of an eager step spent in matrix products, in the optimiser, and in everything else."""
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]) as recorded:
        step()
    shares = {"products": 0.0, "optimiser": 0.0, "elementwise_and_rest": 0.0}
    for event in recorded.key_averages():
        spent = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
        kernel = event.key.removeprefix("aten::")
        product = kernel.startswith(PRODUCTS)
        kind = "products" if product else "optimiser" if "adamw" in kernel.lower() else "elementwise_and_rest"
        shares[kind] += spent
    total = sum(shares.values()) or 1.0
    return {kind: spent / total for kind, spent in shares.items()}


def reset_peak_memory(device: torch.device) -> None:
    """Starts a new peak of memory: of the device, or of this process (Linux only)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb(device: torch.device) -> float | None:
    """Returns the peak since `reset_peak_memory` [MB]: allocated on the device, or resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    found = [row for row in status.read_text().splitlines() if row.startswith("VmHWM:")] if status.exists() else []
    return int(found[0].split()[1]) * 1024 / 1e6 if found else None


def line(row: dict[str, Any]) -> str:
    """Returns the row as one line for people."""
    shown = ("eager_fp32_ms", "bf16_ms", "compile_ms", "peer_ms", "lerobot_ms")
    others = ", ".join(f"{k[:-3]} {row[k]:.1f}" for k in shown if row[k] is not None)
    shares = ", ".join(f"{kind.replace('_', ' ')} {share:.0%}" for kind, share in row["time_shares"].items())
    return (
        f"{row['denoiser']:<12} {row['params'] / 1e6:.2f} M  {row['default_ms']:.1f} ms a step ({row['default_is']}; {others}), "
        f"{row['share_of_peak']:.0%} of {row['matmul_peak_gflops']:.0f} GFLOP/s; {shares}; loss after {LEARN} steps "
        f"{row['default_loss']:.4f} (eager fp32 {row['eager_fp32_loss']:.4f}); load {row['load_1min']}"
    )
