"""The keypoint retargeting net: noisy keypoints of a hand in, plausible ones out; a denoiser of shapes, trained and then frozen.

MT-pi (arXiv 2501.06994): trained on human keypoints only, used on the state condition of both embodiments, so that a gripper's
points look like a hand's to the policy. The released code draws the noise one-sided, in pixels, and passes the noise itself
through the normaliser, where 0 px becomes about -1; `official` does that, the default draws it around zero.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

NOISE_PX, OF_SIDE = 8.0, 128  # width of the noise [px], of a picture that wide
POINTS = 10  # numbers a view; the first two, of the base point, stay clean
BATCH, RATE, CHECK = 64, 1e-3, 100  # rows a step, Adam's rate, steps between two looks at the error


class Keypoints(nn.Module):
    """Maps normalised keypoints (..., n) to (..., n) through one layer of tanh."""

    def __init__(self, n: int, width: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(n, width), nn.Tanh(), nn.Linear(width, n))

    def forward(self, points: Tensor) -> Tensor:
        return self.layers(points)


def noise(rows: int, scale: Tensor, offset: Tensor, side: int, rng: torch.Generator, official: bool = False) -> Tensor:
    """Returns what is added to normalised keypoints (rows, n) = px * scale + offset of pictures `side` px wide.

    Uniform over 8 px of a 128 px picture around zero; official: over [0, 8) px, then normalised itself.
    """
    drawn = torch.rand(rows, len(scale), generator=rng) * NOISE_PX * side / OF_SIDE
    clean = torch.arange(len(scale)) % POINTS < 2
    if official:
        return torch.where(clean, 0.0, drawn) * scale + offset
    return torch.where(clean, 0.0, drawn - NOISE_PX / 2 * side / OF_SIDE) * scale


def fit(net: Keypoints, points: Tensor, draw: object, steps: int, seed: int) -> float:
    """Trains `net` to undo the noise on normalised `points` (rows, n) and leaves it at its best; returns that squared error.

    draw: (rows, generator) -> noise (rows, n).
    """
    rng = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    best, kept, recent = float("inf"), {}, 0.0
    for step in range(1, steps + 1):
        clean = points[torch.randint(len(points), (BATCH,), generator=rng)]
        error = (net(clean + draw(BATCH, rng)) - clean).square().mean()  # type: ignore[operator]
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        optimizer.step()
        recent += float(error.detach())
        if step % CHECK == 0 or step == steps:
            mean, recent = recent / (step % CHECK or CHECK), 0.0
            if mean < best:
                best, kept = mean, {name: value.clone() for name, value in net.state_dict().items()}
    net.load_state_dict(kept)
    return best
