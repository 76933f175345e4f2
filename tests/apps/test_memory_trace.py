"""Tracing a memory: one row an update, the very same episode, and what `eval --memory` writes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn import cli
from robolearn.apps import _memory_page
from robolearn.apps._memory_page import MemoryTrace
from robolearn.apps._memory_trace import Tracer, attention, drawn, fact_of
from robolearn.apps.train import fit_task
from robolearn.core import ArraySpec
from robolearn.data.store import EpisodeSet
from robolearn.errors import ArrayMismatch
from robolearn.policies import bc, diffusion, flow
from robolearn.policies._base import PolicyConfig
from robolearn.rollout import Outcome, States, rollout
from robolearn.training import trainer
from robolearn.training.checkpoint import load_policy
from robolearn.training.settings import DatasetConfig, TrainConfig
from sim_envs import _base as tasks

ENV = {"memory_steps": 16}
SEGA = dict(memory="sega", memory_stride=4, memory_width=16, memory_slots=5, memory_layers=1, memory_heads=2, n_obs_steps=2)
WINDOW = dict(denoiser="transformer", n_obs_steps=4, history_stride=3, heads=2)
SMALL = dict(width=16, depth=2, execute=8, horizon=12)
POLICIES: dict[str, PolicyConfig] = {
    "sega": flow.Config(**SMALL, **SEGA, steps=2),
    "window": diffusion.Config(**SMALL, **WINDOW, steps=2),
    "both": flow.Config(**SMALL, **SEGA, steps=2, denoiser="transformer", heads=2),
    "regression": bc.Config(**SMALL, **WINDOW),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds demos.zarr and a run of three steps for each of POLICIES."""
    folder = tmp_path_factory.mktemp("memory")
    body = tasks.make("shell", ENV)
    extra = {"sim_state": ArraySpec((12,), "float64")}
    demos = EpisodeSet.create(folder / "demos.zarr", body.spec, task="shell", env=ENV, extra=extra)
    for seed in range(4):
        kept, seen = States(body.state), States(lambda: body._obs()["state"])
        rollout(body, tasks.expert(body, seed), max_steps=91, seed=seed, sinks=[kept, seen])
        rows = {"state": np.stack(seen.states[:-1]), "action": np.stack(kept.actions)}
        demos.append(rows | {"sim_state": np.stack(kept.states[:-1])}, seed=seed)
    for name, policy in POLICIES.items():
        data = DatasetConfig(path=str(folder / "demos.zarr"), val_ratio=0)
        chain = 1 if policy.memory == "none" else 4
        cfg = TrainConfig(policy=policy, dataset=data, out=str(folder / name), steps=3, batch_size=8, chain=chain, warmup=1)
        cfg = dataclasses.replace(cfg, lr=1e-2, precision="fp32", tensorboard=False, device="cpu", threads=1)
        cfg, spec = fit_task(cfg, EpisodeSet.open(cfg.dataset.path))
        trainer.train(cfg, EpisodeSet.open(cfg.dataset.path), spec)
    return folder


def traced(run: Path, seed: int) -> tuple[MemoryTrace, Outcome, np.ndarray]:
    body, policy = tasks.make("shell", ENV), load_policy(run)
    tracer = Tracer(policy, fact_of(body))
    outcome = rollout(body, policy, max_steps=60, seed=seed, sinks=[tracer])
    return tracer.trace(), outcome, np.stack(tracer.actions)


def test_a_memory_has_one_row_an_update_with_its_gates_its_state_and_the_fact(runs: Path) -> None:
    by_seed = {}
    for seed in range(3):
        trace, outcome, _ = traced(runs / "sega", seed)
        by_seed[seed] = trace
        assert trace.ticks.tolist() == list(range(0, outcome.steps + 1, 4))
        assert trace.gates is not None and trace.gates.shape == (len(trace.ticks), 5)
        assert (trace.gates > 0).all() and (trace.gates <= 1).all()
        assert (trace.gates[0] == 1).all() and (trace.gates[1:] < 1).all(), "only the first update overwrites"
        assert trace.states is not None and trace.states.shape == (len(trace.ticks), 5 * 16)
        assert np.square(np.diff(trace.states, axis=0)).sum(axis=1).min() > 0, "every update moves the memory"
        assert trace.attention is None, "no transformer"
        body = tasks.make("shell", ENV)
        body.reset(seed)
        assert trace.fact == fact_of(body)() and trace.facts is not None and (trace.facts == trace.fact).all()
    assert not np.array_equal(by_seed[0].states, by_seed[1].states)


