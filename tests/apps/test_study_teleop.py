"""The operator model records Lift through both followers; the study resumes, pairs what it compares and measures smoothness."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from robolearn.apps import _smoothness, _study_teleop, expand, study_teleop
from robolearn.apps._operator import SimClock, lesson, operator_device, pilot_of
from robolearn.core import Flag
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError
from robolearn.rollout import rollout
from robolearn.teleop.operator_model import Link
from sim_envs import _base


@pytest.fixture
def demos(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the person remember the human demonstrations of robosuite."""
    monkeypatch.setattr(expand, "DEMOS", shared / "data" / "robosuite_human_demos" / "1.0.1")


@pytest.mark.usefixtures("demos")
@pytest.mark.parametrize("action", ["joint_abs", "pose_abs", "osc_delta"])
def test_the_operator_model_lifts_the_cube_on_every_kind_of_body(action: str) -> None:
    body = _base.make("lift", {"action": action})
    body.reset(0)
    clock = SimClock(body.spec.hz)
    device = operator_device(body, seed=3, clock=clock, link=Link(jitter_s=0.08, loss=0.05))
    outcome = rollout(body, pilot_of(body, device), max_steps=400, seed=3, sinks=[clock])
    assert outcome.success
    assert Flag.ENGAGED in pilot_flags(body, device)


def pilot_flags(body: object, device: object) -> Flag:
    """Returns the flags of a pilot's first engaged tick."""
    pilot = pilot_of(body, device)  # type: ignore[arg-type]
    pilot.reset(0)
    clock = device.clock  # type: ignore[attr-defined]
    for _ in range(8):
        pilot.observe(body._observe(), None)  # type: ignore[attr-defined]
        clock.ticks += 1
    return pilot.flags


@pytest.mark.usefixtures("demos")
def test_a_task_whose_object_must_be_placed_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"'can'.*lift"):
        lesson("can")


@pytest.mark.usefixtures("demos")
def test_the_study_records_both_sets_goes_on_where_it_stopped_and_refuses_other_conditions(tmp_path: Path) -> None:
    cfg = study_teleop.Config(episodes=1, trainings=0, out=tmp_path / "sets", results=tmp_path / "results")
    cfg.out.mkdir()
    study_teleop.record(cfg, "sew")
    more = study_teleop.Config(episodes=2, trainings=0, out=tmp_path / "sets", results=tmp_path / "results")
    assert study_teleop.run(more) == 0
    for follower in study_teleop.FOLLOWERS:
        assert EpisodeSet.open(tmp_path / "sets" / f"{follower}.zarr").n_episodes == 2
    figures = json.loads((tmp_path / "results" / "study.json").read_text())
    assert figures["sew"]["recorded"]["n"] == figures["hand"]["recorded"]["n"] == 2
    rows = list(csv.DictReader((tmp_path / "results" / "episodes.csv").open()))
    assert {row["follower"] for row in rows} == set(study_teleop.FOLLOWERS)
    assert all(float(row["sparc"]) < 0 for row in rows)
    other = study_teleop.Config(episodes=2, trainings=0, loss=0.2, out=tmp_path / "sets", results=tmp_path / "results")
    with pytest.raises(DatasetError, match="was recorded with"):
        study_teleop.run(other)


def test_policies_are_compared_on_the_seeds_both_were_evaluated_on() -> None:
    def row(follower: str, seed: int, success: bool) -> dict[str, object]:
        return {"kind": "policy", "follower": follower, "training": "0", "seed": seed, "success": success}

    rows = [row("sew", 1, True), row("sew", 2, True), row("sew", 3, False), row("hand", 1, True), row("hand", 2, False)]
    pair = _study_teleop.paired(rows)
    assert (pair["pairs"], pair["only_sew"], pair["only_hand"], pair["p"]) == (2, 1, 0, 1.0)


def test_bad_counts_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="episodes"):
        study_teleop.Config(episodes=0)


def reach(noise: float) -> np.ndarray:
    s = np.linspace(0, 1, 41)
    q = np.stack([10 * s**3 - 15 * s**4 + 6 * s**5, np.zeros(41)], axis=1)
    return q + noise * np.random.default_rng(0).normal(size=q.shape) * np.array([1.0, 0.0])


def test_the_dimensionless_jerk_of_a_minimum_jerk_reach_is_its_known_value() -> None:
    s = np.linspace(0, 1, 2001)
    speed = 30 * s**2 - 60 * s**3 + 30 * s**4
    assert _smoothness.log_jerk(speed, 2000.0) == pytest.approx(-np.log(720 / 1.875**2), abs=0.02)


def test_both_measures_fall_as_a_motion_gets_rougher_and_do_not_depend_on_its_size() -> None:
    smooth, rough, rougher = (_smoothness.of_joints(reach(noise), 20.0) for noise in (0.0, 0.01, 0.05))
    for name in ("sparc", "log_jerk"):
        assert smooth[name] > rough[name] > rougher[name]
        assert _smoothness.of_joints(3 * reach(0.0), 20.0)[name] == pytest.approx(smooth[name])
    assert rougher["largest_step"] > smooth["largest_step"]


def test_an_arm_at_rest_has_no_smoothness() -> None:
    assert np.isnan(_smoothness.of_joints(np.zeros((30, 7)), 20.0)["sparc"])
