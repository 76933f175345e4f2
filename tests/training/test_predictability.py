"""What the figure says of trajectories whose predictability is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from robolearn.errors import ArrayMismatch, ConfigError, DatasetError
from robolearn.training.predictability import (
    IN_LOOP,
    OFFLINE,
    Comparison,
    Predictability,
    chunk_ratio,
    compare,
    measure,
    position_columns,
    predictability,
    ratio,
    units,
)

QUICK = replace(OFFLINE, epochs=3)


def walks(n: int, noise: float, seed: int, steps: int = 80) -> list[np.ndarray]:
    """Trajectories (steps, 3) that lean towards the origin and are pushed at random by `noise`."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(-1, 1, (n, 3))
    rows = [a]
    for _ in range(steps - 1):
        a = 0.95 * a + noise * rng.standard_normal(a.shape)
        rows.append(a)
    return list(np.stack(rows, axis=1))


def test_a_constant_velocity_is_foretold() -> None:
    rng = np.random.default_rng(0)
    moving = [start + np.arange(100)[:, None] * [0.01, -0.02, 0.005] for start in rng.uniform(-1, 1, (200, 3))]
    found = measure(moving, seed=0)
    assert found.mse < 1e-3 * found.variance


@pytest.mark.parametrize("fit", [OFFLINE, IN_LOOP])
def test_independent_actions_cost_their_variance(fit) -> None:
    rng = np.random.default_rng(1)
    found = measure([rng.uniform(-3, 3, (100, 2)) for _ in range(200 if fit == OFFLINE else 60)], seed=0, fit=fit)
    assert found.variance == pytest.approx(1 / 3, rel=0.05)  # of a uniform distribution on [-1, 1]
    assert found.mse == pytest.approx(found.variance, rel=0.03)


def test_a_set_against_itself_is_exactly_one_and_leaves_the_global_random_state_alone() -> None:
    expert = walks(20, 0.1, 0)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    assert ratio(expert, expert, seed=3, fit=QUICK) == 1.0
    assert torch.equal(torch.get_rng_state(), before)
    assert predictability(expert, seed=3, fit=QUICK) == predictability(expert, seed=3, fit=QUICK)
    assert predictability(expert, seed=3, fit=QUICK) != predictability(expert, seed=4, fit=QUICK)


def test_a_steadier_policy_is_above_one_and_a_noisier_one_below() -> None:
    expert = walks(80, 0.1, 0)
    assert ratio(expert, walks(80, 0.03, 1), seed=0) > 2
    assert ratio(expert, walks(80, 0.3, 2), seed=0) < 0.5
    assert ratio(expert, walks(80, 0.1, 3), seed=0) == pytest.approx(1, rel=0.2)


def test_the_policy_is_measured_in_the_units_of_the_expert() -> None:
    expert = walks(60, 0.1, 0)
    small = [0.1 * trajectory for trajectory in expert]
    found = compare(expert, small, seed=0)
    assert found.policy.variance == pytest.approx(found.expert.variance / 100, rel=1e-3)
    assert found.policy.mse != pytest.approx(found.expert.mse, rel=0.5)
    assert measure(small, seed=0).mse == pytest.approx(found.expert.mse, rel=1e-3)  # in its own units nothing is smaller


def test_pairs_are_those_in_the_middle_of_the_windows() -> None:
    ramp = np.arange(40.0)[:, None]
    found = measure([ramp, ramp], seed=0, fit=QUICK)
    assert found.pairs == (9, 9)  # 40 - 31 windows of 32
    middle = units([ramp]).normalize(ramp)[16:25]
    assert found.variance == pytest.approx(middle.var(), rel=1e-5)  # a_t of t = 16 .. 24
    assert measure([ramp, ramp], seed=0, fit=replace(QUICK, window=2)).pairs == (39, 39)


def test_short_trajectories_give_all_pairs_and_it_is_said() -> None:
    ramp = np.arange(40.0)[:, None]
    found = measure([ramp[:10], ramp, ramp[:1], ramp[:0]], seed=0, fit=QUICK)
    assert found.pairs == (9, 9) and (found.short, found.empty) == (1, 2)
    assert found.note == "1 trajectories below 32 actions gave all their pairs, 2 of less than two actions were left out"
    assert measure([ramp, ramp], seed=0, fit=QUICK).note == ""
    few, many = Predictability(0.1, 1, (100, 10), 32), Predictability(0.1, 1, (900, 90), 32)
    assert "alike numbers" in Comparison(few, many).note and not Comparison(few, few).note


