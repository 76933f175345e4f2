"""The 3-D scene of a set whose MuJoCo model is known: its shapes once, and where they are at each row.

The model comes from the task (`sim_envs`) or, where that does not fit, from the fact `model_xml` as a figure of its frames.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from robolearn.data.store import EpisodeSet
from robolearn.errors import ConfigError, RobolearnError

JOINT_KEYS = ("joint_pos", "joints", "q", "robot0_joint_pos")  # observations that hold the arm's joint angles [rad]
_SHAPES = {0: "plane", 2: "sphere", 3: "capsule", 4: "ellipsoid", 5: "cylinder", 6: "box", 7: "mesh"}
_WALL = 1.0  # [m]: a fixed part of the world larger than this hides what is inside
_POSE = 7  # x y z [m], quaternion x y z w


class Stage:
    """Shapes of one set and their poses. why: why there is none, "" where there is; note: what the shapes are, if not all.

    shapes: {kind, size, colour, opacity, mesh}; meshes: {vertices, normals (n, 3) float32, faces (m, 3) uint32} by number.
    """

    def __init__(self, dataset: EpisodeSet) -> None:
        self.dataset, self.why, self.note = dataset, "", ""
        self.shapes: list[dict[str, Any]] = []
        self.meshes: dict[int, dict[str, np.ndarray]] = {}
        self.view: dict[str, Any] | None = None  # where the task is looked at from
        self._place: Callable[[int, int], np.ndarray] | None = None
        self._lock = threading.Lock()
        try:
            self.why = self._build()
        except RobolearnError as error:
            self.why = f"the model and the recorded states do not fit: {error}"

    def poses(self, index: int, first: int, last: int) -> np.ndarray:
        """Returns where the shapes are in rows [first, last) of an episode: (rows, shapes, 7) float32."""
        with self._lock:
            assert self._place is not None
            start, stop = self.dataset.span(index)
            return self._place(start + first, min(start + last, stop)).astype(np.float32)

    def _build(self) -> str:
        dataset = self.dataset
        joints = next((key for key in JOINT_KEYS if key in dataset.keys), None)
        if "sim_state" not in dataset.keys and joints is None:
            return "the set has neither 'sim_state' nor joint angles"
        why = "the set names no task"
        if dataset.task:
            why = self._from_task(joints)
        if why and dataset.episode_field("model_xml") is not None and "sim_state" in dataset.keys:
            why = self._from_xml()
        return why

    def _from_task(self, joints: str | None) -> str:
        from sim_envs import _base

        dataset = self.dataset
        if dataset.task not in _base.names():
            return f"no task '{dataset.task}' here"
        overrides = dict(dataset.env)
        overrides["cameras"] = []
        robot = str(dataset.attrs.get("robot") or "")
        known = {field.name for field in dataclasses.fields(_base.module(dataset.task).Config)}
        if "robot" in known and robot not in ("", "none"):
            overrides.setdefault("robot", robot)
        try:
            env: Any = _base.make(dataset.task, {name: value for name, value in overrides.items() if name in known})
        except ConfigError as error:
            return f"the task {dataset.task} here is another: {error}"
        if getattr(env, "model", None) is None or not hasattr(env.model, "ngeom"):
            return f"{dataset.task} is no MuJoCo scene"
        shown = self._take_shapes(env.model)
        view = getattr(getattr(env, "task_facts", None), "view", None)
        self.view = None if view is None else vars(view)
        models = dataset.episode_field("model_xml")

        def place(start: int, stop: int) -> np.ndarray:
            out = np.empty((stop - start, len(shown), _POSE))
            key = "sim_state" if "sim_state" in dataset.keys else joints
            assert key is not None
            xml = ""
            if models is not None:
                xml = str(models[int(np.searchsorted(dataset.episode_ends, start, side="right"))])
            for k, row in enumerate(dataset.read(key, start, stop)):
                restore(env, key, row, xml)
                out[k] = geom_poses(env.data, shown)
            return out

        place(0, 1)  # fails here, and not while playing, where state and model do not fit
        self._place = place
        return ""

    def _from_xml(self) -> str:
        import mujoco

        from robolearn.data.source import kinematic_model

        dataset = self.dataset
        models = dataset.episode_field("model_xml")
        assert models is not None  # the caller has looked
        model = kinematic_model(str(models[0]))
        if dataset.keys["sim_state"].shape != (1 + model.nq + model.nv,):
            return "the recorded states are not [time, qpos, qvel] of the recorded model"
        data = mujoco.MjData(model)
        bones = [i for i in range(1, model.nbody) if model.body_parentid[i] > 0]
        loose = [i for i in range(1, model.nbody) if model.body_parentid[i] == 0 and model.body_dofnum[i] == 6]
        self.shapes = [_shape("bone", [0.012, 0, 0], (0.35, 0.45, 0.6, 1.0)) for _ in bones]
        self.shapes += [_shape("sphere", [0.02, 0, 0], (0.76, 0.25, 0.05, 1.0)) for _ in loose]

        def place(start: int, stop: int) -> np.ndarray:
            out = np.zeros((stop - start, len(bones) + len(loose), _POSE))
            for k, row in enumerate(dataset.read("sim_state", start, stop)):
                data.qpos[:] = row[1 : 1 + model.nq]
                mujoco.mj_kinematics(model, data)
                # A bone is drawn between two points: its pose holds the ends, not a rotation.
                out[k, : len(bones), :3], out[k, : len(bones), 3:6] = data.xpos[model.body_parentid[bones]], data.xpos[bones]
                out[k, len(bones) :, :3], out[k, len(bones) :, 6] = data.xpos[loose], 1
            return out

        self._place, self.note = place, "the recorded frames; their meshes are not in the set"
        return ""

    def _take_shapes(self, model: Any) -> list[int]:
        """Fills shapes and meshes with what a person would see of the model; returns the geoms they are."""
        group = 1 if (model.geom_group == 1).any() else 0  # robosuite: group 0 is for collisions, 1 for the eye
        shown = []
        for i in range(model.ngeom):
            kind, colour = _SHAPES.get(int(model.geom_type[i]), ""), _colour(model, i)
            wall = model.geom_bodyid[i] == 0 and model.geom_size[i].max() > _WALL
            if model.geom_group[i] != group or not kind or colour[3] == 0 or kind == "plane" or wall:
                continue
            mesh = int(model.geom_dataid[i]) if kind == "mesh" else -1
            if mesh >= 0 and mesh not in self.meshes:
                self.meshes[mesh] = _mesh(model, mesh)
            shown.append(i)
            self.shapes.append(_shape(kind, model.geom_size[i].tolist(), colour, mesh))
        return shown


def restore(env: Any, key: str, row: np.ndarray, xml: str) -> None:
    """Puts one recorded row into a body: its own state, a state [time, qpos, qvel] of robosuite, or joint angles."""
    import mujoco

    if key != "sim_state":
        where = np.concatenate([arm.qpos for arm in env.arms])
        if where.shape != row.reshape(-1).shape:
            raise RobolearnError(f"{key}: {row.size} joint angles, the arm has {where.size}")
        env.data.qpos[where] = row.reshape(-1)
        mujoco.mj_kinematics(env.model, env.data)
    elif row.shape == (1 + env.model.nq + env.model.nv,):
        env.restore_legacy(row, xml)
    else:
        env.restore(row)


def geom_poses(data: Any, shown: list[int]) -> np.ndarray:
    """Returns the poses (n, 7) of geoms: position [m], quaternion x y z w."""
    import mujoco

    out, quat = np.empty((len(shown), _POSE)), np.empty(4)
    for k, i in enumerate(shown):
        mujoco.mju_mat2Quat(quat, data.geom_xmat[i])
        out[k, :3], out[k, 3:] = data.geom_xpos[i], (*quat[1:], quat[0])
    return out


def packed(meshes: dict[int, dict[str, np.ndarray]]) -> tuple[list[dict[str, int]], bytes]:
    """Returns where each mesh lies in one block of bytes, and the block: vertices, normals, faces of each in turn."""
    table, parts, at = [], [], 0
    for number, mesh in meshes.items():
        table.append({"mesh": number, "at": at, "vertices": len(mesh["vertices"]), "faces": len(mesh["faces"])})
        for name in ("vertices", "normals", "faces"):
            parts.append(mesh[name].tobytes())
            at += len(parts[-1])
    return table, b"".join(parts)


def _shape(kind: str, size: list[float], colour: tuple[float, ...], mesh: int = -1) -> dict[str, Any]:
    red, green, blue, opacity = colour
    return {"kind": kind, "size": size, "colour": [red, green, blue], "opacity": opacity, "mesh": mesh}


def _colour(model: Any, geom: int) -> tuple[float, float, float, float]:
    """Returns red, green, blue, opacity: the material's, mixed with the mean of its texture, or the geom's own."""
    material = int(model.geom_matid[geom])
    if material < 0:
        return tuple(model.geom_rgba[geom].tolist())
    colour = model.mat_rgba[material].copy()
    texture = int(model.mat_texid[material].max())
    if texture >= 0:
        start = model.tex_adr[texture]
        channels = int(model.tex_nchannel[texture])
        size = int(model.tex_width[texture]) * int(model.tex_height[texture]) * channels
        colour[:3] *= model.tex_data[start : start + size].reshape(-1, channels)[:, :3].mean(0) / 255
    return tuple(colour.tolist())


def _mesh(model: Any, number: int) -> dict[str, np.ndarray]:
    """Returns one mesh with a vertex for each pair of point and normal that a face uses."""
    v0, n0, f0, faces = (
        int(a[number]) for a in (model.mesh_vertadr, model.mesh_normaladr, model.mesh_faceadr, model.mesh_facenum)
    )
    corner = np.stack([model.mesh_face[f0 : f0 + faces].ravel(), model.mesh_facenormal[f0 : f0 + faces].ravel()], axis=1)
    pairs, index = np.unique(corner, axis=0, return_inverse=True)
    return {
        "vertices": model.mesh_vert[v0 + pairs[:, 0]].astype(np.float32),
        "normals": model.mesh_normal[n0 + pairs[:, 1]].astype(np.float32),
        "faces": index.reshape(-1, 3).astype(np.uint32),
    }
