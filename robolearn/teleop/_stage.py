"""One stage of the sequential solution: R(k1, qa) R(k2, qb) a = v for two joints, exactly, in a box, or damped near its pole.

With e1 = k2 x k1, alpha = atan2(a.e1, a.k1) and z = v.k1, x = v.e1, y = v.k2 the alignment of the two sides is
    f(qa, qb) = cos(qb + alpha) z + sin(qb + alpha) (x cos qa + y sin qa),
which has only saddles beside its global minimum and maximum: over a box the best point is exact inside it, or on an edge.
"""

from __future__ import annotations

from math import atan2, ceil, cos, hypot, inf, pi, sin, sqrt

from robolearn.teleop._subproblems import Vec, cross, dot, turned

POLE = 1e-9  # below this the first angle does not matter
Pair = tuple[float, float]


def fitted(angle: float, low: float, high: float, near: float) -> float | None:
    """Returns angle + 2 pi n in [low, high] that is nearest to `near`, None where there is none."""
    angle += 2 * pi * round((near - angle) / (2 * pi))
    if low <= angle <= high:
        return angle
    if angle < low:
        angle += 2 * pi * ceil((low - angle) / (2 * pi))
        return angle if angle <= high else None
    angle -= 2 * pi * ceil((angle - high) / (2 * pi))
    return angle if angle >= low else None


