"""Motion files: BVH by forward kinematics and CSV give the limbs of the person in them; broken files are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from robolearn import geometry
from robolearn.errors import BadInput
from robolearn.teleop import human, landmarks, motion_file
from robolearn.teleop.motion_file import limbs_from_file

# A T-pose, y up, facing +z: the left is +x. Lengths in centimetres.
SIDE = """
  JOINT {side}Arm {{ OFFSET {s}18 45 0 CHANNELS 3 Zrotation Yrotation Xrotation
   JOINT {side}ForeArm {{ OFFSET {s}28 0 0 CHANNELS 3 Zrotation Yrotation Xrotation
    JOINT {side}Hand {{ OFFSET {s}25 0 0 CHANNELS 3 Zrotation Yrotation Xrotation
     End Site {{ OFFSET {s}9 0 0 }} }} }} }}
"""
HEAD = (
    "HIERARCHY\nROOT mixamorig:Hips { OFFSET 0 0 0 CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation\n"
    + SIDE.format(side="Left", s="")
    + SIDE.format(side="Right", s="-")
    + "}\n"
)
FILE_FROM_TORSO = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])


def write_bvh(path, frames) -> None:
    rows = "\n".join(" ".join(f"{value:.9f}" for value in row) for row in frames)
    path.write_text(f"{HEAD}MOTION\nFrames: {len(frames)}\nFrame Time: 0.02\n{rows}\n")


def test_a_t_pose_is_read_with_arms_to_the_sides_and_palms_down(tmp_path):
    write_bvh(tmp_path / "t.bvh", np.zeros((3, 24)))
    times, right, left = limbs_from_file(tmp_path / "t.bvh")
    assert np.allclose(times, [0.0, 0.02, 0.04])
    assert np.allclose(left[0].shoulder, [0.0, 0.18, 0.0], atol=1e-12)
    assert np.allclose(left[0].wrist, [0.0, 0.71, 0.0], atol=1e-12)
    for limb, out in ((right[0], -1.0), (left[0], 1.0)):
        assert np.allclose(limb.upper, [0.0, out, 0.0], atol=1e-12)
        assert np.allclose(limb.hand[:, 0], [0.0, out, 0.0], atol=1e-12)  # the hand points outwards
        assert np.allclose(limb.hand[:, 2], [1.0, 0.0, 0.0], atol=1e-12)  # the thumb is to the front


def test_an_elbow_turned_by_its_channels_turns_forearm_and_hand(tmp_path):
    frame = np.zeros(24)
    frame[9:12] = (30.0, -90.0, 20.0)  # Z, Y, X of LeftForeArm, in degrees
    write_bvh(tmp_path / "bent.bvh", [frame])
    _, right, left = limbs_from_file(tmp_path / "bent.bvh")
    z, y, x = np.deg2rad(frame[9:12])
    turn = (
        geometry.matrix_from_rotvec([0.0, 0.0, z])
        @ geometry.matrix_from_rotvec([0.0, y, 0.0])
        @ geometry.matrix_from_rotvec([x, 0.0, 0.0])
    )
    assert np.allclose(FILE_FROM_TORSO @ left[0].lower, turn @ [1.0, 0.0, 0.0], atol=1e-9)
    assert np.allclose(left[0].upper, [0.0, 1.0, 0.0], atol=1e-9)
    assert np.allclose(FILE_FROM_TORSO @ left[0].hand[:, 2], turn @ [0.0, 0.0, 1.0], atol=1e-9)
    assert np.allclose(right[0].lower, [0.0, -1.0, 0.0], atol=1e-9)


def test_walking_and_turning_about_changes_no_limb(tmp_path):
    rng = np.random.default_rng(3)
    frames = np.zeros((2, 24))
    frames[:, 6:] = rng.uniform(-60, 60, 18)
    frames[1, :6] = (120.0, 90.0, -40.0, 20.0, 75.0, -10.0)
    write_bvh(tmp_path / "walk.bvh", frames)
    for limbs in limbs_from_file(tmp_path / "walk.bvh")[1:]:
        assert np.allclose(limbs[0].keypoints, limbs[1].keypoints, atol=1e-7)
        assert np.allclose(limbs[0].hand, limbs[1].hand, atol=1e-7)
        assert human.fault(limbs[0]) == ""


def test_mirrored_channels_give_mirrored_limbs(tmp_path):
    frame = np.zeros(24)
    angles = np.random.default_rng(4).uniform(-60, 60, (3, 3))
    frame[6:15] = angles.ravel()
    frame[15:24] = (angles * [-1.0, -1.0, 1.0]).ravel()  # a mirror across x = 0 turns about y and z the other way
    write_bvh(tmp_path / "mirror.bvh", [frame])
    _, right, left = limbs_from_file(tmp_path / "mirror.bvh")
    mirrored = human.mirrored(right[0])
    assert np.allclose(left[0].keypoints, mirrored.keypoints, atol=1e-12)
    assert np.allclose(left[0].hand, mirrored.hand, atol=1e-12)


def test_positions_are_in_metres_by_the_unit_given(tmp_path):
    frame = np.zeros(24)
    frame[:3] = (1.0, 2.0, 3.0)
    write_bvh(tmp_path / "inch.bvh", [frame])
    motion = motion_file.read_bvh(tmp_path / "inch.bvh", unit_m=0.0254)
    assert np.allclose(motion.position[0, 0], [0.0254, 0.0508, 0.0762])
    assert [joint.name for joint in motion.joints][:2] == ["Hips", "LeftArm"]


def test_a_csv_gives_the_limbs_of_its_points(tmp_path):
    points = {
        "right_shoulder": (0, -0.2, 0.5), "right_elbow": (0, -0.25, 0.2), "right_wrist": (0.25, -0.2, 0.2),
        "left_shoulder": (0, 0.2, 0.5), "left_elbow": (0, 0.25, 0.2), "left_wrist": (0.25, 0.3, 0.3), "below": (0, 0, 0),
    }  # fmt: skip
    head = ["time", *(f"{name}_{axis}" for name in points for axis in "xyz")]
    values = [str(value) for place in points.values() for value in place]
    text = "\n".join([",".join(head), ",".join(["0.0", *values]), ",".join(["0.1", *values])])
    (tmp_path / "mocap.csv").write_text(text + "\n")
    times, right, left = limbs_from_file(tmp_path / "mocap.csv")
    assert np.array_equal(times, [0.0, 0.1])
    for limbs, side in ((right, "right"), (left, "left")):
        assert np.allclose(limbs[1].keypoints, landmarks.limb(points, side).keypoints)
        assert human.fault(limbs[1]) == ""


BROKEN = {
    "ends early": ("a.bvh", HEAD + "MOTION\nFrames: 1\n"),
    "24 channels": ("b.bvh", HEAD + "MOTION\nFrames: 2\nFrame Time: 0.1\n" + "0 " * 24),
    "HIERARCHY and MOTION": ("c.bvh", "hello"),
    "no joint for right_shoulder": ("d.bvh", HEAD.replace("RightArm", "Wing") + "MOTION\nFrames: 1\nFrame Time: 1\n" + "0 " * 24),
    "no offset_y": ("e.csv", "time,offset_x\n0,1\n"),
    "column 'time'": ("f.csv", "a,b\n1,2\n"),
    "line 3": ("g.csv", "time,a\n1,2\n1\n"),
    "want numbers": ("h.csv", "time,a\n1,x\n"),
    "no 'right_shoulder'": ("i.csv", "time,a_x,a_y,a_z\n1,2,3,4\n"),
    "ends in .bvh or .csv": ("j.fbx", ""),
}


@pytest.mark.parametrize("message", BROKEN)
def test_a_broken_file_is_refused_by_name(tmp_path, message):
    name, text = BROKEN[message]
    (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=message):
        limbs_from_file(tmp_path / name)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadInput, match="no such motion file"):
        limbs_from_file(tmp_path / "none.bvh")
