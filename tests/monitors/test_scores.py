"""Failure scores without a network, each against its formula and the specification's numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_scores import EMBEDDED, EPISODES, LAYOUT, MOVING, NAMES, make, plans, still

from robolearn.errors import BadInput
from robolearn.monitors import ace, mahalanobis, pca_kmeans, stac
from robolearn.monitors._base import Episode, Layout, Plans


def entropy_by_the_book(samples: np.ndarray, cell: np.ndarray) -> float:
    """Returns the specification's formula, tick by tick."""
    bits = []
    for points in samples.swapaxes(0, 1):
        low = points.min(axis=0) - 0.01 * (points.max(axis=0) - points.min(axis=0))
        _, counts = np.unique(np.floor((points - low) / cell), axis=0, return_counts=True)
        bits.append(-(counts / len(points) * np.log2(counts / len(points))).sum())
    return float(np.mean(bits))


@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1, 5), st.sampled_from([1, 2, 3, 6]), st.floats(-12, 2))
def test_chunk_entropy_is_the_formula_bounded_and_blind_to_order_and_place(
    seed: int, draws: int, horizon: int, width: int, power: float
) -> None:
    rng = np.random.default_rng(seed)
    samples, cell = rng.standard_normal((draws, horizon, width)), 10.0**power * rng.uniform(0.5, 2, width)
    bits = ace.chunk_entropy(samples, cell)
    assert bits == pytest.approx(entropy_by_the_book(samples, cell), abs=1e-12)
    assert 0 <= bits <= math.log2(draws) + 1e-12
    assert ace.chunk_entropy(rng.permutation(samples), cell) == bits
    if power > -6:  # smaller cells feel the rounding of the sum
        assert ace.chunk_entropy(samples + 17.0, cell) == pytest.approx(bits, abs=1e-9)


def test_equal_draws_have_no_entropy_and_k_equal_modes_have_log2_k_bits() -> None:
    cell, path = np.full(3, 0.1), np.linspace(0, 1, 8)[:, None] * np.array([1.0, 2.0, 3.0])
    assert ace.chunk_entropy(np.tile(path, (32, 1, 1)), cell) == 0.0
    for draws, k in ((30, 2), (32, 2), (32, 4), (30, 5), (32, 32)):
        modes = np.tile(path, (draws, 1, 1)) + (np.arange(draws) % k)[:, None, None]
        assert ace.chunk_entropy(modes, cell) == pytest.approx(math.log2(k), abs=1e-12)
    two = np.tile(path, (30, 1, 1)) + (np.arange(30) % 2)[:, None, None]
    assert ace.chunk_entropy(two, cell) == 1.0
    narrow = path + 0.099 * np.random.default_rng(0).uniform(0, 1, (32, 1, 3))
    assert ace.chunk_entropy(narrow, cell) == 0.0, "with the margin of one hundredth, all in the first cell"


def test_draws_in_cells_too_far_apart_to_be_numbered_are_still_told_apart() -> None:
    far = 1e12
    corners = np.array([[0, 0, 0], [far, far, 0], [far, far, far], [far, far, far / 2], [far, 0, far], [far, 0, far]])[:, None]
    assert ace.chunk_entropy(corners, np.ones(3)) == pytest.approx(entropy_by_the_book(corners, np.ones(3)), abs=1e-12)


@pytest.mark.parametrize(("draws", "horizon", "bits"), [(32, 3000, 4.43), (256, 600, 5.84), (4096, 16, 6.26)])
def test_gaussian_draws_as_wide_as_a_cell_have_the_entropy_of_the_specification(draws: int, horizon: int, bits: float) -> None:
    samples = np.random.default_rng(1).standard_normal((draws, horizon, 3))
    assert ace.chunk_entropy(samples, np.ones(3)) == pytest.approx(bits, abs=0.03)


def test_cells_are_a_share_of_what_the_fit_split_spans_and_an_axis_that_never_moves_takes_the_largest() -> None:
    samples = np.zeros((2, 7, 8, 4))
    samples[0, 0, 0], samples[1, 6, 7] = (-1, 0, 5, 0), (3, 2, 5, 9)
    samples[:, :, :, 2] = 5
    episode = Episode(still(2, samples=samples), True, 8)
    failed = Episode(still(2, samples=100 * samples), False, 8)
    for cubes, want in ((False, (4, 2, 4)), (True, (4, 4, 4))):
        score = make("ace", fit=False, single_cellsize=cubes, draws=7)
        score.fit([episode, failed], np.random.default_rng(0))
        assert score.arrays()["cell"] == pytest.approx(0.03 * np.array(want))
    assert np.array_equal(score.trace(episode.plans), [ace.chunk_entropy(s[..., :3], score.cell) for s in samples])
    with pytest.raises(BadInput, match=r"^ace: wants plans that move, got the same position in all of the fit split"):
        score.fit([Episode(still(2), True, 8)], np.random.default_rng(0))


