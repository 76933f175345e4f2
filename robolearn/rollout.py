"""The loop: body x mind x monitors x sinks -> Outcome. Recording, evaluating and deploying are this loop with other arguments.

The body owns the clock (a robot's `step` waits for the tick, a simulator's does not), so the loop contains no sleep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from robolearn.core import Ask, Chunk, Env, Monitor, Obs, Outcome, Policy, Sink, Spec, Step, Tick, Verdict
from robolearn.errors import ArrayMismatch, EpisodeStopped, SpecMismatch

HOLD = "hold"
RECOVERY = "recovery"  # the source of what a reaction does


class HasSpec(Protocol):
    """Anything with a spec: a body or several, a mind of one stream or of many."""

    spec: Spec


@dataclass
class Episode:
    """The books of one running episode: what was planned, what came of it, whether it is over.

    Single and vectorised evaluation both keep their books here, so that they cannot differ.
    """

    seed: int | None
    max_steps: int
    steps: int = 0
    chunk: Chunk | None = None
    score: float | None = None
    success: bool | None = None
    reason: str = ""
    alarm_step: int | None = None

    def needs_plan(self, execute: int) -> bool:
        """True when the executed part of the current chunk is used up."""
        return self.chunk is None or self.steps - self.chunk.tick >= min(execute, len(self.chunk.actions))

    def action(self) -> np.ndarray:
        """Returns the action (action,) that the current chunk holds for this tick."""
        assert self.chunk is not None
        return self.chunk.actions[self.steps - self.chunk.tick]

    def count(self, step: Step) -> None:
        """Books one executed step and decides whether the episode is over (`reason` is then set)."""
        self.steps += 1
        if step.score is not None:
            self.score = step.score if self.score is None else max(self.score, step.score)
        if step.success is not None:
            self.success = bool(self.success) or step.success
        if step.terminated:
            self.reason = "success" if self.success else "terminated"
        elif self.steps >= self.max_steps:
            self.reason = "success" if self.success else "horizon"
        elif step.truncated:
            self.reason = "truncated"

    def outcome(self) -> Outcome:
        """Returns the result of the finished episode."""
        return Outcome(self.seed, self.steps, self.success, self.score, self.reason, self.alarm_step)


def rollout(
    env: Env,
    policy: Policy,
    *,
    max_steps: int,
    seed: int | None = None,
    monitors: Mapping[str, Monitor] | Sequence[Monitor] = (),
    sinks: Sequence[Sink] = (),
    on_alarm: str | Policy | Callable[[str, Tick], bool] = HOLD,
    meta: Mapping[str, Any] | None = None,
    source: str = "policy",
) -> Outcome:
    """Runs one episode of at most `max_steps` ticks and returns how it ended.

    seed: of body and mind. monitors: asked at every tick before the action moves anything, and before every plan how many
    draws it must bring. On the first alarm the body gets no further command (HOLD), or a reaction, a policy that has
    observed the episode from its start, takes the body over to the end (source "recovery"), or `on_alarm(monitor, tick)` is
    called and says whether to go on. sinks: told every tick, and told the end even when the loop is interrupted; one that
    raises EpisodeStopped ends the episode. Raises SpecMismatch before anything moves where body and mind do not fit,
    ArrayMismatch where an action is not finite.
    """
    watchers = dict(monitors) if isinstance(monitors, Mapping) else _named(monitors)
    env.spec.require(policy.spec, who=type(policy).__name__)
    reaction = on_alarm if isinstance(on_alarm, Policy) else None
    minds: list[Policy] = [policy] if reaction is None else [policy, reaction]
    if reaction is not None:
        env.spec.require(reaction.spec, who=type(reaction).__name__)
    episode = Episode(seed, max_steps)
    obs = env.reset(seed)
    for mind in minds:
        mind.reset(seed)
        mind.observe(obs, None)
    with ExitStack() as stack:
        for watcher in watchers.values():
            watcher.reset()
        for sink in sinks:
            sink.begin(env.spec, dict(meta or {}, seed=seed))
            stack.callback(_end, sink, episode)
        while not episode.reason:
            if episode.needs_plan(policy.spec.execute):
                ask = Ask(draws=max((m.needs.draws for m in watchers.values()), default=1))
                episode.chunk = _planned(policy, ask, episode)
            chunk = episode.chunk
            assert chunk is not None
            asked = check_action(episode.action(), env, policy)
            verdicts = {name: watcher.update(obs, chunk) for name, watcher in watchers.items()}
            alarm = next((name for name, verdict in verdicts.items() if verdict.alarm), None)
            if alarm is not None and episode.alarm_step is None:
                episode.alarm_step = episode.steps
                if reaction is not None:  # it plans from here on; whoever watched the policy has nothing to say of it
                    policy, source, watchers, minds = reaction, RECOVERY, {}, [reaction]
                    episode.chunk = _planned(reaction, Ask(), episode)
                    asked = check_action(episode.action(), env, reaction)
                elif not callable(on_alarm) or not on_alarm(alarm, _tick(episode, obs, asked, None, source, verdicts)):
                    episode.reason = f"alarm:{alarm}"
                    break
            step = env.step(asked)
            tick = _tick(episode, obs, asked, step, source, verdicts)
            stopped = _record(sinks, tick)
            obs = step.obs
            for mind in minds:
                mind.observe(obs, step.filtered)
            episode.count(step)
            episode.reason = episode.reason or stopped
    return episode.outcome()


def _named(monitors: Sequence[Monitor]) -> dict[str, Monitor]:
    """Returns monitors by the name of their class, numbered from the second of a class on."""
    named: dict[str, Monitor] = {}
    for monitor in monitors:
        name = type(monitor).__name__
        count = sum(type(other) is type(monitor) for other in named.values())
        named[f"{name}_{count + 1}" if count else name] = monitor
    return named


def _planned(policy: Policy, ask: Ask, episode: Episode) -> Chunk:
    """Returns the policy's plan for this tick; SpecMismatch where it planned for another one."""
    chunk = policy.plan(ask)
    if chunk.tick != episode.steps:
        raise SpecMismatch(f"{type(policy).__name__} planned for tick {chunk.tick}, want {episode.steps}")
    return chunk


