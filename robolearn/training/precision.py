"""Which arithmetic a training step is fastest in on this machine: measured, printed, remembered beside the run.

fp32 is plain eager float32. bf16 is autocast. compile hands the network's parts to torch.compile; it needs a C++
compiler (and Triton on CUDA) and minutes, so it is only tried where the run is long enough to win them back.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch._dynamo
from torch import Tensor, nn

from robolearn import config

NAMES = ("fp32", "bf16", "compile", "bf16+compile")
REPEATS = 5
CLEARLY = 0.97  # another choice than fp32 must take less than this share of fp32's time
HOPELESS = 2.0  # autocast on a processor without bf16 instructions takes ten to fifty times as long as fp32
WORTH_COMPILING = 900.0  # [s] of eager training; compiling takes one to three minutes of two cores and saves a few percent


def pick(
    net: nn.Module,
    make_loss: Callable[[], Tensor],
    device: torch.device | str,
    steps: int | None = None,
    cache: Path | None = None,
) -> str:
    """Returns the fastest of `NAMES` for forward and backward of `make_loss`, and prints what was measured.

    steps: how many are to be trained (unknown: compile is not tried). cache: a JSON file that remembers the answer for
    this machine and network. Weights, gradients and random numbers are as before.
    """
    key = fingerprint(net, device)
    known = json.loads(cache.read_text()) if cache is not None and cache.exists() else {}
    if key in known:
        config.warn(f"precision {known[key]} (measured before: {cache})")
        return known[key]
    device = torch.device(device)
    slower = bf16_products(device)
    measured = measure(net, make_loss, device, ("fp32", "bf16") if slower < HOPELESS else ("fp32",))
    base = fastest(measured)
    note = "" if "bf16" in measured else f"; bf16 not tried: its products take {slower:.0f} times as long here"
    if steps is None or steps * measured[base] < WORTH_COMPILING * 1e3:
        note += "; compile not tried: the run is too short to win its minutes back"
    elif reason := why_not_compile(device):
        note += f"; compile not tried: {reason}"
    else:
        compiled = "compile" if base == "fp32" else "bf16+compile"
        try:
            measured |= measure(net, make_loss, device, (base, compiled))
        except Exception as error:  # whatever a compiler says, training goes on without it
            undo_compile(net)
            note += f"; compile failed: {first_line(error)}"
    chosen = fastest(measured)
    config.warn(f"precision {chosen} ({', '.join(f'{name} {ms:.1f} ms' for name, ms in measured.items())}{note})")
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        cache.write_text(json.dumps(known | {key: chosen}, indent=1) + "\n")
    return chosen


def bf16_products(device: torch.device, size: int = 256, repeats: int = 3) -> float:
    """Returns how many times as long a bf16 matrix product takes as one in fp32: far above 1 on processors without its units."""
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(repeats + 1):
        for dtype, spent in times.items():
            square = torch.ones(size, size, device=device, dtype=dtype)
            begin = time.perf_counter()
            (square @ square).sum().item()  # waits for the device
            spent.append(time.perf_counter() - begin)
    return min(times[torch.bfloat16][1:]) / min(times[torch.float32][1:])


def fastest(measured: dict[str, float]) -> str:
    """Returns the name of the least time; fp32 unless another one is clearly faster."""
    name = min(measured, key=lambda k: measured[k])
    return name if measured[name] < CLEARLY * measured["fp32"] else "fp32"


def measure(
    net: nn.Module, make_loss: Callable[[], Tensor], device: torch.device, names: Sequence[str], repeats: int = REPEATS
) -> dict[str, float]:
    """Returns the median [ms] of forward and backward for each name, repeats interleaved, the first of each not counted.

    A name that takes more than `HOPELESS` times the first name's time is not repeated.
    """
    times: dict[str, list[float]] = {name: [] for name in names}
    last: dict[str, float] = {}
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        for i in range(repeats + 1):
            for name in names:
                if name in last and "compile" not in name and last[name] > HOPELESS * last[names[0]]:
                    continue
                if "compile" in name and i == 0:
                    compile_parts(net)
                with compiled(net, "compile" in name):
                    begin = time.perf_counter()
                    with torch.autocast(device.type, torch.bfloat16, enabled="bf16" in name):
                        loss = make_loss()
                    loss.backward()
                    if cuda:
                        torch.cuda.synchronize(device)
                    last[name] = (time.perf_counter() - begin) * 1e3
                    times[name] += [last[name]] if i else []
                net.zero_grad(set_to_none=True)
    undo_compile(net)
    return {name: statistics.median(values or [last[name]]) for name, values in times.items()}


def compile_parts(net: nn.Module) -> None:
    """Compiles the repeated blocks of `net` in place (or its children, where none says `region`); weights keep their names.

    A block compiled once serves all its copies: a third of the whole network's compile time at the same speed.
    """
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, limit, 64)  # one for each shape of a block; the default of 8 would leave some eager
    for part in _parts(net):
        part.compile(dynamic=False)


def undo_compile(net: nn.Module) -> None:
    """Takes `compile_parts` back."""
    for part in _parts(net):
        part._compiled_call_impl = None


class compiled:
    """Within this block the compiled parts of `net` are used, or, where `use` is false, left aside."""

    def __init__(self, net: nn.Module, use: bool) -> None:
        self.parts, self.use = _parts(net), use

    def __enter__(self) -> None:
        self.kept = [part._compiled_call_impl for part in self.parts]
        if not self.use:
            for part in self.parts:
                part._compiled_call_impl = None

    def __exit__(self, *_: object) -> None:
        for part, kept in zip(self.parts, self.kept, strict=True):
            part._compiled_call_impl = kept


def why_not_compile(device: torch.device | str) -> str:
    """Returns what torch.compile lacks on this machine, in one line; empty where nothing is missing."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return "torch.compile needs a C++ compiler; install one with: apt-get install g++"
    if torch.device(device).type == "cuda" and not torch.utils._triton.has_triton():
        return "torch.compile needs Triton on CUDA; install it with: pip install triton"
    return ""


def fingerprint(net: nn.Module, device: torch.device | str) -> str:
    """Returns a key that changes with the machine, torch, the thread count and the network's shape."""
    shapes = [(name, tuple(p.shape)) for name, p in net.named_parameters()]
    where = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else platform.processor()
    facts = (where, platform.node(), os.cpu_count(), torch.get_num_threads(), torch.__version__, shapes)
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def first_line(error: BaseException) -> str:
    """Returns an error's type and the first line of its message."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"


def _parts(net: nn.Module) -> list[nn.Module]:
    regions = [module for module in net.modules() if getattr(module, "region", False)]
    return regions or [child for child in net.children() if any(True for _ in child.parameters())]
