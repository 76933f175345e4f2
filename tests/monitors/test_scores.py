"""Failure scores without networks: what they measure, against the specification's numbers, and the contract of every score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.errors import BadInput, SpecMismatch
from robolearn.monitors import ace, knn, mahalanobis, past_disagreement, pca_kmeans, reversal, stac, variance
from robolearn.monitors._base import ARRAYS, Episode, Layout, Plans, Score

NAMES = ("x", "y", "z", "gripper")
LAYOUT = Layout(NAMES, horizon=8, execute=4, n_past=3, scale=(1.0, 2.0, 3.0, 0.5))
MOVING = Layout(("dx", "dy", "dz", "gripper"), horizon=8, execute=4, n_past=3)
JOINTS = Layout(("q0", "q1", "q2", "gripper"), horizon=8, execute=4, n_past=3)
CASES: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    "ace": (ace, {"draws": 6}),
    "ace cubes": (ace, {"draws": 6, "single_cellsize": True}),
    "stac": (stac, {"draws": 6}),
    "stac all": (stac, {"draws": 6, "positions_only": False}),
    "knn": (knn, {}),
    "knn cosine": (knn, {"metric": "cosine"}),
    "knn supervised": (knn, {"supervised": True}),
    "mahalanobis": (mahalanobis, {}),
    "mahalanobis supervised": (mahalanobis, {"supervised": True}),
    "pca_kmeans": (pca_kmeans, {"components": 3, "clusters": 8}),
    "variance": (variance, {"draws": 6}),
    "reversal": (reversal, {}),
    "past_disagreement": (past_disagreement, {"draws": 6}),
    "past_disagreement first": (past_disagreement, {"draws": 6, "first_only": True}),
}
EMBEDDED = [name for name in CASES if name.startswith(("knn", "mahalanobis", "pca"))]
FITTED = [*EMBEDDED, "ace", "ace cubes"]
DRAWN = {"ace": 6, "stac": 6, "variance": 6, "past_disagreement": 6}


def plans(length: int, seed: int, shift: float = 0.0) -> Plans:
    """Returns random plans of 7 draws and embeddings of 5 numbers around `shift`, at ticks that are not all `execute` apart."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    executed = normal(length, 3, 4)
    executed[:1] = np.nan
    executed[1:2, :2] = np.nan
    ticks = np.cumsum(rng.choice([4, 4, 4, 3, 9], length)) - 3
    return Plans(ticks, shift + normal(length, 5), normal(length, 7, 8, 4), normal(length, 7, 3, 4), executed)


EPISODES = [Episode(plans(12, i, 0.0 if i % 3 else 2.0), success=bool(i % 3), steps=48, seed=i) for i in range(9)]


def make(case: str, layout: Layout = LAYOUT, fit: bool = True, **options: Any) -> Any:
    module, given_ = CASES[case]
    score = module.Predictor(module.Config(**(given_ | options)), layout)
    assert isinstance(score, Score)
    if fit:
        score.fit(EPISODES, np.random.default_rng(0))
    return score


def still(length: int, **changed: np.ndarray) -> Plans:
    """Returns plans of 7 draws that all stay at 0, with some arrays in their place."""
    zeros = np.zeros
    arrays = [
        np.arange(length) * 4,
        zeros((length, 5)),
        zeros((length, 7, 8, 4)),
        zeros((length, 7, 3, 4)),
        zeros((length, 3, 4)),
    ]
    return Plans(**(dict(zip(ARRAYS, arrays, strict=True)) | changed))


@pytest.mark.parametrize("layout", [LAYOUT, MOVING], ids=["absolute", "moving"])
@pytest.mark.parametrize("case", CASES)
def test_a_score_live_is_the_score_afterwards_bit_for_bit(case: str, layout: Layout) -> None:
    score, seen = make(case, layout), plans(23, 77)
    trace = score.trace(seen)
    assert trace.shape == (23,) and trace.dtype == np.float64 and np.isfinite(trace).all() and trace.std() > 0
    for n in range(24):
        assert np.array_equal(score.trace(seen[:n]), trace[:n])
        begin = max(0, n - score.reach - 1)
        assert n == 0 or score.trace(seen[begin:n])[-1] == trace[n - 1], "the last reach + 1 plans are enough"


@pytest.mark.parametrize("case", CASES)
def test_what_was_fitted_goes_to_a_folder_and_back_bit_for_bit(case: str) -> None:
    score, other = make(case), make(case, fit=False)
    kept = {name: array.copy() for name, array in score.arrays().items()}
    assert bool(kept) == (case in FITTED)
    other.restore(kept)
    assert np.array_equal(score.trace(plans(9, 5)), other.trace(plans(9, 5)))
    assert all(np.array_equal(array, other.arrays()[name]) for name, array in kept.items())


@pytest.mark.parametrize("case", FITTED)
def test_a_score_learns_the_same_from_the_same_and_only_from_successes_unless_supervised(case: str) -> None:
    score, other = make(case), make(case, fit=False)
    other.fit([e for e in EPISODES if e.success or score.supervised], np.random.default_rng(0))
    assert np.array_equal(score.trace(plans(9, 5)), other.trace(plans(9, 5)))
    assert score.supervised == ("supervised" in case)