def test_the_first_trajectories_are_held_out_unless_drawn() -> None:
    flat, wild = [np.zeros((50, 1))], [np.linspace(-1, 1, 50)[:, None]] * 9
    assert measure([*flat, *wild], seed=0, fit=QUICK).variance == 0
    assert measure([*wild, *flat], seed=0, fit=QUICK).variance > 0
    assert measure([*wild, *flat], seed=0, fit=replace(IN_LOOP, epochs=1)).pairs == (8 * 49, 2 * 49)


def test_the_best_epoch_counts_where_it_is_asked_for() -> None:
    noisy = walks(4, 0.3, 0)  # few pairs, a wide layer, many epochs: it overfits
    fit = replace(OFFLINE, hidden=512, epochs=60, batch=16, lr=1e-2)
    assert measure(noisy, seed=0, fit=replace(fit, best=True)).mse < measure(noisy, seed=0, fit=fit).mse


def test_columns_that_do_not_count_change_nothing() -> None:
    expert = walks(10, 0.1, 0)
    shaken = [np.c_[t, np.random.default_rng(i).standard_normal(len(t))] for i, t in enumerate(expert)]
    assert predictability(shaken, seed=0, columns=(0, 1, 2), fit=QUICK) == predictability(expert, seed=0, fit=QUICK)
    assert predictability(shaken, seed=0, fit=QUICK) != predictability(expert, seed=0, fit=QUICK)


def test_a_column_that_never_moves_is_no_division_by_zero() -> None:
    still = [np.c_[t, np.full(len(t), 5.0)] for t in walks(10, 0.1, 0)]
    assert np.isfinite(predictability(still, seed=0, fit=QUICK))
    constant = [np.ones((40, 2))] * 4
    assert ratio(constant, constant, seed=0, fit=QUICK) == 1.0


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (("x", "y", "z", "r00", "r01", "r02", "r10", "r11", "r12", "gripper"), (0, 1, 2)),
        (("dx", "dy", "dz", "drx", "dry", "drz", "gripper"), (0, 1, 2)),
        (("x_left", "y_left", "rx_left", "x_right", "gripper_right"), (0, 1, 3)),
        (("left_x", "pos.y", "quat_x", "rot_y", "z1", "vel_x"), (0, 1, 4)),
        (("q0", "q1", "gripper"), (0, 1, 2)),
        (("index", "max", "yaw"), (0, 1, 2)),
    ],
)
def test_positions_are_found_by_name_and_all_columns_serve_where_there_are_none(names, columns) -> None:
    assert position_columns(names) == columns
    assert position_columns((), 3) == (0, 1, 2)


def test_what_cannot_be_measured_is_refused_in_one_line() -> None:
    good = np.zeros((40, 2))
    cases: list[tuple[type[Exception], str, list[np.ndarray], dict[str, Any]]] = [
        (DatasetError, "got none", [], {}),
        (DatasetError, "at least 2 trajectories of 2 actions, got 1 of 2", [good, good[:1]], {}),
        (ArrayMismatch, r"trajectory 1: want finite actions \(steps, 2\), got \(40, 3\)", [good, np.zeros((40, 3))], {}),
        (ArrayMismatch, "trajectory 1", [good, good * np.nan], {}),
        (ConfigError, r"columns of 0 .. 1, got \(0, 2\)", [good, good], {"columns": (0, 2)}),
        (ConfigError, "even window", [good, good], {"fit": replace(OFFLINE, window=31)}),
    ]
    for error, match, actions, more in cases:
        with pytest.raises(error, match=match):
            predictability(actions, seed=0, **more)


def test_the_monitor_in_training_is_one_for_the_expert_itself_and_tells_copies_from_noise():
    g = torch.Generator().manual_seed(0)
    walk = torch.randn(64, 12, 2, generator=g).cumsum(dim=1) * 0.1
    assert chunk_ratio(walk, walk) == 1.0
    steady = walk[:, :1].expand(-1, 12, -1) + 0.01 * torch.randn(64, 12, 2, generator=g)
    assert chunk_ratio(walk, steady) > 5
    assert chunk_ratio(walk, torch.randn(64, 12, 2, generator=g)) < 0.2
    assert np.isnan(chunk_ratio(walk, torch.zeros(64, 12, 2)))
