"""Mode A, the published one, on plain floats: limb directions and hand rotation by three stages of two joints, then the last.

Eight branches, two a stage. Without limits each is exact; with limits the nearest that fits is taken, depth first, and where
none fits each stage takes its best point of the box, which is the optimum of a stage and not of the whole.
"""

from __future__ import annotations

from math import asin, atan2, inf, sqrt
from typing import Protocol

import numpy as np

from robolearn.teleop._stage import Stage, fitted
from robolearn.teleop._subproblems import Vec, between, cross, dot, turned

Array = np.ndarray
Angles = tuple[float, ...]


class Axes(Protocol):
    """What the solver reads of an arm."""

    @property
    def axes(self) -> Array: ...
    @property
    def low(self) -> Array: ...
    @property
    def high(self) -> Array: ...
    @property
    def hand_rotation(self) -> Array: ...
    @property
    def exact(self) -> bool: ...
    @property
    def upper_axis(self) -> Array: ...
    @property
    def lower_axis(self) -> Array: ...


class Targets:
    """Where the three stages should turn their directions, in the base frame: u, l, and two columns of the hand."""

    __slots__ = ("fore", "point", "side", "upper")

    def __init__(self, upper: Vec, fore: Vec, point: Vec, side: Vec) -> None:
        self.upper, self.fore, self.point, self.side = upper, fore, point, side


