"""A trained network as a `core.Policy`: histories, normalizers, and N streams through one network in one batch.

Stream i is one running episode. Its noise depends on (seed, tick, draw) alone, so that `plan` is pure and a stream's
plans do not depend on which other streams are planned beside it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from robolearn.core import Ask, Chunk, Obs, Spec
from robolearn.data.normalize import Normalizer
from robolearn.errors import BadInput
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
        if "denoiser" in dict(net.named_children()):  # what a sampler calls many times
            net.denoiser = Replayed(net.denoiser)
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
        if ask.prefix is not None:
            raise BadInput(f"policy '{self.net.config.name}' takes no prefix: it has no real-time chunking")
        streams = [self.streams[i] for i in indices]
        for i, stream in zip(indices, streams, strict=True):
            if not stream.history:
                raise BadInput(f"stream {i} has seen no observation yet: call observe before plan")
        with torch.inference_mode():
            features = self._encode(streams) if self.net.memory is None else torch.cat([self._remembered(s) for s in streams])
            context, unguided = self._contexts(features, ask)
            actions = self._sample(context, unguided, streams, ask)
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

    def _sample(self, context: Tensor, unguided: Tensor | None, streams: Sequence[_Stream], ask: Ask) -> np.ndarray:
        """Returns normalised actions (stream, draw, horizon, action)."""
        config = self.net.config
        shape = (self.net.noise_draws(), config.horizon, self.net.action_dim)
        noise = np.stack([_noise(s.seed, s.tick, draw, shape) for s in streams for draw in range(ask.draws)], axis=1)

        def repeat(x: Tensor) -> Tensor:
            return x if ask.draws == 1 else x.repeat_interleave(ask.draws, dim=0)

        sampled = self.net.sample(
            repeat(context),
            torch.from_numpy(noise).to(self.device),
            guidance=ask.guidance,
            unguided=None if unguided is None else repeat(unguided),
        )
        return sampled.float().cpu().numpy().reshape(len(streams), ask.draws, config.horizon, self.net.action_dim)

    def _chunk(self, stream: _Stream, actions: np.ndarray, features: Tensor, ask: Ask) -> Chunk:
        n_past = self.net.config.n_past
        body = self.normalizer.denormalize("action", actions).reshape(*actions.shape[:2], *self.spec.action.shape)
        return Chunk(
            actions=body[0, n_past:],
            tick=stream.tick,
            past=body[0, :n_past] if n_past else None,
            past_stride=self.net.config.history_stride,
            samples=body[:, n_past:] if ask.draws > 1 else None,
            past_samples=body[:, :n_past] if ask.draws > 1 and n_past else None,
            features=features.flatten().float().cpu().numpy(),
        )


def _noise(seed: int, tick: int, draw: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns standard normal numbers (float32) that depend on nothing but the arguments."""
    generator = np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, draw, tick]))
    return generator.standard_normal(shape, dtype=np.float32)
