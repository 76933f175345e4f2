"""After an alarm a body stays or goes back; asking for the plan changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robolearn.core import ArraySpec, Policy, Spec
from robolearn.errors import BadInput
from robolearn.rollout import rollout
from robolearn.runtime.reactions import Hold, Retreat
from sim_envs import _base as tasks

MOVES = ("dx", "dy", "drz", "gripper")
TARGETS = ("x", "y", "q0", "gripper")
EEF = {"eef_pos": ArraySpec((2,), names=("x", "y")), "joint_pos": ArraySpec((1,), names=("q0",))}
Reaction = Hold | Retreat


def spec(names: tuple[str, ...], obs: dict[str, ArraySpec] = EEF) -> Spec:
    return Spec(obs, ArraySpec((len(names),), names=names), 10.0)


def told(reaction: Reaction, applied: Sequence[Sequence[float]], obs: dict[str, np.ndarray] | None = None) -> Reaction:
    """Returns the reaction after an episode in which `applied` was applied."""
    reaction.reset(0)
    reaction.observe(obs or {}, None)
    for action in applied:
        reaction.observe(obs or {}, np.array(action, np.float32))
    return reaction


def react(env: Any, reaction: Reaction, seed: int, asked: np.ndarray, ticks: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns `state` at every tick of the episode, and at every tick from the alarm on, when the reaction takes over."""
    obs = env.reset(seed)
    reaction.reset(seed)
    reaction.observe(obs, None)
    before: list[np.ndarray] = [obs["state"]]
    after: list[np.ndarray] = []
    for action in asked:
        step = env.step(action)
        reaction.observe(step.obs, step.filtered)
        before.append(step.obs["state"])
    while len(after) < ticks:
        chunk = reaction.plan()
        assert chunk.tick == len(asked) + len(after)
        for action in chunk.actions[: reaction.spec.execute][: ticks - len(after)]:
            step = env.step(action)
            reaction.observe(step.obs, step.filtered)
            after.append(step.obs["state"])
    return before, after


def walk(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (n, 2)).astype(np.float32)


def free_hand() -> Any:
    """Returns a planar body whose light is on: commands move its hand."""
    env: Any = tasks.make("twice")
    return env


@pytest.mark.parametrize("task", ["pusht", "twice"])
@pytest.mark.parametrize("make", [Hold, lambda spec: Retreat(spec, 3)])
def test_a_reaction_is_a_policy_that_fits_the_body(task: str, make: Any) -> None:
    env = tasks.make(task)
    reaction = make(env.spec)
    assert isinstance(reaction, Policy)
    assert rollout(env, reaction, max_steps=20, seed=0).steps == 20


def test_hold_keeps_a_planar_hand_where_it_is() -> None:
    env = free_hand()
    before, after = react(env, Hold(env.spec), 1, walk(6), 30)
    assert np.ptp(before, axis=0)[:2].max() > 0.05, "it had moved"
    for state in after:
        np.testing.assert_array_equal(state, before[-1])


def test_hold_keeps_the_finger_of_pusht_at_its_last_target() -> None:
    env = tasks.make("pusht")
    asked = np.linspace((60, 60), (110, 90), 8).astype(np.float32)
    _, after = react(env, Hold(env.spec), 3, asked, 40)
    np.testing.assert_allclose(after[15][:2], asked[-1], atol=1.0)
    assert np.ptp(after[20:], axis=0)[:2].max() < 0.1


def test_hold_moves_nothing_and_keeps_the_grip() -> None:
    np.testing.assert_array_equal(told(Hold(spec(MOVES)), [[1, 2, 3, -1], [4, 5, 6, 1]]).plan().actions, [[0, 0, 0, 1]])
    np.testing.assert_array_equal(told(Hold(spec(TARGETS)), [[1, 2, 3, -1], [4, 5, 6, 1]]).plan().actions, [[4, 5, 6, 1]])


def test_an_alarm_before_anything_moved_holds_where_the_body_shows_that_it_is() -> None:
    obs = {"eef_pos": np.array([0.1, 0.2], np.float32), "joint_pos": np.array([0.3], np.float32)}
    for reaction in (Hold(spec(TARGETS)), Retreat(spec(TARGETS), 4)):
        for action in told(reaction, [], obs).plan().actions:
            np.testing.assert_allclose(action, [0.1, 0.2, 0.3, 0.0])
    two = {f"eef_pos_{k}": ArraySpec((1,), names=("x",)) for k in range(2)}
    arms = Hold(spec(("x_0", "gripper_0", "x_1", "gripper_1"), two))
    shown = {f"eef_pos_{k}": np.array([float(k + 5)], np.float32) for k in range(2)}
    np.testing.assert_array_equal(told(arms, [], shown).plan().actions, [[5, 0, 6, 0]])
    env = tasks.make("pusht")
    _, after = react(env, Hold(env.spec), 2, np.zeros((0, 2), np.float32), 10)
    np.testing.assert_allclose(after[-1][:2], env.reset(2)["state"][:2], atol=1e-2)


def test_an_alarm_before_anything_moved_is_refused_where_only_things_are_shown() -> None:
    things = {"object": ArraySpec((2,), names=("x", "cube_y"))}
    for reaction in (Hold(spec(("x", "y"), things)), Retreat(spec(("x", "y"), things), 2)):
        told(reaction, [], {"object": np.zeros(2)})
        with pytest.raises(BadInput, match="hold: nothing was applied yet, and no observation shows where 'x' is now"):
            reaction.plan()
    np.testing.assert_array_equal(told(Hold(spec(("dx", "dy"), things)), []).plan().actions, [[0, 0]])