def test_a_window_has_one_row_a_plan_and_looks_at_what_was_there(runs: Path) -> None:
    trace, outcome, _ = traced(runs / "window", 1)
    assert trace.ticks.tolist() == list(range(0, outcome.steps, 8)) and trace.gates is None and trace.states is None
    looks = trace.attention
    assert looks is not None and looks.shape == (len(trace.ticks), 4)
    ages = 3 * np.arange(3, -1, -1)
    np.testing.assert_array_equal(np.isnan(looks), trace.ticks[:, None] < ages)
    assert np.nanmin(looks) > 0 and (np.nansum(looks, axis=1) < 1).all(), "the rest goes to the time"


@pytest.mark.parametrize("name", ["window", "regression"])
def test_the_attention_is_that_of_the_network(runs: Path, name: str) -> None:
    body, policy = tasks.make("shell", ENV), load_policy(runs / name)
    with torch.no_grad():  # so that it is not nearly uniform
        for p in policy.net.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    policy.reset(0)
    obs = body.reset(0)
    for k in range(12):
        policy.observe(obs, None if k == 0 else np.zeros(2, np.float32))
        obs = body.step(np.zeros(2, np.float32)).obs
    chunk = policy.plan()
    found = attention(policy, chunk)
    net, inputs = policy.net, []
    denoiser = net.denoiser.inner if name == "window" else net.head
    handles = [layer.cross.register_forward_pre_hook(lambda _, given: inputs.append(given)) for layer in denoiser.layers]
    plan = policy.normalizer.normalize("action", np.concatenate([chunk.past, chunk.actions]))
    x = torch.from_numpy(plan if name == "window" else np.zeros_like(plan))[None]
    with torch.no_grad():
        denoiser(x, torch.zeros(1), torch.from_numpy(chunk.features).reshape(1, 4, -1))
    for handle in handles:
        handle.remove()
    wanted = []
    for layer, (h, keys, _, mask) in zip(denoiser.layers, inputs, strict=True):
        query = layer.cross.query(h).unflatten(-1, (2, -1)).transpose(1, 2)
        eye = torch.eye(keys.shape[2]).expand(1, 2, -1, -1)  # values that show the weights
        wanted.append(torch.nn.functional.scaled_dot_product_attention(query, keys, eye, attn_mask=mask)[0, :, 3, 1:])
    np.testing.assert_allclose(found, torch.stack(wanted).mean(dim=(0, 1)).detach(), atol=1e-6)
    assert np.ptp(found) > 1e-3


@pytest.mark.parametrize("name", ["sega", "window"])
def test_an_episode_equals_one_without_tracing(runs: Path, name: str) -> None:
    _, outcome, actions = traced(runs / name, 7)
    body, policy = tasks.make("shell", ENV), load_policy(runs / name)
    kept = States(body.state)
    assert rollout(body, policy, max_steps=60, seed=7, sinks=[kept]) == outcome
    np.testing.assert_array_equal(np.stack(kept.actions), actions)


def test_a_fact_is_that_of_the_observation_which_the_update_saw(runs: Path) -> None:
    body, policy = tasks.make("shell", ENV), load_policy(runs / "sega")
    tracer = Tracer(policy, lambda: int(body.now.tick))  # type: ignore[attr-defined]
    rollout(body, policy, max_steps=20, seed=0, sinks=[tracer])
    trace = tracer.trace()
    assert trace.facts is not None and trace.facts.tolist() == trace.ticks.tolist() == [0, 4, 8, 12, 16, 20]
    assert trace.fact is None, "it changed"


def test_a_transformer_behind_a_memory_shows_its_attention_where_it_plans(runs: Path) -> None:
    trace, outcome, _ = traced(runs / "both", 3)
    assert trace.attention is not None and trace.attention.shape == (len(trace.ticks), 2)
    blank = np.isnan(trace.attention).all(axis=1)
    assert outcome.steps > 24 and blank.tolist() == [tick % 8 > 0 or tick == outcome.steps for tick in trace.ticks]


