"""The scripted expert of PushT: tries pushes in a simulator of its own and makes the one that leaves the tee nearest to its goal.

A greedy look-ahead of one push. It knows the whole state and the physics, which no learned policy does.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from robolearn.core import Ask, Chunk, Obs, Spec
from sim_envs import _tee

TRIES, KEEP, REFINE = 48, 6, 32  # pushes tried at random, kept, tried again near the kept ones
CLEARANCE = 8.0  # [px] between finger and tee before a push
PUSH, TRAVEL = 12.0, 40.0  # [px] a tick
ORBIT = 112.0  # [px] from the tee's middle, where the finger passes by
_MIDDLE = np.array([[0.0, 45.0]])  # of the tee's bounding circle, in its frame
_CORNERS = np.array(_tee.OUTLINE, dtype=float)
_GOAL = _tee.place(_CORNERS, *_tee.GOAL)


class Pusher:
    """A policy with a simulator of its own. It plans a whole push: back off, go round, touch, push, back off."""

    def __init__(self, table: Any, spec: Spec, rng: np.random.Generator) -> None:
        self.spec = replace(spec.select(("state",)), execute=10_000)
        self._table = table
        self._salt = int(rng.integers(2**32))
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Begins a new episode."""
        self._seed = (self._salt, seed or 0)
        self._tick = -1
        self._pose = np.zeros(5)

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        """Takes the newest pose."""
        self._pose = obs["state"].astype(float)
        self._tick += 1

    def plan(self, ask: Ask = Ask()) -> Chunk:
        """Returns the actions of the best push found."""
        random = np.random.default_rng((*self._seed, self._tick))
        tries = [_draw(random) for _ in range(TRIES)]
        ranked = sorted(((self._cost(push), k, push) for k, push in enumerate(tries)), key=lambda item: item[:2])
        near = [_near(ranked[k % KEEP][2], random) for k in range(REFINE)]
        ranked += [(self._cost(push), TRIES + k, push) for k, push in enumerate(near)]
        best = min(ranked, key=lambda item: item[:2])[2]
        start, actions = self._push(best)
        actions = np.concatenate([self._route(start), np.repeat(start[None], 2, axis=0), actions])
        return Chunk(actions.astype(np.float32), self._tick)

    def _cost(self, push: np.ndarray) -> float:
        """Returns how far [px] the tee's corners are from their goal after a push, on average; inf where it cannot begin."""
        start, actions = self._push(push)
        if not (12 < start[0] < 500 and 12 < start[1] < 500) or self._clear(start) < _tee.AGENT_RADIUS + 2:
            return math.inf
        table = self._table
        table.restore(np.concatenate([start, self._pose[2:]]))
        for action in actions:
            step = table.step(action)
        corners = _tee.place(_CORNERS, *step.obs["state"][2:].astype(float))
        return float(np.linalg.norm(corners - _GOAL, axis=1).mean()) + 0.05 * len(actions)

    def _clear(self, point: np.ndarray) -> float:
        """Returns the distance [px] of a point of the table from the tee."""
        c, s = math.cos(self._pose[4]), math.sin(self._pose[4])
        u, v = np.array([[c, s], [-s, c]]) @ (point - self._pose[2:4])
        gaps = []
        for left, right, low, high in ((-60, 60, 0, 30), (-15, 15, 30, 120)):
            gaps.append(math.hypot(max(left - u, 0, u - right), max(low - v, 0, v - high)))
        return min(gaps)

    def _push(self, push: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns where a push (place on the outline, slant [rad], length [px]) begins, and its actions (n, 2)."""
        point, normal = _on_outline(push[0])
        edge = _tee.place(np.stack([point, point + normal]), *self._pose[2:])
        outward = edge[1] - edge[0]
        c, s = math.cos(push[1]), math.sin(push[1])
        inward = -np.array([c * outward[0] - s * outward[1], s * outward[0] + c * outward[1]])
        start = edge[0] + outward * (_tee.AGENT_RADIUS + CLEARANCE)
        reach = CLEARANCE + push[2]
        there = start + inward * np.linspace(0, reach, 1 + math.ceil(reach / PUSH))[1:, None]
        back = there[-1] - inward * np.array([[10.0], [25.0]])
        return start, np.concatenate([there, np.repeat(there[-1:], 2, axis=0), back])

    def _route(self, goal: np.ndarray) -> np.ndarray:
        """Returns actions (n, 2) from the finger to `goal` that go round the tee where the straight way is blocked."""
        finger = self._pose[:2]
        line = _steps(finger, goal)
        if all(self._clear(point) > _tee.AGENT_RADIUS + 3 for point in _steps(finger, goal, 10.0)):
            return line
        middle = _tee.place(_MIDDLE, *self._pose[2:])[0]
        first, last = (math.atan2(*(point - middle)[::-1]) for point in (finger, goal))
        turn = (last - first + math.pi) % (2 * math.pi) - math.pi
        angles = first + turn * np.linspace(0, 1, 1 + math.ceil(abs(turn) * ORBIT / TRAVEL))
        ring = middle + ORBIT * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        return np.concatenate([_steps(finger, ring[0]), ring[1:], _steps(ring[-1], goal)])


def _draw(random: np.random.Generator) -> np.ndarray:
    return np.array([random.uniform(), random.uniform(-0.6, 0.6), math.exp(random.uniform(math.log(2), math.log(110)))])


def _near(push: np.ndarray, random: np.random.Generator) -> np.ndarray:
    place, slant, length = push + random.normal(size=3) * (0.02, 0.15, 0.0)
    return np.array([place % 1.0, slant, length * math.exp(0.3 * random.normal())])


def _steps(start: np.ndarray, end: np.ndarray, stride: float = TRAVEL) -> np.ndarray:
    """Returns points (n, 2) on the way from `start`, left out, to `end`, at most `stride` apart."""
    n = max(1, math.ceil(float(np.linalg.norm(end - start)) / stride))
    return start + (end - start) * np.arange(1, n + 1)[:, None] / n


def _on_outline(share: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns the point at `share` in [0, 1) of the tee's outline and the outward normal there, in the tee's frame."""
    edges = np.roll(_CORNERS, -1, axis=0) - _CORNERS
    lengths = np.linalg.norm(edges, axis=1)
    rest = share * lengths.sum()
    k = int(np.searchsorted(np.cumsum(lengths), rest, side="right"))
    along = edges[k] / lengths[k]
    return _CORNERS[k] + along * (rest - lengths[:k].sum()), np.array([along[1], -along[0]])