class Stage:
    """The joints a and b with axes k1 and k2, and the direction `a` that they turn onto a target."""

    def __init__(self, k1: Vec, k2: Vec, a: Vec, exact: bool = True) -> None:
        self.k1, self.k2, self.a = k1, k2, a
        self.e1 = cross(k2, k1)
        self.alpha = atan2(dot(a, self.e1), dot(a, k1))
        self.skewed = exact and max(abs(dot(k1, k2)), abs(dot(k2, a))) > POLE
        # For skewed axes (subproblem 4 with all but its right side known): k1 . R(k2, qb) a = lean + size cos(qb - phase)
        along = dot(k2, a)
        self.lean = dot(k1, k2) * along
        self.side = cross(k2, a)
        self.still = (along * k2[0], along * k2[1], along * k2[2])  # of a, what turning about k2 leaves
        self.flat = (a[0] - self.still[0], a[1] - self.still[1], a[2] - self.still[2])
        sine, cosine = dot(k1, self.side), dot(k1, self.flat)
        self.size, self.phase = hypot(sine, cosine), atan2(sine, cosine)

    def pole_distance(self, v: Vec) -> float:
        """Returns r: the sine of the angle between the target and the first axis."""
        return hypot(dot(v, self.e1), dot(v, self.k2))

    def solutions(self, v: Vec, near_a: float) -> tuple[Pair, Pair]:
        """Returns the two (qa, qb) that align a with v; on the pole qa stays near `near_a`."""
        x, y, z = dot(v, self.e1), dot(v, self.k2), dot(v, self.k1)
        r = hypot(x, y)
        b = atan2(r, z)
        if r < POLE:
            return (near_a, b - self.alpha), (near_a, -b - self.alpha)
        if self.skewed:
            return self._skewed(v, near_a)
        qa = atan2(y, x)
        return (qa, b - self.alpha), (qa + pi, -b - self.alpha)

    def carry(self, qa: float, qb: float, v: Vec) -> Vec:
        """Returns R(k2, -qb) R(k1, -qa) v: a target as the joints behind this stage see it."""
        return turned(self.k2, -qb, turned(self.k1, -qa, v))

    def carry_all(self, qa: float, qb: float, *targets: Vec) -> list[Vec]:
        """Returns `carry` of several targets, written out because most of a solution's time goes here."""
        (ax, ay, az), (bx, by, bz) = self.k1, self.k2
        ca, sa, cb, sb = cos(qa), -sin(qa), cos(qb), -sin(qb)
        da, db = 1.0 - ca, 1.0 - cb
        out = []
        for x, y, z in targets:
            d = da * (ax * x + ay * y + az * z)
            x, y, z = (
                ca * x + sa * (ay * z - az * y) + d * ax,
                ca * y + sa * (az * x - ax * z) + d * ay,
                ca * z + sa * (ax * y - ay * x) + d * az,
            )
            d = db * (bx * x + by * y + bz * z)
            out.append(
                (
                    cb * x + sb * (by * z - bz * y) + d * bx,
                    cb * y + sb * (bz * x - bx * z) + d * by,
                    cb * z + sb * (bx * y - by * x) + d * bz,
                )
            )
        return out

    def best_in_box(self, v: Vec, low: Pair, high: Pair, near: Pair) -> Pair:
        """Returns the (qa, qb) in the box that brings a nearest to v, of equals the one nearest to `near`."""
        exact = []
        for qa, qb in self.solutions(v, near[0]):
            fit_a, fit_b = fitted(qa, low[0], high[0], near[0]), fitted(qb, low[1], high[1], near[1])
            if fit_a is not None and fit_b is not None:
                exact.append((abs(fit_a - near[0]) + abs(fit_b - near[1]), fit_a, fit_b))
        if exact:
            _, qa, qb = min(exact)
            return qa, qb
        x, y, z = dot(v, self.e1), dot(v, self.k2), dot(v, self.k1)
        best, best_value = near, -inf
        for qa, qb in self._edges(x, y, z, low, high, near):
            value = cos(qb + self.alpha) * z + sin(qb + self.alpha) * (x * cos(qa) + y * sin(qa))
            if value > best_value:
                best, best_value = (qa, qb), value
        return best

    def best_b(self, v: Vec, qa: float, low: float, high: float, near: float) -> float:
        """Returns the qb in [low, high] that is best once qa is given."""
        x, y, z = dot(v, self.e1), dot(v, self.k2), dot(v, self.k1)
        return self._b_on_edge(x * cos(qa) + y * sin(qa), z, low, high, near)

    def _skewed(self, v: Vec, near_a: float) -> tuple[Pair, Pair]:
        b = dot(v, self.k1) - self.lean
        half = atan2(sqrt(max(0.0, self.size * self.size - b * b)), b)
        return self._with_a(v, self.phase + half, near_a), self._with_a(v, self.phase - half, near_a)

    def _with_a(self, v: Vec, qb: float, near_a: float) -> Pair:
        """Returns (qa, qb): subproblem 1 for the direction that qb turns a to."""
        c, s = cos(qb), sin(qb)
        still, flat, side = self.still, self.flat, self.side
        p = (
            still[0] + c * flat[0] + s * side[0],
            still[1] + c * flat[1] + s * side[1],
            still[2] + c * flat[2] + s * side[2],
        )
        sn, cs = dot(cross(self.k1, p), v), dot(p, v) - dot(self.k1, p) * dot(self.k1, v)
        return (atan2(sn, cs) if hypot(sn, cs) > POLE * POLE else near_a), qb  # a product of two distances from the pole

    def _edges(self, x: float, y: float, z: float, low: Pair, high: Pair, near: Pair) -> list[Pair]:
        sides = [qa for qa in (low[0], high[0]) if abs(qa) < inf]
        points = [(qa, self._b_on_edge(x * cos(qa) + y * sin(qa), z, low[1], high[1], near[1])) for qa in sides]
        ends = [qb for qb in (low[1], high[1]) if abs(qb) < inf]
        points += [(self._a_on_edge(x, y, sin(qb + self.alpha), low[0], high[0], near[0]), qb) for qb in ends]
        return points

    def _b_on_edge(self, w: float, z: float, low: float, high: float, near: float) -> float:
        best = atan2(w, z) - self.alpha
        fit = fitted(best, low, high, near)
        if fit is not None:
            return fit
        return max((low, high), key=lambda qb: cos(qb - best))

    def _a_on_edge(self, x: float, y: float, s: float, low: float, high: float, near: float) -> float:
        if hypot(x, y) < POLE or abs(s) < 1e-15:
            return min(max(near, low), high)
        best = atan2(y, x) if s > 0 else atan2(-y, -x)
        fit = fitted(best, low, high, near)
        if fit is not None:
            return fit
        return max((low, high), key=lambda qa: cos(qa - best))
