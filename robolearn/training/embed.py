"""Long-context training in three stages: a short-context encoder, its embeddings of every frame, a head on these alone.

Torne et al. (arXiv 2505.09561), multistage training. The encoder comes frozen from another run, with that run's normalizer; its
trained weights, not their average, as in the release. Every frame is encoded once, centre crop, and kept beside the dataset
(`data/embeddings.py`); when driving, pictures go through the same encoder, which is part of the head's checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from robolearn.core import Spec
from robolearn.data import embeddings
from robolearn.data.images import hold_images
from robolearn.data.normalize import Normalizer
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import load_key
from robolearn.errors import ConfigError
from robolearn.policies._base import EMBEDDING, PolicyConfig, PolicyNet
from robolearn.training import checkpoint
from robolearn.training.settings import TrainConfig

_ROWS = 256  # frames encoded at once
_FAR = 1.5  # a normalised action beyond this is of another set
_SAME = ("crop", "image_net", "image_head", "image_features")  # that make an encoder what it is


@dataclass(frozen=True)
class Frozen:
    """An encoder that no longer learns: its weights by name, the normalizer it was trained with, and where it came from."""

    weights: dict[str, Tensor]
    normalizer: Normalizer
    folder: Path
    policy: PolicyConfig | None = None  # of the run it comes from
    spec: Spec | None = None

    @classmethod
    def load(cls, run: str | Path) -> Frozen:
        """Returns the encoder of a run or checkpoint folder."""
        folder = checkpoint.resolve(run)
        kept = checkpoint.read_tensors(folder / "state.safetensors")
        mine = {key.removeprefix("net.encoder."): value for key, value in kept.items() if key.startswith("net.encoder.")}
        if not mine:
            raise ConfigError(f"encoder {folder}: its encoder has no weights: observations without pictures need no embedding")
        normalizer = Normalizer.from_json(json.loads((folder / "stats.json").read_text()))
        spec = Spec.from_json(json.loads((folder / "spec.json").read_text()))
        return cls(mine, normalizer, folder, checkpoint.read_config(folder).policy, spec)

    @property
    def sha256(self) -> str:
        """The fingerprint of the weights."""
        digest = hashlib.sha256()
        for name in sorted(self.weights):
            digest.update(name.encode() + self.weights[name].contiguous().numpy().tobytes())
        return digest.hexdigest()

    @property
    def normalizer_sha256(self) -> str:
        """The fingerprint of the normalizer."""
        return hashlib.sha256(json.dumps(self.normalizer.to_json(), sort_keys=True).encode()).hexdigest()

    def is_in(self, net: PolicyNet) -> bool:
        """Returns whether a net's encoder has these weights."""
        own = net.encoder.state_dict()
        return all(torch.equal(own[name].cpu(), value) for name, value in self.weights.items())

    def require(self, policy: PolicyConfig, spec: Spec) -> None:
        """Raises ConfigError unless a head with this config and spec reads and gives what the encoder's run did."""
        if self.policy is None or self.spec is None:
            return
        pairs = {name: (getattr(self.policy, name), getattr(policy, name)) for name in _SAME}
        pairs |= {
            "obs": (tuple(self.spec.obs), tuple(spec.obs)),
            "the action's shape": (self.spec.action.shape, spec.action.shape),
            "obs_width": (self.policy.feature_width, policy.feature_width),
        }
        for name, (there, here) in pairs.items():
            if there != here:
                raise ConfigError(f"encoder {self.folder}: was trained with {name} {there}, this policy has {here}; use the same")

    def install(self, net: PolicyNet) -> None:
        """Puts the weights into a net's encoder and freezes them; ConfigError where the encoder has another shape."""
        own = {name: tuple(value.shape) for name, value in net.encoder.state_dict().items()}
        if differ := sorted(own.keys() ^ self.weights.keys()):
            raise ConfigError(
                f"encoder {self.folder}: another encoder than this policy's ('{differ[0]}' is only in one of them); "
                "give both the same obs, crop, image_net, image_head, image_features and obs_width"
            )
        for name, shape in own.items():
            if tuple(self.weights[name].shape) != shape:
                raise ConfigError(f"encoder {self.folder}: '{name}' is {tuple(self.weights[name].shape)}, want {shape}")
        net.encoder.load_state_dict(self.weights)
        net.encoder.requires_grad_(False)


