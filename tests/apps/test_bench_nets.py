"""bench train and bench policy write the keys they promise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robolearn.cli import main


def test_bench_train_writes_one_row_a_denoiser(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "train.json"
    assert main(f"bench train --denoisers mlp unet1d --batch 4 --repeats 5 --no-compile --json {path}".split()) == 0
    report = json.loads(path.read_text())
    assert [row["denoiser"] for row in report["rows"]] == ["mlp", "unet1d"]
    for row in report["rows"]:
        assert {"params", "batch", "eager_fp32_ms", "default_ms", "default_is", "share_of_peak", "peak_memory_mb"} <= set(row)
        assert row["default_ms"] <= row["eager_fp32_ms"]
        assert row["default_is"] in ("fp32", "bf16")
        assert abs(row["default_loss"] / row["eager_fp32_loss"] - 1) < 0.05
        assert abs(sum(row["time_shares"].values()) - 1) < 1e-6
        assert row["reference_per_s"] > 0 and row["compile_ms"] is None
    unet = report["rows"][1]
    assert (unet["lerobot_ms"] is None) == bool(unet["lerobot_why_not"]), "LeRobot is timed, or why not is said"
    assert report["meta"]["command"]
    assert capsys.readouterr().out.count("\n") == 2


def test_bench_policy_writes_every_sampler(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    assert main(f"bench policy --denoisers mlp --repeats 5 --json {path}".split()) == 0
    rows = json.loads(path.read_text())["rows"]
    assert [(r["sampler"], r["steps"]) for r in rows] == [("ddpm", 100), ("ddim", 10), ("flow", 10), ("flow", 2)]
    for row in rows:
        assert {"denoiser", "params", "device", "reference_per_s"} <= set(row)
        assert 0 < row["p50_ms"] <= row["p95_ms"]