def test_chunk_entropy_refuses_cells_of_no_size_and_positions_that_are_none() -> None:
    good = np.zeros((4, 2, 3))
    for cell in ([0.1, 0.0, 0.1], [0.1, 0.1], [0.1, math.nan, 0.1], [0.1, -0.1, 0.1]):
        with pytest.raises(BadInput, match=r"^chunk_entropy: cell: want 3 finite sizes above 0, got"):
            ace.chunk_entropy(good, np.array(cell))
    for samples in (good[0], good[:0], good * np.nan):
        with pytest.raises(BadInput, match=r"^chunk_entropy: samples: want finite \(draws, horizon, positions\), got"):
            ace.chunk_entropy(samples, np.full(3, 0.1))


def test_the_discrepancy_of_a_sample_from_itself_is_zero_and_it_is_symmetric_and_refuses_what_is_no_pair() -> None:
    x, y = np.random.default_rng(2).standard_normal((2, 20, 4))
    assert stac.mmd2(x, x) == 0.0 and stac.mmd2(x[:1], x[:1]) == 0.0
    assert stac.mmd2(x, y[:7] + 1) == pytest.approx(stac.mmd2(y[:7] + 1, x), abs=1e-12) and 0 < stac.mmd2(x, y) < 2
    for a, b in ((x, y[:, 1:]), (x, y[:0]), (x[0], y)):
        with pytest.raises(BadInput, match=r"^mmd2: want two samples \(n, dims\) of one width, got"):
            stac.mmd2(a, b)
    with pytest.raises(BadInput, match=r"^mmd2: want finite samples, got NaN or infinity"):
        stac.mmd2(x, y * np.nan)


@pytest.mark.parametrize(("draws", "repeats"), [(32, 400), (256, 40)])
def test_the_null_of_the_discrepancy_is_two_over_draws_and_a_unit_shift_a_quarter(draws: int, repeats: int) -> None:
    rng = np.random.default_rng(3)
    pairs = rng.standard_normal((repeats, 2, draws, 12))
    null, shift = np.mean([stac.mmd2(x, y) for x, y in pairs]), np.mean([stac.mmd2(x, y + 1) for x, y in pairs[:40]])
    assert null == pytest.approx(2 / draws * (1 - math.exp(-0.5)), rel=0.12) and shift == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("layout", [LAYOUT, MOVING], ids=["absolute", "moving"])
@pytest.mark.parametrize("case", ["stac", "stac all"])
def test_plans_that_keep_to_what_was_planned_are_consistent_exactly(case: str, layout: Layout) -> None:
    ticks, path = np.array([0, 4, 8, 11, 30]), np.random.default_rng(4).standard_normal((7, 40, 4))
    samples = np.stack([path[:, t : t + 8] for t in ticks])
    assert make(case, layout).trace(still(5, ticks=ticks, samples=samples)).tolist() == [0] * 5
    samples[2, :, :4, 0] += 5  # in the overlap with the plan before, and in the first tick of that with the next one
    trace = make(case, layout).trace(still(5, ticks=ticks, samples=samples))
    assert trace[[0, 1, 4]].tolist() == [0] * 3 and (trace[2:4] > 0.01).all()
    with pytest.raises(BadInput, match=r"^stac: want plans of one episode at growing ticks, got \[0, 4, 4\]"):
        make(case, layout).trace(still(3, ticks=np.array([0, 4, 4])))


def test_all_numbers_are_compared_normalised_and_positions_as_they_are() -> None:
    seen = Plans(**(vars(plans(2, 7)) | {"ticks": np.array([0, 4])}))
    before, after = seen.samples[0, :6, 4:].astype(float), seen.samples[1, :6, :4].astype(float)
    for case, columns, scale in (("stac", 3, 1.0), ("stac all", 4, np.array(LAYOUT.scale))):
        x, y = ((part[..., :columns] * scale).reshape(6, -1) for part in (before, after))
        assert make(case).trace(seen) == pytest.approx([0, stac.mmd2(x, y)])


