"""One demonstration, other object poses: cut it into object-centred segments, move each to where its object is now.

In the spirit of MimicGen (Mandlekar et al., "MimicGen: A Data Generation System for Scalable Robot Learning using Human
Demonstrations", 2023): a segment is the hand's motion relative to one object. Differences: an object in the hand is moved
along its own recorded path with the grasp as it turned out, symmetric objects and the gripper's own symmetry choose the
smallest turn, and the path is followed by position instead of time (`Pursuit`), so that what is asked depends on where the
hand is and not on the clock. Pure geometry: no simulator, no file. Poses are world_from_... (..., 4, 4) [m].
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from robolearn import geometry
from robolearn.data.source import Source
from robolearn.errors import DatasetError

METRES_PER_RAD = 0.1  # how far a turn counts as a way: 0.1 rad as 10 mm
REACH = 0.10  # the segment starts where the hand last came this near to its first contact [m]
THIN = 0.008  # the person's path is kept to points this far apart [m]
GRID = 0.002  # and refilled to points this far apart [m]
SHORTEST_GRIP = 12  # a gripper command of fewer rows is a slip of the person's finger
MOVED = 0.002  # a part this far from where it was has been touched [m]
PAUSE = 0.002  # a person who asks for less rests [m per row]
RISEN = 0.04  # an object this much higher than it lay has been picked up [m]


@dataclass(frozen=True)
class Cuts:
    """Rows of the source where its parts begin: reach < grasp <= settled <= carry <= place <= release <= end.

    reach: the hand is near the object; grasp: the gripper's command changes; settled: it holds the object, still at rest;
    carry: the object is off the ground; place: it is near where it is let go; release: the command changes back (`end` where
    it never does); end: of what concerns this object. Where nothing is held, grasp = settled = carry is the first contact.
    """

    reach: int
    grasp: int
    settled: int
    carry: int
    place: int
    release: int
    end: int


@dataclass(frozen=True)
class Leg:
    """A path to be followed with one gripper command: poses (n, 4, 4) of the hand; lead [m]: how far ahead the aim runs."""

    name: str
    path: np.ndarray
    closing: bool
    lead: float
    wait_for_gripper: bool = False


def metric(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the distance [m] of poses (..., 4, 4), turns counted as METRES_PER_RAD."""
    turn = geometry.angle_between(a[..., :3, :3], b[..., :3, :3])
    return np.hypot(np.linalg.norm(a[..., :3, 3] - b[..., :3, 3], axis=-1), METRES_PER_RAD * turn)


def debounce(closing: np.ndarray, shortest: int = SHORTEST_GRIP) -> np.ndarray:
    """Returns closing (steps,) bool where runs shorter than `shortest` rows, but for the last, keep the command before them."""
    out = closing.copy()
    edges = [0, *(np.flatnonzero(np.diff(closing)) + 1), len(closing)]
    for start, stop in pairwise(edges[1:-1]):
        if stop - start < shortest:
            out[start:stop] = out[start - 1]
    return out


def find_cuts(source: Source, moved: str, place_reach: float = REACH) -> Cuts:
    """Returns where the source picks up and puts down object `moved`, found from the object's motion, not from the gripper's.

    That way a source whose gripper runs backwards is cut at the same rows, tried, and fails for what it is.
    """
    height = source.things[moved][:, 2, 3]
    hand = source.hand[:, :3, 3]
    top = int(np.argmax(height))
    rest = np.median(height[: top + 1])
    if height[top] < rest + RISEN:
        raise DatasetError(f"the demonstration never lifts '{moved}' by {100 * RISEN:g} cm")
    carry = int(np.flatnonzero(height[:top] < rest + RISEN)[-1]) + 1
    flips = np.flatnonzero(np.diff(debounce(source.closing))) + 1
    before, after = flips[flips < carry], flips[flips >= carry]
    if not len(before):
        raise DatasetError(f"the gripper's command never changes before '{moved}' is lifted at row {carry}")
    grasp = int(before[-1])
    release = int(after[0]) if len(after) else len(hand)
    end = int(after[1]) if len(after) > 1 else len(hand)
    # Between grasp and carry the fingers first push the object between them, then it rests in the hand.
    in_hand = geometry.inverse(source.hand[grasp : carry + 1]) @ source.things[moved][grasp : carry + 1]
    still = metric(in_hand, in_hand[-1]) < 0.003
    low = height[grasp : carry + 1] < rest + 0.25 * RISEN
    settled = grasp + max(int(np.argmax(still & low)), 1)
    reach = nearing(hand[: grasp + 1])
    place = carry + nearing(source.things[moved][carry:release, :3, 3], place_reach)
    return Cuts(reach, grasp, settled, carry, place, release, end)


