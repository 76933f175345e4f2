"""Steps of tracks: they add up to the tracks again, in numpy and torch, through the normaliser."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from robolearn.data.normalize import Normalizer
from robolearn.data.stats import Stats
from robolearn.video.codec import decode_deltas, encode_deltas

normalised = arrays(np.float32, (3, 16, 11), elements=st.floats(-1, 1, width=32, allow_subnormal=False))


@settings(max_examples=30)
@given(normalised)
def test_deltas_decode_to_what_was_encoded(rows: np.ndarray) -> None:
    """T4 of the specification: to 1e-5, step 0 is zero, and the grasp's column is untouched."""
    deltas = encode_deltas(rows, 10)
    assert deltas.dtype == rows.dtype and deltas.shape == rows.shape
    assert not deltas[:, 0, :10].any() and np.array_equal(deltas[..., 10:], rows[..., 10:])
    assert np.abs(decode_deltas(deltas, rows[:, 0, :10]) - rows).max() < 1e-5


@settings(max_examples=30)
@given(normalised)
def test_torch_gives_numpys_numbers(rows: np.ndarray) -> None:
    deltas = encode_deltas(torch.from_numpy(rows), 10)
    assert isinstance(deltas, torch.Tensor) and np.allclose(deltas.numpy(), encode_deltas(rows, 10))
    back = decode_deltas(deltas, torch.from_numpy(rows[:, 0, :10].copy()))
    assert np.abs(back.numpy() - rows).max() < 1e-5


def test_a_predicted_first_step_moves_the_whole_track() -> None:
    deltas = np.zeros((4, 3))
    deltas[0, :2] = 0.1
    assert np.allclose(decode_deltas(deltas, np.array([0.5, 0.5]))[:, :2], 0.6)


def test_tracks_survive_the_normaliser_and_a_column_that_never_moves_gives_no_nan() -> None:
    """T5 of the specification, with the project's own normaliser."""
    rng = np.random.default_rng(0)
    rows = rng.uniform(0, 640, (50, 16, 11)).astype(np.float32)
    rows[..., 3], rows[..., 10] = 211.0, rng.integers(0, 2, (50, 16))
    flat = rows.reshape(-1, 11).astype(float)
    stats = Stats(len(flat), flat.mean(0), flat.std(0), flat.min(0), flat.max(0))
    normalizer = Normalizer.fit({"action": stats})
    small = normalizer.normalize("action", rows)
    assert np.isfinite(small).all() and np.abs(small).max() < 1 + 1e-5
    back = normalizer.denormalize("action", decode_deltas(encode_deltas(small, 10), small[:, 0, :10]))
    assert np.abs(back - rows).max() < 0.01