@pytest.mark.parametrize("case", ["knn", "knn cosine", "knn supervised"])
def test_knn_is_the_mean_distance_to_the_nearest_embeddings(case: str) -> None:
    def by_hand(seen: list[np.ndarray], row: np.ndarray) -> float:
        def far(a: np.ndarray) -> float:
            cosine = a @ row / np.linalg.norm(a) / np.linalg.norm(row)
            return float(1 - cosine if case == "knn cosine" else np.linalg.norm(a - row))

        return float(np.mean(sorted(far(a.astype(float)) for a in seen)[:4]))

    sets = [[row for e in EPISODES if e.success == good for row in e.plans.features] for good in (True, False)]
    rows, score = plans(5, 42).features.astype(float), make(case, k=4)
    want = [by_hand(sets[0], row) - (by_hand(sets[1], row) if score.supervised else 0) for row in rows]
    assert score.trace(plans(5, 42)) == pytest.approx(want, abs=1e-9)
    assert np.isfinite(make(case, k=10_000).trace(still(2))).all(), "k beyond the sample, and embeddings of zeros"


@pytest.mark.parametrize("case", EMBEDDED)
def test_embeddings_unlike_those_of_successes_score_higher(case: str) -> None:
    usual, unusual = (make(case).trace(plans(60, 8, shift)).mean() for shift in (0.0, 2.0))
    assert unusual > usual


def test_whitening_makes_the_shrunk_covariance_the_identity_and_survives_numbers_that_never_change() -> None:
    points = np.random.default_rng(5).standard_normal((50, 4)) @ np.diag([1.0, 5.0, 0.1, 0.0])
    mean, factor = mahalanobis.whitening(points, 0.1)
    covariance = np.cov(points, rowvar=False, bias=True)
    shrunk = 0.9 * covariance + 0.1 * np.trace(covariance) / 4 * np.eye(4)
    assert factor @ shrunk @ factor.T == pytest.approx(np.eye(4), abs=1e-9) and mean == pytest.approx(points.mean(axis=0))
    with pytest.raises(BadInput, match=r"^mahalanobis: wants embeddings that differ, got 50 equal ones"):
        mahalanobis.whitening(np.full((50, 4), 0.1), 0.1)


