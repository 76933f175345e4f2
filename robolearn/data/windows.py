"""Training samples: windows of consecutive steps of one episode, cut by index arithmetic, edges repeated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from robolearn.core import ArraySpec
from robolearn.data.images import is_image, load_frames
from robolearn.data.layout import Layout
from robolearn.data.store import EpisodeSet, acts
from robolearn.errors import DatasetError, nearest

_NOTHING: Mapping[str, np.ndarray] = MappingProxyType({})
Mirror = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]  # rows by key -> their mirror images by key


def split_episodes(n: int, val_ratio: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns (train, validation) episode indices, each rising; at least one of each where val_ratio > 0 and n > 1."""
    if not 0.0 <= val_ratio < 1.0:
        raise DatasetError(f"val_ratio: want 0 <= share < 1, got {val_ratio}")
    n_val = 0 if val_ratio == 0.0 or n < 2 else min(max(1, round(n * val_ratio)), n - 1)
    chosen = np.random.default_rng(seed).permutation(n)[:n_val]
    is_val = np.zeros(n, bool)
    is_val[chosen] = True
    return np.flatnonzero(~is_val), np.flatnonzero(is_val)


class Windows:
    """All windows of a set: vectors in memory, images in a memory map, nothing decoded per sample.

    A window stands at time t of an episode. Its observations are those of t-(n_obs_steps-1) ... t, token h of its action
    is time t-(n_obs_steps-1)+h; a `layout` says other ticks. t runs from 0 until `pad_after` tokens lie beyond the episode's
    end. keys: ArraySpec of every key as `batch` gives it (vectors float32, images uint8). mirror: every episode stands there
    a second time, as its mirror image; the second half of the windows is theirs. frames: rows (variants, steps, n) of keys
    that the set does not hold; which variant a window shows follows from its number and `batch`'s draw. valid: a key (steps, n)
    of the set that says which numbers of an action were seen, cut as actions are; "": none.
    """

    def __init__(
        self,
        dataset: EpisodeSet,
        obs: Sequence[str],
        n_obs_steps: int = 2,
        horizon: int = 16,
        pad_after: int = 7,
        episodes: Sequence[int] | np.ndarray | None = None,
        cache: Path | None = None,
        mirror: Mirror | None = None,
        layout: Layout | None = None,
        frames: Mapping[str, np.ndarray] = _NOTHING,
        valid: str = "",
    ) -> None:
        if layout is not None:
            n_obs_steps, horizon = layout.n_obs, layout.horizon
        if n_obs_steps < 1 or horizon < 1 or (layout is None and horizon < n_obs_steps) or not 0 <= pad_after < horizon:
            raise DatasetError(
                f"windows: want 1 <= n_obs_steps <= horizon and 0 <= pad_after < horizon, "
                f"got n_obs_steps {n_obs_steps}, horizon {horizon}, pad_after {pad_after}"
            )
        self.layout = layout or Layout(n_obs_steps, horizon, n_obs_steps - 1)
        stored = [key for key in obs if key not in frames]
        if dataset.spec is not None and not acts(dataset.spec):
            raise DatasetError(
                f"{dataset.path}: want a key 'action' to learn from, got a set without actions (what a person did in a video); "
                f"`robolearn tracks pack` makes a training set of it"
            )
        for key in (*stored, "action"):
            if key not in dataset.keys:
                raise DatasetError(f"{dataset.path}: no key '{key}'{nearest(key, dataset.keys)}")
        self.n_obs_steps, self.horizon, self.pad_after = n_obs_steps, horizon, pad_after
        self.obs_keys = tuple(obs)
        self._frames = dict(frames)
        self._obs_ticks, self._action_ticks = np.array(self.layout.obs_ticks), np.array(self.layout.action_ticks)
        self.episodes = np.arange(dataset.n_episodes) if episodes is None else np.asarray(episodes, np.int64)
        self._arrays = {key: load_key(dataset, key, cache) for key in (*stored, "action")}
        for key in (*stored, "action"):
            _require_finite(dataset, key, self._arrays[key], self.episodes)
        self.keys: dict[str, ArraySpec] = {
            key: ArraySpec(
                tuple(a.shape[1:]), str(a.dtype), dataset.keys[key].names, dataset.keys[key].unit, dataset.keys[key].frame
            )
            for key, a in self._arrays.items()
        }
        self._dataset = dataset
        self.valid = load_key(dataset, valid, cache) if valid else None
        self._now, self._low, self._high, self._episode = self._index(dataset)
        self._n_recorded = len(self._arrays["action"])
        if mirror is not None:
            self._add_mirrored(mirror)

    def _index(self, dataset: EpisodeSet) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Returns per window: the row it stands at, the episode's bounds and index."""
        for episode in self.episodes[(self.episodes < 0) | (self.episodes >= dataset.n_episodes)]:
            dataset.span(int(episode))  # says what is wrong with it
        ends = np.concatenate([[0], dataset.episode_ends]).astype(np.int64)
        low, high = ends[self.episodes], ends[self.episodes + 1]
        last = np.maximum(low, high - self.layout.n_future + self.pad_after)
        count = np.minimum(last, high - 1) - low + 1
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)  # of a window in its episode
        lows, highs, episodes = (np.repeat(values, count) for values in (low, high, self.episodes))
        return lows + place, lows, highs, episodes

    def _add_mirrored(self, mirror: Mirror) -> None:
        images = [key for key, spec in self.keys.items() if spec.is_image]
        if self.valid is not None:
            raise DatasetError("mirror: want actions that were all seen, got a set that says which were not")
        if images:
            raise DatasetError(f"mirror: want vectors only, '{images[0]}' is an image")
        twins, rows = mirror(self._arrays), self._n_recorded
        if lost := [key for key in self._arrays if key not in twins]:
            raise DatasetError(f"mirror: the task cannot mirror '{lost[0]}' (it can: {', '.join(twins)})")
        self._arrays = {key: np.concatenate([a, twins[key].astype(a.dtype)]) for key, a in self._arrays.items()}
        for name in ("_now", "_low", "_high"):
            setattr(self, name, np.concatenate([getattr(self, name), getattr(self, name) + rows]))
        self._episode = np.tile(self._episode, 2)

    def mirrored_rows(self, key: str) -> np.ndarray:
        """Returns the mirror images (n, ...) of one key's rows, in all episodes of these windows; none without `mirror`."""
        spans = np.unique(np.stack([self._low, self._high], axis=1), axis=0)
        spans = spans[spans[:, 0] >= self._n_recorded]
        return np.concatenate([self._arrays[key][:0], *(self._arrays[key][low:high] for low, high in spans)])

    def __len__(self) -> int:
        """Returns the number of windows."""
        return len(self._now)

    def episode_of(self, indices: np.ndarray) -> np.ndarray:
        """Returns the episode index of each window."""
        return self._episode[indices]

    def fact(self, name: str) -> np.ndarray:
        """Returns a per-episode fact of each window (windows, ...); DatasetError where the set has no such fact."""
        values = self._dataset.episode_field(name)
        if values is None:
            raise DatasetError(f"{self._dataset.path}: no fact '{name}'{nearest(name, self._dataset.facts())}")
        return values[self._episode]

    def actions(self, indices: np.ndarray) -> np.ndarray:
        """Returns the action (B, horizon, n) of the windows `indices`, without their observations."""
        return np.take(self._arrays["action"], self._inside(np.asarray(indices)), axis=0)

    def _inside(self, indices: np.ndarray) -> np.ndarray:
        """Returns the row (B, horizon) of every action token, the nearest of the episode where it lies beside it."""
        rows = self._now[indices, None] + self._action_ticks
        return np.clip(rows, self._low[indices, None], self._high[indices, None] - 1)

    def place_of(self, indices: np.ndarray) -> np.ndarray:
        """Returns the tick in its episode at which each window stands."""
        return self._now[indices] - self._low[indices]

    def chains(self) -> list[tuple[int, int]]:
        """Returns (first, count) of every episode's windows, which stand at consecutive ticks from 0 on."""
        begins = np.flatnonzero(self._now == self._low)
        return list(zip(begins.tolist(), np.diff(np.append(begins, len(self))).tolist(), strict=True))

    def batch(self, indices: np.ndarray, draw: int = 0) -> dict:
        """Returns obs {key: (B, n_obs_steps, ...)}, action (B, horizon, n) and is_pad (B, horizon) of the windows `indices`, and
        where the set says it, valid (B, horizon, n).

        draw: chooses, with the window, which variant of `frames` is shown.
        """
        indices = np.asarray(indices)
        low, high, now = self._low[indices, None], self._high[indices, None], self._now[indices, None]
        rows, inside = now + self._action_ticks, self._inside(indices)
        seen = np.clip(now + self._obs_ticks, low, high - 1)
        obs = {key: np.take(self._arrays[key], seen, axis=0) for key in self.obs_keys if key not in self._frames}
        for key, frames in self._frames.items():
            obs[key] = frames[_variant(indices, draw, len(frames))[:, None], seen]
        seen_rows = {} if self.valid is None else {"valid": np.take(self.valid, inside, axis=0)}
        return {
            "obs": {key: obs[key] for key in self.obs_keys},
            "action": np.take(self._arrays["action"], inside, axis=0),
            "is_pad": inside != rows,
            **seen_rows,
        }

    def bytes_in_memory(self) -> int:
        """Returns how many bytes of memory the arrays take (memory maps count nothing)."""
        return sum(a.nbytes for a in self._arrays.values() if not isinstance(a, np.memmap))


