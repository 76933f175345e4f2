"""Traces what the memory of a trained policy does in extra episodes, and sets its actions beside those it was trained on.

Tracing only looks: an episode equals the same one without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from einops import rearrange

from robolearn.apps import _evaluate, _memory_page
from robolearn.apps._memory_page import MemoryTrace
from robolearn.core import Chunk, Env, Outcome, Policy, SimEnv, Spec, Tick
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError
from robolearn.nets.memory import SegaMemory
from robolearn.nets.replay import Replayed
from robolearn.nets.transformer import Layer, Transformer
from robolearn.policies._base import PolicyNet
from robolearn.policies._learned import Learned
from robolearn.rollout import rollout
from robolearn.training.checkpoint import load_policy, read_config
from robolearn.training.episodes import pick_episodes
from robolearn.training.predictability import Comparison, compare, position_columns
from robolearn.training.probe import Probe
from sim_envs import _base as tasks

_CLEAN = {"diffusion": 0.0, "flow": 1.0}  # the time at which what these denoise is the plan itself


@dataclass
class _Row:
    """One update of a memory (without one: one plan): its tick, and what is known of it."""

    tick: int
    fact: int | None
    gate: np.ndarray | None = None
    state: np.ndarray | None = None
    attention: np.ndarray | None = None


@dataclass
class Tracer:
    """A sink that looks into stream 0 of `policy`: a row an update of its memory, or where it has none a row a plan.

    fact: says what the episode hides now; a row keeps what it hid when the observation was made. actions: (action,) a tick.
    """

    policy: Learned
    fact: Callable[[], int] | None = None
    seed: int | None = None
    rows: list[_Row] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    _hidden: int | None = None

    def begin(self, spec: Spec, meta: Mapping[str, Any]) -> None:
        """Forgets the last episode; the first observation has been made."""
        self.seed, self.rows, self.actions = meta["seed"], [], []
        self._hidden = self.fact() if self.fact else None

    def record(self, tick: Tick) -> None:
        """Keeps the update of the observation that `tick` began with, and the attention of the plan made there."""
        self._update()
        if tick.chunk is not None and tick.chunk.tick == tick.k:
            if self.policy.net.memory is None:
                self.rows.append(_Row(tick.k, self._hidden))
            self.rows[-1].attention = attention(self.policy, tick.chunk)  # a plan is never between two updates
        self.actions.append(np.asarray(tick.asked))
        self._hidden = self.fact() if self.fact else None  # of the observation that the next update sees

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Ignores raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Keeps the update of the last observation, after which nothing is planned."""
        self._update()

    def trace(self) -> MemoryTrace:
        """Returns the episode."""
        facts = None if self.fact is None else np.array([row.fact for row in self.rows])
        same = facts is not None and (facts == facts[0]).all()
        return MemoryTrace(
            ticks=np.array([row.tick for row in self.rows]),
            gates=_stacked([row.gate for row in self.rows]),
            attention=_stacked([row.attention for row in self.rows]),
            states=_stacked([row.state for row in self.rows]),
            fact=int(facts[0]) if facts is not None and same else None,
            seed=self.seed,
            facts=facts,
        )

    def _update(self) -> None:
        memory, seen = self.policy.net.memory, self.policy.snapshot()
        if memory is None or seen.memory is None or seen.tick % self.policy.spec.memory_stride:
            return
        gate = memory.gate[0].float().cpu().numpy() if isinstance(memory, SegaMemory) and memory.gate is not None else None
        self.rows.append(_Row(seen.tick, self._hidden, gate, seen.memory.flatten().float().cpu().numpy()))


