"""What scores with a network share: tables out of episodes, weights drawn from a given generator, one training loop, arrays.

Nothing here touches torch's global generator or its threads: a network is built empty and filled from a generator that the
caller's numpy generator seeds. Episodes are split whole, because plans of one episode resemble each other (the published code
splits by plan), and put in an order of their own, so that the order in which they are listed changes nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from robolearn.errors import BadInput, TrainingDiverged
from robolearn.monitors._base import Episode, Plans, checked

CEILING = 1e30  # the score of plans so far out that float32 cannot hold what the network makes of them
N = TypeVar("N", bound=nn.Module)
Losses = Callable[[Tensor, Tensor, Tensor], Tensor]  # outputs (k, T), which are real (k, T), which failed (k,) -> (k,)
Loss = Callable[[Tensor, torch.Generator], Tensor]  # mean loss () of the rows (k,) it is given the numbers of


@dataclass(frozen=True)
class Budget:
    """How a network is fitted; ValueError where a number makes no sense, as configs raise it.

    who: the score, for messages; epochs, batch: passes over the rows, and rows a step; rate: of AdamW; patience: epochs
    without a better held-out loss after which it ends (0: never); held_out: share of the episodes that only choose the epoch
    (0: the last epoch it is); floor: rate at the end of a cosine (None: the rate stays); decay: AdamW's, decoupled; ridge:
    times the sum of squares of all weights that are no bias, added to the loss; overfit: it ends where the held-out loss is
    more than so many times the fitted one, after `warm_up` epochs.
    """

    who: str
    epochs: int
    batch: int
    rate: float
    patience: int
    held_out: float
    floor: float | None = None
    decay: float = 0.0
    ridge: float = 0.0
    overfit: float = math.inf
    warm_up: int = 20

    def __post_init__(self) -> None:
        numbers = (self.epochs, self.batch, self.rate, self.patience, self.ridge)
        if min(numbers[:2]) < 1 or self.rate <= 0 or min(numbers[3:]) < 0:
            wanted = "epochs and batch of at least 1, learning rate above 0, patience and penalty of at least 0"
            raise ValueError(f"want {wanted}, got {', '.join(map(str, numbers))}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out: want a share of at least 0 and below 1, got {self.held_out}")
        if self.patience and not self.held_out:
            raise ValueError(f"patience: {self.patience} needs held-out episodes; want held_out above 0, got 0")

    def rate_at(self, epoch: int) -> float:
        """Returns the learning rate of an epoch: half a cosine from `rate` down to `floor`."""
        if self.floor is None:
            return self.rate
        return self.floor + (self.rate - self.floor) * (1 + math.cos(math.pi * epoch / self.epochs)) / 2


def seeded(rng: np.random.Generator) -> torch.Generator:
    """Returns a torch generator that continues a numpy one."""
    return torch.Generator().manual_seed(int(rng.integers(2**63)))


def positive(**sizes: Sequence[int]) -> None:
    """Raises ValueError where a size of a network is not at least 1, or there is none."""
    for name, values in sizes.items():
        if min(values, default=0) < 1:
            raise ValueError(f"{name}: want sizes of at least 1, got {list(values)}")


def embeddings(plans: Plans, who: str, width: int = 0) -> Tensor:
    """Returns the policy's embeddings (T, width) float32; BadInput where there are none, of another width or not finite."""
    if not plans.features.shape[1]:
        raise BadInput(f"{who}: needs embeddings of observations, got plans without any")
    return single(checked(plans, who, features=width).features)


def single(array: np.ndarray) -> Tensor:
    """Returns a copy as float32; what float32 cannot hold becomes infinite."""
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.array(array, np.float32))


def successes(episodes: Sequence[Episode], who: str, take: Callable[[Plans], Tensor]) -> list[Tensor]:
    """Returns `take` (T, ...) of every successful episode; BadInput where they are fewer than 2."""
    tables = [take(e.plans) for e in episodes if e.success and len(e)]
    if len(tables) < 2:
        raise BadInput(f"{who}: wants at least 2 episodes that succeeded to fit to, got {len(tables)}")
    return sorted(tables, key=_fingerprint)


def embedded(episodes: Sequence[Episode], who: str) -> list[Tensor]:
    """Returns embeddings (T, width) of every successful episode; BadInput where the widths differ."""
    width = next((e.plans.features.shape[1] for e in episodes if e.success and len(e)), 0)
    return successes(episodes, who, lambda plans: embeddings(plans, who, width))


def _fingerprint(table: Tensor) -> bytes:
    return hashlib.sha256(table.numpy().tobytes()).digest()


