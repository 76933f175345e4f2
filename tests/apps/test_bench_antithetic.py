"""Draws in pairs, on a flow that is known: where they go, what they cancel, and how many independent ones they are worth."""

from __future__ import annotations

import numpy as np
import pytest

from robolearn.apps import _bench_antithetic as bench


def test_every_second_draw_of_pairs_flows_from_the_negative_of_the_noise_before_it() -> None:
    drawn = bench.noise(np.random.default_rng(0), 3, 8, pairs=True)
    assert drawn.shape == (3, 8, 6) and np.array_equal(drawn[:, ::2], -drawn[:, 1::2])
    alone = bench.noise(np.random.default_rng(0), 3, 8, pairs=False)
    assert alone.shape == (3, 8, 6) and len(np.unique(np.abs(alone))) == alone.size


@pytest.mark.parametrize("case", bench.CASES)
def test_noise_flows_to_the_ways_in_their_shares_and_with_their_spread(case: str) -> None:
    ways = bench.CASES[case]
    ends = bench.flow(bench.noise(np.random.default_rng(1), 1, 4000, False), ways)[0]
    nearest = np.argmin(np.linalg.norm(ends[:, None] - ways.means, axis=-1), axis=1)
    for way, (mean, share) in enumerate(zip(ways.means, ways.shares, strict=True)):
        mine = ends[nearest == way]
        assert abs(len(mine) / len(ends) - share) < 0.07  # ten Euler steps favour the middle one of three
        assert np.abs(mine.mean(0) - mean).max() < 0.06
        assert 0.5 * ways.spread < mine.std(0).mean() < 1.2 * ways.spread  # ten Euler steps fall a little short


def test_of_one_way_pairs_have_the_exact_mean_and_a_variance_that_is_known_half_as_well() -> None:
    ways = bench.CASES["one way"]
    ends = bench.flow(bench.noise(np.random.default_rng(2), 50, 8, True), ways)
    np.testing.assert_allclose(ends.mean(1), np.broadcast_to(ways.means, (50, 6)), atol=1e-12)
    alone, pairs = (bench.measured(ways, 8, some, 150, 0) for some in (False, True))
    assert pairs["variance"]["sd"] > 1.2 * alone["variance"]["sd"]
    assert pairs["stac"]["sd"] < 0.8 * alone["stac"]["sd"] and pairs["stac"]["mean"] < 0.8 * alone["stac"]["mean"]


def test_worth_lies_between_the_numbers_of_draws_that_were_tried() -> None:
    alone = {4: 1.0, 8: 2.0, 16: 3.0}
    assert bench.worth(2.0, alone) == 8 and bench.worth(2.5, alone) == pytest.approx(8 * 2**0.5)
    assert bench.worth(0.9, alone) is None and bench.worth(3.1, alone) is None
    assert bench.worth(0.2, {4: 0.1, 8: 0.3}) is None, "so little apart is luck"


def test_the_table_says_what_pairs_are_worth() -> None:
    rows = bench.rows(5, counts=(4,))
    assert [(row["case"], row["score"]) for row in rows] == [(c, s) for c in bench.CASES for s in ("ace", "variance", "stac")]
    assert len(bench.text(rows).splitlines()) == 12
    row = rows[0] | {"worth": 7.6}
    assert "as 8 independent draws" in bench.text([row]) and "as - independent" in bench.text([row | {"worth": None}])