def check_action(action: np.ndarray, env: HasSpec, policy: HasSpec) -> np.ndarray:
    """Returns `action` if it fits the body and is finite; ArrayMismatch before it reaches the motors otherwise."""
    if action.shape != env.spec.action.shape or not np.isfinite(action).all():
        raise ArrayMismatch(
            f"{type(policy).__name__} gave action {np.array2string(np.asarray(action), precision=3, threshold=8)}, "
            f"want finite numbers of shape {env.spec.action.shape}"
        )
    return action


def _tick(episode: Episode, obs: Obs, asked: np.ndarray, step: Step | None, source: str, verdicts: Mapping[str, Verdict]) -> Tick:
    if step is None:  # an alarm before the motors moved: nothing was filtered or sent
        step = Step(obs=obs, filtered=np.full_like(asked, np.nan), sent=np.full_like(asked, np.nan))
    return Tick(episode.steps, obs, asked, step, source, episode.chunk, verdicts)


def _record(sinks: Sequence[Sink], tick: Tick) -> str:
    """Tells every sink of a tick; returns "stopped:WHY" where one can take no more."""
    stopped = ""
    for sink in sinks:
        try:
            sink.record(tick)
        except EpisodeStopped as stop:
            stopped = stopped or f"stopped:{stop}"
    return stopped


def _end(sink: Sink, episode: Episode) -> None:
    episode.reason = episode.reason or "interrupted"
    sink.end(episode.outcome())


@dataclass
class Frames:
    """A sink that renders one picture a tick (a body with `render`): `frames` is (steps, height, width, 3) uint8 when stacked."""

    render: Callable[[], np.ndarray]
    frames: list[np.ndarray] = field(default_factory=list)

    def begin(self, spec: Any, meta: Mapping[str, Any]) -> None:
        """Takes the first picture."""
        self.frames = [self.render()]

    def record(self, tick: Tick) -> None:
        """Takes the picture after this tick's action."""
        self.frames.append(self.render())

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Keeps the pictures for whoever asks."""


@dataclass
class States:
    """A sink that keeps the whole simulator state before every tick and after the last, for `eval --save-states`."""

    state: Callable[[], np.ndarray]
    states: list[np.ndarray] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)

    def begin(self, spec: Any, meta: Mapping[str, Any]) -> None:
        """Keeps the initial state."""
        self.states, self.actions = [self.state()], []

    def record(self, tick: Tick) -> None:
        """Keeps the state after this tick's action."""
        self.states.append(self.state())
        self.actions.append(tick.asked)

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Keeps the states for whoever asks."""
