"""Scores with networks against their specification: RND and logpZO (FIPER, arXiv 2510.09459), SAFE (arXiv 2506.09937)."""

from __future__ import annotations

import dataclasses
import functools
import math
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robolearn.errors import BadInput, TrainingDiverged
from robolearn.monitors import _networks, logpzo, rnd, rnd_actions, safe_lstm, safe_mlp
from robolearn.monitors._base import Episode, Layout, Plans, Score, Tail

WIDTH, HORIZON, ACTION, LENGTH = 6, 8, 3, 12
LAYOUT = Layout(("x", "y", "z"), HORIZON, execute=4)
FEW = dict(epochs=30, batch=64, learning_rate=1e-3)
SMALL = {
    rnd: dict(hidden=(16, 16), extra=(16,), out=8, **FEW),
    rnd_actions: dict(channels=(8, 8, 8), pooled=2, extra=(16,), out=8, **FEW),
    logpzo: dict(widths=(32, 16), time=8, **FEW),
    safe_mlp: dict(hidden=(16,), **FEW),
    safe_lstm: dict(hidden=16, **FEW),
}
ALL = list(SMALL)
UNSUPERVISED = [rnd, rnd_actions, logpzo]
SUPERVISED = [safe_mlp, safe_lstm]
OF_EMBEDDINGS = [rnd, logpzo, *SUPERVISED]
each = functools.partial(pytest.mark.parametrize, ids=lambda module: module.__name__.rpartition(".")[2])


def plans(rng: np.random.Generator, shift: float = 0.0, length: int = LENGTH, draws: int = 2) -> Plans:
    """Returns plans whose embeddings and chunks are N(shift, I)."""
    features = rng.normal(shift, 1, (length, WIDTH)).astype(np.float32)
    samples = rng.normal(shift, 1, (length, draws, HORIZON, ACTION)).astype(np.float32)
    return Plans(4 * np.arange(length), features, samples, np.zeros((length, draws, 0, ACTION)), np.zeros((length, 0, ACTION)))


def episodes(successes: int = 10, failures: int = 0, seed: int = 0, shift: float = 2.0) -> list[Episode]:
    """Returns successes around 0 and failures around `shift`, of unequal lengths."""
    rng = np.random.default_rng(seed)
    kinds = [True] * successes + [False] * failures
    lengths = [LENGTH + k % 4 for k in range(len(kinds))]
    return [
        Episode(plans(rng, 0.0 if ok else shift, n), ok, 4 * n, k) for k, (ok, n) in enumerate(zip(kinds, lengths, strict=True))
    ]


def make(module: ModuleType, layout: Layout = LAYOUT, **fields) -> Score:
    return module.Predictor(module.Config(**{**SMALL[module], **fields}), layout)


def fitted_to(module: ModuleType, of: list[Episode], seed: int = 0, layout: Layout = LAYOUT, **fields) -> Score:
    score = make(module, layout, **fields)
    score.fit(of, np.random.default_rng(seed))
    return score


@functools.cache
def usual(module: ModuleType) -> Score:
    """Returns a score fitted to 10 successes and 6 failures; tests only look at it."""
    return fitted_to(module, episodes(10, 6))


def equal(a: Score, b: Score) -> bool:
    first, second = a.arrays(), b.arrays()
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)


def far_and_near(score: Score) -> tuple[float, float]:
    rng = np.random.default_rng(99)
    return score.trace(plans(rng, 5.0, 200)).mean(), score.trace(plans(rng, 0.0, 200)).mean()


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


# Random network distillation.


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


# Flow to noise.


