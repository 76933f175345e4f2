"""A policy of 3-D gripper points as a policy of a body: the hand's pose in, poses of the hand out.

Point Policy (arXiv 2502.20391): trained on the points of a person's hand (`tracks points`). On a body the points of now follow
from the hand's pose, and each frame of nine points that it predicts gives a pose back (Kabsch). No camera is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn import geometry
from robolearn.core import Ask, Chunk, Obs, Spec
from robolearn.data.normalize import Normalizer
from robolearn.errors import SpecMismatch
from robolearn.policies._streams import Streams
from robolearn.policies._tracked import BODY, POSE
from robolearn.video import points3d

if TYPE_CHECKING:  # imports torch, which the specs below do not need
    from robolearn.policies._learned import Learned

CODEC = points3d.CODEC  # of a spec whose actions are points
HALF = 0.5  # of gripper_open: below it the hand counts as closed, as in the human sets


def body_spec(spec: Spec) -> Spec:
    """Returns what drives a body, of a policy's spec: the hand's pose and what else the policy reads in, poses (10,) out."""
    if "points" not in spec.obs:
        raise SpecMismatch(f"a policy of points reads 'points', this one {', '.join(spec.obs)}")
    others = {key: array for key, array in spec.obs.items() if key != "points"}
    return replace(spec, obs={**others, **BODY}, action=POSE, codec="pose_abs")


class Pointed(Streams):
    """A policy of points that drives a body. Stream 0 is the plain `core.Policy`."""

    def __init__(self, inner: Learned) -> None:
        self.inner, self.net = inner, inner.net
        self.spec = body_spec(inner.spec)
        ones, zeros = np.ones(POSE.shape, np.float32), np.zeros(POSE.shape, np.float32)
        self.normalizer = Normalizer({"action": "identity"}, {"action": ones}, {"action": zeros})  # of poses, for monitors

    def reset_stream(self, i: int, seed: int | None) -> None:
        """Begins a new episode in stream i."""
        self.inner.reset_stream(i, seed)

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        """Adds one observation to stream i: where the hand's points are, and what else the policy reads."""
        del applied  # Unused: the points go on from where the hand is, not from where it was sent.
        for key, spec in self.spec.obs.items():
            spec.check(obs[key], f"observation '{key}'")
        pose = geometry.pose(obs["eef_pos"], geometry.matrix_from_quat_wxyz(obs["eef_quat_wxyz"]))
        points = points3d.nine_points(pose, np.array(obs["gripper_open"][0] < HALF)).ravel().astype(np.float32)
        others = {key: obs[key] for key in self.inner.spec.obs if key != "points"}
        self.inner.observe_stream(i, {**others, "points": points}, None)

    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        """Returns one chunk a stream, poses for the ticks after now."""
        chunks = self.inner.plan_streams(indices, ask)
        return [
            replace(c, actions=poses_of(c.actions), past=None, samples=None if c.samples is None else poses_of(c.samples))
            for c in chunks
        ]

    def snapshot(self, i: int = 0) -> Any:
        """Returns everything that stream i has seen."""
        return self.inner.snapshot(i)

    def restore(self, snapshot: Any, i: int = 0) -> None:
        """Makes stream i what it was when the snapshot was taken."""
        self.inner.restore(snapshot, i)


def poses_of(actions: np.ndarray) -> np.ndarray:
    """Returns poses with a gripper command (..., 10) of nine points with a command (..., 28)."""
    hand, _ = points3d.hand_of(actions[..., :-1].reshape(*actions.shape[:-1], points3d.N_POINTS, 3))
    rot6d = geometry.rot6d_from_matrix(hand[..., :3, :3])
    command = np.where(actions[..., -1:] > 0, 1.0, -1.0)
    return np.concatenate([hand[..., :3, 3], rot6d, command], axis=-1).astype(np.float32)
