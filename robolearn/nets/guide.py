"""What steers a denoiser while it is sampled: a goal, and actions that are already fixed (real-time chunking).

Goal: classifier-free guidance (Ho & Salimans, arXiv 2207.12598). Fixed actions: Black, Galliker & Levine, "Real-Time
Execution of Action Chunking Flow Policies" (arXiv 2506.07339), after the pseudoinverse guidance of Song et al. (ICLR 2023):
with tau from 0 (noise) to 1 (action), A1 = A + (1 - tau) v the action sequence that the velocity v promises, Y the fixed
actions and W how much each of them holds,

    v' = v + g(tau) J^T [(Y - A1) * W]        J = dA1/dA
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robolearn.nets.denoiser import AtTimes, Denoiser

Output = Callable[[Tensor, float], Tensor]  # (x, t) -> what the network says, (batch, horizon, action)


def guided(denoiser: Denoiser, context: Tensor, times: Sequence[float], guidance: float, unguided: Tensor | None) -> Output:
    """Returns f(x, t), the denoiser's output under `context`: without + guidance * (with - without) where `unguided` is given.

    times: those at which f will be asked; they are prepared together.
    """
    conditional = AtTimes(denoiser, context, times)
    if unguided is None:
        return conditional
    without = AtTimes(denoiser, unguided, times)

    def output(x: Tensor, t: float) -> Tensor:
        free = without(x, t)
        return free + guidance * (conditional(x, t) - free)

    return output


def strength(tau: float, beta: float) -> float:
    """Returns g(tau) = min(beta, (1 - tau) / tau * (tau^2 + (1 - tau)^2) / (1 - tau)^2); beta where the quotient has no bound."""
    room = tau * (1 - tau)
    return min(beta, (tau**2 + (1 - tau) ** 2) / room) if room > 0 else beta


def placed(given: Tensor | None, actions: Tensor, x: Tensor) -> Tensor:
    """Returns x (batch, horizon, action) with the tokens `given` (..., horizon, 1) taken from `actions`; None: none are."""
    return x if given is None else torch.where(given, actions, x)


@dataclass(frozen=True)
class Guide:
    """Actions that a plan is held to, normalised.

    target: Y (horizon, action), finite everywhere; weight: W (horizon, 1) in [0, 1], None: nothing pulls; given: (horizon, 1)
    bool, the tokens that are the target at every step and in the result, None: none; beta: the largest g; jacobian: J by
    back-propagation through the network, or the identity in its place.
    """

    target: Tensor
    weight: Tensor | None = None
    given: Tensor | None = None
    beta: float = 5.0
    jacobian: Literal["full", "identity"] = "full"

    @contextmanager
    def sampling(self, *tensors: Tensor | None) -> Iterator[tuple[Any, ...]]:
        """Gives the tensors as `pull` wants what a network is asked with; the network is asked within.

        Autograd keeps nothing that was made in inference mode, so a plan with the full Jacobian leaves that mode and copies.
        """
        if self.weight is None or self.jacobian == "identity":
            with torch.no_grad():
                yield tensors
        else:
            with torch.inference_mode(False), torch.no_grad():
                yield tuple(None if tensor is None else tensor.clone() for tensor in tensors)

    def pin(self, x: Tensor) -> Tensor:
        """Returns x (batch, horizon, action) with the given tokens in their places."""
        return placed(self.given, self.target, x)

    def pull(self, promise: Callable[[Tensor], tuple[Tensor, Tensor]], x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the output of `promise(x)`, which gives (output, A1), and J^T [(Y - A1) * W] (batch, horizon, action).

        The latter is None where nothing pulls. With the full Jacobian call it within `sampling`.
        """
        if self.weight is None:
            return promise(x)[0], None
        if self.jacobian == "identity":
            output, promised = promise(x)
            return output, (self.target - promised) * self.weight
        with torch.enable_grad():
            at = x.detach().clone().requires_grad_()
            output, promised = promise(at)
        missing = (self.target - promised.detach()) * self.weight
        (pulled,) = torch.autograd.grad(promised, at, missing)
        return output.detach(), pulled

    def held(self, velocity: Output) -> Output:
        """Returns v'(x, tau) of a flow whose velocity is v(x, tau)."""

        def steered(x: Tensor, tau: float) -> Tensor:
            def promise(x: Tensor) -> tuple[Tensor, Tensor]:
                v = velocity(x, tau)
                return v, x + (1 - tau) * v

            v, pulled = self.pull(promise, self.pin(x))
            return v if pulled is None else v + strength(tau, self.beta) * pulled

        return steered


@dataclass(frozen=True)
class Delays:
    """Real-time chunking learnt in training: of n_past + plan = horizon tokens the first d of the plan are given, d <= most.

    Black et al., "Training-Time Action Conditioning for Efficient Real-Time Chunking" (arXiv 2512.05964). There every token has
    a time of its own, 1 for given ones; here the condition says which are given, so that any denoiser will do.
    """

    most: int
    n_past: int
    horizon: int

    def given(self, delay: Tensor) -> Tensor:
        """Returns which tokens (batch, horizon, 1) are given, for delays d (batch,)."""
        ahead = torch.arange(-self.n_past, self.horizon - self.n_past, device=delay.device)
        return ((ahead >= 0) & (ahead < delay[:, None]))[..., None]

    def tell(self, cond: Tensor, given: Tensor | None) -> Tensor:
        """Returns cond (batch, n_obs, cond) and `most` numbers more: which of the plan's first tokens are given.

        given: (..., horizon, 1); None: none are. With most = 0 it is cond itself.
        """
        if not self.most:
            return cond
        first = slice(self.n_past, self.n_past + self.most)
        told = cond.new_zeros(self.most) if given is None else given[..., first, 0].to(cond.dtype)
        return torch.cat((cond, told.expand(len(cond), -1)[:, None].expand(-1, cond.shape[1], -1)), dim=-1)
