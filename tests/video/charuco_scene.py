"""A printed board, drawn by MuJoCo in front of two cameras that are known exactly: what calibration must find again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

import sim_envs._mujoco as renderer  # before mujoco: it chooses how pictures are drawn
from robolearn import geometry
from robolearn.apps._board_mesh import BoardMesh, board_mesh, words
from robolearn.core import Camera
from robolearn.video.calibration.boards import Board

mujoco = renderer.mujoco
SIZE = (640, 480)
FOVY = 45.0


@dataclass(frozen=True)
class Eye:
    """A camera of the scene: where it stands [m] and what it looks at [m], in the world's frame."""

    at: tuple[float, float, float]
    to: tuple[float, float, float]

    @property
    def world_from_camera(self) -> np.ndarray:
        """Returns the pose (4, 4) in OpenCV's convention, the picture's right side level."""
        z = np.subtract(self.to, self.at) / np.linalg.norm(np.subtract(self.to, self.at))
        x = np.cross(z, (0.0, 0.0, 1.0))
        x = x / np.linalg.norm(x)
        return geometry.pose(self.at, np.stack([x, np.cross(z, x), z], axis=-1))

    @property
    def camera(self) -> Camera:
        """Returns what calibration should find."""
        focal = SIZE[1] / 2 / np.tan(np.radians(FOVY) / 2)
        lens = ((focal, 0.0, (SIZE[0] - 1) / 2), (0.0, focal, (SIZE[1] - 1) / 2), (0.0, 0.0, 1.0))
        return Camera(SIZE, lens, (), tuple(tuple(row) for row in self.world_from_camera.tolist()))


EYES = {"left": Eye((0.95, -0.3, 0.45), (0.2, 0.0, 0.2)), "right": Eye((0.95, 0.3, 0.45), (0.2, 0.0, 0.2))}


class BoardScene:
    """The board and its cameras; `shoot` moves the board and takes a picture."""

    def __init__(self, board: Board, eyes: dict[str, Eye] = EYES) -> None:
        mesh = board_mesh(board)
        self.model = mujoco.MjModel.from_xml_string(_xml(mesh, eyes), mesh.files)
        self.data = mujoco.MjData(self.model)
        self.renderer = mujoco.Renderer(self.model, SIZE[1], SIZE[0])

    def shoot(self, view: str, world_from_board: np.ndarray) -> np.ndarray:
        """Returns the picture (height, width, 3) uint8 RGB with the board's frame at a pose (4, 4) [m]."""
        self.data.mocap_pos[0] = world_from_board[:3, 3]
        self.data.mocap_quat[0] = geometry.quat_wxyz_from_matrix(world_from_board[:3, :3])
        mujoco.mj_forward(self.model, self.data)
        self.renderer.update_scene(self.data, view)
        return self.renderer.render().copy()

    def close(self) -> None:
        """Lets go of the renderer."""
        self.renderer.close()


def board_poses(rng: np.random.Generator, count: int, lean: float = 0.45) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns base_from_gripper, gripper_from_board and world_from_board: a gripper that shows the board to both cameras."""
    facing = geometry.pose((0.2, 0.0, 0.2), np.stack([(0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (-1.0, 0.0, 0.0)], axis=-1))
    turns = geometry.matrix_from_rotvec(rng.uniform(-lean, lean, (count, 3)))
    shifts = rng.uniform(-1, 1, (count, 3)) * (0.13, 0.09, 0.12)
    centred = geometry.pose((-0.105, -0.075, 0.0), np.eye(3))  # the middle of 7 x 5 squares of 30 mm
    world_from_board = facing @ geometry.pose(shifts, turns) @ centred
    gripper_from_board = geometry.pose((-0.08, -0.05, 0.09), geometry.matrix_from_rotvec((0.3, -0.2, 0.1)))
    return world_from_board @ geometry.inverse(gripper_from_board), gripper_from_board, world_from_board


def near_poses(rng: np.random.Generator, count: int, world_from_camera: np.ndarray) -> np.ndarray:
    """Returns world_from_board (count, 4, 4): a person shows the board to one camera, over its whole picture, to all sides."""
    places = rng.uniform(-1, 1, (count, 3)) * (0.19, 0.13, 0.05) + (0.0, 0.0, 0.5)
    turns = geometry.matrix_from_rotvec(rng.uniform(-0.6, 0.6, (count, 3)))
    return world_from_camera @ geometry.pose(places, turns) @ geometry.pose((-0.105, -0.075, 0.0), np.eye(3))


def _xml(mesh: BoardMesh, eyes: dict[str, Eye]) -> str:
    cameras = "".join(
        f'<camera name="{name}" pos="{words(eye.at)}" fovy="{FOVY}" '
        f'quat="{words(geometry.quat_wxyz_from_matrix(eye.world_from_camera[:3, :3] @ renderer.CV_FROM_GL))}"/>'
        for name, eye in eyes.items()
    )
    return f"""
<mujoco>
  <visual>
    <global offwidth="{SIZE[0]}" offheight="{SIZE[1]}"/> <quality offsamples="8"/>
    <headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/> <map znear="0.01"/>
  </visual>
  <asset>
    {mesh.asset}
    <texture type="skybox" builtin="flat" rgb1="0.55 0.5 0.45" rgb2="0.55 0.5 0.45" width="32" height="32"/>
  </asset>
  <worldbody>
    {cameras}
    {mesh.body}
    <geom type="sphere" size="0.01" pos="0 0 -1"/>
  </worldbody>
</mujoco>"""