def _variant(indices: np.ndarray, draw: int, n: int) -> np.ndarray:
    """Returns a number in [0, n) a window, as good as random, the same for the same window and draw."""
    mixed = (indices.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ (np.uint64(draw * 0xBF58476D1CE4E5B9 % 2**64))
    return ((mixed ^ (mixed >> np.uint64(31))) * np.uint64(0x94D049BB133111EB) >> np.uint64(33)).astype(np.int64) % n


def load_key(dataset: EpisodeSet, key: str, cache: Path | None = None) -> np.ndarray:
    """Returns a whole key, read once per set: images from the frame cache, vectors as float32."""
    held = dataset.held.get(key)
    if held is None or len(held) != dataset.n_steps:
        held = load_frames(dataset, key, cache) if is_image(dataset.keys[key]) else _read_vectors(dataset, key)
        dataset.held[key] = held
    return held


def _read_vectors(dataset: EpisodeSet, key: str) -> np.ndarray:
    with np.errstate(over="ignore"):  # a number beyond float32 becomes infinite and is refused where it is used
        return np.ascontiguousarray(dataset.read(key), dtype=np.float32)


def _require_finite(dataset: EpisodeSet, key: str, values: np.ndarray, episodes: np.ndarray) -> None:
    """Raises DatasetError where vectors of one of these episodes are not finite; the others may hold what they like."""
    if values.dtype.kind != "f":
        return
    rows = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(1))
    owners = np.searchsorted(dataset.episode_ends, rows, side="right")
    for row, episode in zip(rows[np.isin(owners, episodes)].tolist(), owners[np.isin(owners, episodes)].tolist(), strict=True):
        raise DatasetError(
            f"{dataset.path}: {key}: NaN or infinity in episode {episode}, row {row - dataset.span(episode)[0]} "
            f"(row {row} of the set); `robolearn data check {dataset.path}` lists all"
        )
