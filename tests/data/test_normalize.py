"""Statistics equal numpy's, images are never touched, and no element of the data can blow a network's input up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from small_sets import make

from robolearn.data import stats as stats_module
from robolearn.data.normalize import Normalizer
from robolearn.data.stats import Stats, compute_stats
from robolearn.errors import DatasetError


def stats_of(rows: np.ndarray) -> Stats:
    return Stats(rows.min(0), rows.max(0), rows.mean(0), rows.std(0), len(rows))


matrices = hnp.arrays(np.float64, st.tuples(st.integers(2, 20), st.integers(1, 4)), elements=st.floats(-1e3, 1e3, width=32))


@pytest.mark.parametrize("block", [7, 10_000])
@pytest.mark.parametrize("episodes", [None, [1], [0, 2]])
def test_streamed_statistics_equal_those_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block, episodes) -> None:
    made = make(tmp_path / "a.zarr")
    monkeypatch.setattr(stats_module, "_BLOCK_ROWS", block)
    rows = np.concatenate([made.episode(i)["action"] for i in (episodes or range(3))]).astype(np.float64)
    got = compute_stats(made, ("action",), episodes)["action"]
    for name in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(getattr(got, name), getattr(rows, name)(0), rtol=1e-12, atol=1e-12)
    assert got.count == len(rows)


def test_statistics_never_read_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path / "a.zarr")
    read = made.read
    monkeypatch.setattr(made, "read", lambda key, *span: pytest.fail("image read") if key == "img" else read(key, *span))
    assert set(compute_stats(made, tuple(made.keys))) == {"state", "action"}


@settings(deadline=None)
@given(matrices)
def test_minmax_maps_the_data_into_one_and_what_varies_onto_one(rows: np.ndarray) -> None:
    normalizer = Normalizer.fit({"x": stats_of(rows)})
    out = normalizer.normalize("x", rows)
    assert np.abs(out).max() <= 1 + 1e-2
    varies = np.ptp(rows, axis=0) > 1e-2 * np.maximum(1, np.abs(rows).max(0))
    np.testing.assert_allclose(out[:, varies].min(0), -1, atol=1e-2)
    np.testing.assert_allclose(out[:, varies].max(0), 1, atol=1e-2)


@settings(deadline=None)
@given(matrices, st.sampled_from(["minmax", "gaussian", "identity"]))
def test_denormalising_undoes_normalising(rows: np.ndarray, mode: str) -> None:
    normalizer = Normalizer.fit({"x": stats_of(rows)}, {"x": mode})
    back = normalizer.denormalize("x", normalizer.normalize("x", rows[None]))
    np.testing.assert_allclose(back[0], rows, rtol=1e-4, atol=1e-3)


@settings(deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(0, 9e-5), st.floats(-100, 100), st.sampled_from(["minmax", "gaussian"]))
def test_a_constant_element_is_centred_and_never_amplified(value: float, jitter: float, deviation: float, mode: str) -> None:
    rows = np.full((50, 1), value)
    rows[::2] += jitter / 2
    normalizer = Normalizer.fit({"x": stats_of(rows)}, {"x": mode})
    assert np.abs(normalizer.normalize("x", rows)).max() < 1e-2
    assert np.abs(normalizer.normalize("x", rows + deviation)).max() <= abs(deviation) + 1e-2


def test_a_constant_element_in_pixels_is_measured_like_its_neighbours() -> None:
    rows = np.stack([np.linspace(0, 500, 50), np.full(50, 0.0)], axis=1)
    normalizer = Normalizer.fit({"x": stats_of(rows)})
    assert abs(normalizer.normalize("x", np.array([0.0, 100.0]))[1]) <= 0.4


def test_gaussian_gives_mean_zero_and_deviation_one() -> None:
    rows = np.random.default_rng(0).normal(300, 5, (1000, 9, 2))
    out = Normalizer.fit({"x": stats_of(rows)}, {"x": "gaussian"}).normalize("x", rows)
    np.testing.assert_allclose(out.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(out.std(0), 1, atol=1e-3)


def test_json_brings_back_every_bit() -> None:
    rows = np.random.default_rng(0).normal(size=(100, 3)) * [1e-3, 1, 1e5]
    normalizer = Normalizer.fit({"x": stats_of(rows), "y": stats_of(rows[:, :1])}, {"y": "identity"})
    again = Normalizer.from_json(json.loads(json.dumps(normalizer.to_json())))
    assert again.modes == normalizer.modes
    for key in ("x", "y"):
        np.testing.assert_array_equal(again.scale[key], normalizer.scale[key])
        np.testing.assert_array_equal(again.offset[key], normalizer.offset[key])
        assert again.scale[key].dtype == np.float32


def test_unknown_keys_and_modes_are_refused_by_name() -> None:
    stats = {"state": stats_of(np.zeros((2, 1)))}
    with pytest.raises(DatasetError, match="no statistics of key 'stat'; did you mean 'state'"):
        Normalizer.fit(stats, {"stat": "minmax"})
    with pytest.raises(DatasetError, match="unknown mode 'min_max' of key 'state'; did you mean 'minmax'"):
        Normalizer.fit(stats, {"state": "min_max"})
