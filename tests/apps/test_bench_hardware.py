"""The bench of drivers and runtime: every anchor has its figure or its reason, and what does not depend on the machine holds."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hardware._calibration import ServoCalibration
from hardware._errors import TransportLost
from robolearn import cli
from robolearn.apps import _anchors_run as runtime
from robolearn.apps import _anchors_wire as wire
from robolearn.apps import _bench, bench_hardware
from robolearn.apps.bench_hardware import ANCHORS, ELSEWHERE, Anchor, Missed, line, measured, repeated

FIRM = ("H7", "H10", "H14", "H15", "H22", "H26")  # quick, and the same on every machine


def test_what_does_not_depend_on_the_machine_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "hardware.json"
    assert cli.main(["bench", "hardware", "--quick", "--only", *FIRM, "--json", str(path)]) == 0
    figures = json.loads(path.read_text())
    for name in FIRM:
        assert {"op", "limit", "sdk", "holds", "why"} <= set(figures[name]) or figures[name]["holds"] is None
        assert figures[name]["holds"] in (True, None), figures[name]
    assert figures["H26"]["value"] <= 0.5 + 1e-6 and figures["reference_per_s"] > 0


def test_schedules_keep_their_promises_in_a_few_trials_of_every_consumer() -> None:
    assert ANCHORS["H19"].measure(0.0) == [0.0]


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
    monkeypatch.setattr(_bench, "reference_per_s", lambda: 1.0)
    monkeypatch.setitem(bench_hardware.ANCHORS, "H26", Anchor("x", "<=", 0.0, lambda work: [1.0]))
    assert cli.main(["bench", "hardware", "--only", "H26"]) == 1
    assert "these do not hold: H26" in capsys.readouterr().err
    monkeypatch.setitem(bench_hardware.ANCHORS, "H26", Anchor("x", "<=", 0.0, lambda work: [1.0], rate=True))
    assert cli.main(["bench", "hardware", "--only", "H26"]) == 0


BESIDE: list[tuple[Callable[[], float], Any, str, Any, str, dict[str, float]]] = [
    (
        lambda: bench_hardware.ur_rate(0.1), wire, "ur_figures",
        {"connect_s": 1.5, "samples_per_s": 500.0, "servo_per_s": 499.0, "move_error_rad": 0.001},
        "connecting took 1.50 s, moveJ missed by 1.00 mrad",
        {"connect_s": 1.5, "samples_per_s": 500.0, "servo_per_s": 499.0, "move_error_rad": 0.001},
    ),
    (
        lambda: bench_hardware.gripped(0.1), wire, "robotiq_figures", (300.0, 0.003), "stopped 3.0 mm from the object",
        {"polls_per_s": 300.0, "off_m": 0.003},
    ),
    (
        lambda: bench_hardware.misread(100), wire, "wrong_values", (0, 2), "2 reads or more missed", {"wrong": 0, "uncounted": 2},
    ),
    (
        bench_hardware.dead_ms, wire, "dead_servo_s", (0.25, 0.5), "flagged after 250 ms, but a fault only after 500",
        {"flagged_ms": 250.0, "fault_ms": 500.0},
    ),
    (bench_hardware.dead_ms, wire, "dead_servo_s", (float("inf"), 0.125), "no sample told of it", {"fault_ms": 125.0}),
    (bench_hardware.aligned, runtime, "align_figures", (0.125, False), "max_align was not refused", {"fastest": 0.125}),
]  # fmt: skip


@pytest.mark.parametrize(("measure", "module", "name", "given", "why", "figures"), BESIDE)
def test_a_figure_counts_for_nothing_where_what_belongs_to_it_does_not_hold(
    monkeypatch: pytest.MonkeyPatch,
    measure: Callable[[], float],
    module: Any,
    name: str,
    given: Any,
    why: str,
    figures: dict[str, float],
) -> None:
    monkeypatch.setattr(module, name, lambda *asked: given)
    found = measured(Anchor("x", "<=", 1e9, lambda work: [measure()]), 1.0)
    assert found["holds"] is False and why in found["why"] and found["figures"] == figures and "value" not in found
    assert line("H0", Anchor("x", "<=", 1e9, lambda work: []), found).startswith("H0   NO")


def test_a_torn_frame_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardware._camera_host.ring_figures", lambda *asked: SimpleNamespace(torn=1, frames=60, age_p99_s=0.002))
    with pytest.raises(Missed, match="1 of 60 frames were torn") as caught:
        bench_hardware.framed(0.1)
    assert caught.value.figures == {"torn": 1, "age_p99_ms": 2.0}


def test_a_dead_servo_of_which_no_sample_told_was_never_flagged(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = [SimpleNamespace(flags=0)] * 3

    @contextlib.contextmanager
    def koch() -> Iterator[tuple[Any, Any]]:
        def cycle() -> Any:
            if not samples:
                raise TransportLost("koch", "no answer")
            return samples.pop()

        yield SimpleNamespace(control=lambda op, **args: {}), SimpleNamespace(cycle=cycle)

    monkeypatch.setattr(wire, "koch", koch)
    flagged, fault = wire.dead_servo_s()
    assert flagged == float("inf") and fault < 60


@pytest.mark.parametrize(("spoilt", "missed", "left"), [(0, 0, 0), (1, 0, 1), (12, 2, 0), (13, 2, 1), (3, 5, 0)])
def test_a_read_that_misses_counts_for_six_spoilt_answers_at_most(spoilt: int, missed: int, left: int) -> None:
    assert wire.uncounted(spoilt, missed) == left


@pytest.mark.parametrize(("name", "broken"), [
    ("ticks", lambda arm, q, near: np.rint(arm._nominal(q)).astype(np.int64)),  # it forgets whole turns
    ("ticks", lambda arm, q, near: np.rint(arm._nominal(q)).astype(np.int64) + 4096 * (near // 4096)),  # ... at the encoder's end
    ("radians", lambda arm, ticks: arm._sign * (ticks % 4096 - arm._zero) * 2 * np.pi / 4096),
])  # fmt: skip
def test_the_calibration_anchor_sees_a_turn_that_is_lost(monkeypatch: pytest.MonkeyPatch, name: str, broken: Any) -> None:
    monkeypatch.setattr(ServoCalibration, name, broken)
    assert runtime.calibration_error_ticks() > 1000


def test_a_rate_is_the_median_of_five_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds: list[float] = []
    assert repeated(lambda s: seconds.append(s) or float(len(seconds)))(0.5) == [1.0, 2.0, 3.0, 4.0, 5.0]
    monkeypatch.setattr(wire, "bus_cycles_per_s", lambda *asked: 1.0)
    monkeypatch.setattr(wire, "dead_servo_s", lambda: (0.01, 0.1))
    monkeypatch.setattr(wire, "robotiq_figures", lambda s: (1.0, 0.0))
    figures = {"connect_s": 0.5, "samples_per_s": 1.0, "servo_per_s": 1.0, "move_error_rad": 0.0}
    monkeypatch.setattr(wire, "ur_figures", lambda s: figures)
    for name in ("H1", "H2", "H3", "H6", "H8"):
        assert len(ANCHORS[name].measure(0.1)) == 5, name


def test_an_anchor_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "hardware", "--only", "H99"]) == 2
    assert "--only H99: want some of H1" in capsys.readouterr().err
