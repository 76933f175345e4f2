"""A motion-track policy as a policy of a body: pictures and the hand's pose in, poses of the hand out.

MT-pi (arXiv 2501.06994), rollout: where the points are now follows from the hand's pose and the calibrated cameras; every view
is predicted by itself, or all by one network; the views' tracks are triangulated and solved for the motion of the hand
(`video/decoding.py`). The authors send one pose of a plan, here the whole plan is sent. A plan that the gates do not trust is
not followed: the hand holds still until the next one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from robolearn import config, geometry
from robolearn.core import ArraySpec, Ask, Camera, Chunk, Obs, Spec
from robolearn.data.normalize import Normalizer
from robolearn.errors import SpecMismatch
from robolearn.policies._streams import Streams
from robolearn.video import pack, pinhole
from robolearn.video.decoding import Decoded, Gates, decode
from robolearn.video.points import LAYOUT, OPEN_FROM, gripper_points

if TYPE_CHECKING:  # imports torch, which the specs below do not need
    from robolearn.policies._learned import Learned

CODEC = pack.CODEC  # of a spec whose actions are tracks
POSE = ArraySpec((10,), names=("x", "y", "z", "r00", "r01", "r02", "r10", "r11", "r12", "gripper"), frame="world")
BODY = {
    "eef_pos": ArraySpec((3,), names=("x", "y", "z"), unit="m", frame="world"),
    "eef_quat_wxyz": ArraySpec((4,), names=("w", "x", "y", "z"), frame="world"),
    "gripper_open": ArraySpec((1,), names=("open",)),
}
_POINTS = (len(LAYOUT), 2)


@dataclass(frozen=True)
class Views:
    """How tracks become poses: from which views, predicted together or each by itself, and what is not trusted."""

    names: tuple[str, ...]
    joint: bool
    gates: Gates = Gates()

    @classmethod
    def of(cls, policy: Mapping[str, Any]) -> Views:
        """Returns what a policy's config says (its fields by name)."""
        gates = Gates(float(policy["outlier_gate_px"]), float(policy["reprojection_gate_px"]))
        return cls(tuple(policy["views"]), bool(policy["joint"]), gates)

    @property
    def streams(self) -> int:
        """How many streams of the network one episode takes."""
        return 1 if self.joint else len(self.names)

    def picture(self, view: str) -> str:
        """Returns the network's name of a view's picture."""
        return f"{view}_image" if self.joint else "image"


@dataclass
class _Hand:
    """Where the hand of one running episode is: world_from_hand (4, 4) [m], and whether it is closed."""

    pose: np.ndarray
    closed: bool


@dataclass(frozen=True)
class Snapshot:
    """What a stream has seen: of the network's streams, and of the hand."""

    inner: tuple[Any, ...]
    hand: _Hand | None


def body_spec(spec: Spec, views: Views) -> Spec:
    """Returns what drives a body, of a network's spec: pictures of the views and the hand's pose in, poses (10,) out."""
    for view in views.names:
        if views.picture(view) not in spec.obs:
            raise SpecMismatch(f"mt_pi reads '{views.picture(view)}' for view '{view}', the network has {', '.join(spec.obs)}")
    pictures = {f"{view}_image": spec.obs[views.picture(view)] for view in views.names}
    cameras = {key: spec.cameras[key] for key in pictures if key in spec.cameras}
    return replace(spec, obs={**pictures, **BODY}, action=POSE, cameras=cameras, codec="pose_abs")