@pytest.mark.parametrize("case", FITTED)
def test_a_fit_to_nothing_and_a_score_before_the_fit_are_refused(case: str) -> None:
    score, name = make(case, fit=False), CASES[case][0].Config().name
    with pytest.raises(BadInput, match=f"^{name}: is not fitted yet"):
        score.trace(plans(3, 0))
    for none in ([], [e for e in EPISODES if not e.success]):
        with pytest.raises(BadInput, match=f"^{name}: wants a successful episode to fit to, got none among {len(none)}"):
            score.fit(none, np.random.default_rng(0))
    if score.supervised:
        with pytest.raises(BadInput, match=f"^{name}: wants a failed episode to fit to, got none among 6"):
            score.fit([e for e in EPISODES if e.success], np.random.default_rng(0))


@pytest.mark.parametrize("case", FITTED)
def test_restored_arrays_that_do_not_fit_are_refused_by_name_and_change_nothing(case: str) -> None:
    score, name = make(case), CASES[case][0].Config().name
    before, kept = score.trace(plans(5, 5)), score.arrays()
    last = list(kept)[-1]
    broken = [{}, kept | {"more": np.zeros(1)}, kept | {last: np.zeros(0)}, kept | {last: kept[last] * np.nan}]
    broken += [kept | {last: kept[last][None]}]
    if case not in ("knn", "knn cosine"):  # a single set of narrower embeddings is one of another policy: refused with its plans
        broken += [kept | {last: kept[last][..., 1:]}]
    for arrays in broken:
        with pytest.raises(BadInput, match=f"^{name}: (want the arrays? |array '{last}'|cell: want)"):
            score.restore(arrays)
    assert np.array_equal(score.trace(plans(5, 5)), before)


@pytest.mark.parametrize("case", CASES)
def test_plans_that_cannot_be_scored_are_refused(case: str) -> None:
    score, good = make(case), plans(6, 1)
    name = CASES[case][0].Config().name
    for key in ("features", "samples"):
        holed = getattr(good, key).copy()
        holed.flat[-1] = np.nan
        with pytest.raises(BadInput, match=f"^{name}: {key} hold NaN or infinity"):
            score.trace(Plans(**(vars(good) | {key: holed})))
    if case in EMBEDDED:
        with pytest.raises(BadInput, match=f"^{name}: was fitted to embeddings of 5 numbers, got 4"):
            score.trace(Plans(**(vars(good) | {"features": good.features[:, 1:]})))
        with pytest.raises(BadInput, match=f"^{name}: wants embeddings of at least one number, got none"):
            score.fit([Episode(Plans(**(vars(good) | {"features": np.zeros((6, 0))})), True, 24)], np.random.default_rng(0))
    if case in DRAWN:
        with pytest.raises(BadInput, match=f"^{name}: needs 6 draws a plan, got 5"):
            score.trace(Plans(**(vars(good) | {"samples": good.samples[:, :5]})))


@pytest.mark.parametrize("case", DRAWN)
def test_draws_beyond_those_of_the_calibration_change_nothing(case: str) -> None:
    seen = plans(6, 1)
    few = Plans(seen.ticks, seen.features, seen.samples[:, :6], seen.past_samples[:, :6], seen.executed)
    assert np.array_equal(make(case).trace(seen), make(case).trace(few)) and make(case).needs.draws == 6


def test_a_policy_that_cannot_serve_a_score_is_refused_when_it_is_made() -> None:
    for case in ("ace", "stac", "reversal"):
        with pytest.raises(SpecMismatch, match=f"^{case}: needs end-effector positions, got actions named q0, q1, q2, gripper"):
            make(case, JOINTS, fit=False)
    assert make("stac all", JOINTS).trace(plans(4, 0)).shape == (4,)
    with pytest.raises(SpecMismatch, match=r"^past_disagreement: needs a policy that predicts its past .* got n_past 0"):
        make("past_disagreement", Layout(NAMES, 8, 4), fit=False)
    for case in ("stac", "variance", "past_disagreement"):
        with pytest.raises(SpecMismatch, match=f"^{case}: scale: want one number for each of 4 of an action, got 1"):
            make(case, Layout(NAMES, 8, 4, 3, scale=(2.0,)), fit=False)


def test_needs_name_draws_embeddings_and_position_numbers() -> None:
    assert make("ace").needs.action_names == make("reversal").needs.action_names == ("x", "y", "z")
    assert make("stac", MOVING).needs.action_names == ("dx", "dy", "dz") and make("stac all").needs.action_names == ()
    assert {case for case in CASES if make(case).needs.features} == set(EMBEDDED)
    assert make("past_disagreement first").needs.draws == 1 and make("reversal").reach == 3 and make("stac").reach == 1


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("ace", {"draws": 1}, "want draws at least 2 and cell above 0, got 1 and"),
        ("ace", {"cell": 0.0}, "want draws at least 2 and cell above 0, got 6 and 0"),
        ("stac", {"draws": 1}, "draws: want at least 2, got 1"),
        ("variance", {"draws": 1}, "draws: want at least 2, got 1"),
        ("past_disagreement", {"draws": 0}, "draws: want at least 1, got 0"),
        ("reversal", {"span": 0}, "span: want at least 1, got 0"),
        ("knn", {"k": 0}, "k: want at least 1, got 0"),
        ("mahalanobis", {"shrinkage": 0.0}, "shrinkage: want a share above 0 and up to 1, got 0"),
        ("pca_kmeans", {"clusters": 0}, "components and clusters: want at least 1, got 3 and 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(case: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make(case, fit=False, **options)


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
