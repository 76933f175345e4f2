"""Self-verification: the plan is chosen that agrees with the executed past, at the times it is about."""

from __future__ import annotations

import numpy as np
import pytest

from robolearn.core import ArraySpec, Ask, Chunk, Policy, Spec
from robolearn.errors import BadInput
from robolearn.policies._verified import Verification, Verified, disagreement

SPEC = Spec(obs={"o": ArraySpec((1,))}, action=ArraySpec((2,)), hz=10, execute=2)
ONE = np.ones(2, np.float32)


class Guesses:
    """Draw k predicts a past that is off by `off[k]` from what was executed (action of tick t = t), and acts k."""

    def __init__(self, off: np.ndarray, n_past: int = 3, stride: int = 1) -> None:
        self.spec, self.off, self.n_past, self.stride = SPEC, np.asarray(off, float), n_past, stride
        self.tick, self.asked = {}, []

    def reset_stream(self, i, seed):
        self.tick[i] = -1

    def observe_stream(self, i, obs, applied):
        self.tick[i] += 1

    def plan_streams(self, indices, ask=Ask()):
        self.asked += [(i, ask.draws) for i in indices]
        return [self._plan(i, ask.draws) for i in indices]

    def _plan(self, i, draws):
        at = self.tick[i] - self.stride * np.arange(self.n_past, 0, -1)
        pasts = np.stack([np.stack([at, at], 1) + off for off in self.off[:draws]])
        samples = np.stack([np.full((4, 2), k, float) for k in range(draws)])
        if draws == 1:
            return Chunk(samples[0], self.tick[i], past=pasts[0], past_stride=self.stride)
        return Chunk(samples[0], self.tick[i], pasts[0], self.stride, samples, pasts)


def drive(policy: Verified, ticks: int, stream: int = 0) -> None:
    policy.reset_stream(stream, 0)
    for k in range(ticks):
        policy.observe_stream(stream, {}, None if k == 0 else np.full(2, k - 1.0))


@pytest.mark.parametrize("stride", [1, 4])
def test_the_draw_whose_past_is_the_executed_one_is_always_chosen(stride):
    for best in range(6):
        off = np.random.default_rng(best).uniform(0.5, 2, 6) * np.array([1, -1, 1, -1, 1, -1])
        off[best] = 0.0
        policy = Verified(Guesses(off, stride=stride), Verification(draws=6), ONE)
        drive(policy, 1)
        policy.plan()
        drive(policy, 20)
        assert policy.plan().actions[0, 0] == best


def test_released_misalignment_compares_strided_predictions_with_the_newest_actions():
    off = np.array([0.0, 6.0])  # the second draw is right about the newest three actions by accident of the shift
    policies = [Verified(Guesses(off, stride=4), Verification(draws=2, aligned=aligned), ONE) for aligned in (True, False)]
    chosen = []
    for policy in policies:
        drive(policy, 1)
        policy.plan()
        drive(policy, 20)
        chosen.append(int(policy.plan().actions[0, 0]))
    assert chosen == [0, 1]


def test_before_the_past_has_been_executed_nothing_is_selected_and_one_draw_is_made():
    inner = Guesses([5.0, 0.0], n_past=3, stride=2)
    policy = Verified(inner, Verification(draws=2), ONE)
    assert isinstance(policy, Policy)
    policy.reset(0)
    for k in range(9):
        policy.observe({}, None if k == 0 else np.full(2, k - 1.0))
        assert policy.plan().actions[0, 0] == (1 if k >= 6 else 0)
    assert [draws for _, draws in inner.asked] == [1] * 6 + [2] * 3


def test_a_part_of_the_past_is_enough_where_that_is_asked_for():
    inner = Guesses([5.0, 0.0], n_past=3, stride=2)
    policy = Verified(inner, Verification(draws=2, least=1), ONE)
    policy.reset(0)
    for k in range(9):
        policy.observe({}, None if k == 0 else np.full(2, k - 1.0))
        assert policy.plan().actions[0, 0] == (1 if k >= 2 else 0)


def test_one_draw_is_the_plain_plan():
    inner, plain = Guesses([1.0, 0.0]), Guesses([1.0, 0.0])
    policy = Verified(inner, Verification(draws=1), ONE)
    drive(policy, 12)
    plain.tick[0] = 11
    np.testing.assert_array_equal(policy.plan().actions, plain.plan_streams([0])[0].actions)
    assert inner.asked == [(0, 1)]


def test_the_score_does_not_care_about_the_order_of_draws_and_the_best_of_more_is_no_worse():
    rng = np.random.default_rng(0)
    executed, predicted = rng.normal(size=(5, 2)), rng.normal(size=(40, 5, 2))
    scores = disagreement(predicted, executed, np.array([1.0, 3.0]))
    order = rng.permutation(40)
    np.testing.assert_array_equal(disagreement(predicted[order], executed, np.array([1.0, 3.0])), scores[order])
    chosen = []
    for draws in range(2, 13):
        policy = Verified(Guesses(np.random.default_rng(1).normal(size=12)), Verification(draws=draws), ONE)
        drive(policy, 1)
        policy.plan()
        drive(policy, 12)
        chunk = policy.plan()
        past = np.array([[k, k] for k in (8, 9, 10)], float)
        chosen.append(float(disagreement(chunk.past[None], past, ONE)[0]))
    assert (np.diff(chosen) <= 0).all() and chosen[-1] < chosen[0]
    assert scores[3] == pytest.approx(np.mean(((predicted[3] - executed) * [1, 3]) ** 2))


def test_draws_that_agree_are_not_multiplied_and_those_that_do_not_are():
    inner = Guesses(np.linspace(3, 0, 8))  # draw k acts k: they never agree
    policy = Verified(inner, Verification(draws=8, first=2, agree=0.1), ONE)
    drive(policy, 1)
    policy.plan()
    drive(policy, 12)
    assert policy.plan().actions[0, 0] == 7 and inner.asked[-2:] == [(0, 2), (0, 8)]
    policy = Verified(inner, Verification(draws=8, first=2, agree=5.0), ONE)
    drive(policy, 1)
    policy.plan()
    drive(policy, 12)
    inner.asked.clear()
    assert policy.plan().actions[0, 0] == 1 and inner.asked == [(0, 2)]


def test_streams_of_different_ages_are_verified_each_by_its_own_past():
    policy = Verified(Guesses([4.0, 0.0, 2.0]), Verification(draws=3), ONE, streams=3)
    drive(policy, 1, stream=2)
    policy.plan_streams([2])
    for stream, ticks in enumerate((2, 9, 12)):
        drive(policy, ticks, stream)
    assert [int(chunk.actions[0, 0]) for chunk in policy.plan_streams([2, 0, 1])] == [1, 0, 1]


def test_a_policy_without_a_past_and_a_monitor_that_wants_draws_are_refused():
    class Blind(Guesses):
        def _plan(self, i, draws):
            return Chunk(np.zeros((4, 2)), self.tick[i])

    policy = Verified(Blind([0.0]), Verification(draws=4), ONE)
    drive(policy, 1)
    with pytest.raises(BadInput, match="needs a policy that predicts past actions"):
        policy.plan()
    with pytest.raises(BadInput, match="gives no draws to a monitor"):
        policy.plan(Ask(draws=2))
    with pytest.raises(ValueError, match="want draws >= 1"):
        Verification(draws=0)
