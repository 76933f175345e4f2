"""A trained network as a `core.Policy`: histories, normalizers, and N streams through one network in one batch.

Stream i is one running episode. Its noise depends on (seed, tick, draw) alone, so that `plan` is pure and a stream's
plans do not depend on which other streams are planned beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from robolearn.core import Ask, Chunk, Obs, Spec
from robolearn.data.normalize import Normalizer
from robolearn.errors import ArrayMismatch, BadInput
from robolearn.nets.guide import Guide
from robolearn.nets.replay import Replayed
from robolearn.policies._base import PolicyNet
from robolearn.policies._streams import Streams


@dataclass
class _Stream:
    """One running episode: its seed, the tick of its newest observation, its last observations, normalised, oldest first.

    encoded: the encoder's features (feature,) of each, None where they have not been asked for; memory: the net's state
    (1, ...) after its last update; context: what that update gave, (1, n_obs, cond).
    """

    seed: int = 0
    tick: int = -1
    history: deque[dict[str, np.ndarray]] = field(default_factory=deque)
    encoded: deque[Tensor | None] = field(default_factory=deque)
    memory: Tensor | None = None
    context: Tensor | None = None


@dataclass(frozen=True)
class Snapshot:
    """What a stream of a policy has seen (see `_Stream`); arrays are shared with it and never written to."""

    seed: int
    tick: int
    history: tuple[dict[str, np.ndarray], ...]
    memory: Tensor | None
    context: Tensor | None


class Learned(Streams):
    """A trained policy. Stream 0 is the plain `core.Policy`; `*_stream(s)` drive many episodes at once.

    A memory moves in `observe`, at ticks that `spec.memory_stride` divides, and never in `plan`.
    """

    def __init__(self, net: PolicyNet, spec: Spec, normalizer: Normalizer, device: str = "cpu", streams: int = 1) -> None:
        self.net, self.spec, self.normalizer, self.device = net.to(device).eval(), spec, normalizer, torch.device(device)
        for part in [part for part in net.modules() if "denoiser" in dict(part.named_children())]:
            part.denoiser = Replayed(part.denoiser)  # what a sampler calls many times
        layout = net.config.layout
        self._places = [layout.span + tick for tick in layout.obs_ticks]  # of the observations in a history
        self._kept = layout.span + 1
        self.streams = [_Stream() for _ in range(streams)]

    def reset_stream(self, i: int, seed: int | None) -> None:
        """Begins a new episode in stream i."""
        self.streams[i] = _Stream(seed=0 if seed is None else seed)

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        """Adds one observation to stream i. The first one fills the whole history, as edges repeat in training."""
        del applied  # Unused: what is predicted of the past is a prediction; `Verified` compares it with what was executed.
        stream = self.streams[i]
        for key, spec in self.spec.obs.items():
            spec.check(obs[key], f"observation '{key}'")
        images = self.spec.obs.keys() - self.normalizer.scale.keys()  # pass as they are
        row = {key: obs[key] if key in images else self.normalizer.normalize(key, obs[key]) for key in self.spec.obs}
        if not stream.history:
            stream.history = deque([row] * self._kept, maxlen=self._kept)
            stream.encoded = deque([None] * self._kept, maxlen=self._kept)
        else:
            stream.history.append(row)
            stream.encoded.append(None)
        stream.tick += 1
        if self.net.memory is not None and stream.tick % self.spec.memory_stride == 0:
            with torch.inference_mode():
                begins = torch.tensor([stream.tick == 0], device=self.device)
                stream.memory, stream.context = self.net.remember(stream.memory, self._encode([stream]), begins)

    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        """Returns one chunk a stream, all from one batched pass through the network."""
        guide = self._guide(ask)
        streams = [self.streams[i] for i in indices]
        for i, stream in zip(indices, streams, strict=True):
            if not stream.history:
                raise BadInput(f"stream {i} has seen no observation yet: call observe before plan")
        with torch.inference_mode():
            features = self._encode(streams) if self.net.memory is None else torch.cat([self._remembered(s) for s in streams])
            context, unguided = self._contexts(features, ask)
            actions = self._sample(context, unguided, streams, ask, guide)
        return [self._chunk(s, actions[k], features[k], ask) for k, s in enumerate(streams)]

    def snapshot(self, i: int = 0) -> Snapshot:
        """Returns everything that stream i has seen, to be planned from elsewhere while the stream goes on."""
        s = self.streams[i]
        return Snapshot(s.seed, s.tick, tuple(s.history), s.memory, s.context)

    def restore(self, snapshot: Snapshot, i: int = 0) -> None:
        """Makes stream i what it was when the snapshot was taken, here or in another process's copy of this policy."""
        rows = deque(snapshot.history, maxlen=self._kept)
        unread: deque[Tensor | None] = deque([None] * len(rows), maxlen=self._kept)
        kept = [None if part is None else part.to(self.device) for part in (snapshot.memory, snapshot.context)]
        self.streams[i] = _Stream(snapshot.seed, snapshot.tick, rows, unread, *kept)

    @staticmethod
    def _remembered(stream: _Stream) -> Tensor:
        assert stream.context is not None  # the first observation moved the memory
        return stream.context

    def _encode(self, streams: Sequence[_Stream]) -> Tensor:
        """Returns features (stream, n_obs, feature); every observation goes through the encoder once in its life."""
        missing: dict[int, tuple[dict[str, np.ndarray], list[tuple[_Stream, int]]]] = {}
        for stream in streams:
            for place in self._places:
                if stream.encoded[place] is None:
                    missing.setdefault(id(row := stream.history[place]), (row, []))[1].append((stream, place))
        if missing:
            rows = [row for row, _ in missing.values()]
            obs = {k: torch.from_numpy(np.stack([row[k] for row in rows])[:, None]).to(self.device) for k in self.spec.obs}
            for features, (_, wanted) in zip(self.net.encode(obs)[:, 0], missing.values(), strict=True):
                for stream, place in wanted:
                    stream.encoded[place] = features
        return torch.stack([torch.stack([s.encoded[place] for place in self._places]) for s in streams])  # type: ignore[misc]

    def _contexts(self, features: Tensor, ask: Ask) -> tuple[Tensor, Tensor | None]:
        if not self.net.goal_keys:
            return features, None
        shown = features.new_ones(features.shape[0]) * float(bool(ask.goal))
        goal = {key: self._goal(key, ask.goal, features) for key in self.net.goal_keys}
        context = self.net.with_goal(features, goal, shown)
        if not ask.goal or ask.guidance == 1.0:
            return context, None
        return context, self.net.with_goal(features, goal, torch.zeros_like(shown))

    def _goal(self, key: str, goal: Mapping[str, np.ndarray], features: Tensor) -> Tensor:
        spec = self.spec.goal[key]
        value = np.zeros(spec.shape, np.float32) if key not in goal else np.asarray(goal[key], np.float32)
        spec.check(value, f"goal '{key}'")
        return torch.from_numpy(self.normalizer.normalize(key, value)).to(features).expand(features.shape[0], *spec.shape)

    def _guide(self, ask: Ask) -> Guide | None:
        """Returns what the ask's prefix holds a plan to, None where it holds nothing; BadInput where it cannot be held so."""
        weight = _weight(ask, self.net, self.spec)
        if not weight.any() and not ask.prefix_fixed:
            return None
        past = self.net.config.n_past  # nothing is held of the past tokens
        prefix = self.normalizer.normalize("action", np.asarray(ask.prefix)).reshape(len(weight), -1)
        given = np.arange(len(weight)) < ask.prefix_fixed
        held = np.where((weight > 0) | given, prefix.T, 0).T  # what holds nothing may be anything, NaN too
        pulling = np.where(given, 0, weight)  # what is given needs no pull

        def tokens(rows: np.ndarray) -> Tensor:  # (plan, ...) to (horizon, ...)
            return torch.from_numpy(np.concatenate((np.zeros((past, *rows.shape[1:]), rows.dtype), rows))).to(self.device)

        return Guide(
            tokens(held),
            tokens(pulling[:, None]) if pulling.any() else None,
            tokens(given[:, None]) if ask.prefix_fixed else None,
            ask.prefix_beta,
            ask.prefix_jacobian,
        )

    def _sample(
        self, context: Tensor, unguided: Tensor | None, streams: Sequence[_Stream], ask: Ask, guide: Guide | None
    ) -> np.ndarray:
        """Returns normalised actions (stream, draw, horizon, action)."""
        config = self.net.config
        shape = (self.net.noise_draws(), config.horizon, self.net.action_dim)
        noise = np.stack([_noise(s.seed, s.tick, draw, shape) for s in streams for draw in range(ask.draws)], axis=1)

        def repeat(x: Tensor) -> Tensor:
            return x if ask.draws == 1 else x.repeat_interleave(ask.draws, dim=0)

        sample = self.net.sample if guide is None else partial(self.net.sample_guided, guide=guide)
        sampled = sample(
            repeat(context),
            torch.from_numpy(noise).to(self.device),
            guidance=ask.guidance,
            unguided=None if unguided is None else repeat(unguided),
        )
        return sampled.float().cpu().numpy().reshape(len(streams), ask.draws, config.horizon, self.net.action_dim)

    def _chunk(self, stream: _Stream, actions: np.ndarray, features: Tensor, ask: Ask) -> Chunk:
        n_past = self.net.config.n_past
        body = self.normalizer.denormalize("action", actions).reshape(*actions.shape[:2], *self.spec.action.shape)
        if ask.prefix is not None and ask.prefix_fixed:  # exactly, without the rounding of the normalizer's way and back
            body[:, n_past : n_past + ask.prefix_fixed] = ask.prefix[: ask.prefix_fixed]
        return Chunk(
            actions=body[0, n_past:],
            tick=stream.tick,
            past=body[0, :n_past] if n_past else None,
            past_stride=self.net.config.history_stride,
            samples=body[:, n_past:] if ask.draws > 1 else None,
            past_samples=body[:, :n_past] if ask.draws > 1 and n_past else None,
            features=features.flatten().float().cpu().numpy(),
        )


