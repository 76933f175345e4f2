"""Failure scores with a network: what all of them promise and refuse, and the loop that fits them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from network_scores import (
    ALL,
    LENGTH,
    OF_EMBEDDINGS,
    SMALL,
    SUPERVISED,
    UNSUPERVISED,
    WIDTH,
    each,
    episodes,
    equal,
    far_and_near,
    fitted_to,
    make,
    plans,
    usual,
)

from robolearn.errors import BadInput, TrainingDiverged
from robolearn.monitors import _networks, logpzo, rnd, rnd_actions, safe_lstm, safe_mlp
from robolearn.monitors._base import Tail

# What all of them promise.


@each("module", ALL)
def test_scores_are_finite_float64_one_a_plan_and_carry_no_gradient(module):
    with np.errstate(all="raise"):
        scores = usual(module).trace(plans(np.random.default_rng(1)))
    assert scores.dtype == np.float64 and scores.shape == (LENGTH,) and np.isfinite(scores).all() and (scores >= 0).all()
    assert isinstance(scores, np.ndarray)


@each("module", ALL)
@given(cut=st.integers(1, LENGTH))
def test_the_trace_of_a_prefix_is_the_prefix_of_the_trace(module, cut):
    whole = plans(np.random.default_rng(2))
    np.testing.assert_allclose(usual(module).trace(whole[:cut]), usual(module).trace(whole)[:cut], rtol=1e-4, atol=1e-6)


@each("module", ALL)
def test_a_plan_scored_live_with_the_reach_it_declares_scores_as_it_does_afterwards(module):
    score, whole = usual(module), plans(np.random.default_rng(3))
    tail = Tail(score.reach)
    live = [score.trace(tail.add(whole[k : k + 1]))[-1] for k in range(LENGTH)]
    np.testing.assert_allclose(live, score.trace(whole), rtol=1e-4, atol=1e-6)


@each("module", ALL)
def test_arrays_bring_the_score_back_to_the_bit(module):
    score, other, whole = usual(module), make(module), plans(np.random.default_rng(4))
    kept = score.arrays()
    other.restore(kept)
    assert np.array_equal(other.trace(whole), score.trace(whole)) and equal(other, score)
    for array in kept.values():
        array[...] = 7
    assert np.array_equal(other.trace(whole), score.trace(whole)), "what is handed out is a copy, what is taken in too"


@each("module", ALL)
def test_fitting_is_deterministic_given_the_generator_and_leaves_torch_alone(module):
    of, few = episodes(5, 5), dict(epochs=3)
    before = torch.get_rng_state(), torch.get_num_threads(), torch.is_grad_enabled()
    first, again, other = (fitted_to(module, of, seed, **few) for seed in (1, 1, 2))
    assert equal(first, again) and not equal(first, other)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == before[1:]
    torch.manual_seed(5)
    assert equal(first, fitted_to(module, of, 1, **few)), "the global seed changes nothing"


@each("module", ALL)
def test_the_order_in_which_episodes_are_listed_changes_nothing(module):
    of = episodes(5, 5)
    permuted = [of[i] for i in np.random.default_rng(0).permutation(len(of))]
    assert equal(fitted_to(module, of, epochs=3), fitted_to(module, permuted, epochs=3))


@each("module", UNSUPERVISED)
def test_failures_among_the_episodes_are_not_fitted_to(module):
    of = episodes(5, 5)
    assert equal(fitted_to(module, of, epochs=3), fitted_to(module, [e for e in of if e.success], epochs=3))


@each("module", UNSUPERVISED)
def test_plans_far_from_the_fit_split_score_higher_than_held_out_ones_like_it(module):
    far, near = far_and_near(usual(module))
    assert far > 1.5 * near > 0


@each("module", SUPERVISED)
def test_episodes_like_the_failures_score_higher_than_held_out_successes(module):
    new = episodes(20, 20, seed=50)
    highest = [usual(module).trace(e.plans).max() / (len(e) if module is safe_mlp else 1) for e in new]
    assert min(highest[20:]) > max(highest[:20])


@each("module", OF_EMBEDDINGS)
def test_embeddings_too_large_for_the_network_score_finitely_and_no_lower_than_others(module):
    whole = plans(np.random.default_rng(5))
    for size in (1e20, 1e37, 1e300):
        scores = usual(module).trace(dataclasses.replace(whole, features=np.full((LENGTH, WIDTH), size)))
        assert np.isfinite(scores).all()
        if module in (rnd, logpzo):
            assert scores.min() > usual(module).trace(whole).max()
    beyond = torch.tensor([1.0, math.nan, math.inf, 1e35], dtype=torch.float64)
    assert _networks.finite(beyond).tolist() == [1.0, 1e30, 1e30, 1e30]


# What they refuse.


@each("module", ALL)
def test_a_score_that_was_not_fitted_says_so(module):
    for use in (lambda score: score.trace(plans(np.random.default_rng(0))), lambda score: score.arrays()):
        with pytest.raises(
            BadInput, match=rf"^{make(module).config.name}: is not fitted yet; fit it, or restore what was fitted$"
        ):
            use(make(module))


@each("module", ALL)
def test_fewer_than_two_episodes_are_refused(module):
    for of in ([], episodes(1, 0), episodes(1, 0) + [dataclasses.replace(episodes(1)[0], plans=episodes(1)[0].plans[:0])]):
        with pytest.raises(BadInput, match=r"wants at least 2 episodes .*to fit to, got [01]$"):
            fitted_to(module, of)


@each("module", SUPERVISED)
def test_a_supervised_score_says_which_class_is_missing(module):
    name = make(module).config.name
    with pytest.raises(BadInput, match=rf"^{name}: needs failures and successes to fit to, got no failures among 4 episodes$"):
        fitted_to(module, episodes(4, 0))
    with pytest.raises(BadInput, match=rf"^{name}: needs failures and successes to fit to, got no successes among 3 episodes$"):
        fitted_to(module, episodes(0, 3))


@each("module", OF_EMBEDDINGS)
def test_embeddings_that_are_missing_of_another_width_or_not_finite_are_refused(module):
    whole, of = plans(np.random.default_rng(6)), episodes(3, 3)
    cases = [
        (whole.features[:, :0], "needs embeddings of observations, got plans without any"),
        (whole.features[:, :4], "was fitted to embeddings of 6 numbers, got 4"),
        (np.where(np.arange(WIDTH) == 2, np.nan, whole.features), "features hold NaN or infinity"),
    ]
    for features, message in cases:
        broken = dataclasses.replace(whole, features=features)
        with pytest.raises(BadInput, match=message):
            usual(module).trace(broken)
        with pytest.raises(BadInput, match=message):
            fitted_to(module, [*of[:2], dataclasses.replace(of[2], plans=broken), *of[3:]])


def test_chunks_of_another_shape_or_not_finite_are_refused():
    whole = plans(np.random.default_rng(7))
    with pytest.raises(BadInput, match=r"^rnd_actions: wants chunks of 8 ticks of 3 numbers, got \(7, 3\)$"):
        usual(rnd_actions).trace(dataclasses.replace(whole, samples=whole.samples[:, :, 1:]))
    with pytest.raises(BadInput, match="samples hold NaN"):
        usual(rnd_actions).trace(dataclasses.replace(whole, samples=whole.samples * np.nan))


@each("module", ALL)
def test_arrays_that_do_not_fit_are_refused_by_name_and_leave_the_score_as_it_was(module):
    score, kept = make(module), usual(module).arrays()
    score.restore(kept)
    for name, array in kept.items():
        bad = {
            "missing" if name != "width" else "whole number": {key: value for key, value in kept.items() if key != name},
            "want": {**kept, name: array[..., :-1]},
            "want (float32|one whole number)": {**kept, name: array.astype(np.float64)},
        }
        if name != "width":
            bad["NaN"] = {**kept, name: np.full_like(array, np.nan)}
        for message, arrays in bad.items():
            with pytest.raises(BadInput, match=rf"^{score.config.name}: array '{name}'.*{message}"):
                score.restore(arrays)
    with pytest.raises(BadInput, match="array 'stray' is unknown"):
        score.restore({**kept, "stray": np.zeros(1, np.float32)})
    assert equal(score, usual(module))


@each("module", ALL)
def test_budgets_and_sizes_that_make_no_sense_are_refused(module):
    for bad, message in (
        (dict(epochs=0), "want epochs and batch of at least 1, .*, got 0, 64"),
        (dict(learning_rate=0.0), "learning rate above 0"),
        (dict(patience=-1), "patience and penalty of at least 0"),
        (dict(held_out=1.0), "held_out: want a share of at least 0 and below 1, got 1.0"),
        (dict(held_out=0.0, patience=3), "patience: 3 needs held-out episodes; want held_out above 0, got 0"),
        ({next(iter(SMALL[module])): 0 if module is safe_lstm else (4, 0)}, "want sizes of at least 1, got .*0]"),
    ):
        with pytest.raises(ValueError, match=message):
            make(module, **bad)


@pytest.mark.parametrize("time", [2, 7])
def test_a_time_that_cannot_be_embedded_is_refused(time):
    with pytest.raises(ValueError, match=f"^time: want an even number of at least 4, got {time}$"):
        make(logpzo, time=time)


def test_a_loss_that_is_not_finite_ends_the_fit_by_name():
    with pytest.raises(TrainingDiverged, match=r"^rnd: the loss of epoch 1 is (inf|nan), want a finite one"):
        huge = [dataclasses.replace(e, plans=dataclasses.replace(e.plans, features=e.plans.features * 1e37)) for e in episodes()]
        fitted_to(rnd, huge)


# The training loop.


@given(ok=st.integers(0, 20), lost=st.integers(0, 20), share=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_the_split_is_by_episode_and_leaves_no_class_empty(ok, lost, share, seed):
    failed = [False] * ok + [True] * lost
    fit, held = _networks.parts(failed, share, torch.Generator().manual_seed(seed))
    assert sorted(fit + held) == list(range(ok + lost))
    for kind, count in ((False, ok), (True, lost)):
        inside = sum(failed[i] == kind for i in held)
        assert inside == (0 if share == 0 or count < 2 else min(max(round(share * count), 1), count - 1))


def test_no_episode_has_plans_on_both_sides():
    tables = [torch.full((n, 2), float(n)) for n in range(1, 12)]
    x, fit, held = _networks.rows(tables, 0.3, torch.Generator().manual_seed(0))
    assert len(held) and sorted([*fit.tolist(), *held.tolist()]) == list(range(len(x))) == list(range(66))
    assert not set(x[fit][:, 0].tolist()) & set(x[held][:, 0].tolist())


def pulled(epochs: int, held: bool, **options) -> tuple[float, int]:
    """Returns where a number from 0 ends that the loss pulls to 1 while the held-out loss wants .3, and after how many epochs."""
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    asked = []

    def loss(which, rng):
        asked.append(int(which[0]))
        return (net.weight[0, 0] - (1.0, 0.3)[int(which[0])]).square()

    budget = _networks.Budget("toy", epochs, 1, 0.01, **{"patience": 0, "held_out": 0.5, **options})
    _networks.train(net, loss, torch.tensor([0]), torch.tensor([1] * held, dtype=torch.int64), budget, torch.Generator())
    return net.weight.item(), asked.count(0)


def test_the_best_weights_are_kept_and_not_the_last():
    assert pulled(500, held=True)[0] == pytest.approx(0.3, abs=0.02)
    assert pulled(500, held=False)[0] == pytest.approx(1.0, abs=0.02)


def test_fitting_ends_after_epochs_without_a_better_held_out_loss_or_where_that_is_too_many_times_the_fitted_one():
    best = pulled(500, held=True, patience=1)[1]
    assert 25 < best < 40 and pulled(500, held=True, patience=9)[1] == best + 8
    end, epochs = pulled(500, held=True, overfit=5.0, warm_up=3)
    assert end == pytest.approx(0.3, abs=0.02) and best < epochs < 500
    assert pulled(500, held=True, overfit=0.0, warm_up=20)[1] == 21


def test_the_rate_is_half_a_cosine_and_a_penalty_pulls_to_zero():
    budget = _networks.Budget("toy", 10, 1, 1e-4, 0, 0.0, floor=1e-6)
    rates = [budget.rate_at(k) for k in range(11)]
    assert rates[0] == pytest.approx(1e-4) and rates[10] == pytest.approx(1e-6) and rates == sorted(rates, reverse=True)
    assert rates[5] == pytest.approx((1e-4 + 1e-6) / 2)
    assert pulled(500, held=False, ridge=1.0)[0] == pytest.approx(0.5, abs=0.02)  # (w - 1)^2 + w^2
