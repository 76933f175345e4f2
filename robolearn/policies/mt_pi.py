"""MT-pi: a policy that predicts where points of the hand will move in a picture, for hands of people and of robots alike.

Ren et al., "Motion Tracks" (arXiv 2501.06994). It reads one picture and the points' places in it now, and gives their places at
the next rows, as steps from row to row; two calibrated views make a trajectory of the hand of them (`_tracked.py`). Encoder,
denoiser and objective are chosen as for every policy; the objective's network is that of `diffusion.py` or `flow.py`, which
here denoises steps. With `joint` both views are one sample, so that the views of a plan cannot disagree on what is to be done.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.core import ArraySpec, Spec
from robolearn.data.normalize import Normalizer
from robolearn.data.windows import Windows
from robolearn.errors import ConfigError, SpecMismatch
from robolearn.nets import keypoints
from robolearn.nets.cover import covered
from robolearn.nets.photometric import augmented
from robolearn.policies import diffusion, flow
from robolearn.policies._base import Batch, Draws, PolicyConfig, PolicyNet
from robolearn.video.codec import decode_deltas, encode_deltas
from robolearn.video.points import LAYOUT

TRACK = "track"  # the observation that says where the points are now
TRACK_SIZE = 2 * len(LAYOUT)  # numbers of one view's points
_ROWS = 4096  # windows that the steps' size is measured on


@dataclass(frozen=True)
class Config(PolicyConfig):
    """MT-pi."""

    valid_key: ClassVar[str] = "valid"  # (rows, views): where a view saw the points
    name: str = "mt_pi"
    obs: tuple[str, ...] = ("image", TRACK)
    n_obs_steps: int = 1
    denoiser: Literal["mlp", "unet1d", "transformer"] = "unet1d"
    objective: Literal["ddpm", "flow"] = "ddpm"
    """What is learnt: the noise (or sample, or v) of a diffusion, or the velocity of a flow."""
    prediction: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    train_steps: int = 100
    sampler: Literal["ddpm", "ddim", "dpm_solver", "euler", "midpoint", "heun"] = "ddim"
    """The first three are a diffusion's, the others a flow's; may be changed when a checkpoint is loaded."""
    steps: int = 16
    """Denoising steps of one plan; may be changed when a checkpoint is loaded."""
    scale_steps: bool = False
    """Divide every step by the largest one of the training data; the paper leaves them small beside the noise."""
    image_mlp: bool = False
    """The paper's MLP over the picture's features: E to E/2, LayerNorm, ReLU, to E/4."""
    krn: Literal["none", "corrected", "official"] = "none"
    """Pass the state condition through a keypoint retargeting net, fitted to the human tracks before the training begins."""
    krn_steps: int = 5000
    kl_weight: float = 0.0
    """Weight of the KL divergence between the picture features of the two embodiments of a balanced batch."""
    moments_weight: float = 0.0
    """Weight of the squared differences of their means and standard deviations."""
    augment: bool = False
    """Photometric augmentation of the pictures (`nets/photometric.py`)."""
    cover: bool = False
    """Fill hand and gripper in the pictures with one colour, where the points say they are (`nets/cover.py`)."""
    views: tuple[str, ...] = ("left", "right")
    """The views that a plan is made of: those of the body's observations VIEW_image."""
    joint: bool = False
    """One network sees and predicts all views together; it reads VIEW_image of each instead of `image`."""
    reprojection_gate_px: float = 5.0
    """A plan whose views disagree by more [px of a picture 640 px wide] is not followed: the hand holds still."""
    outlier_gate_px: float = 100.0
    """A point predicted farther than this from where it is now is replaced by interpolation."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory != "none" or self.obs_width or self.rtc_max_delay:
            raise ValueError("mt_pi: memory, obs_width and rtc_max_delay are not for steps of tracks; leave them out")
        if self.crop:
            raise ValueError("mt_pi: a crop moves the picture and leaves the points; leave crop at 0")
        if self.horizon < self.n_past + self.execute + 1:
            raise ValueError(f"horizon {self.horizon}: want one row of now, and {self.execute} executed ones after it")
        if len(self.views) < 2 or len(set(self.views)) < len(self.views):
            raise ValueError(f"views: want two or more different ones to triangulate from, got {', '.join(self.views)}")
        if min(self.kl_weight, self.moments_weight, self.krn_steps - 1) < 0:
            raise ValueError("want kl_weight >= 0, moments_weight >= 0 and krn_steps >= 1")
        if self.cover and (missing := [key for key in (*self.pictures, TRACK) if key not in self.obs]):
            wanted = ", ".join((*self.pictures, TRACK))
            raise ValueError(f"cover: want obs with {wanted}, got {', '.join(self.obs)} without {', '.join(missing)}")
        self.inner()

    @property
    def pictures(self) -> tuple[str, ...]:
        """The observations that are pictures of a view: that of the sample's one view, or with `joint` one a view."""
        return tuple(f"{view}_image" for view in self.views) if self.joint else ("image",)

    def inner(self) -> PolicyConfig:
        """Returns the config of the objective's network; ValueError where the objective has no such sampler."""
        shared = {f.name: getattr(self, f.name) for f in dataclasses.fields(PolicyConfig) if f.name not in ("name", "obs")}
        if (self.sampler in ("euler", "midpoint", "heun")) != (self.objective == "flow"):
            raise ValueError(f"sampler: objective '{self.objective}' has no sampler '{self.sampler}'")
        if self.objective == "flow":
            return flow.Config(**shared, sampler=self.sampler, steps=self.steps)  # type: ignore[arg-type]
        own = dict(prediction=self.prediction, train_steps=self.train_steps, sampler=self.sampler, steps=self.steps)
        return diffusion.Config(**shared, **own)  # type: ignore[arg-type]