@pytest.mark.parametrize(
    ("steps", "drawn", "exact"),
    [(1, 0.0, 0.0), (2, 0.251, 0.25), (5, 0.596, 0.59367), (20, 0.882, 0.87928), (200, 0.991, 0.98723)],
)
def test_the_analytic_field_of_normal_embeddings_gives_the_lengths_of_the_specification(steps, drawn, exact):
    x = torch.randn(500, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = logpzo.integrate(lambda x, t: (2 * t - 1) / ((1 - t) ** 2 + t**2) * x, x, steps)
    # The field is linear, so the ratio does not depend on the draw; the specification's numbers hold one draw's error.
    ratio = (noise.square().sum() / x.square().sum()).item()
    assert ratio == pytest.approx(exact, abs=1e-5) and ratio == pytest.approx(drawn, rel=5e-3)


def test_one_step_of_a_perfect_field_gives_nothing_whatever_the_embedding():
    x = torch.randn(10, 5, generator=torch.Generator().manual_seed(0)) * 100
    assert not logpzo.integrate(lambda x, t: -x, x, 1).any()


@pytest.mark.parametrize("steps", [1, 20])
def test_a_learned_flow_puts_far_embeddings_above_near_ones_in_one_step_and_in_many(steps):
    far, near = far_and_near(fitted_to(logpzo, episodes(), euler_steps=steps))
    assert far > 1.5 * near > 0


def test_a_learned_velocity_leaves_the_embedding_at_first_and_points_at_the_noise_at_last():
    flow = fitted_to(logpzo, episodes(40), epochs=100, widths=(64,), learning_rate=3e-3).net
    x = torch.randn(500, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        along = [((flow.at(x, t) * x).sum() / x.square().sum()).item() for t in (0.0, 0.5, 1.0)]
    assert along == pytest.approx([-1, 0, 1], abs=0.35)  # as the field of normal embeddings, (2 t - 1) / ((1 - t)^2 + t^2)


def test_one_step_is_the_square_of_the_embedding_and_its_velocity_at_time_zero():
    score, whole = usual(logpzo), plans(np.random.default_rng(9))
    x = torch.from_numpy(whole.features)
    with torch.no_grad():
        wanted = (x + score.net(x, torch.zeros(LENGTH))).square().sum(-1)
    np.testing.assert_allclose(score.trace(whole), wanted.numpy(), rtol=1e-5)


@given(depth=st.integers(1, 4))
def test_a_flow_of_any_depth_keeps_the_width_and_knows_the_time(depth):
    config = logpzo.Config(widths=(8,) * depth, time=4)
    flow = _networks.empty(lambda: logpzo.Flow(config, WIDTH))
    _networks.draw(flow, torch.Generator().manual_seed(0))
    x = torch.ones(2, WIDTH)
    assert flow.at(x, 0.0).shape == x.shape and not torch.allclose(flow.at(x, 0.0), flow.at(x, 0.5))


# SAFE.


@given(seed=st.integers(0, 999), shift=st.floats(-5, 5))
def test_the_running_sum_never_falls_and_stays_between_zero_and_the_number_of_plans(seed, shift):
    scores = usual(safe_mlp).trace(plans(np.random.default_rng(seed), shift))
    assert (np.diff(scores) >= 0).all() and (scores >= 0).all() and (scores <= np.arange(1, LENGTH + 1)).all()


def test_the_probability_lies_between_zero_and_one():
    scores = usual(safe_lstm).trace(plans(np.random.default_rng(10), 1.0))
    assert (scores > 0).all() and (scores < 1).all()


@each("module", SUPERVISED)
def test_fitted_to_successes_alone_the_score_goes_to_zero(module):
    of = episodes(6)
    data = _networks.Labelled([torch.from_numpy(e.plans.features) for e in of], torch.zeros(6, dtype=torch.bool))
    highest = []
    for epochs in (1, 100):
        score = make(module, epochs=epochs, learning_rate=0.01, penalty=0.0)
        score.net = module.learn(score.config, data, torch.Generator().manual_seed(0))
        highest.append(max(score.trace(e.plans).max() / len(e) for e in of))
    assert highest[1] < 0.01 < 0.04 < highest[0]


def test_losses_are_those_of_the_paper():
    rates = torch.tensor([[0.5, 0.25, 1.0], [0.5, 0.25, 1.0]])
    real = torch.tensor([[True, True, True], [True, True, False]])
    lost, ok = torch.tensor([True, True]), torch.tensor([False, False])
    # s = .5, .75, 1.75; t - s = .5, 1.25, 1.25
    assert safe_mlp.losses(rates, real, lost).tolist() == [3.0, 1.75] and safe_mlp.losses(rates, real, ok).tolist() == [3.0, 1.25]
    soon = [5 * math.exp(-3 * t / 2) + 1 for t in (1, 2)]
    assert safe_mlp.losses(rates, real, lost, early=True)[1].item() == pytest.approx(0.5 * soon[0] + 1.25 * soon[1])
    assert safe_mlp.losses(rates, real, ok, early=True).tolist() == [3.0, 1.25]
    logits = torch.tensor([[0.0, 2.0, 9.0]])
    wanted = [math.log(2), math.log1p(math.exp(-2.0))]
    assert safe_lstm.losses(logits, real[1:], lost[1:]).item() == pytest.approx(sum(wanted) / 2)
    assert safe_lstm.losses(logits, real[1:], ok[1:]).item() == pytest.approx((wanted[0] + 2 + wanted[1]) / 2)
    weighed = (wanted[0] * soon[0] + wanted[1] * soon[1]) / 2
    assert safe_lstm.losses(logits, real[1:], lost[1:], early=True).item() == pytest.approx(weighed)


@each("module", SUPERVISED)
@pytest.mark.parametrize("early", [False, True])
def test_padding_changes_neither_loss_nor_gradient(module, early):
    net, of = usual(module).net, episodes(2, 2)
    data = _networks.Labelled.of(of, "test")
    grown, real, failed = data.batch(torch.arange(4))
    padded = torch.where(real[..., None], grown, 1e3)  # anything at all where nothing is
    longer = torch.cat([padded, torch.full((4, 5, WIDTH), -7.0)], 1)
    mask = torch.cat([real, torch.zeros(4, 5, dtype=torch.bool)], 1)
    alone = [
        module.losses(net(table[None]), torch.ones(1, len(table), dtype=torch.bool), failed[i : i + 1], early)
        for i, table in enumerate(data.tables)
    ]
    together = module.losses(net(longer), mask, failed, early)
    torch.testing.assert_close(together, torch.cat(alone))
    gradients = [torch.autograd.grad(value.sum(), list(net.parameters())) for value in (together, torch.cat(alone))]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


@given(ok=st.integers(1, 30), lost=st.integers(1, 30))
def test_either_class_weighs_half_and_an_episode_one_on_average(ok, lost):
    failed = torch.tensor([False] * ok + [True] * lost)
    weights = _networks.Labelled([], failed).weights
    assert weights[failed].sum().item() == pytest.approx(weights[~failed].sum().item(), rel=1e-5)
    assert weights.mean().item() == pytest.approx(1.0, rel=1e-5)


@each("module", SUPERVISED)
def test_episodes_held_out_choose_the_epoch_where_that_is_asked_for(module):
    of = episodes(6, 6)
    last, best = (fitted_to(module, of, **more) for more in (dict(), dict(held_out=0.25, patience=2)))
    assert not equal(last, best)
