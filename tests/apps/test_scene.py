"""A simulated task behind a robot's motors: what the scene, its plants, its referee and its bodies promise."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hardware._base import Setpoint
from hardware._calibration import load
from robolearn.apps._robot_file import read
from robolearn.apps._scene import ArmPlant, FingerPlant, Look, Scene, ServoPlant
from robolearn.apps._scene_body import Watching, hand_of, shown
from robolearn.apps._scene_link import SceneLink
from robolearn.apps._scene_sim import SimulatedArm
from robolearn.apps._scene_stage import ROBOTS, Cast, Options, Stage, kinematics, stage
from robolearn.errors import ArrayMismatch, BadInput, HardwareError, UnknownName
from robolearn.rollout import rollout
from sim_envs import _base as sim
from tests.apps.scenes import CONFIG, answering

KEYS = ("eef_pos", "eef_rot6d", "gripper", "object")


@pytest.fixture(scope="module")
def world() -> Iterator[SimulatedArm]:
    world = SimulatedArm(CONFIG, KEYS)
    yield world
    world.arm.close()


@pytest.fixture
def scene(world: SimulatedArm) -> Scene:
    """Returns the scene, placed by seed 0 and running, with its joints held."""
    world.scene.reset(0)
    world.scene.torque[:] = True
    world.scene.go()
    return world.scene


def test_a_placement_is_that_of_the_plain_task_bit_by_bit(world: SimulatedArm) -> None:
    world.scene.env.reset(5)
    plain = world.scene.env.state()
    world.scene.reset(6)
    assert not np.array_equal(world.scene.look().state, plain)
    world.scene.reset(5)
    np.testing.assert_array_equal(world.scene.look().state, plain)


def test_the_world_is_held_still_until_go(scene: Scene) -> None:
    arm, before = ArmPlant(scene), scene.look()
    scene.reset(1)
    placed = scene.look()
    assert placed.episode == before.episode + 1 and not placed.running
    arm.command(scene.q + 0.2)
    arm.advance(0.2)
    np.testing.assert_array_equal(scene.look().state, placed.state)
    scene.go()
    arm.advance(0.2)
    assert (
        scene.look().running
        and np.abs(scene.q - arm.measure()["q"]).max() == 0
        and not np.allclose(scene.look().state, placed.state)
    )


def test_joints_go_where_they_are_told_and_fall_without_torque(scene: Scene) -> None:
    arm, goal = ArmPlant(scene), scene.q + [0.1, -0.1, 0.1, 0.0, 0.1, -0.1]
    arm.command(goal)
    arm.advance(0.5)
    np.testing.assert_allclose(arm.measure()["q"], goal, atol=3e-3)
    arm.torque[:] = False
    arm.advance(0.3)
    assert np.abs(scene.q - goal).max() > 0.02 and not arm.measure()["effort"].any()


def test_a_device_may_count_from_elsewhere_and_the_other_way_round(scene: Scene) -> None:
    signs, zeros = (1, -1, 1, 1, -1, 1), (0.1, 0.2, 0.3, -0.1, -0.2, -0.3)
    arm, q = ArmPlant(scene, signs, zeros), scene.q
    np.testing.assert_allclose(arm.measure()["q"], np.array(signs) * (q - zeros))
    arm.command(arm.measure()["q"])
    np.testing.assert_allclose(scene.target, q)
    with pytest.raises(BadInput, match="6 joints, got 1 signs"):
        ArmPlant(scene, (1,))
    with pytest.raises(ArrayMismatch, match="6 finite joint angles"):
        arm.command(np.full(6, np.nan))


def test_fingers_take_half_a_second_like_the_plain_tasks(scene: Scene) -> None:
    arm, fingers = ArmPlant(scene), FingerPlant(scene)
    arm.command(scene.q)
    fingers.command(np.array([scene.opening_m]))
    arm.advance(1.0)
    assert scene.opening_m == pytest.approx(0.08) and fingers.measure()["q"][0] == pytest.approx(0.08, abs=2e-3)
    fingers.command(np.zeros(1))
    arm.advance(0.25)
    assert 0.02 < fingers.measure()["q"][0] < 0.06
    arm.advance(0.75)
    assert fingers.measure()["q"][0] < 2e-3
    with pytest.raises(ArrayMismatch, match="one finite opening"):
        fingers.command(np.array([np.inf]))


def test_servos_without_torque_leave_their_joint_alone(scene: Scene) -> None:
    bus = ServoPlant(ArmPlant(scene), FingerPlant(scene, open_at=1.5))
    seen = bus.measure()["q"]
    assert seen.shape == (7,) and seen[6] == pytest.approx(1.5 * scene.opening / scene.opening_m)
    bus.torque[:] = [True, False, True, True, True, True, False]
    bus.command(np.append(scene.q, 1.5))
    bus.advance(0.3)
    assert abs(scene.q[1] - seen[1]) > 0.02 and abs(scene.q[0] - seen[0]) < 0.02 and scene.aperture == 0.5


def test_what_an_arm_knows_of_itself_is_what_the_plain_task_shows(world: SimulatedArm, scene: Scene) -> None:
    scene.reset(3)
    world.twin.see()
    state = world.arm.read_fresh(world.arm.read().cycle + 1, 1.0).state
    for key, one in shown(world.twin.env).items():
        np.testing.assert_allclose(one.of(state), world.twin.read(key)[0], atol=1e-5, err_msg=key)
    assert set(shown(world.twin.env)) == {"eef_pos", "eef_rot6d", "gripper"}


def test_the_expert_lifts_the_cube_through_driver_guard_and_codec(world: SimulatedArm) -> None:
    mind = Watching(sim.expert(world.twin.env), world.twin)
    done = rollout(world.body, mind, max_steps=80, seed=0)
    assert done.success and done.reason == "success" and 20 < done.steps < 80
    assert world.twin.env.object_poses()["cube"][2, 3] > 0.83, "the twin shows the lifted cube"


def test_the_aperture_of_a_setpoint_moves_the_scenes_fingers_and_is_measured(world: SimulatedArm) -> None:
    world.body.reset(0)
    assert world.arm.read().state.aperture == pytest.approx(0.5, abs=0.05), "half open, as the plain task begins"
    for aperture in (1.0, 0.0):
        for _ in range(8):
            world.arm.command(Setpoint(world.arm.read().state.q, aperture))
            world.time.sleep(0.1)
        assert world.arm.read().state.aperture == pytest.approx(aperture, abs=0.06)
        assert world.scene.opening == pytest.approx(aperture * world.scene.opening_m, abs=0.005)


def test_simulated_episodes_repeat_bit_by_bit(world: SimulatedArm) -> None:
    mind = Watching(sim.expert(world.twin.env), world.twin)
    states = []
    for _ in range(2):
        rollout(world.body, mind, max_steps=6, seed=2)
        states.append(world.scene.look().state)
    np.testing.assert_array_equal(states[0][1:], states[1][1:])


def test_success_is_the_tasks_own_word_on_what_the_referee_saw(world: SimulatedArm, scene: Scene) -> None:
    world.twin.see()
    assert not world.twin.success()
    scene.env.data.joint("cube_joint0").qpos[2] += 0.1
    world.twin.see()
    assert world.twin.success()


def test_the_referee_speaks_over_a_port_as_in_the_same_process(scene: Scene) -> None:
    caused: list[Any] = []

    def control(on: str, op: str, arguments: Any) -> dict[str, Any]:
        caused.append((on, op, dict(arguments)))
        return {"done": 1}

    with answering(scene, control=control) as server:
        link = SceneLink(server.address)
        assert (link.config.task, dict(link.config.overrides)["robot"]) == ("lift", "UR5e")
        link.reset(4)
        far, near = link.look(), scene.look()
        assert isinstance(far, Look) and not far.running and (far.episode, far.t_ns) == (near.episode, near.t_ns)
        np.testing.assert_array_equal(far.state, near.state)
        link.go()
        assert link.look().running
        assert link.fault("robot", "drop", p=0.1) == {"done": 1} and caused == [("robot", "drop", {"p": 0.1})]
        with pytest.raises(BadInput, match="unknown op 'loook'; did you mean 'look'"):
            link._ask("loook")
        with pytest.raises(BadInput, match="seed is missing"):
            link._ask("reset")
    with pytest.raises(HardwareError, match="look: no answer from"):
        link.look()
    with pytest.raises(HardwareError, match=r"nobody at 127.*is `emulate` running"):
        SceneLink(server.address, timeout_s=0.05)
    with pytest.raises(BadInput, match="want HOST:PORT"):
        SceneLink("nowhere")


@pytest.mark.parametrize("robot", sorted(ROBOTS))
def test_a_robot_file_has_the_hand_and_the_joints_of_the_scene(robot: str, scene: Scene, tmp_path: Path) -> None:
    cast = ROBOTS[robot][1](scene, Options())
    file = {**cast.file({"robot": "here", "gripper": "there"}, tmp_path), "kinematics": kinematics(scene)}
    (tmp_path / "robot.yaml").write_text(yaml.safe_dump(file))
    known = read(str(tmp_path / "robot.yaml"))
    np.testing.assert_allclose(known.hand.pose(scene.q), hand_of(scene.env).pose(scene.q), atol=1e-8)
    seen = cast.parts["robot"].control("stats", {})
    if robot == "viperx":  # its servos count in ticks from zeros of their own, some the other way round
        calibration = load(Path(file["set"]["calibration"]))
        ticks = np.array([seen["servos"][str(joint.id)]["position"] for joint in calibration.joints])
        np.testing.assert_allclose(calibration.radians(ticks), scene.q, atol=2e-3)
        assert calibration.aperture(seen["servos"]["9"]["position"]) == pytest.approx(scene.opening / scene.opening_m, abs=2e-3)
    else:
        np.testing.assert_allclose(seen["q"], scene.q)


def test_a_stage_serves_all_its_parts_and_passes_faults_on(scene: Scene) -> None:
    shown = Stage(scene, ROBOTS["ur5e"][1](scene, Options()))
    try:
        assert shown.open() == shown.addresses["robot"]
        assert set(shown.control("addresses", {})) == {"robot", "gripper", "scene"}
        shown.control("reset", {"seed": 1})
        assert not scene.look().running
        shown.control("go", {})
        shown.turn(0.01)
        assert scene.look().running and shown.control("stats", {"on": "gripper"})["requests"] == 0
        shown.control("pstop", {})
        assert shown.control("stats", {})["safety"] == "PROTECTIVE_STOP"
        with pytest.raises(UnknownName, match="unknown part 'hand'"):
            shown.control("stats", {"on": "hand"})
    finally:
        shown.close()


class Waits:
    """A part of a stage that says how long it was allowed to wait."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def turn(self, timeout_s: float) -> None:
        self.waits.append(timeout_s)


def test_the_gripper_is_not_held_up_by_the_robots_wait(scene: Scene) -> None:
    robot, gripper = Waits(), Waits()
    Stage(scene, Cast({"robot": robot, "gripper": gripper}, lambda addresses, folder: {})).turn(0.01)  # type: ignore[dict-item]
    assert min(robot.waits) >= 0 and max(robot.waits) <= 0.002
    assert gripper.waits == [0.0] * len(robot.waits)


@pytest.mark.parametrize(
    ("robot", "given", "says"),
    [
        ("koch", {}, "unknown robot in a scene 'koch'"),
        ("ur5e", {"task": "pusht"}, "task 'pusht' has no single arm of robosuite"),
        ("ur5e", {"speed": 1}, "unknown field 'speed'"),
    ],
)
def test_what_has_no_scene_is_one_line(robot: str, given: dict[str, Any], says: str) -> None:
    with pytest.raises(BadInput, match=says):
        stage(robot, given)
