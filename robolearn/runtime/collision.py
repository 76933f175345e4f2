"""How far an arm is from itself and its table, and how much of a step keeps it so: MuJoCo's distances, a bound on their change.

No distance between two shapes changes faster than the joints between them can move any of their points; so a way is walked in
steps that the distances themselves allow (conservative advancement: Mirtich, PhD thesis, Berkeley 1996), and what is called free
is free between the steps as well. Shapes are what MuJoCo collides: the convex hulls of meshes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from robolearn.errors import ArrayMismatch, BadInput
from robolearn.runtime import _pairs

Array = np.ndarray
_FARTHEST_M = 10.0  # a distance that is not asked for more exactly
_HALVINGS = 6  # of the last step, before a blocked pose
_NUDGES_M = 1e-6 * np.concatenate([np.eye(3), -np.eye(3)])


class Near(NamedTuple):
    """The two shapes that are nearest to each other, by name, and how far apart they are [m]; below 0 they touch."""

    clearance_m: float
    first: str
    second: str


class Rehearsal(NamedTuple):
    """What became of ways to goals: how many, how many cut; poses looked at, how many of them in contact, the deepest [m]."""

    goals: int
    cut: int
    poses: int
    penetrations: int
    deepest_m: float


class Checker:
    """Watches the pairs of shapes of a model whose distance the arm's joints change; what else could move stays where it is.

    Not watched are neighbours on the arm, pairs that the model excludes (contype, conaffinity, exclude), and pairs of the arm's
    own shapes that are nearer than the margin at rest. margin_m: what is kept; joints: the arm's, in order.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joints: Sequence[str],
        rest: Array,
        margin_m: float = 0.005,
        ignore: Sequence[str] = (),
        qpos: Array | None = None,
    ) -> None:
        """joints: the arm's, in the order of every q (n,); rest: (n,) [rad] a pose in which nothing touches.

        margin_m: clearance kept at every checked pose, and four fifths of it between them; ignore: bodies that may be touched;
        qpos: (nq,) where everything else is, the model's own if None. BadInput for names that the model has not, for shapes
        without a distance (height fields), and where the arm touches its surroundings at rest.
        """
        if not 0 < margin_m < 1:
            raise BadInput(f"collision: want a margin in (0, 1) m, got {margin_m:g}")
        self._model = copy.copy(model)
        self._model.geom_margin[:] = 0  # MuJoCo takes it off the distance
        self._data, self.margin_m, self.joints = mujoco.MjData(self._model), margin_m, tuple(joints)
        if qpos is not None:
            self._data.qpos[:] = qpos
        watched = _pairs.watched(self._model, self.joints, tuple(ignore))
        self._qpos = watched.qpos
        self._place(rest)
        self._leave_out(watched)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The watched pairs, by the names of their shapes."""
        return [(self._name(first), self._name(second)) for first, second in self._geoms]

    def nearest(self, q: Array) -> Near:
        """Returns the nearest watched pair at q (n,) [rad]."""
        self._place(q)
        lower = self._lower()
        best, which = _FARTHEST_M, 0
        for pair in np.argsort(lower):
            if lower[pair] >= best:
                break
            distance = self._distance(int(pair), best)
            if distance < best:
                best, which = distance, int(pair)
        first, second = self._geoms[which]
        return Near(best, self._name(first), self._name(second))

    def clearance(self, q: Array) -> float:
        """Returns the smallest distance [m] of all watched pairs at q (n,) [rad], 10 at most; below 0 something touches."""
        return self.nearest(q).clearance_m

    def safe_share(self, q_from: Array, q_to: Array) -> float:
        """Returns how much of the straight way from q_from to q_to (n,) [rad] is free, 0 .. 1.

        Free is a pose in which every pair keeps the margin, or, where it did not at q_from, is no nearer than there: what is too
        near may only part.
        """
        start, way = self._checked(q_from), self._checked(q_to) - self._checked(q_from)
        change = self._reach @ np.abs(way)  # [m] by which each distance can change on the whole way
        self._place(start)
        pairs = np.flatnonzero(self._lower() < self.margin_m + change)
        now = np.array([self._distance(int(pair), self.margin_m + change[pair]) for pair in pairs])
        pairs, now = pairs[near := now < self.margin_m + change[pairs]], now[near]
        keep, change, share = np.minimum(now, self.margin_m), change[pairs], 0.0
        # A pair may move on by what it has left. Where that is little, by 2/5 of what it keeps: between two poses so near, both
        # of them free, its distance is 4/5 of that at least.
        least = 0.4 * np.maximum(keep, 1e-4)
        while np.any(now - keep < change * (1 - share)):
            ahead = min(share + float(np.min(np.maximum(now - keep, least) / np.maximum(change, 1e-12))), 1.0)
            now = self._distances(start + ahead * way, pairs, keep + change * (1 - ahead))
            if np.any(now < keep):
                return self._halved(start, way, (share, ahead), pairs, keep)
            share = ahead
        return 1.0

    def penetration(self, q: Array) -> float:
        """Returns how deep [m] MuJoCo's own contacts say that watched pairs are in each other at q (n,) [rad], 0 if not."""
        self._place(q)
        mujoco.mj_fwdPosition(self._model, self._data)
        watched, contact = set(self._geoms), self._data.contact
        found = zip(contact.geom.tolist(), contact.dist.tolist(), strict=True)
        return max([0.0, *(-distance for pair, distance in found if (min(pair), max(pair)) in watched)])

    def _halved(self, start: Array, way: Array, shares: tuple[float, float], pairs: Array, keep: Array) -> float:
        """Returns the largest share that is free, between one that is and one that is not."""
        free, blocked = shares
        for _ in range(_HALVINGS):
            middle = (free + blocked) / 2
            if np.all(self._distances(start + middle * way, pairs, keep) >= keep):
                free = middle
            else:
                blocked = middle
        return free

    def _distances(self, q: Array, pairs: Array, most: Array) -> Array:
        """Returns the distance (k,) [m] of some pairs at q, each up to its `most`, or the margin where that is more."""
        self._place(q)
        each = zip(pairs, self._lower()[pairs], np.maximum(most, self.margin_m), strict=True)
        return np.array([top if low >= top else self._distance(int(pair), top) for pair, low, top in each])

    def _lower(self) -> Array:
        """Returns what the bounding spheres say that each distance is at least (pairs,) [m]; nothing where one is a plane."""
        at = self._data.geom_xpos
        return np.linalg.norm(at[self._first] - at[self._second], axis=1) - self._radii

    def _distance(self, pair: int, most: float) -> float:
        """Returns the distance [m] of one pair, `most` where it is more.

        MuJoCo 3.3.5 to 3.10 says exactly 0 for one mesh pair in a hundred that is well apart (google-deepmind/mujoco issue
        3383); a micrometre aside it is right.
        """
        first, second = self._geoms[pair]
        distance = mujoco.mj_geomDistance(self._model, self._data, first, second, most, None)
        if distance == 0.0:
            here = self._data.geom_xpos[first].copy()
            for nudge in _NUDGES_M:
                self._data.geom_xpos[first] = here + nudge
                distance = mujoco.mj_geomDistance(self._model, self._data, first, second, most, None)
                if distance != 0.0:
                    break
            self._data.geom_xpos[first] = here
        return float(distance)

    def _checked(self, q: Array) -> Array:
        pose = np.asarray(q, dtype=float)
        if pose.shape != self._qpos.shape or not np.isfinite(pose).all():
            shown = np.array2string(pose, precision=3, threshold=8)
            raise ArrayMismatch(f"collision: want {len(self._qpos)} finite joint angles, got {shown}")
        return pose

    def _place(self, q: Array) -> None:
        self._data.qpos[self._qpos] = self._checked(q)
        mujoco.mj_kinematics(self._model, self._data)

    def _leave_out(self, watched: _pairs.Watched) -> None:
        """Keeps the pairs that may be watched, judged at the pose of rest, which is in place."""
        self._set(watched.geoms, watched.reach)
        at_rest = np.array([self._distance(pair, self.margin_m) for pair in range(len(self._geoms))])
        for pair in np.flatnonzero((at_rest < 0) & ~watched.own):
            first, second = (self._name(geom) for geom in self._geoms[pair])
            raise BadInput(
                f"collision: at rest {first} is {-1000 * at_rest[pair]:.1f} mm inside {second}: "
                "give a rest pose that is clear, or name the body of one of them in ignore"
            )
        keep = ~(watched.own & (at_rest < self.margin_m))
        self._set(watched.geoms[keep], watched.reach[keep])

    def _set(self, geoms: Array, reach: Array) -> None:
        self._geoms, self._reach = [(int(a), int(b)) for a, b in geoms], reach
        self._first, self._second = geoms.T
        planes = self._model.geom_type[geoms] == mujoco.mjtGeom.mjGEOM_PLANE
        self._radii = np.where(planes.any(axis=1), np.inf, self._model.geom_rbound[geoms].sum(axis=1))

    def _name(self, geom: int) -> str:
        body = self._model.body(int(self._model.geom_bodyid[geom])).name
        return self._model.geom(geom).name or f"a shape of {body or 'the world'}"


def colliding_goals(checker: Checker, lower: Array, upper: Array, count: int, rng: np.random.Generator) -> Array:
    """Returns random poses (count, n) [rad] inside lower .. upper in which something touches."""
    found: list[Array] = []
    while len(found) < count:
        q = rng.uniform(lower, upper)
        if checker.clearance(q) < 0:
            found.append(q)
    return np.stack(found)


def rehearse(checker: Checker, start: Array, goals: Array, poses: int = 40) -> Rehearsal:
    """Returns what happens on the straight ways from `start` (n,) to each of `goals` (k, n) [rad], cut by the checker.

    poses: how many of each cut way MuJoCo's own contacts are asked about; they know nothing of the checker's distances.
    """
    cut, depths = 0, []
    for goal in goals:
        share = checker.safe_share(start, goal)
        cut += share < 1.0
        depths += [checker.penetration(start + s * (goal - start)) for s in np.linspace(0.0, share, poses)]
    return Rehearsal(len(goals), cut, len(depths), int(np.count_nonzero(depths)), max(depths, default=0.0))