class Tracked(Streams):
    """A motion-track policy that drives a body. Stream 0 is the plain `core.Policy`.

    plans, held, repaired: how many plans were made, how many of them were not trusted and therefore not followed, and how many
    points were outliers.
    """

    def __init__(self, inner: Learned, views: Views, streams: int = 1) -> None:
        self.inner, self.views, self.net = inner, views, inner.net
        self.spec = body_spec(inner.spec, views)
        self.cameras: dict[str, Camera] = dict(self.spec.cameras)
        ones, zeros = np.ones(POSE.shape, np.float32), np.zeros(POSE.shape, np.float32)
        self.normalizer = Normalizer({"action": "identity"}, {"action": ones}, {"action": zeros})  # of poses, for monitors
        self._hands: list[_Hand | None] = [None] * streams
        self.plans = self.held = self.repaired = 0

    def meet(self, body: Spec) -> None:
        """Takes over the body's calibrated cameras; warns where one was calibrated anew since the training."""
        for view in self.views.names:
            key = f"{view}_image"
            trained, now = self.cameras.get(key), body.cameras.get(key)
            if now is not None and now.world_from_camera:
                height, width, _ = self.spec.obs[key].shape
                if trained is not None and trained.hash and now.hash and trained.hash != now.hash:
                    config.warn(f"robolearn: view '{view}' was calibrated anew since the training; if it was moved, train anew")
                self.cameras[key] = pinhole.resized(now, (width, height))
            elif trained is None or not trained.world_from_camera:
                raise SpecMismatch(f"mt_pi: view '{view}' has no calibration, neither with the body nor with the checkpoint")

    def tally(self) -> dict[str, int]:
        """Returns how many plans were made and held, and how many points repaired."""
        return {"plans": self.plans, "plans_held": self.held, "points_repaired": self.repaired}

    def reset_stream(self, i: int, seed: int | None) -> None:
        """Begins a new episode in stream i; the views' noise is drawn apart, as that of two networks would be."""
        self._hands[i] = None
        for v, stream in enumerate(self._inner_of(i)):
            self.inner.reset_stream(stream, (seed or 0) + v * 2**32)

    def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
        """Adds one observation to stream i: of each view its picture and where the gripper's points are in it."""
        del applied  # Unused: the tracks go on from where the hand is, not from where it was sent.
        for key, spec in self.spec.obs.items():
            spec.check(obs[key], f"observation '{key}'")
        pose = geometry.pose(obs["eef_pos"], geometry.matrix_from_quat_wxyz(obs["eef_quat_wxyz"]))
        open_now = float(obs["gripper_open"][0])
        self._hands[i] = _Hand(pose, open_now < OPEN_FROM)
        points = gripper_points(pose, open_now)
        tracks = [pinhole.project(self._camera(view), points).astype(np.float32).ravel() for view in self.views.names]
        pictures = {f"{view}_image": obs[f"{view}_image"] for view in self.views.names}
        if self.views.joint:
            self.inner.observe_stream(self._inner_of(i)[0], {**pictures, "track": np.concatenate(tracks)}, None)
            return
        for stream, view, track in zip(self._inner_of(i), self.views.names, tracks, strict=True):
            self.inner.observe_stream(stream, {"image": pictures[f"{view}_image"], "track": track}, None)

    def plan_streams(self, indices: Sequence[int], ask: Ask = Ask()) -> list[Chunk]:
        """Returns one chunk a stream, poses for the ticks after now; all from one batched pass through the network."""
        chunks = self.inner.plan_streams([stream for i in indices for stream in self._inner_of(i)], ask)
        each = self.views.streams
        return [self._chunk(i, chunks[k * each : (k + 1) * each]) for k, i in enumerate(indices)]

    def snapshot(self, i: int = 0) -> Snapshot:
        """Returns everything that stream i has seen."""
        return Snapshot(tuple(self.inner.snapshot(stream) for stream in self._inner_of(i)), self._hands[i])

    def restore(self, snapshot: Snapshot, i: int = 0) -> None:
        """Makes stream i what it was when the snapshot was taken."""
        self._hands[i] = snapshot.hand
        for stream, kept in zip(self._inner_of(i), snapshot.inner, strict=True):
            self.inner.restore(kept, stream)

    def _inner_of(self, i: int) -> range:
        return range(i * self.views.streams, (i + 1) * self.views.streams)

    def _camera(self, view: str) -> Camera:
        if f"{view}_image" not in self.cameras:
            raise SpecMismatch(f"mt_pi: view '{view}' has no calibration, neither with the body nor with the checkpoint")
        return self.cameras[f"{view}_image"]

    def _chunk(self, i: int, chunks: Sequence[Chunk]) -> Chunk:
        """Returns the plan of stream i, of the plans of its views."""
        hand = self._hands[i]
        assert hand is not None  # the inner policy refuses a plan without an observation
        planned = self._decoded(hand, [chunk.actions for chunk in chunks])
        followed = self._followed(planned)
        self.plans, self.repaired = self.plans + 1, self.repaired + planned.repaired
        self.held += not followed
        drawn = [] if chunks[0].samples is None else zip(*(c.samples for c in chunks), strict=True)  # type: ignore[misc]
        samples = [self._poses(self._decoded(hand, draw), hand) for draw in drawn]
        features = [chunk.features for chunk in chunks if chunk.features is not None]
        return Chunk(
            actions=self._poses(planned, hand),
            tick=chunks[0].tick,
            samples=np.stack(samples) if samples else None,
            features=np.concatenate(features) if features else None,
        )

    def _decoded(self, hand: _Hand, plans: Sequence[np.ndarray]) -> Decoded:
        """Returns the trajectory of plans (rows, numbers), one a stream of the network; row 0 is now."""
        rows = np.stack(plans)
        points = np.split(rows[0, :, :-1], len(self.views.names), axis=1) if self.views.joint else rows[..., :-1]
        tracks = np.asarray(points).reshape(len(self.views.names), rows.shape[1], *_POINTS)
        votes = np.broadcast_to(rows[..., -1], tracks.shape[:2])
        cameras = [self._camera(view) for view in self.views.names]
        return decode(cameras, tracks, votes, hand.pose, hand.closed, self.views.gates)

    @staticmethod
    def _followed(planned: Decoded) -> bool:
        """Returns whether the plan is trusted in the row of now and in the next one, so that the hand moves at all."""
        return bool(planned.trusted[:2].all())

    def _poses(self, planned: Decoded, hand: _Hand) -> np.ndarray:
        """Returns actions (rows - 1, 10) for the ticks after now; from the first row that is not trusted on the hand holds."""
        trusted, followed = planned.trusted, self._followed(planned)
        last = len(trusted) if trusted.all() else int(np.argmin(trusted))
        rows = np.minimum(np.arange(1, len(trusted)), max(last - 1, 0))
        poses = planned.poses[rows] if followed else np.broadcast_to(hand.pose, (len(rows), 4, 4))
        open_ = planned.gripper_open[rows] if followed else np.full(len(rows), 0.0 if hand.closed else 1.0)
        turned = geometry.rot6d_from_matrix(poses[:, :3, :3])
        return np.concatenate([poses[:, :3, 3], turned, 1.0 - 2.0 * open_[:, None]], axis=1).astype(np.float32)