def frames(cfg: TrainConfig, frozen: Frozen, dataset: EpisodeSet, spec: Spec, device: torch.device) -> dict[str, np.ndarray]:
    """Returns the embeddings (variants, steps, dim) of a dataset's frames by their key, encoded now where they are not there yet.

    spec: the observations that the encoder reads. Raises DatasetError where the cache is of another encoder, normalizer or
    state of the set, unless the config says to rebuild it.
    """
    if unknown := [key for key in (*spec.obs, *spec.goal, "action") if key not in dataset.keys]:
        raise ConfigError(f"{dataset.path}: no key '{unknown[0]}', which encoder {frozen.folder} reads")
    frozen.require(cfg.policy, spec)
    _require_range(frozen, dataset)
    net = checkpoint.make_net(cfg, spec).to(device)
    frozen.install(net)
    facts = embeddings.Facts(
        encoder_sha256=frozen.sha256,
        normalizer_sha256=frozen.normalizer_sha256,
        obs=tuple(spec.obs),
        crop=cfg.policy.crop,
        variants=max(1, cfg.cache_crops),
        dim=net.encoder.dim,
    )
    path = embeddings.path_of(dataset.path, facts.key)
    if cfg.rebuild_cache or not path.exists():
        embeddings.write(path, dataset, facts, encode(cfg, frozen, net, dataset, spec))
    return {EMBEDDING: embeddings.read(path, dataset, facts)}


def _require_range(frozen: Frozen, dataset: EpisodeSet) -> None:
    """Raises ConfigError where the set's actions lie far outside of what the encoder's normalizer was fitted on."""
    largest = float(np.abs(frozen.normalizer.normalize("action", dataset.read("action"))).max())
    if frozen.normalizer.modes["action"] == "minmax" and largest > _FAR:
        raise ConfigError(
            f"encoder {frozen.folder}: its normalizer makes actions up to {largest:.1f} of those of {dataset.path}, "
            "want -1 to 1; train the encoder on this set"
        )


def encode(cfg: TrainConfig, frozen: Frozen, net: PolicyNet, dataset: EpisodeSet, spec: Spec) -> Iterator[np.ndarray]:
    """Yields embeddings (variants, rows, dim) of the dataset's frames in order, a block at a time."""
    device = next(net.parameters()).device
    hold_images(dataset, tuple(spec.obs), cfg.dataset.cache)
    arrays = {key: load_key(dataset, key) for key in spec.obs}
    crops = cfg.cache_crops
    generator_state = torch.get_rng_state()
    torch.manual_seed(cfg.seed)
    net.encoder.train(crops > 0)
    for module in net.encoder.fuse.modules():
        module.eval()  # a crop is random, a dropped feature is not wanted
    try:
        for begin in tqdm(range(0, dataset.n_steps, _ROWS), desc="encode", unit="block", disable=None):
            rows = slice(begin, min(begin + _ROWS, dataset.n_steps))
            obs = {key: _scaled(frozen.normalizer, key, values[rows]).to(device) for key, values in arrays.items()}
            with torch.inference_mode():
                made = [net.encoder(obs)[:, 0].float().cpu().numpy() for _ in range(max(1, crops))]
            yield np.stack(made)
    finally:
        torch.set_rng_state(generator_state)
        net.encoder.eval()


def _scaled(normalizer: Normalizer, key: str, values: np.ndarray) -> Tensor:
    """Returns rows (n, 1, ...) as the encoder reads them."""
    rows = np.array(values[:, None])  # a copy: pictures come from a read-only map
    return torch.from_numpy(normalizer.normalize(key, rows) if key in normalizer.scale else rows)
