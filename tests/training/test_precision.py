"""Which arithmetic is chosen, what it costs the run, and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from robolearn.nets.mlp import MLP
from robolearn.training import precision


class Policy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.denoiser = MLP(2, 8, 1, 3, width=16, blocks=1)
        self.x, self.t, self.cond = torch.randn(4, 8, 2), torch.rand(4), torch.randn(4, 1, 3)

    def loss(self) -> torch.Tensor:
        return nn.functional.mse_loss(self.denoiser(self.x, self.t, self.cond) + torch.rand(4, 8, 2), self.x)


def measured(monkeypatch: pytest.MonkeyPatch, **ms: float) -> list[tuple[str, ...]]:
    asked: list[tuple[str, ...]] = []

    def measure(net, make_loss, device, names, repeats=5):
        asked.append(tuple(names))
        return {name: ms[name.replace("+", "_")] for name in names}

    monkeypatch.setattr(precision, "measure", measure)
    monkeypatch.setattr(precision, "bf16_products", lambda device: 0.5)
    return asked


def test_fp32_stays_unless_another_is_clearly_faster() -> None:
    assert precision.fastest({"fp32": 10.0, "bf16": 9.9}) == "fp32"
    assert precision.fastest({"fp32": 10.0, "bf16": 30.0, "compile": 8.0}) == "compile"


def test_measuring_leaves_weights_gradients_and_random_numbers_as_they_were() -> None:
    torch.manual_seed(0)
    net = Policy()
    weights, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    precision.measure(net, net.loss, torch.device("cpu"), ("fp32", "bf16"), repeats=1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weights[k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_hopeless_precision_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, runs = iter(range(1000)), []
    monkeypatch.setattr(precision.time, "perf_counter", lambda: 0.001 * next(clock))
    net = Policy()

    def loss() -> torch.Tensor:
        runs.append(torch.is_autocast_enabled("cpu"))
        if runs[-1]:
            [next(clock) for _ in range(10)]
        return net.loss()

    ms = precision.measure(net, loss, torch.device("cpu"), ("fp32", "bf16"), repeats=3)
    assert runs.count(True) == 1 and runs.count(False) == 4
    assert ms == pytest.approx({"fp32": 1.0, "bf16": 11.0})


def test_bf16_is_not_timed_where_its_products_are_hopeless(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = measured(monkeypatch, fp32=50.0)
    monkeypatch.setattr(precision, "bf16_products", lambda device: 31.0)
    net = Policy()
    assert precision.pick(net, net.loss, "cpu", steps=1000) == "fp32"
    assert asked == [("fp32",)]
    assert "bf16 not tried: its products take 31 times as long here" in capsys.readouterr().err


def test_a_short_run_does_not_wait_for_a_compiler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = measured(monkeypatch, fp32=50.0, bf16=90.0)
    net = Policy()
    assert precision.pick(net, net.loss, "cpu", steps=1000) == "fp32"
    assert asked == [("fp32", "bf16")]
    assert "precision fp32 (fp32 50.0 ms, bf16 90.0 ms; compile not tried: the run is too short" in capsys.readouterr().err


def test_a_long_run_compiles_the_faster_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = measured(monkeypatch, fp32=50.0, bf16=20.0, bf16_compile=10.0)
    monkeypatch.setattr(precision, "why_not_compile", lambda device: "")
    net = Policy()
    assert precision.pick(net, net.loss, "cpu", steps=10**6) == "bf16+compile"
    assert asked == [("fp32", "bf16"), ("bf16", "bf16+compile")]


def test_without_a_compiler_one_line_says_so_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured(monkeypatch, fp32=50.0, bf16=90.0)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(precision.shutil, "which", lambda name: None)
    net = Policy()
    assert precision.pick(net, net.loss, "cpu", steps=10**6) == "fp32"
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "needs a C++ compiler; install one with: apt-get install g++" in said


def test_a_compiler_that_fails_is_named_and_training_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(precision, "why_not_compile", lambda device: "")

    def broken(net: nn.Module) -> None:
        raise RuntimeError("no such flag\nlong story")

    monkeypatch.setattr(precision, "compile_parts", broken)
    net = Policy()
    assert precision.pick(net, net.loss, "cpu", steps=10**9) in ("fp32", "bf16")
    said = capsys.readouterr().err
    assert "compile failed: RuntimeError: no such flag" in said and "long story" not in said


def test_the_answer_is_remembered_for_this_machine_and_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = measured(monkeypatch, fp32=50.0, bf16=20.0)
    net, cache = Policy(), tmp_path / "run" / "precision.json"
    assert [precision.pick(net, net.loss, "cpu", cache=cache) for _ in range(2)] == ["bf16", "bf16"]
    assert len(asked) == 1
    assert list(json.loads(cache.read_text()).values()) == ["bf16"]
    net.denoiser = MLP(2, 8, 1, 3, width=32, blocks=1)
    precision.pick(net, net.loss, "cpu", cache=cache)
    assert len(asked) == 2


def test_the_repeated_blocks_are_what_is_compiled() -> None:
    net = Policy()
    assert precision._parts(net) == list(net.denoiser.blocks)
    assert len(precision._parts(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))) == 1


@pytest.mark.slow
@pytest.mark.skipif(bool(precision.why_not_compile("cpu")), reason="no C++ compiler on this machine")
def test_compiled_parts_compute_the_same_and_keep_the_names_of_their_weights() -> None:
    torch.manual_seed(0)
    net = Policy()
    names = list(net.state_dict())
    want = net.denoiser(net.x, net.t, net.cond)
    precision.compile_parts(net)
    assert list(net.state_dict()) == names
    torch.testing.assert_close(net.denoiser(net.x, net.t, net.cond), want, rtol=1e-5, atol=1e-6)
    precision.undo_compile(net)
    assert torch.equal(net.denoiser(net.x, net.t, net.cond), want)
