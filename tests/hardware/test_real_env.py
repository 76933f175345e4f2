"""A robot as a body: `rollout` drives a hosted arm through codec and limits, and the step says what was really sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from hardware._base import ArmState, Frame, Sampled, Setpoint, State
from hardware._errors import DriverEnded, ProtectiveStop, StaleData
from hardware._host import Hosted
from hardware._records import Hosting, Sample
from hardware._ring import new_run
from hardware.real_env import Ages, RealEnv, Sensed, Shown, interpolated
from robolearn.apps._guarded import MakeGuard
from robolearn.clock import Deadline
from robolearn.core import ArraySpec, Ask, Chunk, Flag, Obs, Spec
from robolearn.errors import ArrayMismatch, SpecMismatch
from robolearn.rollout import rollout
from robolearn.runtime.codecs._base import Target
from robolearn.runtime.state import Mode, reaction, trouble
from tests.hardware import hosted

pytest.importorskip("ruckig", reason="the limits of a real arm; pip install 'robolearn[deploy]'")
HZ = 20.0
JOINTS = ArraySpec((3,), names=hosted.JOINTS, unit="rad")
ACTION = ArraySpec((4,), names=("a", "b", "c", "gripper"))
SPEC = Spec({"joint_pos": JOINTS}, ACTION, HZ, codec="joint_abs")
SHOWN = {"joint_pos": Shown(JOINTS, lambda state: state.q.astype(np.float32))}


@dataclass
class Angles:
    """The plainest codec: joint angles and an aperture; by how much it says that the hand misses can be told."""

    position: float = 0.0
    angle: float = 0.0
    action = ACTION

    def target(self, action: np.ndarray, q: np.ndarray) -> Target:
        return Target(action[:3].astype(float), float(action[3]), self.position, self.angle)

    def action_of(self, q: np.ndarray, aperture: float, before: np.ndarray) -> np.ndarray:
        return np.append(q, aperture).astype(np.float32)


class Wave:
    """A policy that knows where to go."""

    spec = SPEC

    def reset(self, seed: int | None = None) -> None:
        self.tick, self.seen = -1, list[Obs]()

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        self.tick += 1
        self.seen.append(obs)

    def plan(self, ask: Ask = Ask()) -> Chunk:
        q = 0.1 * np.sin(0.3 * self.tick) * np.ones(3)
        return Chunk(np.append(q, 1.0).astype(np.float32)[None], self.tick)


def sample(q: float, t_ns: int = 0, **how: object) -> Sample:
    state = ArmState(np.full(3, q), np.zeros(3), np.zeros(3), t_ns, t_ns, 10, 1, 0.5)
    given = {"changed": 0, "late_s": 0.0, "holding": False, "life": State.ACTIVE, "cycle": 1} | how
    return Sample(state, np.full(3, q), 0.5, **given)  # type: ignore[arg-type]


@dataclass
class Still:
    """An arm that says what it is told to say."""

    says: Sample
    name: str = "arm"
    held: int = 0
    asked: int = 0
    told: Setpoint | None = None
    ages: dict[str, int] = field(default_factory=dict)

    def command(self, setpoint: Setpoint) -> None:
        self.told = setpoint

    def hold(self) -> None:
        self.held += 1

    def read(self) -> Sample:
        return self.says

    def heard(self) -> dict[str, int]:
        return self.ages or {"joints": self.says.state.t_recv_ns}

    def history(self, k: int) -> list[Sample]:
        return [self.says]

    def fault(self) -> Exception | None:
        self.asked += 1
        return ProtectiveStop("arm", "it broke")


@dataclass
class Picture:
    """A camera that shows one frame for ever."""

    frame: Frame | None

    def newest(self) -> Frame | None:
        return self.frame


def pace() -> Deadline:
    """Returns what keeps a rate on a clock of its own."""
    now = [0]

    def sleep(seconds: float) -> None:
        now[0] += round(seconds * 1e9)

    return Deadline(1.0 / HZ, lambda: now[0], sleep)


def still(says: Sample, codec: Angles = Angles(), **more: object) -> RealEnv:
    return RealEnv(SPEC, Still(says), codec, SHOWN, rate=pace(), clock_ns=lambda: 0, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def arm() -> Iterator[Hosted]:
    arm = Hosted("arm", hosted.make_arm, MakeGuard(share=0.5), new_run(), Hosting())
    arm.connect(), arm.configure(), arm.activate()
    yield arm
    assert arm.close() == []


def test_a_rollout_drives_a_hosted_arm_and_every_step_says_what_was_sent(arm: Hosted) -> None:
    env, policy = RealEnv(SPEC, arm, Angles(), SHOWN), Wave()
    seen: list[np.ndarray] = []

    class Sink:
        def begin(self, spec: object, meta: object) -> None: ...
        def record(self, tick: object) -> None:
            seen.append(tick.step.sent)  # type: ignore[attr-defined]

        def stream(self, name: str, t_ns: int, array: np.ndarray) -> None: ...
        def end(self, outcome: object) -> None: ...

    outcome = rollout(env, policy, max_steps=15, sinks=[Sink()])
    assert outcome.steps == 15 and outcome.success is None
    assert np.isfinite(seen).all() and np.ptp(np.array(seen), axis=0).min() > 0.02  # it moved
    positions = np.array([obs["joint_pos"] for obs in policy.seen])
    assert np.ptp(positions, axis=0).min() > 0.02
    assert arm.read().state.flags & Sampled.EMULATED


def test_a_jump_is_cut_and_the_step_says_so(arm: Hosted) -> None:
    env = RealEnv(SPEC, arm, Angles(), SHOWN)
    env.reset()
    action = np.array([1.5, 0.0, 0.0, 1.0], np.float32)  # the gripper is open already: it is the way that is cut
    step = env.step(action)
    assert step.flags & Flag.CLAMPED and not step.flags & Flag.HELD
    np.testing.assert_allclose(step.filtered[:3], step.sent, rtol=1e-6)
    assert abs(step.filtered[0]) < 1.0 and step.filtered[3] == 1.0  # no faster than the limits
    env.close()
    end = time.monotonic() + 20
    while not arm.read().holding:
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("bad", [np.full(4, np.nan, np.float32), np.zeros(3, np.float32)])
def test_an_action_that_is_none_does_not_reach_the_arm(bad: np.ndarray) -> None:
    env = still(sample(0.0))
    with pytest.raises(ArrayMismatch, match="arm action"):
        env.step(bad)
    assert env.arm.told is None  # type: ignore[attr-defined]


def test_flags_say_what_happened() -> None:
    action = np.zeros(4, np.float32)
    plain = still(sample(0.0)).step(action)
    assert plain.flags & (Flag.HELD | Flag.CLAMPED | Flag.STALE) == 0 and (plain.filtered == action).all()
    held = still(sample(0.3, holding=True)).step(action)
    assert held.flags & Flag.HELD
    np.testing.assert_allclose(held.filtered, [0.3, 0.3, 0.3, 0.5], rtol=1e-6)
    cut = still(sample(0.3, changed=1)).step(action)
    assert cut.flags & Flag.CLAMPED
    np.testing.assert_allclose(cut.filtered[:3], 0.3, rtol=1e-6)
    old = sample(0.0)
    stale = Sample(**{**vars(old), "state": ArmState(**{**vars(old.state), "flags": int(Sampled.STALE)})})
    assert still(stale).step(action).flags & Flag.STALE


@pytest.mark.parametrize(("missed", "cut"), [((1.1e-3, 0.0), True), ((0.0, 0.0088), True), ((0.9e-3, 0.0086), False)])
def test_a_pose_that_the_joints_cannot_reach_counts_as_cut(missed: tuple[float, float], cut: bool) -> None:
    step = still(sample(0.3), Angles(*missed)).step(action := np.zeros(4, np.float32))
    assert bool(step.flags & Flag.CLAMPED) is cut
    np.testing.assert_allclose(step.filtered, [0.3, 0.3, 0.3, 0.5] if cut else action, rtol=1e-6)


def test_a_fault_of_the_arm_is_raised_in_its_own_words_and_a_driver_that_froze_in_it_is_asked_once() -> None:
    env = still(sample(0.0, life=State.FAULT))
    for cycle, asked in ((4, 1), (4, 1), (5, 2)):
        env.arm.says = sample(0.0, life=State.FAULT, cycle=cycle)  # type: ignore[attr-defined]
        with pytest.raises(ProtectiveStop, match="arm: it broke"):
            env.step(np.zeros(4, np.float32))
        assert env.arm.asked == asked  # type: ignore[attr-defined]


@pytest.mark.parametrize("call", ["step", "still"])
def test_where_a_gripper_is_in_fault_or_gone_its_arm_is_told_to_hold(call: str) -> None:
    for fault in (True, False):
        arm = Still(sample(0.1))
        body = RealEnv(SPEC, arm, Angles(), SHOWN, rate=pace())
        arm.says = sample(0.1, life=State.FAULT)
        if not fault:
            arm.read = lambda: (_ for _ in ()).throw(DriverEnded("gripper", "its process has ended"))  # type: ignore[method-assign]
        with pytest.raises(ProtectiveStop if fault else DriverEnded):
            body.step(np.zeros(4, np.float32)) if call == "step" else body.still()
        assert arm.held == 1 and arm.told is None


def test_an_input_that_is_gone_holds_the_arm() -> None:
    spec = Spec({"joint_pos": JOINTS, "cube": ArraySpec((2,))}, ACTION, HZ, codec="joint_abs")
    cube = Sensed(ArraySpec((2,)), lambda: (np.zeros(2, np.float32), -3_000_000_000))
    env = RealEnv(spec, Still(sample(0.0)), Angles(), SHOWN, {}, {"cube": cube}, clock_ns=lambda: 0, rate=pace())
    with pytest.raises(StaleData, match=r"cube: the newest is 3.0 s old"):
        env.reset()
    assert env.arm.held == 1  # type: ignore[attr-defined]


def test_a_picture_that_repeats_is_flagged_and_none_is_an_error() -> None:
    image = ArraySpec((4, 4, 3), "uint8")
    spec = Spec({"joint_pos": JOINTS, "cam_image": image}, ACTION, HZ, codec="joint_abs")
    frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, 0, 0, 7)

    def body(picture: Frame | None) -> RealEnv:
        return RealEnv(
            spec, Still(sample(0.0)), Angles(), SHOWN, {"cam_image": Picture(picture)},
            clock_ns=lambda: 0, rate=pace(),
        )  # fmt: skip

    env = body(frame)
    env.reset()
    assert env.step(np.zeros(4, np.float32)).flags & Flag.FRAME_REPEATED
    with pytest.raises(StaleData, match="no picture has come yet"):
        body(None).reset()


def test_an_observation_belongs_to_the_instant_of_the_picture() -> None:
    states = [sample(0.0, 0), sample(1.0, 1000)]
    at = interpolated(states, 250)
    np.testing.assert_allclose(at.q, 0.25)
    assert at.t_sample_ns == 250 and at.flags & Sampled.INTERPOLATED
    assert interpolated(states, -5).q[0] == 0.0 and interpolated(states, 5000).q[0] == 1.0  # never beyond what was measured


def test_what_nothing_shows_is_refused_at_once() -> None:
    spec = Spec({"joint_pos": JOINTS, "force": ArraySpec((3,))}, ACTION, HZ)
    with pytest.raises(SpecMismatch, match="nothing shows observation 'force'"):
        RealEnv(spec, Still(sample(0.0)), Angles(), SHOWN)
    with pytest.raises(SpecMismatch, match=r"takes actions of shape \(4,\), the spec says \(7,\)"):
        RealEnv(Spec({"joint_pos": JOINTS}, ArraySpec((7,)), HZ, codec="joint_abs"), Still(sample(0.0)), Angles(), SHOWN)


def test_ages_can_be_told() -> None:
    late = still(sample(0.0, -500_000_000), ages=Ages(0.1, 1.0))
    assert late.step(np.zeros(4, np.float32)).flags & Flag.STALE
    with pytest.raises(StaleData, match="joints"):
        still(sample(0.0, -500_000_000), ages=Ages(0.1, 0.2)).step(np.zeros(4, np.float32))


def test_the_action_that_stays_is_known_once_an_episode_begins() -> None:
    env = still(sample(0.4))
    env.reset()
    np.testing.assert_allclose(env.target(env.rest), env.where())


def test_what_is_gone_says_its_own_row_of_the_fault_table() -> None:
    with pytest.raises(StaleData, match=r"^arm: joints: the newest is 3.0 s old, want at most 2 s") as joints:
        still(sample(0.0, -3_000_000_000)).step(np.zeros(4, np.float32))
    assert trouble(joints.value) == "servo_lost" and reaction("servo_lost").mode is Mode.FAULT
    hand = still(sample(0.0))
    hand.arm.ages = {"joints": 0, "gripper": -3_000_000_000}  # type: ignore[attr-defined]
    with pytest.raises(StaleData, match=r"^arm: gripper: the newest is 3.0 s old") as gripper:
        hand.step(np.zeros(4, np.float32))
    assert trouble(gripper.value) == "servo_lost"
    spec = Spec({"joint_pos": JOINTS, "cam_image": ArraySpec((4, 4, 3), "uint8")}, ACTION, HZ, codec="joint_abs")
    eye = Picture(Frame(np.zeros((4, 4, 3), np.uint8), -3_000_000_000, 0, 0, 7))
    env = RealEnv(spec, Still(sample(0.0)), Angles(), SHOWN, {"cam_image": eye}, clock_ns=lambda: 0, rate=pace())
    with pytest.raises(StaleData, match=r"^cam_image: the newest is 3.0 s old") as camera:
        env.step(np.zeros(4, np.float32))
    assert trouble(camera.value) == "camera_gone" and reaction("camera_gone").mode is Mode.HOLD
