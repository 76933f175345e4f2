"""What the bench's cameras see: exact calibrations (K5), and a drawn hand that covers its 21 exact landmarks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import mujoco
import numpy as np
import pytest

from robolearn import geometry
from robolearn.video import pinhole
from robolearn.video.points import five_of_hand, gripper_points
from sim_envs import _base as tasks
from sim_envs import _mujoco, _two_hands_hand
from sim_envs._two_hands import TwoHands, landmarks

SIZE = 192
BALL = """<mujoco><visual><headlight ambient="1 1 1" diffuse="0 0 0" specular="0 0 0"/></visual><worldbody>
<camera name="eye" pos="0.5 -0.9 0.7" xyaxes="0.874 0.486 0 -0.251 0.451 0.857" fovy="40"/>
<body name="ball" mocap="true"><geom group="1" type="sphere" size="0.03" rgba="1 1 1 1"/></body></worldbody></mujoco>"""


@pytest.fixture(scope="module")
def human() -> Iterator[TwoHands]:
    overrides = {"embodiment": "human", "hand": "any", "cameras": ["left", "right"], "image_size": SIZE}
    with closing(tasks.make("reach_lift", overrides)) as body:
        assert isinstance(body, TwoHands)
        yield body


def seen_and_computed(model: mujoco.MjModel, size: int) -> np.ndarray:
    """Returns how far (12, 2) [px] a white ball's middle is seen from where the calibration says, in `size` px pictures."""
    data, rng, gaps = mujoco.MjData(model), np.random.default_rng(0), []
    with closing(_mujoco.Renderer(model, size, _mujoco.FAST)) as renderer:
        for _ in range(12):
            data.mocap_pos[0] = rng.uniform(-0.15, 0.15, 3)
            mujoco.mj_forward(model, data)
            rows, columns = np.nonzero(renderer.draw(data, "eye").max(axis=2) > 128)
            computed = pinhole.project(_mujoco.camera(model, data, "eye", size), data.mocap_pos[0])
            gaps.append([columns.mean() - computed[0], rows.mean() - computed[1]])
    return np.array(gaps)


@pytest.mark.parametrize("size", [240, 241])
def test_a_ball_is_seen_where_the_calibration_says(size: int) -> None:
    """K5: mean residual below 0.1 px, for even and odd sizes; a principal point at size / 2 would be off by half a pixel."""
    gaps = seen_and_computed(mujoco.MjModel.from_xml_string(BALL), size)
    assert np.abs(gaps.mean(axis=0)).max() < 0.1
    assert np.abs(gaps).max() < 0.5  # a ball's picture is an ellipse, whose middle is not quite the ball's


def test_the_two_views_stand_sixty_to_ninety_degrees_apart_and_are_in_the_spec(human: TwoHands) -> None:
    axes = [np.array(human.spec.cameras[f"{view}_image"].world_from_camera)[:3, 2] for view in ("left", "right")]
    assert 60 < np.rad2deg(np.arccos(axes[0] @ axes[1])) < 90
    assert human.spec.cameras["left_image"] == human.calibration("left")


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_drawn_hand_covers_its_landmarks(human: TwoHands, seed: int) -> None:
    human.reset(seed)
    points = landmarks(human)
    first, count = human.model.geom("bone_0").id, len(_two_hands_hand.BONES)
    for view in ("left", "right"):
        pictures = []
        for shade in (0.0, 1.0):
            human.model.geom_rgba[first : first + count, :3] = shade
            pictures.append(human._observe()[f"{view}_image"].astype(int))
        drawn = np.abs(pictures[1] - pictures[0]).sum(axis=2) > 20
        u, v = np.round(pinhole.project(human.calibration(view), points)).astype(int).T
        inside = (u >= 0) & (u < SIZE) & (v >= 0) & (v < SIZE)
        assert inside.sum() >= 18 and drawn[v[inside], u[inside]].all()
    human.reset(seed)  # brings the skin back


def test_a_left_hand_is_the_mirrored_right_one() -> None:
    """T1, in space: the five points come in the same order from either hand."""
    facts = _two_hands_hand.drawn_facts(np.random.default_rng(0), "right")
    right = _two_hands_hand.posed(0.04, facts)
    facts[0] = 0.0
    left = _two_hands_hand.posed(0.04, facts)
    np.testing.assert_allclose(left, right * [1.0, -1.0, 1.0])
    swapped = five_of_hand(right, True, "wrist")[[0, 2, 1, 4, 3]] * [1.0, -1.0, 1.0]
    np.testing.assert_allclose(five_of_hand(left, False, "wrist"), swapped)


@pytest.mark.parametrize("opening", [0.0, 0.4, 1.0])
def test_thumb_and_index_are_at_the_grippers_fingertips(opening: float) -> None:
    """The template's difference: 5 mm at the tips, 30 mm at the knuckles and the wrist, 20 mm on average."""
    rng, half = np.random.default_rng(1), 0.025 + 0.025 * opening
    for hand in ("right", "left"):
        points = _two_hands_hand.posed(half, _two_hands_hand.drawn_facts(rng, hand))  # type: ignore[arg-type]
        theirs = five_of_hand(points, hand == "right", "wrist")
        gaps = np.linalg.norm(theirs - _two_hands_hand.gripper_points(half), axis=-1)
        assert gaps[3:].max() < 0.012 and gaps.max() < 0.045 and gaps.mean() < 0.022


def test_the_bench_and_the_projection_mean_the_same_gripper(human: TwoHands) -> None:
    human.reset(0)
    hand = human.eef_pose()
    for half, open_ in ((0.05, 1.0), (0.025, 0.0)):
        ours = _two_hands_hand.gripper_points(half) @ hand[:3, :3].T + hand[:3, 3]
        np.testing.assert_allclose(ours, gripper_points(hand, open_), atol=1e-12)


def test_bones_keep_their_length_while_the_hand_opens() -> None:
    facts = _two_hands_hand.drawn_facts(np.random.default_rng(2), "right")
    bones = [bone for bone in _two_hands_hand.BONES if bone.end >= 0]
    lengths = []
    for half in np.linspace(0.018, 0.05, 9):
        points = _two_hands_hand.posed(half, facts)
        lengths.append([np.linalg.norm(points[bone.end] - points[bone.start]) for bone in bones])
    assert np.ptp(lengths, axis=0).max() < 1e-3


def test_hands_differ_from_episode_to_episode_and_not_within_one(human: TwoHands) -> None:
    sizes, rights, skins = set(), set(), set()
    for seed in range(6):
        human.reset(seed)
        points = landmarks(human)
        sizes.add(round(float(np.linalg.norm(points[5] - points[0])), 5))
        rights.add(bool(human.hand_facts()[0]))
        skins.add(tuple(human.model.geom("bone_0").rgba[:3].round(3)))
        before = geometry.inverse(human.eef_pose())
        human.step(np.concatenate([[0.1, 0, 0.3], geometry.rot6d_from_matrix(human.eef_pose()[:3, :3]), [-1]]).astype(np.float32))
        after, moved = geometry.inverse(human.eef_pose()), landmarks(human)
        np.testing.assert_allclose(points @ before[:3, :3].T + before[:3, 3], moved @ after[:3, :3].T + after[:3, 3], atol=1e-6)
    assert len(sizes) == len(skins) == 6 and rights == {True, False}
