"""Makes a training set of human video alone: 3-D gripper points (Point Policy) or relative wrist poses and a goal (ZeroMimic)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cv2
import numpy as np
import tyro
from tqdm import tqdm

from robolearn import geometry
from robolearn.apps import _to_demos
from robolearn.apps._report import write_json
from robolearn.apps._to_demos import Human, Refused
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, DatasetError, Findings, nearest
from robolearn.video import points3d, relative
from robolearn.video.wrist import DOWN, ROBUST, WristPath, WristRule

POSE_NAMES = ("x", "y", "z", "r00", "r01", "r02", "r10", "r11", "r12")


@dataclass(frozen=True)
class Config:
    """Which human episodes, and what of them."""

    dataset: Annotated[Path, tyro.conf.Positional]
    """A human motion-track set (`tracks extract`)."""
    out: Path
    """The dataset to write."""
    recipe: Literal["point_policy", "zeromimic"] = "point_policy"
    """Nine 3-D gripper points of now and next, or picture, goal picture and future wrist poses relative to now."""
    views: tuple[str, ...] = ()
    """Which views to triangulate; empty: all. With zeromimic every one of them becomes an episode of its own."""
    gripper: Literal["set", "distance"] = "set"
    """When the hand is closed: by the set's label, or by the distance of thumb and index finger."""
    tip: float = 0.0
    """How far before the hand frame of the body it is for the fingertips are [m]: 0 on robosuite's arms, 0.15 on the bench."""
    keep: tuple[str, ...] = ()
    """Vectors of the set to take along as observations, such as object poses or object points (point_policy)."""
    horizon: int = 10
    """Future poses in a row's action (zeromimic)."""
    size: int = 96
    """Side of the pictures [px] (zeromimic)."""
    wrist: WristRule = ROBUST
    json: Path | None = None
    """Write the figures to this file."""
    overwrite: bool = False
    """Replace an existing set."""

    def __post_init__(self) -> None:
        """Refuses what cannot be made; ValueError names the field."""
        if self.horizon < 1 or self.size < 8:
            raise ValueError(f"want horizon of at least 1 and size of at least 8, got {self.horizon} and {self.size}")


def run(cfg: Config) -> int:
    """Writes the set and says how many episodes it came to, and why others did not."""
    if cfg.out.exists() and not cfg.overwrite:
        raise AlreadyExists(cfg.out, "dataset")
    human = _to_demos.open_human(EpisodeSet.open(cfg.dataset), cfg.views)
    missing = [key for key in needed(cfg, human) if key not in human.dataset.keys]
    if missing and missing[0] in cfg.keep:
        near = nearest(missing[0], human.dataset.keys)
        raise DatasetError(
            f"{cfg.dataset}: --keep {missing[0]}: no such key{near}; a video by itself says nothing of objects: leave "
            "--keep out, or add the key to the set first (points that are followed: docs/tracks_points.md)"
        )
    if missing:
        raise DatasetError(f"{cfg.dataset}: no key '{missing[0]}'{nearest(missing[0], human.dataset.keys)}")
    spec = point_spec(cfg, human) if cfg.recipe == "point_policy" else wrist_spec(cfg, human)
    rows: list[dict[str, Any]] = []
    done: EpisodeSet | None = None
    for episode in tqdm(range(human.dataset.n_episodes), desc=cfg.recipe, unit="episode", disable=None):
        try:
            path = human.path(episode, cfg.wrist, DOWN)
        except Refused as why:
            rows.append({"episode": episode, "steps": 0, "why": str(why)})
            continue
        closed = human.closed(episode, path) if cfg.gripper == "set" else path.closed
        for data, facts in episodes_of(cfg, human, episode, path, closed):
            done = create(cfg, spec) if done is None else done
            done.append(data, human_episode=episode, embodiment="human", **facts)
        rows.append({"episode": episode, "steps": len(closed), "why": ""})
    kept = [row for row in rows if not row["why"]]
    print(f"{cfg.dataset}: {len(kept)} of {len(rows)} human episodes, {sum(row['steps'] for row in rows)} frames -> {cfg.out}")
    for row in rows:
        if row["why"]:
            print(f"  episode {row['episode']} left out: {row['why']}")
    write_json(cfg.json, {"recipe": cfg.recipe, "out": cfg.out, "episodes": len(kept), "rows": rows})
    if done is None:
        raise Findings(f"{cfg.out}: no human episode gave a path, so nothing was written")
    return 0


