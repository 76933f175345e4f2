"""What a policy is made of: an observation encoder, a memory, a denoiser, an objective; a policy file adds `loss` and `sample`.

Everything here is batched and normalised; histories, normalizers and streams belong to `_learned.py`. An action sequence
begins with n_past tokens of the past, the rest is the plan (`data/layout.py`). Past-token prediction (Torne et al., arXiv
2505.09561) is nothing but how many past tokens there are and how many of them the loss counts.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from robolearn.core import Spec
from robolearn.data.layout import Layout
from robolearn.data.normalize import Normalizer
from robolearn.data.windows import Windows
from robolearn.errors import BadInput
from robolearn.nets.denoiser import Denoiser
from robolearn.nets.guide import Delays, Guide
from robolearn.nets.memory import GruMemory, Memory, SegaMemory
from robolearn.nets.mlp import MLP
from robolearn.nets.obs import ObsEncoder
from robolearn.nets.sega import Gate, Keys
from robolearn.nets.transformer import Transformer
from robolearn.nets.unet1d import UNet1d
from robolearn.nets.vision import Backbone, Head

EMBEDDING = "embedding"  # the key under which a batch brings what the frozen encoder gave, instead of observations


@dataclass(frozen=True)
class PolicyConfig:
    """The choices every policy shares. Field names are the field's standard terms."""

    real_time: ClassVar[bool] = False  # whether it can be trained to go on from given actions
    valid_key: ClassVar[str] = ""  # the set's key, where it has it, that says which numbers of an action were seen
    name: str = ""
    """Which policy: a file of robolearn/policies."""
    obs: tuple[str, ...] = ()
    """Observation keys to read; empty: all that the dataset holds and are no images."""
    n_obs_steps: int = 2
    """How many observations the policy sees, the newest included."""
    history_stride: int = 1
    """Ticks between two observations, and between two past action tokens; the plan is always dense."""
    history_mixed: bool = False
    """Only the older half of the observations is history_stride apart, the newer half is dense."""
    horizon: int = 16
    """How many action tokens are predicted, the past ones included."""
    n_past_actions: int = -1
    """How many of them lie before now; -1: n_obs_steps - 1, as in Diffusion Policy; 0: none (the clean baseline)."""
    past_loss: int = -1
    """How many past tokens, the newest ones, the loss counts; -1: all (past-token prediction); 0: none (released baseline)."""
    execute: int = 8
    """How many actions of a plan are run before the next plan."""
    denoiser: Literal["mlp", "unet1d", "transformer"] = "mlp"
    width: int = 384
    """Width of mlp and transformer."""
    depth: int = 6
    """Blocks of the mlp, layers of the transformer."""
    heads: int = 4
    """Attention heads of the transformer."""
    dims: tuple[int, ...] = (64, 128, 256)
    """Channels of the unet1d's levels."""
    dropout: float = 0.0
    """Of mlp and transformer."""
    causal: bool = True
    """The transformer's masks: a token sees no later token, and without a memory no later observation."""
    memory: Literal["none", "sega", "gru"] = "none"
    """What carries the past beyond the observations; a window is just a larger n_obs_steps."""
    memory_stride: int = 0
    """Ticks between two updates of the memory, in training and when driving; 0: `execute`, once a plan."""
    memory_width: int = 256
    memory_slots: int = 60
    """Tokens of SEGA's state."""
    memory_layers: int = 6
    """Layers of SEGA, cells of the GRU."""
    memory_heads: int = 8
    memory_gate: Gate = "attention"
    """attention: SEGA's own; none: always overwrite; mlp: a learned gate."""
    memory_keys: Keys = "before"
    """SEGA reads the other stream before (released code) or after (paper) that one's self-attention."""
    memory_frozen: bool = False
    """Leave the memory at its random initial weights (what the released transformer code does by mistake)."""
    crop: int = 0
    """Side [px] of the random (training) or centre (evaluation) crop of images; 0: none."""
    image_features: int = 64
    """Features an image is encoded to."""
    image_net: Backbone = "resnet18"
    """The image encoder; small is sized for CPUs."""
    image_head: Head = "spatial_softmax"
    obs_width: int = 0
    """Width of an MLP over each frame's features; 0: none (with SEGA: memory_width)."""
    goal_dropout: float = 0.1
    """How often the goal is hidden in training, so that classifier-free guidance works; without goal keys unused."""
    rtc_max_delay: int = 0
    """Training-time real-time chunking: up to so many first actions of a plan are given, not sampled (flow, diffusion)."""

    def __post_init__(self) -> None:
        if self.n_obs_steps < 1 or self.execute < 1:
            raise ValueError(f"n_obs_steps and execute must be at least 1, got {self.n_obs_steps} and {self.execute}")
        if self.history_stride < 1 or self.n_past_actions < -1 or self.memory_stride < 0:
            raise ValueError(
                f"want history_stride >= 1, n_past_actions >= -1 and memory_stride >= 0, "
                f"got {self.history_stride}, {self.n_past_actions} and {self.memory_stride}"
            )
        if not -1 <= self.past_loss <= self.n_past:
            raise ValueError(f"past_loss: want -1 (all) or 0 to {self.n_past}, the past tokens there are, got {self.past_loss}")
        if self.horizon < self.n_past + self.execute:
            raise ValueError(
                f"horizon {self.horizon} is too short: {self.n_past} past and {self.execute} executed tokens "
                f"need at least {self.n_past + self.execute}"
            )
        if self.history_mixed and (self.history_stride == 1 or self.n_obs_steps < 3):
            raise ValueError("history_mixed: wants history_stride above 1 and at least 3 observations")
        if self.rtc_max_delay and not self.real_time:
            raise ValueError(f"rtc_max_delay: policy '{self.name}' has no real-time chunking; leave it out")
        most = self.horizon - self.n_past - 1
        if not 0 <= self.rtc_max_delay <= most:
            raise ValueError(f"rtc_max_delay: want 0 to {most}, so that an action is left, got {self.rtc_max_delay}")
        self._check_memory()

    def _check_memory(self) -> None:
        """Raises ValueError where the memory's fields contradict each other, or say something of a memory that is not there."""
        if self.memory == "none":
            if self.memory_stride or self.memory_frozen:
                raise ValueError("memory_stride and memory_frozen are about a memory, and memory is none; leave them out")
            return
        if self.execute % self.update_every:
            raise ValueError(f"memory_stride: want a divisor of execute ({self.execute}), got {self.memory_stride}")
        if min(self.memory_width, self.memory_layers, self.memory_slots, self.memory_heads) < 1:
            raise ValueError("memory_width, memory_layers, memory_slots and memory_heads: want at least 1")
        if self.memory == "gru":
            if self.memory_gate != "attention" or self.memory_keys != "before":
                raise ValueError("memory_gate and memory_keys are SEGA's; a gru has none")
        elif self.memory_width % self.memory_heads or self.obs_width not in (0, self.memory_width):
            raise ValueError(
                f"sega: want memory_width ({self.memory_width}) a multiple of memory_heads ({self.memory_heads}) and obs_width "
                f"the same or 0, got {self.obs_width}"
            )

    @property
    def n_past(self) -> int:
        """How many action tokens lie before now."""
        return self.n_obs_steps - 1 if self.n_past_actions < 0 else self.n_past_actions

    @property
    def first_counted(self) -> int:
        """The first token h0 that the loss counts."""
        return 0 if self.past_loss < 0 else self.n_past - self.past_loss

    @property
    def layout(self) -> Layout:
        """Which ticks the tokens stand for."""
        return Layout(self.n_obs_steps, self.horizon, self.n_past, self.history_stride, self.history_mixed)

    @property
    def feature_width(self) -> int:
        """Width of the MLP over each frame's features; 0: none. SEGA reads tokens of its own width."""
        return self.obs_width or (self.memory_width if self.memory == "sega" else 0)

    @property
    def update_every(self) -> int:
        """Ticks between two updates of the memory."""
        return self.memory_stride or self.execute