def _stacked(rows: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Returns rows (n,) as one array, NaN where one is missing; None where all are."""
    known = next((row for row in rows if row is not None), None)
    if known is None:
        return None
    return np.stack([np.full_like(known, np.nan) if row is None else row for row in rows])


@torch.inference_mode()
def attention(policy: Learned, chunk: Chunk) -> np.ndarray | None:
    """Returns how much the current action token looks at each observation (n_obs,), mean over layers and heads.

    None without a transformer denoiser; NaN before the episode began, where the first observation stands in. Recomputed for
    the finished plan at the end of the denoising; what is missing to 1 goes to the time token and to the padding.
    """
    net, config = policy.net, policy.net.config
    denoiser = _transformer(net)
    if denoiser is None or chunk.features is None:
        return None
    x = torch.zeros(1, config.horizon, net.action_dim, device=policy.device)  # what a regression is given
    if config.name in _CLEAN:
        plan = chunk.actions if chunk.past is None else np.concatenate([chunk.past, chunk.actions])
        x[0] = torch.from_numpy(policy.normalizer.normalize("action", plan).reshape(config.horizon, -1))
    features = torch.from_numpy(chunk.features).to(x).reshape(1, config.n_obs_steps, -1)
    goal = {key: x.new_zeros(1, *policy.spec.goal[key].shape) for key in net.goal_keys}
    condition = denoiser.condition(net.with_goal(features, goal, x.new_zeros(1)))  # episodes are played without a goal
    weights = cross_attention(denoiser, x, x.new_full((1,), _CLEAN.get(config.name, 0.0)), condition)
    looks = weights.mean(dim=(0, 1, 2))[config.n_past, 1:].float().cpu().numpy()  # without the time token
    looks[chunk.tick + np.array(config.layout.obs_ticks) < 0] = np.nan
    return np.asarray(looks)


def cross_attention(denoiser: Transformer, x: torch.Tensor, t: torch.Tensor, condition: Any) -> torch.Tensor:
    """Returns the weights (layer, B, heads, H, 1 + To) with which action tokens see the time and the observations."""
    seen = denoiser.modulate(t, condition)
    layers, weights = cast(Sequence[Layer], denoiser.layers), []
    h = denoiser.enter(x) + denoiser.positions
    for layer, keys, values in zip(layers, seen.keys, seen.values, strict=True):
        inner = layer.norm1(h)
        asks = layer.norm2(h + layer.attend(inner, *layer.attend.keys_values(inner), denoiser.self_mask))
        query = rearrange(layer.cross.query(asks), "batch time (head dim) -> batch head time dim", head=layer.cross.heads)
        scores = query @ keys.transpose(-1, -2) * query.shape[-1] ** -0.5
        masked = scores if denoiser.cross_mask is None else scores.masked_fill(~denoiser.cross_mask, -torch.inf)
        weights.append(masked.softmax(dim=-1))
        h = layer(h, keys, values, denoiser.self_mask, denoiser.cross_mask)
    return torch.stack(weights)


def _transformer(net: PolicyNet) -> Transformer | None:
    parts = dict(net.named_children())
    part = parts.get("denoiser", parts.get("head"))
    part = part.inner if isinstance(part, Replayed) else part
    return part if isinstance(part, Transformer) else None


@dataclass(frozen=True)
class Diagnosis:
    """What the traced episodes show. missing: why there is no `comparison` ("predictability") or no read-out ("probe")."""

    outcomes: Sequence[Outcome]
    traces: Sequence[MemoryTrace]
    comparison: Comparison | None
    found: Probe | None
    missing: Mapping[str, str]

    def figures(self) -> dict[str, Any]:
        """Returns what `eval --json` keeps as "memory": the ratio with both errors, the read-out as a whole and by tick."""
        ratio: dict[str, Any] = {"missing": self.missing.get("predictability")}
        if self.comparison is not None:
            sides = {"expert": self.comparison.expert, "policy": self.comparison.policy}
            ratio = {"ratio": self.comparison.ratio, "note": self.comparison.note}
            for who, side in sides.items():
                ratio |= {f"{who}_mse": side.mse, f"{who}_variance": side.variance, f"{who}_pairs": side.pairs}
        return {
            "episodes": [_evaluate.row(outcome) for outcome in self.outcomes],
            "updates": sum(len(trace.ticks) for trace in self.traces),
            "predictability": ratio,
            "probe": {"missing": self.missing.get("probe")} if self.found is None else asdict(self.found),
        }

    def cards(self) -> list[str]:
        """Returns the cards of the report, for `_html.grid(..., least=400)`."""
        if self.comparison is None:
            parts = [_memory_page.missing_card(_memory_page.PREDICTABILITY, self.missing["predictability"])]
        else:
            parts = [_memory_page.predictability_card(self.comparison)]
        if self.found is not None:
            parts.append(_memory_page.probe_card(self.found))
        elif any(trace.states is not None for trace in self.traces):
            parts.append(_memory_page.missing_card(_memory_page.HOLDS, self.missing["probe"]))
        return parts + _memory_page.cards(self.traces)

    def text(self) -> str:
        """Returns the lines for the terminal."""
        if self.comparison is None:
            lines = [f"  memory   predictability: {self.missing['predictability']}"]
        else:
            expert, policy = self.comparison.expert.mse, self.comparison.policy.mse
            lines = [
                f"  memory   predictability {self.comparison.ratio:.3g} = {expert:.3g} (demonstrations) / {policy:.3g} (policy)"
            ]
        if self.found is None:
            return "\n".join([*lines, f"           read-out: {self.missing['probe']}"])
        low, high = self.found.interval95
        read = (
            f"fact read from the memory {self.found.accuracy:.3f}   95 % {low:.3f} .. {high:.3f}  chance {self.found.chance:.3f}"
        )
        return "\n".join([*lines, f"           {read}"])


def diagnose(done: _evaluate.Evaluation, n: int, on_episode: Callable[[], object] = lambda: None) -> Diagnosis:
    """Returns what n more episodes, on the seeds after the evaluated ones and in this process, show of the memory.

    The actions beside the demonstrations are those of all episodes, evaluated and traced; `on_episode` is told as each ends.
    """
    subject, options = done.subject, done.options
    assert subject.checkpoint is not None, "an expert has no memory to trace"
    policy = load_policy(subject.checkpoint, _evaluate._device(options.device), 1, options.sampling)
    driver: Policy = _evaluate.verified(policy, options.verify) if options.verify.draws > 1 else policy
    images = [key for key, array in policy.spec.obs.items() if array.is_image]
    env = tasks.with_cameras(subject.env, images) | {"max_steps": done.max_steps}
    outcomes, traces = [], []
    actions = [record.actions for record in done.records]
    with closing(tasks.make(subject.task, env)) as body:
        tracer = Tracer(policy, fact_of(body))
        for seed in range(options.seeds.stop, options.seeds.stop + n):
            outcomes.append(rollout(body, driver, max_steps=done.max_steps, seed=seed, sinks=[tracer]))
            traces.append(tracer.trace())
            actions.append(np.stack(tracer.actions))
            on_episode()
    missing, comparison = {}, None
    try:
        comparison = beside_demonstrations(subject.checkpoint, actions, policy.spec)
    except BadInput as error:  # what it was trained on may be gone, and all else is worth having without it
        missing["predictability"] = str(error)
    found = _memory_page.read_out(traces, seed=options.seed)
    if found is None:
        missing["probe"] = _why_unread(traces, subject.task)
    return Diagnosis(outcomes, traces, comparison, found, missing)


def fact_of(body: SimEnv) -> Callable[[], int] | None:
    """Returns what says the hidden fact of a body's running episode now; None where its task names none."""
    fact: Callable[[Env], int] | None = getattr(tasks.module(body.task), "fact", None)  # type: ignore[attr-defined]
    return None if fact is None else lambda: fact(body)


def _why_unread(traces: Sequence[MemoryTrace], task: str) -> str:
    if all(trace.states is None for trace in traces):
        return "the policy has no memory to read from"
    if all(trace.facts is None for trace in traces):
        return f"task '{task}' names no hidden fact"
    return f"want two facts in two episodes or more, {len(traces)} traced episodes hold fewer; trace more"


def beside_demonstrations(checkpoint: Path, actions: Sequence[np.ndarray], spec: Spec) -> Comparison:
    """Returns the predictability of actions, trajectories (steps, ...), beside that of the episodes trained on.

    Of the larger side only as many trajectories are drawn as give about the steps of the smaller, for alike numbers compare
    better. Raises BadInput where the training set is gone or too small.
    """
    cfg = read_config(checkpoint)
    if not cfg.dataset.path:
        raise DatasetError(f"{checkpoint}: its config names no training set")
    dataset = EpisodeSet.open(cfg.dataset.path)
    if "action" not in dataset.keys or dataset.keys["action"].shape != spec.action.shape:
        raise DatasetError(
            f"{dataset.path}: want actions {spec.action.shape} as the policy was trained on; it is another set now"
        )
    ids, _ = pick_episodes(cfg.dataset, dataset, cfg.seed)
    rows = dataset.read("action")
    sides = [[rows[slice(*dataset.span(int(i)))] for i in ids], list(actions)]
    steps = min(sum(map(len, side)) for side in sides)
    expert, policy = ([each.reshape(len(each), -1) for each in drawn(side, steps, cfg.seed)] for side in sides)
    columns = position_columns(spec.action.names, int(np.prod(spec.action.shape)))
    return compare(expert, policy, seed=cfg.seed, columns=columns)


def drawn(trajectories: Sequence[np.ndarray], steps: int, seed: int) -> list[np.ndarray]:
    """Returns trajectories drawn by the seed until they hold `steps` steps, two at least; all of them where they hold no more."""
    if sum(map(len, trajectories)) <= steps:
        return list(trajectories)
    order = np.random.default_rng(seed).permutation(len(trajectories))
    ends = np.cumsum([len(trajectories[i]) for i in order])
    return [trajectories[i] for i in order[: max(2, int(np.searchsorted(ends, steps)) + 1)]]
