"""bench memory writes the keys it promises, compares like with like, and keeps parts that were measured before."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from robolearn.apps import _memory_cost, bench_memory
from robolearn.cli import main
from robolearn.policies._base import Batch


def numbers(value: object) -> list[float]:
    """Returns all numbers below a JSON value, None as NaN."""
    if isinstance(value, dict):
        return [n for part in value.values() for n in numbers(part)]
    if isinstance(value, list):
        return [n for part in value for n in numbers(part)]
    return [math.nan if value is None else float(value)] if value is None or isinstance(value, (int, float)) else []


def test_the_toy_a_step_by_history_and_verified_plans_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cost.json"
    assert main(f"bench memory --only toy cost verify --quick --threads 1 --json {path}".split()) == 0
    report = json.loads(path.read_text())
    assert list(report["parts"]) == ["toy", "cost", "verify"]
    assert capsys.readouterr().out.count("\n") == 3

    for arm, published in bench_memory.PUBLISHED.items():
        assert report["toy"][arm]["mean"] == pytest.approx(published, abs=0.01)
        assert 0 < report["toy"][arm]["spread"] < 0.02

    assert set(report["per_step_cost"]) == {"window_mlp", "window_transformer", "ptp", "gru", "sega"}
    assert all(set(row) == {"16", "1024"} for row in report["per_step_cost"].values())
    measured = [
        report["per_step_cost"],
        report["sega_16_to_1024"],
        report["sega_overhead_over_sampler"],
        report["sega_released_size"],
    ]
    assert all(math.isfinite(n) and n > 0 for n in numbers([*measured, report["verify_latency_ms"], report["reference_per_s"]]))
    assert report["verify_draws"] == {"1": 1, "5": 5, "10": 10, "30": 30}, "every timed plan drew K times"


@pytest.mark.slow
def test_every_part_but_validation_is_measured_without_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "cost.json"
    assert main(f"bench memory --quick --threads 1 --json {path}".split()) == 0
    report = json.loads(path.read_text())
    assert list(report["parts"]) == ["toy", "cost", "verify", "cached"]
    assert capsys.readouterr().out.count("\n") == 4
    steps = (
        "cached_step_ms",
        "end_to_end_step_ms",
        "ratio",
        "encode_frame_ms",
        "cached_peak_memory_mb",
        "end_to_end_peak_memory_mb",
    )
    for row in (report, report["small"]):
        found = [row[key] for key in steps]
        assert all(math.isfinite(n) and n > 0 for n in found)
        assert row["ratio"] == pytest.approx(row["end_to_end_step_ms"] / row["cached_step_ms"])
        assert row["end_to_end_peak_memory_mb"] >= row["end_to_end_memory_before_mb"]
        assert row["step_repeats"] == 2 and row["end_to_end_parts"] == 1
    assert report["small"]["sizes"]["image_net"] == "small" and report["sizes"]["image_net"] == "resnet18"


def test_a_part_measured_alone_keeps_the_figures_of_the_others(tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    path.write_text(json.dumps({"meta": {"seed": 7}, "ratio": 12.5, "parts": {"cached": {"seconds": 1.0}}}))
    assert main(f"bench memory --only verify --quick --threads 1 --json {path}".split()) == 0
    report = json.loads(path.read_text())
    assert report["ratio"] == 12.5 and list(report["parts"]) == ["cached", "verify"] and report["meta"]["seed"] == 0
    path.write_text("[1, 2]")
    assert main(f"bench memory --only verify --quick --json {path}".split()) == 2


@pytest.mark.slow
def test_two_bounded_runs_share_held_out_windows_and_count_encoder_and_cache(tmp_path: Path) -> None:
    demos, path = tmp_path / "demos.zarr", tmp_path / "cost.json"
    small = "--cameras img --image-size 24 --env-set memory_steps=4"
    assert main(f"record shell --episodes 3 {small} --out {demos}".split()) == 0
    before = {p.name for p in tmp_path.iterdir()}
    options = f"--only validation --quick --threads 1 --minutes 0.01 --dataset {demos} --json {path}"
    assert main(f"bench memory {options}".split()) == 0
    report = json.loads(path.read_text())
    times, curves = report["time_to_equal_validation_s"], report["curves"]
    assert times["loss"] == max(points[-1]["val_loss"] for points in curves.values())
    spent = report["validation"]["encoder_s"] + report["validation"]["cache_s"]
    assert min(point["seconds"] for point in curves["cached"]) > spent > 0
    for name, points in curves.items():
        reached = next(point["seconds"] for point in points if point["val_loss"] <= times["loss"])
        assert times[name] == reached
    assert report["validation"]["obs"] == ["img"]
    assert {p.name for p in tmp_path.iterdir()} - before == {"cost.json"}, "nothing is left beside the set"


def test_validation_without_pictures_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "memory", "--only", "validation"]) == 2
    assert "give --dataset" in capsys.readouterr().err
    demos = tmp_path / "demos.zarr"
    assert main(f"record shell --episodes 2 --env-set memory_steps=4 --out {demos}".split()) == 0
    assert main(f"bench memory --only validation --quick --dataset {demos}".split()) == 2
    assert "want a picture among its keys" in capsys.readouterr().err


def test_a_curve_counts_the_seconds_of_all_steps_since_the_line_before() -> None:
    rows = [
        {"step": 10, "data_s": 0.1, "step_s": 0.4},
        {"step": 10, "val_loss": 2.0},
        {"step": 14, "data_s": 0.0, "step_s": 1.0},
        {"step": 14, "val_loss": 1.0},
    ]
    points = _memory_cost.curve(rows, begin_s=3.0)
    assert [(p["step"], p["seconds"], p["val_loss"]) for p in points] == [(10, 8.0, 2.0), (14, 12.0, 1.0)]


def test_equal_loss_is_the_worse_final_one_and_each_curve_is_asked_when_it_had_it_first() -> None:
    fast = [{"seconds": s, "val_loss": v} for s, v in ((1.0, 0.9), (2.0, 0.4), (3.0, 0.2))]
    slow = [{"seconds": s, "val_loss": v} for s, v in ((5.0, 0.8), (6.0, 0.45), (7.0, 0.5))]
    assert _memory_cost.equal_loss({"cached": fast, "end_to_end": slow}) == {"cached": 2.0, "end_to_end": 6.0, "loss": 0.5}


def test_a_batch_in_parts_is_the_batch() -> None:
    batch = Batch({"o": torch.arange(8.0).view(8, 1)}, torch.arange(16.0).view(8, 2), {})
    pieces = _memory_cost.split(batch, 4)
    assert [len(piece) for piece in pieces] == [2, 2, 2, 2]
    assert torch.equal(torch.cat([piece.obs["o"] for piece in pieces]), batch.obs["o"])
    assert torch.equal(torch.cat([piece.action for piece in pieces]), batch.action)


@pytest.mark.parametrize("history", [1, 16, 1024])
def test_windows_hold_an_observation_a_tick_and_past_tokens_reach_as_far_back(history: int) -> None:
    arms = bench_memory.arms(history)
    for name in ("window_mlp", "window_transformer"):
        assert arms[name].n_obs_steps == history and arms[name].n_past == 0
    assert arms["ptp"].n_obs_steps == min(history, 16)
    assert history - history // 16 <= arms["ptp"].layout.span + 1 <= history
    assert arms["sega"].n_obs_steps == arms["gru"].n_obs_steps == 3, "their history is what they have driven"