@dataclass(frozen=True)
class Batch:
    """One training batch, normalised. obs: (batch, n_obs, ...); action: (batch, horizon, action); goal: (batch, ...).

    With a memory the rows are chains, slot by slot: row = slot * chain + k, and reset (slots, chain) says where an episode
    begins. Without `reset` every row begins one. group (batch,): which of the balanced groups a row is of, None: there are none.
    valid (batch, horizon, n): what the config's `valid_key` says of the action's rows, 1: seen; None: all were.
    """

    obs: Mapping[str, Tensor]
    action: Tensor
    goal: Mapping[str, Tensor]
    reset: Tensor | None = None
    group: Tensor | None = None
    valid: Tensor | None = None

    def __len__(self) -> int:
        return self.action.shape[0]


class Draws:
    """Random numbers for a loss. In rank r of n processes each draw is rows r*B..(r+1)*B of the draw for the global batch,
    so that n processes compute what one process computes on the whole batch.
    """

    def __init__(self, generator: torch.Generator, rank: int = 0, world: int = 1) -> None:
        self.generator, self.rank, self.world = generator, rank, world

    def _mine(self, whole: Tensor, rows: int) -> Tensor:
        return whole[self.rank * rows : (self.rank + 1) * rows]

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Returns standard normal numbers of `shape` (batch first)."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._mine(torch.randn(whole, generator=self.generator, device=self.generator.device), shape[0])

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Returns uniform numbers in [0, 1) of `shape` (batch first)."""
        whole = (shape[0] * self.world, *shape[1:])
        return self._mine(torch.rand(whole, generator=self.generator, device=self.generator.device), shape[0])

    def integers(self, high: int, rows: int) -> Tensor:
        """Returns integers in [0, high) of shape (rows,)."""
        whole = torch.randint(high, (rows * self.world,), generator=self.generator, device=self.generator.device)
        return self._mine(whole, rows)


class PolicyNet(nn.Module, ABC):
    """A policy's network: encode, remember, loss, sample. Batched, normalised; knows no robot and no file."""

    def __init__(self, config: PolicyConfig, spec: Spec) -> None:
        super().__init__()
        self.config = config
        self.action_dim = math.prod(spec.action.shape)
        self.goal_keys = tuple(spec.goal)
        self.encoder = ObsEncoder(
            {key: array.shape for key, array in spec.obs.items()},
            crop=(config.crop, config.crop) if config.crop else None,
            features=config.image_features,
            backbone=config.image_net,
            head=config.image_head,
            width_out=config.feature_width,
        )
        self.memory = make_memory(config, self.encoder.dim)
        goal_dim = sum(math.prod(array.shape) for array in spec.goal.values())
        context_dim = self.encoder.dim if self.memory is None else self.memory.context_dim
        self.action_weight: Tensor | None  # (action,), mean 1: how much each number counts in a squared error; None: alike
        self.register_buffer("action_weight", None, persistent=False)
        self.delays = Delays(config.rtc_max_delay, config.n_past, config.horizon)
        self.cond_dim = context_dim + (goal_dim + 1 if goal_dim else 0) + self.delays.most

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Returns features (batch, n_obs, feature) of observations (batch, n_obs, ...), or those a cache holds (EMBEDDING)."""
        return obs[EMBEDDING] if EMBEDDING in obs else self.encoder(obs)

    def remember(self, state: Tensor | None, features: Tensor, reset: Tensor) -> tuple[Tensor | None, Tensor]:
        """Returns (state, context) after one update; without a memory the state stays None and the context is the features."""
        if self.memory is None:
            return state, features
        return self.memory.step(self.memory.begin(len(features)) if state is None else state, features, reset)

    def remember_chain(self, state: Tensor | None, features: Tensor, reset: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """Returns (state, context) of a batch whose rows are chains (see `Batch`); the new state is cut off from them."""
        if self.memory is None:
            return None, features
        reset = torch.ones(len(features), 1, dtype=torch.bool, device=features.device) if reset is None else reset
        state = self.memory.begin(len(reset)) if state is None else state
        state, contexts = self.memory.unroll(state, features.unflatten(0, tuple(reset.shape)), reset)
        return state.detach(), contexts.flatten(0, 1)

    def with_goal(self, features: Tensor, goal: Mapping[str, Tensor], shown: Tensor) -> Tensor:
        """Appends the goal, zeroed where `shown` (batch,) is 0, and `shown` itself to features (batch, n_obs, feature)."""
        if not self.goal_keys:
            return features
        flat = torch.cat([goal[key].flatten(1) for key in self.goal_keys], dim=-1) * shown[:, None]
        flat = torch.cat([flat, shown[:, None]], dim=-1)
        return torch.cat([features, flat[:, None].expand(-1, features.shape[1], -1)], dim=-1)

    def training_context(self, batch: Batch, state: Any, rng: Draws) -> tuple[Tensor, Any]:
        """Returns the condition (batch, n_obs, cond) of a batch, its goals hidden at the rate of the config, and the state."""
        state, context = self.remember_chain(state, self.encode(batch.obs), batch.reset)
        if self.goal_keys:
            shown = (rng.uniform((len(batch),)) >= self.config.goal_dropout).to(context.dtype)
            context = self.with_goal(context, batch.goal, shown)
        return context, state

    def make_denoiser(self) -> Denoiser:
        """Returns the denoiser that the config names: (x, t, cond) -> (batch, horizon, action)."""
        c = self.config
        shape = dict(action_dim=self.action_dim, horizon=c.horizon, n_obs=c.n_obs_steps, cond_dim=self.cond_dim)
        if c.denoiser == "unet1d":
            return UNet1d(**shape, dims=c.dims)
        if c.denoiser == "transformer":
            masks = dict(causal=c.causal, cross_causal=c.memory == "none")  # a memory's tokens are all of the past
            ticks = dict(obs_ticks=c.layout.obs_ticks, action_ticks=c.layout.action_ticks)
            return Transformer(**shape, **masks, **ticks, width=c.width, layers=c.depth, heads=c.heads, dropout=c.dropout)
        return MLP(**shape, width=c.width, blocks=c.depth, dropout=c.dropout)

    def counted(self, tokens: Tensor) -> Tensor:
        """Returns the tokens (batch, horizon - h0, ...) of (batch, horizon, ...) that the loss counts."""
        return tokens[:, self.config.first_counted :]

    def give(self, cond: Tensor, rng: Draws) -> tuple[Tensor | None, Tensor]:
        """Returns which tokens (batch, horizon, 1) training gives away, and the condition (batch, n_obs, cond) that tells of it.

        They are the first d of the plan, d uniform in 0..rtc_max_delay; None, and nothing is drawn, where that is 0.
        """
        most = self.delays.most
        given = self.delays.given(rng.integers(most + 1, len(cond))) if most else None
        return given, self.delays.tell(cond, given)

    def told(self, context: Tensor, unguided: Tensor | None, given: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Returns both conditions of a sampler with what tells of the given tokens (..., horizon, 1; None: there are none)."""
        return self.delays.tell(context, given), None if unguided is None else self.delays.tell(unguided, given)

    def squared_error(self, predicted: Tensor, wanted: Tensor, given: Tensor | None, valid: Tensor | None = None) -> Tensor:
        """Returns the mean squared error over the tokens that the loss counts and that are not given.

        With given ones the divisor is how many are left on average, the same for every part of a batch. valid (batch, horizon,
        action): numbers that are 0 there add nothing; the divisor counts them, and so is the same for every part, too.
        """
        predicted, wanted = self.counted(predicted), self.counted(wanted)
        if self.action_weight is not None:
            root = self.action_weight.sqrt()
            predicted, wanted = predicted * root, wanted * root
        if given is None and valid is None:
            return nn.functional.mse_loss(predicted, wanted)
        wrong = (predicted - wanted).square()
        wrong = wrong if given is None else wrong.masked_fill(self.counted(given), 0.0)
        wrong = wrong if valid is None else wrong * self.counted(valid)
        left = wrong.shape[1] - self.delays.most / 2
        return wrong.sum() / (len(wrong) * left * self.action_dim)

    def forward(self, batch: Batch, state: Any, rng: Draws) -> tuple[Tensor, Any]:
        """The loss, under the name that DistributedDataParallel and torch.compile wrap."""
        return self.loss(batch, state, rng=rng)

    @abstractmethod
    def loss(self, batch: Batch, state: Any, *, rng: Draws) -> tuple[Tensor, Any]:
        """Returns the mean training loss of a batch and the memory after it."""

    @abstractmethod
    def sample(self, context: Tensor, noise: Tensor, *, guidance: float = 1.0, unguided: Tensor | None = None) -> Tensor:
        """Returns actions (batch, horizon, action) for a condition (batch, n_obs, cond).

        noise: (noise_draws, batch, horizon, action), all the randomness there is. guidance, with `unguided` the
        condition without its goal: classifier-free guidance (Ho & Salimans 2022), 1 = plain conditional.
        """

    def prepare(self, windows: Windows, normalizer: Normalizer, seed: int) -> None:
        """Learns, before the first step of a training, what the training itself leaves alone; most policies have nothing."""

    def noise_draws(self) -> int:
        """Returns how many noise tensors `sample` uses."""
        return 1

    def sample_guided(
        self, context: Tensor, noise: Tensor, guide: Guide, *, guidance: float = 1.0, unguided: Tensor | None = None
    ) -> Tensor:
        """Returns what `sample` returns, held to the guide's actions. BadInput where `why_no_prefix` says why not."""
        raise BadInput(self.why_no_prefix())

    def why_no_prefix(self) -> str:
        """Returns why a plan cannot be held to a prefix, in one line; empty where it can."""
        return f"policy '{self.config.name}' takes no prefix: it has no real-time chunking"


def make_memory(config: PolicyConfig, dim: int) -> Memory | None:
    """Returns the memory that the config names for features of width `dim`; None where there is none."""
    if config.memory == "none":
        return None
    memory: Memory
    if config.memory == "gru":
        memory = GruMemory(dim, config.memory_width, config.memory_layers)
    else:
        shape = (config.memory_width, config.memory_slots, config.memory_layers, config.memory_heads)
        memory = SegaMemory(*shape, config.memory_gate, config.memory_keys)
    return memory.requires_grad_(not config.memory_frozen)
