"""Mode A for many targets at once, through the array API: numpy arrays and torch tensors pass through, torch is not imported."""

from __future__ import annotations

from typing import Any, NamedTuple

import array_api_compat
import numpy as np

from robolearn.errors import ArrayMismatch
from robolearn.teleop.arm import Arm

SIGNS = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]
OUTSIDE = 1e6  # cost of a branch outside the limits


class Batch(NamedTuple):
    """q (N, 7): the nearest branch inside the limits; branches (N, 8, 7): all, by whole turns inside; fits (N, 8): which are."""

    q: Any
    branches: Any
    fits: Any


def solve_batch(arm: Arm, U: Any, L: Any, H: Any, q_prev: Any = None) -> Batch:
    """Returns joint angles for N targets U, L (N, 3) (any length), H (N, 3, 3), nearest to q_prev (7,) or (N, 7).

    Where no branch fits the limits the nearest one is clipped into them (`fits` says so): the scalar `solve` finds a better one.
    ArrayMismatch for other shapes. What is not finite comes out as NaN.
    """
    xp = array_api_compat.array_namespace(U, L, H)
    n = U.shape[0] if len(U.shape) == 2 else -1
    if tuple(U.shape) != (n, 3) or tuple(L.shape) != (n, 3) or tuple(H.shape) != (n, 3, 3):
        raise ArrayMismatch(
            f"solve_batch: want (N, 3), (N, 3), (N, 3, 3), got {tuple(U.shape)}, {tuple(L.shape)}, {tuple(H.shape)}"
        )
    near = arm.middle() if q_prev is None else q_prev
    near = _like(xp, near, U) if isinstance(near, (np.ndarray, list, tuple)) else near
    near = xp.broadcast_to(xp.reshape(near, (-1, 7)), (n, 7))
    branches = _branches(xp, arm, U, L, H, near)
    return _choose(xp, arm, branches, near)


def _branches(xp: Any, arm: Arm, U: Any, L: Any, H: Any, near: Any) -> Any:
    """Returns the eight branches (N, 8, 7), angles as they come."""
    axes = [_like(xp, axis, U) for axis in arm.axes]
    rest = _like(xp, arm.hand_rotation.T @ arm.axes[[6, 5]].T, U)  # (3, 2)
    hand = xp.matmul(H, rest)
    fore, point, side = _unit(xp, L), hand[..., 0], hand[..., 1]
    directions = (arm.upper_axis, arm.lower_axis, arm.axes[6])
    targets = [xp.stack([each], axis=0) for each in (_unit(xp, U), fore, point, side)]  # (branches so far, N, 3)
    angles: list[Any] = []
    for i in range(3):
        k1, k2, a = axes[2 * i], axes[2 * i + 1], _like(xp, directions[i], U)
        qa, qb = _stage(xp, k1, k2, a, targets[0], near[:, 2 * i], arm.exact)  # (2, branches, N)
        rest_of = xp.stack(targets[1:], axis=0)
        carried = _turned(xp, k2, -qb, _turned(xp, k1, -qa, rest_of[:, None]))  # (targets, 2, branches, N, 3)
        m = 2 * targets[0].shape[0]
        targets = [xp.reshape(carried[j], (m, *carried.shape[3:])) for j in range(carried.shape[0])]
        angles = [xp.concat([each, each], axis=0) for each in angles]
        angles += [xp.reshape(qa, (m, -1)), xp.reshape(qb, (m, -1))]
    k, p, x = axes[6], axes[5], targets[0]
    crossed = _cross(xp, k, p)
    q7 = xp.atan2(_dot(xp, crossed, x), _dot(xp, p, x) - _dot(xp, k, p) * _dot(xp, k, x))
    return xp.permute_dims(xp.stack([*angles, q7], axis=-1), (1, 0, 2))


