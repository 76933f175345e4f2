"""Faults of a teleoperation link: the last command or a limited one, and a status that says why."""

from __future__ import annotations

import numpy as np
import pytest

from robolearn.apps import _teleop_faults as f
from robolearn.apps import _teleop_streams as streams
from robolearn.teleop import robots
from robolearn.teleop.sew import solve

pytest.importorskip("robosuite")


@pytest.fixture(scope="module", params=["panda", "iiwa"])
def table(request: pytest.FixtureRequest) -> dict[str, dict]:
    return f.faults(robots.arm(request.param), seed=1)


@pytest.mark.parametrize("fault", list(f.FAULTS))
def test_every_fault_leaves_steps_below_the_cap_and_says_why(table: dict[str, dict], fault: str) -> None:
    row = table[fault]
    assert row["holds"], row
    assert row["largest_step_rad"] <= row["cap_rad"]


@pytest.mark.parametrize(("fault", "word"), [("nan", "upper arm"), ("hand_det_-1", "determinant"), ("gap_300_ms", "100 ms")])
def test_the_reason_names_the_fault(table: dict[str, dict], fault: str, word: str) -> None:
    assert any(word in why for why in table[fault]["why"])


def test_nan_holds_exactly_as_long_as_it_lasts(table: dict[str, dict]) -> None:
    assert table["nan"]["statuses"]["held"] == f.UNTIL - f.FROM


@pytest.mark.parametrize("fault", [name for name, expected in f.EXPECTED.items() if expected])
@pytest.mark.parametrize("name", ["panda", "iiwa"])
def test_a_stream_without_the_fault_does_not_pass_for_one_that_has_it(name: str, fault: str) -> None:
    arm = robots.arm(name)
    clean = streams.bent(arm, np.random.default_rng(1), f.SECONDS)
    packets = [f.Packet(k / streams.HZ, k / streams.HZ, target) for k, target in enumerate(clean)]
    start = solve(arm, *clean[0][:3]).q
    assert not f.verdict(arm, fault, f.run(arm, packets, start, len(packets), 3.0), start, 3.0)["holds"]


def test_a_verdict_fails_on_a_step_above_the_cap_and_on_silence() -> None:
    arm = robots.arm("panda")
    q = np.tile(arm.middle(), (120, 1))
    quiet = f.Ran(q, ["held"] * 120, ["said"] * 120)
    assert f.verdict(arm, "nan", quiet, q[0], 3.0)["holds"]
    assert not f.verdict(arm, "nan", quiet._replace(why=[""] * 120), q[0], 3.0)["holds"]
    jumped = q.copy()
    jumped[70:, 0] += 0.2
    assert not f.verdict(arm, "nan", quiet._replace(q=jumped, statuses=["exact"] * 70 + ["held"] * 50), q[0], 3.0)["holds"]