def test_kmeans_finds_blobs_and_never_more_centroids_than_different_points() -> None:
    rng = np.random.default_rng(6)
    centres = np.array([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    found = pca_kmeans.kmeans(np.repeat(centres, 50, axis=0) + 0.1 * rng.standard_normal((200, 2)), 4, rng)
    assert found[np.lexsort(found.T.round())] == pytest.approx(centres, abs=0.1)
    assert len(pca_kmeans.kmeans(np.repeat(centres, 5, axis=0), 64, rng)) == 4
    with pytest.raises(BadInput, match=r"^kmeans: want points \(n, d\) and k of at least 1, got \(0, 2\) and 4"):
        pca_kmeans.kmeans(centres[:0], 4, rng)


def test_pca_kmeans_sees_every_embedding_where_every_one_is_a_cluster_and_subtracts_the_mean() -> None:
    score, seen = make("pca_kmeans", fit=False, components=10, clusters=64), plans(20, 9, shift=100.0)
    score.fit([Episode(seen, True, 80)], np.random.default_rng(0))
    assert score.trace(seen) == pytest.approx(np.zeros(20), abs=1e-9), "twenty clusters of one embedding each"
    components = score.arrays()["components"]
    assert components.shape == (5, 5) and components @ components.T == pytest.approx(np.eye(5), abs=1e-9)
    stretched = Plans(**(vars(seen) | {"features": seen.features * np.array([1, 1, 50, 1, 1])}))
    score = make("pca_kmeans", fit=False, components=1)
    score.fit([Episode(stretched, True, 80)], np.random.default_rng(0))
    assert abs(score.arrays()["components"][0, 2]) > 0.99, "what is kept is the direction that scatters most"


def test_equal_draws_have_no_variance_and_different_ones_that_of_normalised_actions() -> None:
    seen = plans(6, 3)
    want = (seen.samples[:, :6].astype(float) * LAYOUT.scale).var(axis=1, ddof=1).sum(axis=-1).mean(axis=-1)
    assert make("variance").trace(seen) == pytest.approx(want)
    assert make("variance", Layout(NAMES, 8, 4)).trace(seen) != pytest.approx(want)
    equal = np.repeat(np.random.default_rng(3).standard_normal((6, 1, 8, 4)), 7, axis=1)
    assert make("variance").trace(still(6, samples=equal)).tolist() == [0] * 6


def motion(x: Sequence[float]) -> Plans:
    """Returns plans whose first draws command x, 4 numbers each; what is not executed zigzags."""
    samples = np.zeros((len(x) // 4, 7, 8, 4))
    samples[..., 0] = 100.0 * (-1) ** np.arange(8)
    samples[:, 0, :4, 0] = np.reshape(x, (-1, 4))
    return still(len(samples), samples=samples)


def test_a_straight_motion_never_reverses_and_a_zigzag_always() -> None:
    straight, zigzag = motion(range(12)), motion([0, 1] * 6)
    assert make("reversal").trace(straight).tolist() == [0] * 3 and make("reversal").trace(zigzag).tolist() == [1] * 3
    assert make("reversal", MOVING).trace(motion([1] * 12)).tolist() == [0] * 3
    assert make("reversal", MOVING).trace(motion([1, -1] * 6)).tolist() == [1] * 3
    assert make("reversal").trace(still(3)).tolist() == [0] * 3, "whoever stands still does not turn"


def test_reversals_count_within_plans_and_between_them_over_the_span_and_not_across_a_gap() -> None:
    turns = motion([0, 1, 2, 3, 2, 1, 0, -1, -2, -3, -4, -5])  # one reversal, between the first plan and the second
    assert make("reversal", span=3).trace(turns) == pytest.approx([0, 1 / 6, 1 / 10])
    assert make("reversal", span=2).trace(turns) == pytest.approx([0, 1 / 6, 0])
    assert make("reversal", span=1).trace(turns).tolist() == [0] * 3
    assert make("reversal", MOVING, span=2).trace(motion([1] * 4 + [-1] * 8)) == pytest.approx([0, 1 / 7, 0])
    hook = motion([0, 1, 2, 3, 2, 3, 4, 5, 6, 7, 8, 9])  # one at the end of the first plan, one as the second begins
    assert make("reversal", span=3).trace(hook) == pytest.approx([0, 2 / 6, 2 / 10])
    for plans_ in (turns, hook):
        apart = Plans(**(vars(plans_) | {"ticks": np.array([0, 8, 12])}))
        assert make("reversal", span=3).trace(apart).tolist() == [0] * 3


def test_a_past_that_is_told_right_disagrees_by_nothing_and_a_wrong_one_by_its_squared_error_in_normalised_units() -> None:
    past = np.zeros((4, 7, 3, 4))
    past[1:, :, :, 1] = 0.5  # y, scaled by 2, squared, over 4 numbers: 0.25
    past[3, 0] = 0
    executed = np.zeros((4, 3, 4))
    executed[2, :2] = np.nan
    executed[3, 0, 2] = np.nan
    seen = still(4, past_samples=past, executed=executed)
    assert make("past_disagreement", draws=7).trace(seen) == pytest.approx([0, 0.25, 0.25, 0.25 * 6 / 7])
    assert make("past_disagreement first").trace(seen) == pytest.approx([0, 0.25, 0.25, 0])
    nothing = still(4, past_samples=past, executed=np.full((4, 3, 4), np.nan))
    assert make("past_disagreement").trace(nothing).tolist() == [0] * 4, "nothing was executed yet"


def test_only_positions_that_were_executed_count() -> None:
    past = np.zeros((2, 7, 3, 4))
    past[:, :, 0, 0], past[:, :, 2, 0] = 6, 2
    executed = np.zeros((2, 3, 4))
    executed[1, 0] = np.nan
    trace = make("past_disagreement").trace(still(2, past_samples=past, executed=executed))
    assert trace == pytest.approx([(36 + 4) / 4 / 3, 4 / 4 / 2])


def test_pasts_of_another_shape_or_without_end_are_refused() -> None:
    score, good = make("past_disagreement"), plans(5, 1)
    for key, cut in (("past_samples", np.s_[:, :, 1:]), ("executed", np.s_[:, :2]), ("past_samples", np.s_[:, :5])):
        with pytest.raises(
            BadInput, match=r"^past_disagreement: want pasts of 3 x 4 numbers in 6 draws or more, got past_samples"
        ):
            score.trace(Plans(**(vars(good) | {key: getattr(good, key)[cut]})))
    for key, value in (("past_samples", np.nan), ("executed", np.inf)):
        with pytest.raises(BadInput, match=r"^past_disagreement: past_samples hold NaN or infinity, or executed holds infinity"):
            score.trace(Plans(**(vars(good) | {key: np.full_like(getattr(good, key), value)})))