def test_where_no_observation_says_it_whoever_knows_says_which_action_stays() -> None:
    nameless = Spec({"image": ArraySpec((2,))}, ArraySpec((3,)), 20.0)
    hold = told(Hold(nameless, lambda: np.array([1.0, 2.0, 3.0])), [], {"image": np.zeros(2)})
    np.testing.assert_array_equal(hold.plan().actions, [[1, 2, 3]])
    hold.observe({"image": np.zeros(2)}, np.array([4.0, 5.0, 6.0]))
    np.testing.assert_array_equal(hold.plan().actions, [[4, 5, 6]])


def test_retreat_takes_a_planar_hand_back_to_where_it_was_and_stays() -> None:
    env, ticks = free_hand(), 5
    before, after = react(env, Retreat(env.spec, ticks), 1, walk(9), 40)
    assert np.abs(before[-1] - before[-1 - ticks]).max() > 0.05, "it had moved"
    for state, past in zip(after[:ticks], before[-2 : -2 - ticks : -1], strict=True):
        np.testing.assert_allclose(state, past, atol=1e-6)
    for state in after[ticks:]:
        np.testing.assert_array_equal(state, after[ticks])


def test_retreat_takes_the_finger_of_pusht_back_to_where_it_was_and_stays() -> None:
    env, ticks = tasks.make("pusht"), 10
    asked = np.concatenate([np.tile([[60.0, 60.0]], (20, 1)), np.linspace((60, 60), (140, 90), ticks)]).astype(np.float32)
    before, after = react(env, Retreat(env.spec, ticks), 3, asked, 60)
    there = before[len(asked) - ticks][:2]
    assert np.abs(before[-1][:2] - there).max() > 40
    np.testing.assert_allclose(after[2 * ticks][:2], there, atol=1.0)
    np.testing.assert_allclose(after[-1][:2], there, atol=0.1)


def test_retreat_goes_back_in_reverse_and_keeps_the_grip() -> None:
    moves = [[1, 2, 3, -1], [4, 5, 6, -1], [7, 8, 9, 1]]
    want = [[-7, -8, -9, 1], [-4, -5, -6, 1], *[[0, 0, 0, 1]] * 3]
    np.testing.assert_array_equal(told(Retreat(spec(MOVES), 2), moves).plan().actions, want)
    want = [[4, 5, 6, 1], *[[1, 2, 3, 1]] * 4]
    np.testing.assert_array_equal(told(Retreat(spec(TARGETS), 2), moves).plan().actions, want)


def test_retreat_goes_no_further_back_than_the_episode() -> None:
    moves = [[1, 2, 3, -1], [4, 5, 6, 1]]
    want = [[-4, -5, -6, 1], [-1, -2, -3, 1], *[[0, 0, 0, 1]] * 9]
    np.testing.assert_array_equal(told(Retreat(spec(MOVES), 5), moves).plan().actions, want)
    np.testing.assert_array_equal(told(Retreat(spec(TARGETS), 5), moves).plan().actions, [[1, 2, 3, 1]] * 11)


def test_retreat_by_no_tick_is_refused() -> None:
    with pytest.raises(BadInput, match="retreat: want at least 1 tick, got 0"):
        Retreat(spec(MOVES), 0)


actions = st.lists(st.tuples(*[st.floats(-2, 2, width=32)] * 4), min_size=1, max_size=12)


@given(actions, st.integers(1, 6), st.sampled_from([MOVES, TARGETS]))
def test_planning_changes_nothing(applied: list[tuple[float, ...]], ticks: int, names: tuple[str, ...]) -> None:
    for make in (Hold, lambda s: Retreat(s, ticks)):
        reaction, fresh = told(make(spec(names)), applied), told(make(spec(names)), applied)
        first = reaction.plan()
        kept = first.actions.copy()
        first.actions[:] = np.nan  # a caller may do with its plan what it likes
        for _ in range(2):
            np.testing.assert_array_equal(reaction.plan().actions, kept)
        reaction.observe({}, np.zeros(4, np.float32))
        fresh.observe({}, np.zeros(4, np.float32))
        np.testing.assert_array_equal(reaction.plan().actions, fresh.plan().actions)
        assert reaction.plan().tick == fresh.plan().tick == len(applied) + 1
        assert kept.dtype == np.float32 and np.isfinite(kept).all()


@given(actions, st.integers(1, 6))
def test_a_retreat_undoes_the_last_ticks_and_the_plan_after_it_stays(applied: list[tuple[float, ...]], ticks: int) -> None:
    done = np.array(applied, np.float32)
    moves, targets = told(Retreat(spec(MOVES), ticks), applied), told(Retreat(spec(TARGETS), ticks), applied)
    undone = moves.plan().actions
    assert len(undone) == moves.spec.execute
    np.testing.assert_allclose(undone[:, :3].sum(axis=0), -done[-ticks:, :3].sum(axis=0), atol=1e-5)
    np.testing.assert_array_equal(targets.plan().actions[-1, :3], done[max(0, len(done) - 1 - ticks), :3])
    for reaction in (moves, targets):
        plan = reaction.plan().actions
        for action in plan:
            reaction.observe({}, action)
        np.testing.assert_array_equal(reaction.plan().actions, np.tile(plan[-1], (len(plan), 1)))


def test_a_reset_forgets_the_episode_before() -> None:
    for reaction in (Hold(spec(TARGETS)), Retreat(spec(TARGETS), 2)):
        told(reaction, [[9, 9, 9, 9]] * 4)
        again = told(reaction, [[1, 2, 3, 4]]).plan()
        assert again.tick == 1
        np.testing.assert_array_equal(again.actions, [[1, 2, 3, 4]] * len(again.actions))