def test_a_fact_that_changes_is_read_out_state_by_state() -> None:
    rng = np.random.default_rng(0)
    facts = [(np.arange(20) >= turn).astype(int) for turn in rng.integers(5, 15, 12)]
    traces = [MemoryTrace(np.arange(20), states=np.c_[9.0 * f, rng.normal(size=(20, 3))], facts=f) for f in facts]
    found = _memory_page.read_out(traces, seed=0)
    assert found is not None and found.accuracy > 0.99 and found.chance < 0.7
    assert _memory_page.read_out(traces[:1], seed=0) is None, "one episode has none to be held out"
    with pytest.raises(ArrayMismatch, match=r"want facts \(3,\), got \(2,\)"):
        MemoryTrace(np.arange(3), facts=np.zeros(2, int))


def test_the_larger_side_is_cut_to_the_steps_of_the_smaller() -> None:
    whole = [np.full((10, 1), i) for i in range(9)]
    assert drawn(whole, 90, seed=0) == whole
    some = drawn(whole, 35, seed=0)
    assert len(some) == 4 and len({int(each[0, 0]) for each in some}) == 4
    assert len(drawn(whole, 5, seed=0)) == 2


def evaluate(run: Path, *more: str) -> dict:
    out = run / "out.json"
    few = ["--episodes", "3", "--seed", "50", "--videos", "0", "--workers", "0", "--device", "cpu", "--overwrite"]
    assert cli.main(["eval", str(run), *few, "--json", str(out), *more]) == 0
    return json.loads(out.read_text())


def test_eval_traces_the_memory_on_the_seeds_after_the_evaluated_ones(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, figures = evaluate(runs / "sega"), evaluate(runs / "sega", "--memory", "5")
    memory = figures["memory"]
    assert "memory" not in plain and figures["episodes"] == plain["episodes"]
    folder = runs / "sega" / "eval" / "50_3"
    alone, result = (json.loads((folder / name).read_text()) for name in ("memory.json", "result.json"))
    assert {key: alone[key] for key in memory} == memory == result["memory"] and "meta" in alone
    assert [row["seed"] for row in memory["episodes"]] == [53, 54, 55, 56, 57]
    ratio, probe = memory["predictability"], memory["probe"]
    assert ratio["ratio"] == pytest.approx(ratio["expert_mse"] / ratio["policy_mse"])
    assert max(ratio["expert_pairs"][0], ratio["policy_pairs"][0]) <= 2 * min(ratio["expert_pairs"][0], ratio["policy_pairs"][0])
    assert probe["n_episodes"] == 5 and probe["n_states"] == memory["updates"] == sum(row["n"] for row in probe["by_tick"])
    assert probe["interval95"][0] <= probe["accuracy"] <= probe["interval95"][1]
    assert [row["tick"] for row in probe["by_tick"][:3]] == [0, 4, 8] and len(probe["by_tick"][0]["interval95"]) == 2
    page = (folder / "report.html").read_text()
    for title in ("Memory, in 5 more episodes", "Action predictability", "What the memory holds", "Gates (seed 53"):
        assert title in page
    assert "fact read from the memory" in capsys.readouterr().out


def test_a_window_gets_ratio_and_attention_only(runs: Path) -> None:
    memory = evaluate(runs / "window", "--memory", "2")["memory"]
    page = (runs / "window" / "eval" / "50_3" / "report.html").read_text()
    assert "Action predictability" in page and "Attention over history (seed 53" in page
    assert "Gates" not in page and "What the memory holds" not in page
    assert memory["probe"]["missing"] == "the policy has no memory to read from"


def test_what_is_missing_is_said_and_the_rest_is_shown(runs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(runs / "sega", run, ignore=shutil.ignore_patterns("eval"))
    config = run / "checkpoints" / "step_0000003" / "config.yaml"
    config.write_text(config.read_text().replace("demos.zarr", "gone.zarr"))
    memory = evaluate(run, "--memory", "1")["memory"]
    page = (run / "eval" / "50_3" / "report.html").read_text()
    assert "gone.zarr: no such dataset" in memory["predictability"]["missing"] and "gone.zarr: no such dataset" in page
    assert "want two facts in two episodes" in memory["probe"]["missing"] and "Gates (seed 53" in page


@pytest.mark.parametrize("argv", [["expert:shell", "--memory", "2"], ["{run}", "--memory", "-1"]])
def test_where_there_is_nothing_to_trace_one_line_says_so(
    runs: Path, tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["eval", *(word.format(run=runs / "regression") for word in argv)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and f"--memory {argv[-1]}: want 0 or more episodes of a run folder" in lines[0]
    assert not list(tmp_path.iterdir()) and not (runs / "regression" / "eval").exists()
