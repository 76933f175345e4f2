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


@dataclass
class _Stream:
    """One running episode: its seed, the tick of its newest observation, its last n_obs observations, normalised."""

    seed: int = 0
    tick: int = -1
    history: deque[dict[str, np.ndarray]] = field(default_factory=deque)


class Learned:
    """A trained policy. Stream 0 is the plain `core.Policy`; `*_stream(s)` drive many episodes at once."""

    def __init__(self, net: PolicyNet, spec: Spec, normalizer: Normalizer, device: str = "cpu", streams: int = 1) -> None:
        self.net, self.spec, self.normalizer, self.device = net.to(device).eval(), spec, normalizer, torch.device(device)
        if "denoiser" in dict(net.named_children()):  # what a sampler calls many times
            net.denoiser = Replayed(net.denoiser)
        self.streams = [_Stream() for _ in range(streams)]

    def reset(self, seed: int | None = None) -> None:
        """Forgets stream 0."""
        self.reset_stream(0, seed)

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Adds one observation to stream 0."""
        self.observe_stream(0, obs, applied)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Plans for stream 0 from its current history; the same answer however often it is asked."""
        return self.plan_streams([0], ask)[0]

    def reset_stream(self, i: int, seed: int | None) -> None:
        """Begins a new episode in stream i."""
        self.streams[i] = _Stream(seed=0 if seed is None else seed)

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        """Adds one observation to stream i. The first one fills the whole history, as edges repeat in training."""
        del applied  # Unused: without past-token prediction the executed action is not looked at.
        stream = self.streams[i]
        for key, spec in self.spec.obs.items():
            spec.check(obs[key], f"observation '{key}'")
        images = self.spec.obs.keys() - self.normalizer.scale.keys()  # pass as they are
        row = {key: obs[key] if key in images else self.normalizer.normalize(key, obs[key]) for key in self.spec.obs}
        n_obs = self.net.config.n_obs_steps
        if not stream.history:
            stream.history = deque([row] * n_obs, maxlen=n_obs)
        else:
            stream.history.append(row)
        stream.tick += 1

    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        """Returns one chunk a stream, all from one batched pass through the network."""
        if ask.prefix is not None:
            raise BadInput(f"policy '{self.net.config.name}' takes no prefix: it has no real-time chunking")
        streams = [self.streams[i] for i in indices]
        for i, stream in zip(indices, streams, strict=True):
            if not stream.history:
                raise BadInput(f"stream {i} has seen no observation yet: call observe before plan")
        with torch.inference_mode():
            features = self.net.encode(self._batch(streams))
            context, unguided = self._contexts(features, ask)
            actions = self._sample(context, unguided, streams, ask)
        return [self._chunk(s, actions[k], features[k], ask) for k, s in enumerate(streams)]

    def _batch(self, streams: Sequence[_Stream]) -> dict[str, Tensor]:
        rows = {key: np.stack([np.stack([row[key] for row in s.history]) for s in streams]) for key in self.spec.obs}
        return {key: torch.from_numpy(array).to(self.device) for key, array in rows.items()}

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
        n_past = self.net.config.n_obs_steps - 1
        body = self.normalizer.denormalize("action", actions).reshape(*actions.shape[:2], *self.spec.action.shape)
        return Chunk(
            actions=body[0, n_past:],
            tick=stream.tick,
            past=body[0, :n_past] if n_past else None,
            samples=body[:, n_past:] if ask.draws > 1 else None,
            features=features.flatten().float().cpu().numpy(),
        )


def _noise(seed: int, tick: int, draw: int, shape: tuple[int, ...]) -> np.ndarray:
    """Returns standard normal numbers (float32) that depend on nothing but the arguments."""
    generator = np.random.Generator(np.random.Philox(key=seed % 2**64, counter=[0, 0, draw, tick]))
    return generator.standard_normal(shape, dtype=np.float32)