def _stage(xp: Any, k1: Any, k2: Any, a: Any, v: Any, near: Any, exact: bool) -> tuple[Any, Any]:
    """Returns qa, qb (2, ...) that align R(k1, qa) R(k2, qb) a with v (..., 3), both solutions."""
    e1 = _cross(xp, k2, k1)
    x, y, z = _dot(xp, e1, v), _dot(xp, k2, v), _dot(xp, k1, v)
    r = xp.sqrt(x * x + y * y)
    pole = r < 1e-9
    if exact and max(abs(float(_dot(xp, k1, k2))), abs(float(_dot(xp, k2, a)))) > 1e-9:
        hk, kp = _dot(xp, k1, k2), _dot(xp, k2, a)
        a_s, a_c = _dot(xp, k1, _cross(xp, k2, a)), _dot(xp, k1, a) - hk * kp
        b, size = z - hk * kp, xp.sqrt(a_s**2 + a_c**2)
        phi = xp.atan2(a_s, a_c)
        half = xp.atan2(xp.sqrt(xp.clip(size**2 - b * b, 0.0, None)), b)
        qb = xp.stack([phi + half, phi - half], axis=0)
        p = _turned(xp, k2, qb, a)
        qa = xp.atan2(_dot(xp, _cross(xp, k1, p), v), _dot(xp, p, v) - _dot(xp, k1, p) * z)
    else:
        alpha, b, turn = xp.atan2(_dot(xp, e1, a), _dot(xp, k1, a)), xp.atan2(r, z), xp.atan2(y, x)
        qa, qb = xp.stack([turn, turn + np.pi], axis=0), xp.stack([b - alpha, -b - alpha], axis=0)
    return xp.where(pole[None], xp.broadcast_to(near, qa.shape), qa), qb


def _choose(xp: Any, arm: Arm, branches: Any, near: Any) -> Batch:
    """Returns the branch nearest to `near` that fits the limits, by whole turns."""
    big = 1e9
    low = _like(xp, np.where(np.isfinite(arm.low), arm.low, -big), branches)
    high = _like(xp, np.where(np.isfinite(arm.high), arm.high, big), branches)
    turn, to = 2 * np.pi, near[:, None, :]
    q = branches + turn * xp.round((to - branches) / turn)
    q = xp.where(q < low, q + turn * xp.ceil((low - q) / turn), q)
    q = xp.where(q > high, q - turn * xp.ceil((q - high) / turn), q)
    fits = xp.all((q >= low) & (q <= high), axis=-1)
    cost = xp.sum(xp.abs(q - to), axis=-1) + xp.where(fits, 0.0, OUTSIDE)
    best = xp.argmin(cost, axis=-1)
    chosen = xp.arange(8, device=array_api_compat.device(best))[None, :] == best[:, None]
    nearest = xp.sum(xp.where(chosen[..., None], q, 0.0), axis=1)
    held = xp.minimum(xp.maximum(nearest, low), high)
    finite = xp.isfinite(xp.sum(branches, axis=(1, 2)))[:, None]
    return Batch(xp.where(finite, held, nearest + np.nan), q, fits)


def _like(xp: Any, array: Any, other: Any) -> Any:
    """Returns an array as one of the kind, precision and device of `other`."""
    return xp.asarray(np.array(array, float), dtype=other.dtype, device=array_api_compat.device(other))


def _dot(xp: Any, a: Any, b: Any) -> Any:
    return a[..., 0] * b[..., 0] + a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]


def _cross(xp: Any, a: Any, b: Any) -> Any:
    ax, ay, az, bx, by, bz = a[..., 0], a[..., 1], a[..., 2], b[..., 0], b[..., 1], b[..., 2]
    return xp.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=-1)


def _turned(xp: Any, k: Any, angle: Any, v: Any) -> Any:
    """Returns R(k, angle) v for one axis k (3,), angles (...) and vectors (..., 3)."""
    c, s = xp.cos(angle)[..., None], xp.sin(angle)[..., None]
    return c * v + s * _cross(xp, k, v) + ((1.0 - c) * _dot(xp, k, v)[..., None]) * k


def _unit(xp: Any, v: Any) -> Any:
    length = xp.sqrt(_dot(xp, v, v))[..., None]
    return v / xp.where(length > 0, length, xp.full_like(length, np.nan))
