"""Random network distillation, of embeddings and of chunks: what stays frozen, published sizes, what is scaled."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from network_scores import LAYOUT, SMALL, WIDTH, each, episodes, fitted_to, plans

from robolearn.monitors import _networks, logpzo, rnd, rnd_actions, safe_lstm, safe_mlp
from robolearn.monitors._base import Plans


def test_the_frozen_network_is_the_same_to_the_bit_after_fitting_and_the_other_one_is_not():
    pair = _networks.empty(lambda: rnd.Novelty(rnd.Config(**SMALL[rnd]), WIDTH)).pair
    generator = torch.Generator().manual_seed(0)
    _networks.draw(pair, generator, orthogonal=True)
    before = _networks.to_arrays(pair)
    rows = torch.arange(100)
    pair.fit(torch.randn(100, WIDTH, generator=generator), rows[:80], rows[80:], rnd.Config(**SMALL[rnd]).budget(), generator)
    after = _networks.to_arrays(pair)
    assert all(np.array_equal(before[name], after[name]) == name.startswith("target") for name in before)


@each("module", [rnd, rnd_actions])
def test_how_long_it_is_fitted_changes_nothing_in_the_frozen_network(module):
    short, long = (fitted_to(module, episodes(4), epochs=n, patience=0).arrays() for n in (1, 5))
    differ = {name for name in short if not np.array_equal(short[name], long[name])}
    assert differ and all("predictor" in name for name in differ)


def test_the_first_weights_are_orthogonal_times_the_root_of_two_without_bias():
    pair = _networks.empty(lambda: rnd.Novelty(rnd.Config(**SMALL[rnd]), WIDTH)).pair
    _networks.draw(pair, torch.Generator().manual_seed(0), orthogonal=True)
    for name, weight in pair.named_parameters():
        if name.endswith("bias"):
            assert not weight.any()
        else:
            gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
            torch.testing.assert_close(gram, 2 * torch.eye(len(gram)), atol=1e-5, rtol=0)


def linear(net: torch.nn.Module) -> list[tuple[int, int]]:
    return [(part.in_features, part.out_features) for part in net.modules() if isinstance(part, torch.nn.Linear)]


def test_sizes_not_set_are_the_published_ones():
    with torch.device("meta"):
        observation = rnd.Novelty(rnd.Config(), 128).pair
        action = rnd_actions.pair(rnd_actions.Config(), 7, 16)
        flow = logpzo.Flow(logpzo.Config(), 128)
        mlp, lstm = safe_mlp.Rates(safe_mlp.Config(), 128), safe_lstm.Logits(safe_lstm.Config(), 128)
    common = [(128, 1024), (1024, 2048), (2048, 4096)]
    assert linear(observation.target) == [*common, (4096, 512)]
    assert linear(observation.predictor) == [*common, (4096, 2048), (2048, 1024), (1024, 512)]
    for net, wanted in ((action.target, [(1024, 128)]), (action.predictor, [(1024, 512), (512, 128), (128, 128)])):
        convolutions = [part for part in net.modules() if isinstance(part, torch.nn.Conv1d)]
        assert [(part.out_channels, part.kernel_size[0], part.stride[0]) for part in convolutions] == [
            (64, 4, 2),
            (128, 2, 1),
            (256, 2, 1),
        ]
        assert linear(net) == wanted
    assert linear(flow.embed) == [(256, 1024), (1024, 256)]
    assert [level.of_x.out_features for level in (*flow.down, *flow.up)] == [256, 512, 1024, 512, 256]
    assert linear(mlp) == [(128, 256), (256, 1)] and (lstm.lstm.hidden_size, lstm.lstm.num_layers) == (256, 1)


@given(width=st.integers(1, 30), horizon=st.integers(1, 40), pooled=st.integers(1, 4))
def test_convolutions_fit_actions_and_chunks_of_any_size(width, horizon, pooled):
    config = rnd_actions.Config(**{**SMALL[rnd_actions], "pooled": pooled})
    with torch.device("meta"):
        net = rnd_actions.convolutions(config, width, horizon)
        assert net(torch.empty(2, width, horizon)).shape == (2, 8 * pooled)
    if width >= 2 and horizon >= 12:
        first = min(width, 4)
        assert rnd_actions.kernels(width, horizon, 3) == [first, min(first - 1, 2), max(1, min(first - 2, 2))]


def test_only_the_executed_draw_counts_and_it_is_scaled_by_what_normalises_actions():
    scale = (2.0, 0.5, 4.0)
    of = episodes(4)
    scaled = [dataclasses.replace(e, plans=dataclasses.replace(e.plans, samples=e.plans.samples * np.array(scale))) for e in of]
    a = fitted_to(rnd_actions, of, layout=dataclasses.replace(LAYOUT, scale=scale), epochs=3)
    b = fitted_to(rnd_actions, [e.with_draws(1) for e in scaled], epochs=3)
    np.testing.assert_array_equal(a.trace(of[0].plans), b.trace(scaled[0].plans))


def test_standardised_embeddings_make_the_score_blind_to_their_scale_and_raw_ones_do_not():
    rng, stretch, offset = np.random.default_rng(8), 2.0 ** np.arange(WIDTH), np.arange(WIDTH)

    def stretched(p: Plans) -> Plans:
        return dataclasses.replace(p, features=p.features.astype(np.float64) * stretch + offset)

    new, of = plans(rng), episodes(4)
    moved = [dataclasses.replace(e, plans=stretched(e.plans)) for e in of]
    blind = rnd.Predictor(rnd.Config(**{**SMALL[rnd], "standardise": True, "held_out": 0.0, "patience": 0, "batch": 999}), LAYOUT)
    found = []
    for some, seen in ((of, new), (moved, stretched(new))):
        blind.fit(some, np.random.default_rng(0))
        found.append(blind.trace(seen))
    # All plans in one step: another order of the episodes, which their contents decide, is only another order of summing.
    np.testing.assert_allclose(found[0], found[1], rtol=1e-2)
    raw = [fitted_to(rnd, some).trace(seen) for some, seen in ((of, new), (moved, stretched(new)))]
    assert not np.allclose(raw[0], raw[1], rtol=0.5)


def test_a_number_that_never_varies_is_only_centred():
    flat = [
        dataclasses.replace(e, plans=dataclasses.replace(e.plans, features=e.plans.features * [0, 1, 1, 1, 1, 1] + 3))
        for e in episodes()
    ]
    arrays = fitted_to(rnd, flat, standardise=True, epochs=1).arrays()
    assert arrays["mean"][0] == 3 and arrays["spread"][0] == 1 and np.all(arrays["spread"] > 0)
    plain = fitted_to(rnd, flat, epochs=1).arrays()
    assert not plain["mean"].any() and (plain["spread"] == 1).all()