def parts(failed: Sequence[bool], share: float, rng: torch.Generator) -> tuple[list[int], list[int]]:
    """Returns numbers of the episodes to fit to and of those held out: `share` of either class, at least one, never the last."""
    fit: list[int] = []
    held: list[int] = []
    for kind in (False, True):
        members = torch.tensor([i for i, f in enumerate(failed) if f == kind], dtype=torch.int64)
        order = members[torch.randperm(len(members), generator=rng)].tolist()
        cut = min(max(round(share * len(order)), 1), len(order) - 1) if share and order else 0
        held += order[:cut]
        fit += order[cut:]
    return sorted(fit), sorted(held)


def rows(tables: Sequence[Tensor], share: float, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Returns all tables as one (rows, ...), and numbers of the rows to fit to and of those held out, whole episodes each."""
    fit, held = parts([False] * len(tables), share, rng)
    ends = np.cumsum([0, *map(len, tables)])
    numbers = [torch.arange(int(a), int(b)) for a, b in pairwise(ends)]
    none = torch.empty(0, dtype=torch.int64)
    return torch.cat(list(tables)), torch.cat([numbers[i] for i in fit]), torch.cat([none, *(numbers[i] for i in held)])


@dataclass(frozen=True)
class Labelled:
    """Episodes for a classifier: embeddings (T, d) of each, which failed (n,), and a weight a class that evens them out (n,)."""

    tables: list[Tensor]
    failed: Tensor

    @staticmethod
    def of(episodes: Sequence[Episode], who: str) -> Labelled:
        """Returns all episodes with their labels; BadInput says which class is missing."""
        found = [e for e in episodes if len(e)]
        if len(found) < 2:
            raise BadInput(f"{who}: wants at least 2 episodes to fit to, got {len(found)}")
        lost = sum(not e.success for e in found)
        if lost in (0, len(found)):
            lack = "failures" if lost == 0 else "successes"
            raise BadInput(f"{who}: needs failures and successes to fit to, got no {lack} among {len(found)} episodes")
        width = found[0].plans.features.shape[1]
        pairs = [(embeddings(e.plans, who, width), not e.success) for e in found]
        pairs.sort(key=lambda pair: (_fingerprint(pair[0]), pair[1]))
        return Labelled([table for table, _ in pairs], torch.tensor([failed for _, failed in pairs]))

    @property
    def weights(self) -> Tensor:
        """Inverse-class weights (n,): each class counts half, an episode counts 1 in the mean."""
        of_class = torch.where(self.failed, self.failed.sum(), (~self.failed).sum())
        return len(self.failed) / (2.0 * of_class)

    def batch(self, which: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns embeddings (k, T, d) padded with zeros at the end, which of them are real (k, T), and which failed (k,)."""
        chosen = [self.tables[i] for i in which.tolist()]
        lengths = torch.tensor([len(table) for table in chosen])
        padded = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
        return padded, torch.arange(padded.shape[1]) < lengths[:, None], self.failed[which]


def early_weight(real: Tensor) -> Tensor:
    """Returns 5 exp(-3 t / T) + 1 (k, T) for t = 1 .. T, T the real length of each: the sooner, the heavier (SAFE's code)."""
    t = torch.arange(1, real.shape[1] + 1)
    return 5 * torch.exp(-3 * t / real.sum(1, keepdim=True)) + 1


def layers(sizes: Sequence[int], activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """Returns linear layers from size to size, an activation after each."""
    return [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), activation())]


def empty(make: Callable[[], N]) -> N:
    """Returns a network whose weights are not set yet, made without a random number."""
    with torch.device("meta"):
        net = make()
    return net.to_empty(device="cpu").eval()


@torch.no_grad()
def draw(net: nn.Module, rng: torch.Generator, orthogonal: bool = False) -> None:
    """Sets the weights of linear, convolution and LSTM layers: uniform as torch's own, or orthogonal times sqrt(2), no bias."""
    for module in net.modules():
        own = list(module.parameters(recurse=False))
        if not own:
            continue
        fan_in = module.hidden_size if isinstance(module, nn.LSTM) else own[0][0].numel()
        for weight in own:
            if not orthogonal:
                weight.uniform_(-1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in), generator=rng)
            elif weight.ndim > 1:
                nn.init.orthogonal_(weight, math.sqrt(2), generator=rng)
            else:
                weight.zero_()