class Net(PolicyNet):
    """Observation encoder, keypoint retargeting, and the objective's network over the steps of tracks."""

    config: Config

    def __init__(self, config: Config, spec: Spec) -> None:
        super().__init__(config, spec)
        if TRACK not in spec.obs:
            raise SpecMismatch(f"mt_pi reads where the points are from observation '{TRACK}', got {', '.join(spec.obs)}")
        sizes = {key: math.prod(spec.obs[key].shape) for key in self.encoder.low_keys}
        self.n_tracks, self.n_low = sizes[TRACK], sum(sizes.values())
        if self.action_dim != self.n_tracks + 1:
            raise SpecMismatch(
                f"mt_pi: want an action of the track's {self.n_tracks} numbers and the gripper's, got {self.action_dim}; "
                "`robolearn tracks pack` makes such a set"
            )
        before = list(sizes)[: list(sizes).index(TRACK)]
        first = sum(sizes[key] for key in before)
        self._track = slice(first, first + self.n_tracks)
        self.side = next((array.shape[1] for array in spec.obs.values() if array.is_image), keypoints.OF_SIDE)
        seen = self.encoder.dim - self.n_low
        self.n_seen = seen
        self.look: nn.Module = nn.Identity()
        if config.image_mlp and seen:
            layers = nn.Linear(seen, seen // 2), nn.LayerNorm(seen // 2), nn.ReLU(), nn.Linear(seen // 2, seen // 4)
            self.look, seen = nn.Sequential(*layers), seen // 4
        self.retarget: nn.Module = nn.Identity()
        if config.krn != "none":
            self.retarget = keypoints.Keypoints(self.n_tracks).requires_grad_(False)
        dim = self.cond_dim - self.n_seen + seen
        make = {"ddpm": diffusion.Net, "flow": flow.Net}[config.objective]
        inner = Spec({"cond": ArraySpec((dim,))}, spec.action, spec.hz)
        self.inner: PolicyNet = make(config.inner(), inner)  # type: ignore[arg-type]
        share = torch.full((self.action_dim,), 0.5 * self.action_dim / self.n_tracks)
        share[self.n_tracks :] = 0.5 * self.action_dim  # tracks and grasp count half each
        self.inner.action_weight = share
        self.register_buffer("step_scale", torch.ones(self.n_tracks))
        if config.cover:  # what makes pixels of normalised points
            self.register_buffer("track_scale", torch.ones(self.n_tracks))
            self.register_buffer("track_offset", torch.zeros(self.n_tracks))

    def prepare(self, windows: Windows, normalizer: Normalizer, seed: int) -> None:
        """Measures the steps' size, keeps what a pixel is, fits the keypoint retargeting net: where the config asks for it."""
        if windows.valid is not None and windows.valid.shape[1:] not in ((1,), (self.n_tracks // TRACK_SIZE,)):
            raise SpecMismatch(
                f"mt_pi: want key '{self.config.valid_key}' as ({self.n_tracks // TRACK_SIZE},), a number a view, "
                f"got {windows.valid.shape[1:]}; `robolearn tracks pack` makes such a set"
            )
        if self.config.cover:
            self.track_scale.copy_(torch.from_numpy(normalizer.scale[TRACK]))
            self.track_offset.copy_(torch.from_numpy(normalizer.offset[TRACK]))
        every = np.linspace(0, len(windows) - 1, min(_ROWS, len(windows))).round().astype(np.int64)
        if self.config.scale_steps:
            actions = torch.from_numpy(normalizer.normalize("action", windows.actions(every)))
            largest = encode_deltas(actions, self.n_tracks)[..., : self.n_tracks].abs().amax((0, 1))
            self.step_scale.copy_(torch.where(largest > 0, largest, 1.0))
        if self.config.krn != "none":
            human = np.flatnonzero(windows.fact("embodiment") == "human")
            if not len(human):
                raise ConfigError("mt_pi: krn learns from human tracks, and there are none to train on; leave krn at none")
            self._fit_retarget(normalizer.normalize("action", windows.actions(human))[:, self.config.n_past], normalizer, seed)

    def _fit_retarget(self, rows: np.ndarray, normalizer: Normalizer, seed: int) -> None:
        scale, offset = (torch.from_numpy(part["action"][: self.n_tracks]) for part in (normalizer.scale, normalizer.offset))

        def draw(count: int, rng: torch.Generator) -> Tensor:
            return keypoints.noise(count, scale, offset, self.side, rng, self.config.krn == "official")

        device = self.step_scale.device
        net = keypoints.Keypoints(self.n_tracks)
        net.load_state_dict({name: value.cpu() for name, value in self.retarget.state_dict().items()})
        keypoints.fit(net, torch.from_numpy(rows[:, : self.n_tracks]), draw, self.config.krn_steps, seed)
        self.retarget.load_state_dict({name: value.to(device) for name, value in net.state_dict().items()})

    def encode(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Returns features of observations, hand and gripper covered in their pictures where the config says so."""
        return super().encode(self._covered(obs) if self.config.cover else obs)

    def _covered(self, obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        pixels = (obs[TRACK].flatten(2) - self.track_offset) / self.track_scale
        each = pixels.unflatten(-1, (-1, len(LAYOUT), 2)).unbind(2)  # one a view
        return {**obs, **{key: covered(obs[key], points) for key, points in zip(self.config.pictures, each, strict=True)}}

    def loss(self, batch: Batch, state: Any, *, rng: Draws) -> tuple[Tensor, Any]:
        """0.5 * (error of the steps + error of the grasp) of the objective, and the alignment of the embodiments."""
        if self.training and self.config.augment:
            obs = {key: augmented(value) if value.dtype == torch.uint8 else value for key, value in batch.obs.items()}
            batch = dataclasses.replace(batch, obs=obs)
        context, state = self.training_context(batch, state, rng)
        cond, _ = self._condition(context)
        valid = None if batch.valid is None else self.seen_steps(batch.valid)
        loss, _ = self.inner.loss(Batch({"cond": cond}, self.steps_of(batch.action), {}, valid=valid), None, rng=rng)
        return loss + self._alignment(cond, batch.group), state

    def sample(self, context: Tensor, noise: Tensor, *, guidance: float = 1.0, unguided: Tensor | None = None) -> Tensor:
        """Samples steps and adds them up from where the points are now."""
        cond, now = self._condition(context)
        without = None if unguided is None else self._condition(unguided)[0]
        return self.tracks_of(self.inner.sample(cond, noise, guidance=guidance, unguided=without), now)

    def noise_draws(self) -> int:
        """As many as the objective's sampler."""
        return self.inner.noise_draws()

    def steps_of(self, action: Tensor) -> Tensor:
        """Returns what is denoised (batch, horizon, action): steps of the tracks of normalised actions, the grasp as it is."""
        steps = encode_deltas(action, self.n_tracks)
        return torch.cat((steps[..., : self.n_tracks] / self.step_scale, steps[..., self.n_tracks :]), dim=-1)

    def seen_steps(self, valid: Tensor) -> Tensor:
        """Returns which steps (batch, horizon, action) count, 1 or 0, of where each view saw the points (batch, horizon, view).

        A step counts where the view saw both of its ends: what was filled in between detections is nobody's motion. The first
        row's step is 0 by definition, and the grasp is not seen by one view alone: both count always.
        """
        both = torch.ones_like(valid)
        both[:, 1:] = valid[:, 1:] * valid[:, :-1]
        points = both.repeat_interleave(self.n_tracks // valid.shape[-1], dim=-1)
        return torch.cat((points, torch.ones_like(points[..., :1])), dim=-1)

    def tracks_of(self, steps: Tensor, now: Tensor) -> Tensor:
        """Returns normalised actions (batch, horizon, action) whose tracks are at `now` (batch, n) in the row of now."""
        moved = steps[..., : self.n_tracks] * self.step_scale
        start = now - moved[:, : self.config.n_past + 1].sum(1)
        return decode_deltas(torch.cat((moved, steps[..., self.n_tracks :]), dim=-1), start)

    def _condition(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Returns what the denoiser is told (batch, n_obs, cond) and where the points are now (batch, n), both normalised."""
        low, seen, rest = context.split((self.n_low, self.n_seen, context.shape[-1] - self.n_low - self.n_seen), dim=-1)
        track = low[..., self._track]
        others = low[..., : self._track.start], low[..., self._track.stop :]
        return torch.cat((self.look(seen), self.retarget(track), *others, rest), dim=-1), track[:, -1]

    def _alignment(self, cond: Tensor, group: Tensor | None) -> Tensor | float:
        """Returns the weighted distance of the two embodiments' picture features, by their statistics over the batch."""
        c = self.config
        if not (c.kl_weight or c.moments_weight) or (group is None and not self.training):
            return 0.0
        if group is None:
            raise ConfigError("mt_pi: kl_weight and moments_weight compare embodiments; give dataset.balance embodiment")
        seen = cond[..., : cond.shape[-1] - (self.cond_dim - self.n_seen)].flatten(1)
        one, two = seen[group == 0], seen[group == 1]
        mean = one.mean(0) - two.mean(0)
        var = one.var(0, unbiased=False) + 1e-6, two.var(0, unbiased=False) + 1e-6
        kl = 0.5 * ((var[0] + mean.square()) / var[1] - 1 + (var[1] / var[0]).log())
        moments = mean.square() + (var[0].sqrt() - var[1].sqrt()).square()
        return c.kl_weight * kl.mean() + c.moments_weight * moments.mean()
