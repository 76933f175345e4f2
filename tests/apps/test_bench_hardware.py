"""The bench of drivers and runtime: every anchor has its figure or its reason, and what does not depend on the machine holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robolearn import cli
from robolearn.apps import bench_hardware
from robolearn.apps.bench_hardware import ANCHORS, ELSEWHERE, Anchor, measured

FIRM = ("H7", "H10", "H14", "H15", "H19", "H22", "H26")  # quick, and the same on every machine


def test_what_does_not_depend_on_the_machine_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hardware.json"
    assert cli.main(["bench", "hardware", "--quick", "--only", *FIRM, "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    for name in FIRM:
        assert {"op", "limit", "sdk", "holds", "why"} <= set(figures[name]) or figures[name]["holds"] is None
        assert figures[name]["holds"] in (True, None), figures[name]
    assert figures["H26"]["value"] <= 0.5 + 1e-6 and figures["reference_per_s"] > 0


def test_every_anchor_is_measured_or_says_where_it_is_shown() -> None:
    assert set(ANCHORS) | set(ELSEWHERE) == {f"H{k}" for k in range(1, 27)} and not set(ANCHORS) & set(ELSEWHERE)


def test_a_missing_library_is_a_reason_and_no_error() -> None:
    found = measured(Anchor("x", ">=", 1, lambda work: [1.0], "no_such_library"), 1.0)
    assert found == {"holds": None, "why": "no_such_library is not installed; make sdk", "sdk": "no_such_library"}


def test_a_figure_is_the_median_of_its_runs_and_is_held_to_its_limit() -> None:
    found = measured(Anchor("x", "<", 2.0, lambda work: [5.0, 1.0, 2.0]), 1.0)
    assert found["value"] == 2.0 and found["holds"] is False and found["runs"] == [5.0, 1.0, 2.0]
    assert measured(Anchor("x", "<=", 2.0, lambda work: [2.0]), 1.0)["holds"] is True


def test_a_firm_anchor_that_is_missed_is_a_finding(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(bench_hardware.ANCHORS, "H26", Anchor("x", "<=", 0.0, lambda work: [1.0]))
    assert cli.main(["bench", "hardware", "--only", "H26"]) == 1
    assert "these do not hold: H26" in capsys.readouterr().err
    monkeypatch.setitem(bench_hardware.ANCHORS, "H26", Anchor("x", "<=", 0.0, lambda work: [1.0], rate=True))
    assert cli.main(["bench", "hardware", "--only", "H26"]) == 0


def test_an_anchor_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "hardware", "--only", "H99"]) == 2
    assert "--only H99: want some of H1" in capsys.readouterr().err
