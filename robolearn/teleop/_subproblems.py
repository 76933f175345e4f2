"""The subproblems of closed-form inverse kinematics in least-squares form, on plain tuples (Paden-Kahan; Elias and Wen, IK-Geo).

Vectors are tuples of three floats, axes are unit. Each returns the best angles even where no angle is exact.
"""

from __future__ import annotations

from math import atan2, cos, hypot, pi, sin, sqrt

Vec = tuple[float, float, float]


def dot(a: Vec, b: Vec) -> float:
    """Returns a . b."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def cross(a: Vec, b: Vec) -> Vec:
    """Returns a x b."""
    return (a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0])


def turned(k: Vec, angle: float, v: Vec) -> Vec:
    """Returns R(k, angle) v (Rodrigues)."""
    kx, ky, kz = k
    x, y, z = v
    c, s = cos(angle), sin(angle)
    d = (1.0 - c) * (kx * x + ky * y + kz * z)
    return (
        c * x + s * (ky * z - kz * y) + d * kx,
        c * y + s * (kz * x - kx * z) + d * ky,
        c * z + s * (kx * y - ky * x) + d * kz,
    )


def between(a: Vec, b: Vec) -> float:
    """Returns the angle [rad] between two vectors, exact near 0 and pi."""
    x, y, z = cross(a, b)
    return atan2(sqrt(x * x + y * y + z * z), dot(a, b))


def sp1(p1: Vec, p2: Vec, k: Vec) -> tuple[float, float]:
    """Returns (t, conditioning): t minimises |R(k, t) p1 - p2|; conditioning 0: every t is as good."""
    sn = dot(cross(k, p1), p2)
    cs = dot(p1, p2) - dot(k, p1) * dot(k, p2)
    return atan2(sn, cs), hypot(sn, cs)


def sp4(h: Vec, p: Vec, k: Vec, d: float) -> tuple[tuple[float, ...], float]:
    """Returns (angles, residual): one or two t that minimise |h . R(k, t) p - d|; no angle where every t is as good."""
    kp = dot(k, p)
    hk = dot(h, k)
    a_s, a_c = dot(h, cross(k, p)), dot(h, p) - hk * kp
    r, b = hypot(a_s, a_c), d - hk * kp
    if r < 1e-14:
        return (), abs(b)
    phi = atan2(a_s, a_c)
    if abs(b) < r:
        half = atan2(sqrt(r * r - b * b), b)
        return (phi + half, phi - half), 0.0
    return (phi if b > 0 else phi + pi,), abs(b) - r


def sp2(p1: Vec, p2: Vec, k1: Vec, k2: Vec) -> tuple[tuple[float, float], ...]:
    """Returns one or two (t1, t2) that minimise |R(k1, t1) p1 - R(k2, t2) p2| for unit p1, p2 and axes that are not parallel."""
    c = dot(k1, k2)
    d1, d2 = dot(k1, p1), dot(k2, p2)
    n = cross(k1, k2)
    nn = dot(n, n)
    if nn < 1e-14:
        return ()
    al, be = (d1 - c * d2) / nn, (d2 - c * d1) / nn
    g2 = 1.0 - (al * al + be * be + 2 * al * be * c)
    if g2 > 0:
        g = sqrt(g2 / nn)
        pairs = []
        for sign in (g, -g):
            z = (
                al * k1[0] + be * k2[0] + sign * n[0],
                al * k1[1] + be * k2[1] + sign * n[1],
                al * k1[2] + be * k2[2] + sign * n[2],
            )
            pairs.append((sp1(p1, z, k1)[0], sp1(p2, z, k2)[0]))
        return tuple(pairs)
    first, second = sp4(k2, p1, k1, d2)[0], sp4(k1, p2, k2, d1)[0]
    return ((first[0] if first else 0.0, second[0] if second else 0.0),)