def find_contact(source: Source, moved: str) -> Cuts:
    """Returns where the source comes near to, and first moves, what is pushed and pulled but not held: `moved`."""
    moving = metric(source.things[moved], source.things[moved][0]) > MOVED
    if not moving.any():
        raise DatasetError(f"the demonstration never moves '{moved}'")
    touch, end = int(np.argmax(moving)), len(source.hand)
    return Cuts(nearing(source.hand[: touch + 1, :3, 3]), touch, touch, touch, end, end, end)


def pushes(source: Source, start: int) -> np.ndarray:
    """Returns the rows from `start` on in which the person asks the hand to move: the pauses are left out."""
    asked = np.linalg.norm(source.asked[start:, :3, 3] - source.hand[start:, :3, 3], axis=-1)
    return start + np.flatnonzero(asked > PAUSE)


def nearing(positions: np.ndarray, reach: float = REACH) -> int:
    """Returns the row from which on `positions` (n, 3) stay within `reach` [m] of the last of them."""
    far = np.linalg.norm(positions - positions[-1], axis=-1) > reach
    return int(np.flatnonzero(far)[-1] + 1) if far.any() else 0


def upright(world_from_object: np.ndarray) -> np.ndarray:
    """Returns the pose with its heading only: what lies on a table is turned about the vertical."""
    return geometry.pose(world_from_object[..., :3, 3], geometry.rotation_z(geometry.yaw_of(world_from_object[..., :3, :3])))


def turns(order: int) -> np.ndarray:
    """Returns the turns (order, 4, 4) about z that leave an object of this symmetry as it is; 360 stands for a round one."""
    return geometry.pose(np.zeros(3), geometry.rotation_z(2 * np.pi * np.arange(order) / order))


def grasp_path(
    source: Source, cuts: Cuts, moved: str, world_from_object: np.ndarray, order: int, hand: np.ndarray, stop: int
) -> np.ndarray:
    """Returns the hand's way (stop - reach, 4, 4) to, around and off the object where it is now.

    Of all ways that the object's symmetry (order `order` about z) and the gripper's (half a turn) allow, it is the one whose
    grasp turns the hand least from the pose `hand` (4, 4).
    """
    object_from_hand = geometry.inverse(upright(source.things[moved][cuts.settled])) @ source.hand[cuts.reach : stop]
    candidates = upright(world_from_object) @ turns(order)[:, None] @ object_from_hand
    candidates = np.concatenate([candidates, candidates @ turns(2)[1]])
    grasps = candidates[:, cuts.grasp - cuts.reach, :3, :3]
    return candidates[int(np.argmin(geometry.angle_between(grasps, hand[:3, :3])))]


def place_path(wanted: np.ndarray, hand_from_object: np.ndarray, order: int, hand: np.ndarray) -> np.ndarray:
    """Returns the hand's way (n, 4, 4) that takes the object in it along `wanted` (n, 4, 4).

    hand_from_object: the grasp as it turned out; order: the object's symmetry about its z, which is used to end as near as
    possible to the pose `hand` (4, 4), so that an arm is not sent behind what it could reach from the front.
    """
    candidates = wanted @ turns(order)[:, None] @ geometry.inverse(hand_from_object)
    return candidates[int(np.argmin(metric(candidates[:, -1], hand)))]