def _weight(ask: Ask, net: PolicyNet, spec: Spec) -> np.ndarray:
    """Returns how much each action of the ask's prefix holds (plan,); BadInput where it does not fit policy or plan."""
    if ask.prefix is None:
        if ask.prefix_mask is not None or ask.prefix_fixed:
            raise BadInput("prefix_mask and prefix_fixed say what of a prefix holds, and there is no prefix")
        return np.zeros(0, np.float32)
    if why := net.why_no_prefix():
        raise BadInput(why)
    if ask.prefix_mask is None and not ask.prefix_fixed:
        raise BadInput("prefix: nothing says what of it holds; give prefix_mask, or prefix_fixed to a policy trained for it")
    actions = net.config.layout.n_future
    prefix, want = np.asarray(ask.prefix, np.float32), (actions, *spec.action.shape)
    weight = np.zeros(actions, np.float32) if ask.prefix_mask is None else np.asarray(ask.prefix_mask, np.float32)
    if prefix.shape != want:
        raise ArrayMismatch(f"prefix: want {want}, the shape of a plan's actions, got {prefix.shape}")
    if weight.shape != (actions,) or not ((weight >= 0) & (weight <= 1)).all():
        got = np.array2string(weight, precision=3, threshold=8)
        raise ArrayMismatch(f"prefix_mask: want {actions} numbers in [0, 1], got {got} of shape {weight.shape}")
    most = net.config.rtc_max_delay
    if not 0 <= ask.prefix_fixed <= most:
        raise BadInput(f"prefix_fixed: want 0 to {most}, the rtc_max_delay this policy was trained with, got {ask.prefix_fixed}")
    if not np.isfinite(prefix[(weight > 0) | (np.arange(actions) < ask.prefix_fixed)]).all():
        raise ArrayMismatch("prefix: want finite numbers wherever it holds, got NaN or infinity")
    if not 0 <= ask.prefix_beta < np.inf:
        raise BadInput(f"prefix_beta: want a finite number of at least 0, got {ask.prefix_beta}")
    if ask.prefix_jacobian not in ("full", "identity"):
        raise BadInput(f"prefix_jacobian: want 'full' or 'identity', got '{ask.prefix_jacobian}'")
    return weight


def _noise(seed: int, tick: int, draw: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns standard normal numbers (float32) that depend on nothing but the arguments."""
    generator = np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, draw, tick]))
    return generator.standard_normal(shape, dtype=np.float32)
