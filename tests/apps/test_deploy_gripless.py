"""An arm without a gripper: policies that speak of one drive it all the same, and one that reads one is refused."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hardware._base import ArmState, Caps, Setpoint, State
from hardware._records import Sample
from robolearn.apps._deploy_checks import fits
from robolearn.apps._deploy_rig import body_of
from robolearn.apps._robot_file import RobotFile
from robolearn.core import ArraySpec, Spec
from robolearn.errors import SpecMismatch

JOINTS = ("a", "b")
SPEC = Spec({"joint_pos": ArraySpec((2,))}, ArraySpec((3,), names=(*JOINTS, "gripper")), 100.0, codec="joint_abs")


@dataclass
class Arm:
    """Two joints that stand where they are, and what was sent to them."""

    opening_m: float = 0.0
    name: str = "toy"
    sent: list[Setpoint] = field(default_factory=list)

    @property
    def caps(self) -> Caps:
        one = np.ones(2)
        return Caps(JOINTS, -one, one, one, (10.0, 100.0, 100.0), opening_m=self.opening_m)

    def command(self, setpoint: Setpoint) -> None:
        self.sent.append(setpoint)

    def read(self) -> Sample:
        zero, aperture = np.zeros(2), 0.5 if self.opening_m else np.nan
        state = ArmState(zero, zero, zero, 0, 0, 0, 1, aperture)
        return Sample(state, zero, np.nan, changed=0, late_s=0.0, holding=True, life=State.ACTIVE, cycle=1)

    def heard(self) -> dict[str, int]:
        return {"joints": 0}

    def history(self, k: int) -> list[Sample]:
        return [self.read()]

    def hold(self) -> None:
        pass


def rig(arm: Arm) -> Any:
    return SimpleNamespace(arm=arm, robot=RobotFile("toy"), cameras={})


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardware.real_env.RealEnv._aged", lambda self, what, t_ns, of_arm=False: 0)  # the toy's stamps are all 0


def test_the_grip_of_a_policy_reaches_a_gripper_and_no_arm_without_one() -> None:
    action, bare, hand = np.array([0.1, 0.2, 1.0], np.float32), Arm(), Arm(opening_m=0.1)
    step = body_of(rig(bare), SPEC, lambda seed: None).step(action)
    body_of(rig(hand), SPEC, lambda seed: None).step(action)
    assert bare.sent[0].aperture is None and hand.sent[0].aperture == 0.0
    np.testing.assert_allclose(bare.sent[0].q, action[:2])
    assert np.isfinite(step.filtered).all()


def test_a_missing_gripper_is_said_and_a_policy_that_reads_one_is_refused() -> None:
    assert [(line.name, line.ok) for line in fits(rig(Arm()), SPEC)] == [("gripper", None), ("policy", True)]
    assert [line.name for line in fits(rig(Arm(opening_m=0.1)), SPEC)] == ["policy"]
    reads = Spec({**SPEC.obs, "gripper": ArraySpec((1,))}, SPEC.action, SPEC.hz, codec="joint_abs")
    with pytest.raises(SpecMismatch, match="nothing shows observation 'gripper'"):
        body_of(rig(Arm()), reads, lambda seed: None)