def needed(cfg: Config, human: Human) -> list[str]:
    """Returns the keys that the recipe reads of the set beside landmarks."""
    pictures = [f"{view}_image" for view in human.views] if cfg.recipe == "zeromimic" else []
    return [*pictures, *cfg.keep, *(["gripper_open"] if cfg.gripper == "set" else [])]


def create(cfg: Config, spec: Spec) -> EpisodeSet:
    """Returns a new, empty set."""
    meta = {"tracks_points": {"source": str(cfg.dataset), "recipe": cfg.recipe, "wrist": asdict(cfg.wrist)}}
    return EpisodeSet.create(cfg.out, spec, task="", env={}, meta=meta, overwrite=cfg.overwrite)


def episodes_of(
    cfg: Config, human: Human, episode: int, path: WristPath, closed: np.ndarray
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, Any]]]:
    """Yields (rows by key, facts) of the episodes that one human episode becomes."""
    first = human.dataset.span(episode)[0]
    span = first + path.first, first + path.stop
    if cfg.recipe == "point_policy":
        kept = {key: human.dataset.read(key, *span) for key in cfg.keep}
        yield point_rows(path.world_from_hand, closed, cfg.tip) | kept, {}
        return
    for view, camera in zip(human.views, human.cameras, strict=True):
        pictures = human.dataset.read(f"{view}_image", *span)
        yield wrist_rows(cfg, path, np.asarray(camera.world_from_camera, dtype=float), pictures), {"view": view}


def point_spec(cfg: Config, human: Human) -> Spec:
    """Returns what a row of the Point Policy set holds."""
    points = ArraySpec((3 * points3d.N_POINTS,), names=points3d.NAMES, unit="m", frame="world")
    action = ArraySpec((3 * points3d.N_POINTS + 1,), names=(*points3d.NAMES, "gripper"), unit="m", frame="world")
    return Spec({"points": points} | {key: human.dataset.keys[key] for key in cfg.keep}, action, human.hz, codec=points3d.CODEC)


def point_rows(world_from_tips: np.ndarray, closed: np.ndarray, tip_m: float) -> dict[str, np.ndarray]:
    """Returns the nine points now (T, 27), and as action those of the next frame with the gripper's command (T, 28).

    The points are those of a body's hand frame, `tip_m` [m] behind the fingertips (T, 4, 4).
    """
    world_from_hand = world_from_tips @ geometry.pose([0.0, 0.0, -tip_m], np.eye(3))
    points = points3d.nine_points(world_from_hand, closed).reshape(len(closed), -1).astype(np.float32)
    following = np.minimum(np.arange(len(closed)) + 1, len(closed) - 1)
    command = np.where(closed[following], 1.0, -1.0)
    return {"points": points, "action": np.column_stack([points[following], command]).astype(np.float32)}


def wrist_spec(cfg: Config, human: Human) -> Spec:
    """Returns what a row of the ZeroMimic set holds: the action is the whole chunk, so that each place has its own scale."""
    picture = ArraySpec((cfg.size, cfg.size, 3), "uint8")
    wrist = ArraySpec((relative.NUMBERS,), names=POSE_NAMES, unit="m", frame="camera")
    names = tuple(f"{name}_{k}" for k in range(1, cfg.horizon + 1) for name in POSE_NAMES)
    action = ArraySpec((cfg.horizon * relative.NUMBERS,), names=names, unit="m", frame="camera")
    return Spec({"image": picture, "goal_image": picture, "wrist": wrist}, action, human.hz)


def wrist_rows(cfg: Config, path: WristPath, world_from_camera: np.ndarray, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Returns picture, goal picture (the episode's last), wrist now, and the relative poses (T, horizon * 9) of one view."""
    small = np.stack([cv2.resize(frame, (cfg.size, cfg.size), interpolation=cv2.INTER_AREA) for frame in pictures])
    cameras = np.broadcast_to(world_from_camera, path.world_from_hand.shape)
    now, then = relative.futures(path.world_from_hand, cameras, cfg.horizon)
    return {
        "image": small,
        "goal_image": np.broadcast_to(small[-1], small.shape).copy(),
        "wrist": relative.vector(now).astype(np.float32),
        "action": relative.encode(then, now).reshape(len(now), -1).astype(np.float32),
    }
