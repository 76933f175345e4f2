"""Statistics in parts are those of the whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from robolearn.data.stats import array_stats, merged


@given(st.integers(1, 50), st.integers(1, 50), st.floats(-1e6, 1e6), st.integers(0, 2**32 - 1))
def test_merged_statistics_are_those_of_all_rows(n: int, m: int, offset: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((n, 3)) + offset, 2 * rng.standard_normal((m, 3))
    found, want = merged(array_stats(a), array_stats(b)), array_stats(np.concatenate([a, b]))
    assert found.count == want.count
    np.testing.assert_array_equal((found.min, found.max), (want.min, want.max))
    np.testing.assert_allclose(found.mean, want.mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.std, want.std, rtol=1e-6)
