"""Networks with weights of 8 bits: one row is a batch of it, the frozen network is what is learned, a folder is a quarter."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from network_scores import LAYOUT, SMALL, WIDTH, episodes, fitted_to, make, plans
from torch import nn

from robolearn.core import Chunk
from robolearn.errors import BadInput
from robolearn.monitors import _folder, _networks, _packed, rnd
from robolearn.monitors._base import Plans
from robolearn.monitors._fit import fit
from robolearn.monitors._recipe import Recipe
from robolearn.monitors._watch import Watch

PRECISE = 2.0**-7  # of a bfloat16, and what rounding in and out come to at most of a row's largest number


def layer(inputs: int, outputs: int, seed: int = 0) -> nn.Linear:
    made = nn.Linear(inputs, outputs)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(generator=torch.Generator().manual_seed(seed))
    return made


def rows(count: int, width: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.integers(1, 9), st.integers(1, 9), st.integers(0, 99))
def test_a_row_of_a_batch_is_the_row_alone_to_the_last_bit_whatever_the_sizes(inputs, outputs, count, seed):
    made, x = _packed.Packed.of(layer(inputs, outputs, seed)), rows(count, inputs, seed)
    together = made(x)
    assert together.dtype == torch.float32 and together.shape == (count, outputs)
    assert torch.equal(together, torch.cat([made(row[None]) for row in x]))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 99))
def test_what_comes_out_is_that_of_the_layer_whose_weights_were_rounded(inputs, outputs, seed):
    full, x = layer(inputs, outputs, seed), rows(5, inputs, seed)
    made = _packed.Packed.of(full)
    weight = made.weight[:, :inputs].float() * made.scale[:, None]
    largest = full.weight.abs().amax(1, keepdim=True)
    assert ((weight - full.weight).abs() <= largest * (0.5 / 127 + PRECISE)).all()
    exact = x.bfloat16().double() @ weight.double().T + full.bias.double()
    bound = PRECISE * (x.double() @ weight.double().T).abs().amax() + 1e-5
    assert ((made(x) - exact).abs() <= bound).all()


def test_without_the_kernel_the_plain_way_gives_the_same_but_for_the_last_bit():
    made, x = _packed.Packed.of(layer(100, 30)), rows(6, 128).bfloat16()
    with_kernel = _packed.product(x, made.weight, made.scale.bfloat16())
    plain = _packed.plain(x, made.weight, made.scale.bfloat16())
    assert plain.dtype == with_kernel.dtype
    torch.testing.assert_close(plain.float(), with_kernel.float(), rtol=PRECISE, atol=PRECISE)


def test_a_row_of_zeros_stays_one():
    empty = nn.Linear(5, 2)
    with torch.no_grad():
        for weight in empty.parameters():
            weight.zero_()
    assert not _packed.Packed.of(empty)(rows(3, 5)).any()


def test_the_frozen_network_is_rounded_before_the_fit_and_the_same_to_the_bit_after_it():
    short, long = (fitted_to(rnd, episodes(4), bits=8, epochs=n, patience=0).arrays() for n in (1, 5))
    same = {name for name in short if np.array_equal(short[name], long[name])}
    assert all(name in same for name in short if ".target." in name) and not all(name in same for name in short)
    assert {array.dtype for name, array in short.items() if name.endswith("weight")} == {np.dtype(np.int8)}
    full = fitted_to(rnd, episodes(4), epochs=1, patience=0).arrays()
    rounded = short["pair.target.0.weight"][:, :WIDTH] * short["pair.target.0.scale"][:, None]
    np.testing.assert_allclose(rounded, full["pair.target.0.weight"], atol=0.02)


def test_what_a_threshold_was_calibrated_on_is_what_a_saved_monitor_says_live_to_the_last_bit(tmp_path: Path):
    options = {"rnd": {**SMALL[rnd], "hidden": (64, 48), "bits": 8}}
    recipe = Recipe(("rnd",), options=options, windows=(3,), bands=("constant",), alpha=0.2)
    detector = fit(recipe, LAYOUT, episodes(30))
    _folder.save(tmp_path / "m", detector, {})
    watch = Watch(_folder.load(tmp_path / "m")[0])
    seen = episodes(3, seed=5)
    for episode in seen:
        watch.reset()
        of = episode.plans
        for tick, features, samples in zip(of.ticks, of.features, of.samples, strict=True):
            watch.update({}, Chunk(samples[0], int(tick), samples=samples, features=features))
        assert np.array_equal(watch.raw["rnd"], detector.raw(episode)["rnd"])
    together = detector.scores["rnd"].trace(Plans.join([episode.plans for episode in seen]))
    assert np.array_equal(together, np.concatenate([detector.raw(episode)["rnd"] for episode in seen]))


def test_the_rank_of_plans_by_novelty_is_that_of_the_full_weights():
    a, b = (fitted_to(rnd, episodes(10), bits=bits, hidden=(64, 64), out=32) for bits in (32, 8))
    new = Plans.join([plans(np.random.default_rng(3), shift) for shift in (0.0, 0.5, 1.0, 2.0, 4.0)])
    order = [np.argsort(np.argsort(score.trace(new))) for score in (a, b)]
    assert np.corrcoef(order)[0, 1] > 0.99


def test_weights_of_the_other_kind_are_refused_by_name():
    score = fitted_to(rnd, episodes(4), bits=8, epochs=1)
    with pytest.raises(BadInput, match=r"^rnd: array 'pair.predictor.0.scale' is unknown"):
        make(rnd).restore(score.arrays())
    kept = score.arrays() | {"pair.target.0.weight": np.zeros((16, 32), np.float32)}
    with pytest.raises(BadInput, match=r"^rnd: array 'pair.target.0.weight': want int8\(16, 32\), got float32"):
        make(rnd, bits=8).restore(kept)


def test_a_folder_of_rounded_weights_is_a_quarter_as_large():
    size = {}
    for bits in (32, 8):
        net = _networks.empty(lambda bits=bits: rnd.Novelty.unfilled(dataclasses.replace(rnd.Config(), bits=bits), 64))
        size[bits] = sum(array.nbytes for array in _networks.to_arrays(net).values())
    assert size[8] < 0.26 * size[32]
