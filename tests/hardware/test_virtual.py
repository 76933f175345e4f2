"""The virtual arm: what it takes from a model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hardware.robots import virtual
from robolearn.errors import ConfigError

MODEL = """
<mujoco>
  <worldbody>
    <body><joint name="wheel" axis="0 0 1"/><geom size="0.1"/>
      <body pos="0.2 0 0"><joint name="hinge" axis="0 1 0" range="-60 60"/><geom size="0.1"/></body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = tmp_path / "arm.xml"
    path.write_text(MODEL)
    return str(path)


def test_a_joint_without_limits_gets_a_turn_either_way(model: str) -> None:
    arm = virtual.make(virtual.Config(model=model))
    arm.connect()
    caps = arm.capabilities()
    np.testing.assert_allclose(caps.upper, [2 * np.pi, np.pi / 3])
    np.testing.assert_allclose(caps.lower, [-2 * np.pi, -np.pi / 3])


def test_joints_are_those_of_the_model_in_the_order_that_is_asked(model: str) -> None:
    arm = virtual.make(virtual.Config(model=model, joints=("hinge", "wheel")))
    arm.connect()
    np.testing.assert_allclose(arm.capabilities().upper, [np.pi / 3, 2 * np.pi])
    with pytest.raises(ConfigError, match=r"has hinges \['wheel', 'hinge'\], want \['elbow'\]"):
        virtual.make(virtual.Config(model=model, joints=("elbow",))).connect()
