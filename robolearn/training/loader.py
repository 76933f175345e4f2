"""Batches of windows for ever, in an order that depends on seed and position only: exact to resume, equal for any `workers`.

The workers are threads. Cutting a batch is index arithmetic and one copy per key, during which numpy releases the
interpreter, so threads overlap it with training and need no second copy of the set, no pickling and no fork.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from robolearn.data.windows import Windows
from robolearn.errors import CheckpointError, DatasetError
from robolearn.training.chains import Chains

_AHEAD = 3  # batches in the making per worker


class Loader:
    """Gives batches of `batch_size` windows: every epoch a new permutation, its incomplete rest left out.

    A set with fewer windows than a batch fills it with several permutations. workers: threads that make batches ahead;
    0 makes each batch when it is asked for. device: where the tensors go (None: they stay where they are, in memory).
    chains: walk along episodes instead, for a memory; a batch then also has `reset` (slots, length). groups: a number
    0..n-1 for each window: every batch holds equally many of each group, turn by turn (row r is of group r % n), a smaller group
    beginning anew more often; a batch then also has `group` (batch_size,).
    """

    def __init__(
        self,
        windows: Windows,
        batch_size: int,
        seed: int,
        workers: int = 0,
        device: torch.device | str | None = None,
        chains: Chains | None = None,
        groups: np.ndarray | None = None,
    ) -> None:
        if not len(windows):
            raise DatasetError("loader: want at least one window, got none (are all episodes in the validation split?)")
        if batch_size < 1 or workers < 0:
            raise DatasetError(f"loader: want batch_size >= 1 and workers >= 0, got {batch_size} and {workers}")
        self.windows, self.batch_size, self.seed, self.workers = windows, batch_size, seed, workers
        self.device = torch.device(device) if device is not None else None
        self.groups = None if groups is None else [np.flatnonzero(groups == g) for g in range(int(groups.max()) + 1)]
        if self.groups is not None and batch_size % len(self.groups):
            raise DatasetError(f"loader: batch_size {batch_size} does not divide by {len(self.groups)}, the groups to balance")
        self.per_epoch = max(1, len(windows) // batch_size)
        self.chains = chains
        self._given = 0
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))
        self._turns: dict[tuple[int, int], np.ndarray] = {}

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yields batches from the current position on, without an end: obs {key: tensor}, action, is_pad."""
        if not self.workers:
            while True:
                batch = self._make(*self._rows(self._given))
                self._given += 1
                yield self._place(batch)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="loader")
        pending: deque[Future[dict[str, Any]]] = deque()
        asked = self._given
        try:
            while True:
                while len(pending) < self.workers * _AHEAD:
                    pending.append(pool.submit(self._make, *self._rows(asked)))
                    asked += 1
                batch = pending.popleft().result()
                self._given += 1
                yield self._place(batch)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def indices(self, number: int) -> np.ndarray:
        """Returns the window indices of batch `number`, counted from the beginning of training."""
        if self.groups is not None:
            each = self.batch_size // len(self.groups)
            return np.stack([self._turn(g, number * each, each) for g in range(len(self.groups))], axis=1).ravel()
        epoch, place = divmod(number, self.per_epoch)
        if self._order[0] != epoch:
            self._order = (epoch, self._permutation(epoch))
        return self._order[1][place * self.batch_size : (place + 1) * self.batch_size]

    def _rows(self, number: int) -> tuple[np.ndarray, int, np.ndarray | None]:
        """Returns window indices, the draw for their frames' variants, and reset flags of batch `number`."""
        if self.chains is None:
            return self.indices(number), number, None
        indices, reset = self.chains.batch(number)
        return indices, number, reset

    def state(self) -> dict[str, int]:
        """Returns the position: what was given, not what was made ahead."""
        return {"seed": self.seed, "batch_size": self.batch_size, "windows": len(self.windows), "given": self._given}

    def restore(self, state: Mapping[str, int]) -> None:
        """Continues after the batches that `state` counts; CheckpointError where they were of another set or order."""
        mine = self.state()
        for name in ("seed", "batch_size", "windows"):
            if state[name] != mine[name]:
                raise CheckpointError(f"resume: the checkpoint was trained with {name} {state[name]}, this run has {mine[name]}")
        self._given = int(state["given"])

    def _permutation(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, epoch])
        rounds = -(-self.batch_size // len(self.windows))
        return np.concatenate([rng.permutation(len(self.windows)) for _ in range(rounds)])

    def _turn(self, group: int, first: int, count: int) -> np.ndarray:
        """Returns windows first..first + count - 1 of a group's endless list, one permutation of it after the other."""
        members = self.groups[group]  # type: ignore[index]
        epochs = range(first // len(members), (first + count - 1) // len(members) + 1)
        for epoch in epochs:
            if (group, epoch) not in self._turns:
                rng = np.random.default_rng([self.seed, epoch, 1 + group])
                self._turns[group, epoch] = members[rng.permutation(len(members))]
        listed = np.concatenate([self._turns[group, epoch] for epoch in epochs])
        for stale in [key for key in self._turns if key[0] == group and key[1] < epochs[0]]:
            del self._turns[stale]
        return listed[first - epochs[0] * len(members) :][:count]

    def _make(self, indices: np.ndarray, draw: int, reset: np.ndarray | None) -> dict[str, Any]:
        """Returns one batch as tensors in memory, pinned where a GPU will fetch them."""
        raw = self.windows.batch(indices, draw)
        pin = self.device is not None and self.device.type == "cuda"

        def tensor(array: np.ndarray) -> torch.Tensor:
            made = torch.from_numpy(array)
            return made.pin_memory() if pin else made

        obs = {key: tensor(value) for key, value in raw["obs"].items()}
        made = {"obs": obs, "action": tensor(raw["action"]), "is_pad": tensor(raw["is_pad"])}
        made |= {"valid": tensor(raw["valid"])} if "valid" in raw else {}
        made |= {} if reset is None else {"reset": tensor(reset)}
        return made if self.groups is None else made | {"group": torch.arange(len(indices)) % len(self.groups)}

    def _place(self, batch: dict[str, Any]) -> dict[str, Any]:
        if self.device is None:
            return batch
        obs = {key: value.to(self.device, non_blocking=True) for key, value in batch["obs"].items()}
        rest = {key: value.to(self.device, non_blocking=True) for key, value in batch.items() if key != "obs"}
        return {"obs": obs, **rest}