class Plan:
    """An arm as plain tuples, its three stages, and the search over them."""

    def __init__(self, arm: Axes) -> None:
        h: list[Vec] = [vec(axis) for axis in arm.axes]
        self.h = h
        self.stages = (
            Stage(h[0], h[1], vec(arm.upper_axis), arm.exact),
            Stage(h[2], h[3], vec(arm.lower_axis), arm.exact),
            Stage(h[4], h[5], h[6], arm.exact),
        )
        self.low, self.high = tuple(arm.low.tolist()), tuple(arm.high.tolist())
        zero = arm.hand_rotation.T  # the hand's rotation at q = 0, taken away
        self.point_at_rest, self.side_at_rest = vec(zero @ arm.axes[6]), vec(zero @ arm.axes[5])

    def targets(self, upper: Vec, fore: Vec, hand: list[list[float]]) -> Targets:
        """Returns the targets of unit directions (3,) and a rotation matrix as rows."""
        return Targets(upper, fore, rows_times(hand, self.point_at_rest), rows_times(hand, self.side_at_rest))

    def nearest(self, t: Targets, q: Angles) -> tuple[Angles, tuple[float, float, float]] | None:
        """Returns the branch inside the limits with the least sum of |q - q_prev| and its residuals; None where none fits."""
        one, two, three = self.stages
        best: tuple[Angles, Vec, Vec, Vec] | None = None
        least = inf
        for cost_1, a, b in self._fits(0, one.solutions(t.upper, q[0]), q):
            if cost_1 >= least:
                break
            fore, point, side = one.carry_all(a, b, t.fore, t.point, t.side)
            for cost_2, c, d in self._fits(2, two.solutions(fore, q[2]), q):
                cost_2 += cost_1
                if cost_2 >= least:
                    break
                point_2, side_2 = two.carry_all(c, d, point, side)
                for cost_3, e, f in self._fits(4, three.solutions(point_2, q[4]), q):
                    cost_3 += cost_2
                    if cost_3 >= least:
                        break
                    point_3, side_3 = three.carry_all(e, f, point_2, side_2)
                    g = fitted(self.last(side_3, q[6]), self.low[6], self.high[6], q[6])
                    if g is not None and cost_3 + abs(g - q[6]) < least:
                        least, best = cost_3 + abs(g - q[6]), ((a, b, c, d, e, f, g), fore, point_3, side_3)
        if best is None:
            return None
        found, fore, point, side = best
        upper, fore = one.carry(found[0], found[1], t.upper), two.carry(found[2], found[3], fore)
        return found, self._left(upper, fore, point, side, found[6])

    def boxed(self, t: Targets, q: Angles, low: Angles, high: Angles) -> Angles:
        """Returns the best point of each stage inside the box, one stage after the other."""
        upper, fore, point, side = t.upper, t.fore, t.point, t.side
        one, two, three = self.stages
        a, b = one.best_in_box(upper, (low[0], low[1]), (high[0], high[1]), (q[0], q[1]))
        fore, point, side = one.carry_all(a, b, fore, point, side)
        c, d = two.best_in_box(fore, (low[2], low[3]), (high[2], high[3]), (q[2], q[3]))
        point, side = two.carry_all(c, d, point, side)
        e, f = three.best_in_box(point, (low[4], low[5]), (high[4], high[5]), (q[4], q[5]))
        g = self.last_in(three.carry(e, f, side), low[6], high[6], q[6])
        return (a, b, c, d, e, f, g)

    def last(self, side: Vec, near: float) -> float:
        """Returns q7, which turns the hand about its own axis onto `side`; `near` where it does not matter."""
        k, p = self.h[6], self.h[5]
        sn, cs = dot(cross(k, p), side), dot(p, side) - dot(k, p) * dot(k, side)
        return near if sn == 0.0 and cs == 0.0 else atan2(sn, cs)

    def last_in(self, side: Vec, low: float, high: float, near: float) -> float:
        """Returns the best q7 in a range."""
        best = self.last(side, near)
        fit = fitted(best, low, high, near)
        if fit is not None:
            return fit
        gaps = [(abs(atan2_difference(best, end)), end) for end in (low, high)]
        return min(gaps)[1]

    def residuals(self, t: Targets, q: Angles) -> tuple[float, float, float]:
        """Returns the angles [rad] left of the upper arm, the forearm and the hand's rotation."""
        one, two, three = self.stages
        a, b, c, d, e, f, g = q
        upper, fore, point, side = one.carry_all(a, b, t.upper, t.fore, t.point, t.side)
        fore, point, side = two.carry_all(c, d, fore, point, side)
        point, side = three.carry_all(e, f, point, side)
        return self._left(upper, fore, point, side, g)

    def _left(self, upper: Vec, fore: Vec, point: Vec, side: Vec, g: float) -> tuple[float, float, float]:
        """Returns the residuals of targets carried through all joints but the last."""
        seventh, sixth = self.h[6], self.h[5]
        point, side = turned(seventh, -g, point), turned(seventh, -g, side)
        total = 0.0
        for got, wish in ((point, seventh), (side, sixth), (cross(point, side), cross(seventh, sixth))):
            x, y, z = got[0] - wish[0], got[1] - wish[1], got[2] - wish[2]
            total += x * x + y * y + z * z
        turn = 2.0 * asin(min(1.0, sqrt(total / 8.0)))  # |R - 1|_F = 2 sqrt 2 sin(angle / 2)
        return between(upper, self.stages[0].a), between(fore, self.stages[1].a), turn

    def branches(self, t: Targets, q: Angles) -> list[Angles]:
        """Returns all eight branches, angles as they come, limits not asked."""
        one, two, three = self.stages
        found: list[Angles] = []
        for a, b in one.solutions(t.upper, q[0]):
            fore, point, side = one.carry_all(a, b, t.fore, t.point, t.side)
            for c, d in two.solutions(fore, q[2]):
                point_2, side_2 = two.carry_all(c, d, point, side)
                for e, f in three.solutions(point_2, q[4]):
                    found.append((a, b, c, d, e, f, self.last(three.carry(e, f, side_2), q[6])))
        return found

    def _fits(self, i: int, pairs: tuple[tuple[float, float], ...], q: Angles) -> list[tuple[float, float, float]]:
        """Returns (distance, qa, qb) of the pairs that fit the limits of joints i and i + 1, the nearest first."""
        found = []
        for first, second in pairs:
            a = fitted(first, self.low[i], self.high[i], q[i])
            if a is None:
                continue
            b = fitted(second, self.low[i + 1], self.high[i + 1], q[i + 1])
            if b is not None:
                found.append((abs(a - q[i]) + abs(b - q[i + 1]), a, b))
        found.sort()
        return found


def vec(array: Array) -> Vec:
    """Returns an array (3,) as a tuple."""
    x, y, z = array.tolist()
    return (x, y, z)


def rows_times(rows: list[list[float]], v: Vec) -> Vec:
    """Returns the product of a matrix given as rows and a vector."""
    (a, b, c), (d, e, f), (g, h, i) = rows
    x, y, z = v
    return (a * x + b * y + c * z, d * x + e * y + f * z, g * x + h * y + i * z)


def atan2_difference(a: float, b: float) -> float:
    """Returns a - b in [-pi, pi]."""
    difference = (a - b) % 6.283185307179586
    return difference - 6.283185307179586 if difference > 3.141592653589793 else difference