def over(start: np.ndarray, end: np.ndarray, above: float = 0.0) -> np.ndarray:
    """Returns corner poses (n, 4, 4) of the way from `start` to the point `above` [m] over `end`: up first, if it is higher."""
    end = lifted(end, max(0.0, above))
    return np.stack([start, end]) if end[2, 3] <= start[2, 3] else np.stack([start, lifted(start, end[2, 3] - start[2, 3]), end])


def lifted(pose: np.ndarray, height: float) -> np.ndarray:
    """Returns `pose` (4, 4) moved up by `height` [m]."""
    out = pose.copy()
    out[2, 3] += height
    return out


def thin(path: np.ndarray, spacing: float = THIN) -> np.ndarray:
    """Returns poses of `path` (n, 4, 4) about `spacing` [m] apart, both ends kept, pauses and loops of the person left out.

    From each pose kept, the way goes on from the last row that is still within `spacing` of it.
    """
    kept, last = [0], len(path) - 1
    while kept[-1] < last:
        near = np.flatnonzero(metric(path[kept[-1] :], path[kept[-1]]) < spacing)[-1]
        kept.append(min(kept[-1] + int(near) + 1, last))
    return path[kept]


def turned(path: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Returns `path` (n, 4, 4) with the orientation of `pose` (4, 4) throughout.

    The hand turns on its way through the air: an operational space controller that turns also drifts sideways (1 cm for
    0.3 rad here), and near an object it should not.
    """
    return geometry.pose(path[:, :3, 3], pose[:3, :3])


def homing(path: np.ndarray) -> np.ndarray:
    """Returns the poses of `path` (n, 4, 4) after which it never again is as far from its end: the way there without detours."""
    distance = metric(path, path[-1])
    after = np.append(np.maximum.accumulate(distance[::-1])[::-1][1:], -1.0)
    return path[distance > after]


def leaving(path: np.ndarray) -> np.ndarray:
    """Returns the poses of `path` (n, 4, 4) that are further from its start than all before: the way off without detours."""
    return homing(path[::-1])[::-1]


def fill(path: np.ndarray, spacing: float = GRID) -> np.ndarray:
    """Returns `path` (n, 4, 4) with poses interpolated in between, at most `spacing` [m] apart, both ends kept."""
    out = [path[:1]]
    for a, b in pairwise(path):
        count = max(1, int(np.ceil(metric(a, b) / spacing)))
        fraction = np.arange(1, count + 1) / count
        position = a[:3, 3] + fraction[:, None] * (b[:3, 3] - a[:3, 3])
        out.append(geometry.pose(position, geometry.slerp(a[:3, :3], b[:3, :3], fraction)))
    return np.concatenate(out)


class Pursuit:
    """Follows a path by position: the aim is the furthest pose, in the path's order, that is within `lead` of the hand.

    (Pure pursuit: Coulter, "Implementation of the Pure Pursuit Path Tracking Algorithm", 1992.) The hand thereby moves at a
    speed proportional to `lead`, slows down at the end, waits where it is held up, and comes back where it was pushed off.
    """

    def __init__(self, path: np.ndarray, lead: float) -> None:
        self.path, self.lead, self.k = path, lead, 0

    def aim(self, hand: np.ndarray) -> np.ndarray:
        """Returns the pose (4, 4) to ask for when the hand is at `hand` (4, 4)."""
        while self.k + 1 < len(self.path) and metric(self.path[self.k + 1], hand) <= self.lead:
            self.k += 1
        return self.path[self.k]

    def arrived(self, hand: np.ndarray, tolerance: float) -> bool:
        """Returns whether the aim is the end of the path and the hand is within `tolerance` [m] of it."""
        return self.k == len(self.path) - 1 and bool(metric(self.path[-1], hand) <= tolerance)