def train(net: nn.Module, loss: Loss, fit: Tensor, held: Tensor, budget: Budget, rng: torch.Generator) -> None:
    """Fits `net`, which ends with the weights of the best epoch (by the held-out loss; the last one if nothing is held out).

    fit, held: (rows,) numbers that `loss` is given; TrainingDiverged where the loss is not finite any more.
    """
    optimizer = torch.optim.AdamW(net.parameters(), lr=budget.rate, weight_decay=budget.decay)
    best, waited, kept = math.inf, 0, net.state_dict()
    same = int(torch.randint(2**31, (), generator=rng))  # held-out losses of all epochs are of the same random numbers
    for epoch in range(budget.epochs):
        for group in optimizer.param_groups:
            group["lr"] = budget.rate_at(epoch)
        mean = 0.0
        for some in fit[torch.randperm(len(fit), generator=rng)].split(budget.batch):
            value = loss(some, rng)
            (value + budget.ridge * squares(net) if budget.ridge else value).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            mean += value.item() * len(some) / len(fit)
        if not math.isfinite(mean):
            raise TrainingDiverged(f"{budget.who}: the loss of epoch {epoch + 1} is {mean}, want a finite one")
        if not len(held):
            continue
        lost = mean_loss(loss, held, budget.batch, torch.Generator().manual_seed(same))
        waited += 1
        if lost < best:
            # Copies: a state dict shares its memory with the network, and would hold the last weights, not the best.
            best, waited, kept = lost, 0, {name: value.clone() for name, value in net.state_dict().items()}
        if 0 < budget.patience <= waited or (epoch >= budget.warm_up and lost > budget.overfit * mean):
            break
    net.load_state_dict(kept)


def learn_labelled(
    make: Callable[[int], N],
    losses: Losses,
    data: Labelled,
    budget: Budget,
    rng: torch.Generator,
) -> N:
    """Returns a network fitted to labelled episodes by the mean of their losses, classes evened out.

    make: builds it for embeddings of a width.
    """
    net = empty(lambda: make(data.tables[0].shape[1]))
    draw(net, rng)
    fit, held = (torch.tensor(some, dtype=torch.int64) for some in parts(data.failed.tolist(), budget.held_out, rng))
    weights = data.weights

    def loss(which: Tensor, rng: torch.Generator) -> Tensor:
        del rng  # Unused: nothing is drawn.
        x, real, failed = data.batch(which)
        return (weights[which] * losses(net(x), real, failed)).mean()

    train(net, loss, fit, held, budget, rng)
    return net


@torch.no_grad()
def mean_loss(loss: Loss, which: Tensor, batch: int, rng: torch.Generator) -> float:
    """Returns the mean loss over rows, which are taken `batch` at a time."""
    return math.fsum(loss(some, rng).item() * len(some) for some in which.split(batch)) / len(which)


def squares(net: nn.Module) -> Tensor:
    """Returns the sum of squares of all weights that are no bias."""
    return torch.stack([weight.square().sum() for weight in net.parameters() if weight.ndim > 1]).sum()


def fitted(net: N | None, who: str) -> N:
    """Returns the network; BadInput where there is none yet."""
    if net is None:
        raise BadInput(f"{who}: is not fitted yet; fit it, or restore what was fitted")
    return net


def finite(scores: Tensor, ceiling: float = CEILING) -> np.ndarray:
    """Returns scores as float64, `ceiling` where the network overflowed: what is that far out is as suspicious as can be."""
    return np.minimum(np.nan_to_num(scores.double().numpy(), nan=ceiling, neginf=ceiling), ceiling)


def to_arrays(net: nn.Module, width: int = 0) -> dict[str, np.ndarray]:
    """Returns weights by name, and the width of the embeddings they are for (1,) where it is given."""
    weights = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    return {"width": np.array([width]), **weights} if width else weights


def width_in(arrays: Mapping[str, np.ndarray], who: str) -> int:
    """Returns the width of embeddings that `to_arrays` wrote down; BadInput where it is no number above 0."""
    found = np.asarray(arrays.get("width", ()))
    if found.shape != (1,) or found.dtype.kind not in "iu" or found[0] < 1:
        raise BadInput(f"{who}: array 'width': want one whole number above 0, got {found.dtype}{found.shape}")
    return int(found[0])


def restored(make: Callable[[int], N], arrays: Mapping[str, np.ndarray], who: str) -> N:
    """Returns the network that `make` builds for the width in what `to_arrays` gave, filled with it."""
    width = width_in(arrays, who)
    net = empty(lambda: make(width))
    from_arrays(net, arrays, who)
    return net


def from_arrays(net: nn.Module, arrays: Mapping[str, np.ndarray], who: str) -> None:
    """Fills `net` with what `to_arrays` gave; BadInput names the array that is missing, unknown, misshapen or not finite."""
    own = net.state_dict()
    for name in sorted(own.keys() | arrays.keys() - {"width"}):
        if name not in own or name not in arrays:
            raise BadInput(f"{who}: array '{name}' is {'missing' if name in own else 'unknown'}; want those that `arrays` gave")
        got = np.asarray(arrays[name])
        kind = str(own[name].dtype).removeprefix("torch.")
        if got.dtype != kind or got.shape != tuple(own[name].shape):
            raise BadInput(f"{who}: array '{name}': want {kind}{tuple(own[name].shape)}, got {got.dtype}{got.shape}")
        if not np.isfinite(got).all():
            raise BadInput(f"{who}: array '{name}' holds NaN or infinity")
    net.load_state_dict({name: torch.from_numpy(np.array(arrays[name])) for name in own})
