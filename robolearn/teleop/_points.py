"""Mode B: the lines shoulder-elbow and elbow-wrist of the arm itself, not its axes, take the human directions.

With p_SE fixed in link 3 and p_EW in link 4: q4 from SP4, R_03 from two triads, q1 and q2 from SP2, q3 from SP1, the wrist as
in mode A. Eight branches; an arm whose elbow is offset (Panda: by 8 cm) bends one way only.
"""

from __future__ import annotations

from functools import lru_cache
from math import inf, sqrt
from typing import NamedTuple

import numpy as np

from robolearn.teleop._axis import Angles, Targets, vec
from robolearn.teleop._stage import fitted
from robolearn.teleop._subproblems import Vec, cross, dot, sp1, sp2, sp4, turned
from robolearn.teleop.arm import Arm

STRAIGHT = 1e-6  # sine of the angle between the limbs below which they span no plane
Triad = tuple[Vec, Vec, Vec]


class Links(NamedTuple):
    """Unit vectors at q = 0 shoulder to elbow and elbow to wrist, their lengths [m], and minus the first axis."""

    upper: Vec
    lower: Vec
    upper_length: float
    lower_length: float
    back: Vec


@lru_cache(maxsize=64)
def links(arm: Arm) -> Links:
    """Returns what mode B needs of an arm, computed once."""
    upper, lower = arm.elbow - arm.shoulder, arm.wrist - arm.elbow
    a, b = float(np.linalg.norm(upper)), float(np.linalg.norm(lower))
    return Links(vec(upper / a), vec(lower / b), a, b, vec(-arm.axes[0]))


def point_branches(arm: Arm, t: Targets, near: Angles) -> list[Angles | None]:
    """Returns eight solutions in a fixed order (elbow, shoulder, wrist), None where a limb cannot be turned so."""
    plan, link = arm.plan, links(arm)
    h = plan.h
    sine = cross(t.upper, t.fore)
    if dot(sine, sine) < STRAIGHT**2:
        return list(plan.branches(t, near))
    human = triad(t.upper, t.fore)
    angles, _ = sp4(link.upper, link.lower, h[3], dot(t.upper, t.fore))
    if len(angles) == 1:
        angles = (angles[0], angles[0])
    found: list[Angles | None] = []
    for q4 in angles or (near[3], near[3]):
        ours = triad(link.upper, turned(h[3], q4, link.lower))
        third = onto(human, ours, h[2])
        pairs = sp2(third, h[2], link.back, h[1])
        if len(pairs) < 2:
            pairs = (*pairs, *pairs)
        for q1, q2 in pairs or ((near[0], near[1]),) * 2:
            side = turned(h[1], -q2, turned(h[0], -q1, onto(human, ours, h[1])))
            q3, conditioning = sp1(h[1], side, h[2])
            q3 = q3 if conditioning > 1e-9 else near[2]
            one, two, three = plan.stages
            point = two.carry(q3, q4, one.carry(q1, q2, t.point))
            last = two.carry(q3, q4, one.carry(q1, q2, t.side))
            for q5, q6 in three.solutions(point, near[4]):
                found.append((q1, q2, q3, q4, q5, q6, plan.last(three.carry(q5, q6, last), near[6])))
    return found


def nearest_points(arm: Arm, t: Targets, q: Angles) -> Angles | None:
    """Returns the branch inside the limits with the least sum of |q - q_prev|, None where none fits."""
    best: Angles | None = None
    least = inf
    for branch in point_branches(arm, t, q):
        if branch is None:
            continue
        fit = within(arm, branch, q)
        if fit is not None:
            cost = sum(abs(a - b) for a, b in zip(fit, q, strict=True))
            if cost < least:
                best, least = fit, cost
    return best


def within(arm: Arm, q: Angles, near: Angles) -> Angles | None:
    """Returns the angles plus whole turns, inside the limits and nearest to `near`; None where one does not fit."""
    out = []
    for i in range(7):
        fit = fitted(q[i], arm.plan.low[i], arm.plan.high[i], near[i])
        if fit is None:
            return None
        out.append(fit)
    return tuple(out)


def triad(first: Vec, second: Vec) -> Triad:
    """Returns the columns of the frame whose x is `first` and whose z is first x second."""
    z = cross(first, second)
    n = sqrt(dot(z, z))
    z = (z[0] / n, z[1] / n, z[2] / n)
    return first, cross(z, first), z


def onto(to: Triad, of: Triad, v: Vec) -> Vec:
    """Returns TRIAD(to) TRIAD(of)^T v."""
    a, b, c = dot(of[0], v), dot(of[1], v), dot(of[2], v)
    x, y, z = to
    return (
        a * x[0] + b * y[0] + c * z[0],
        a * x[1] + b * y[1] + c * z[1],
        a * x[2] + b * y[2] + c * z[2],
    )
