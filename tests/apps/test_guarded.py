"""The guard of a driver's process as an app makes it: workspace, collision and temperature reach the filters."""

from __future__ import annotations

from functools import partial
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import pytest

from hardware._base import ArmState, Caps, Guard, Setpoint
from robolearn.apps._guarded import Guarded, MakeGuard, points_of, safe_share_of
from robolearn.errors import BadInput
from robolearn.runtime.limits import Box

pytest.importorskip("ruckig", reason="the limits of a real arm; pip install 'robolearn[deploy]'")
PERIOD_S = 0.01
CAPS = Caps(("shoulder", "elbow"), np.full(2, -3.0), np.full(2, 3.0), np.full(2, 2.0), (10.0, 100.0, 200.0))
NAMES = ("one", "two")  # of the model's joints
OFF = ("workspace", "collision", "effort", "temperature")
MODEL = """
<mujoco>
  <worldbody>
    <geom name="wall" type="box" size="1 0.05 0.5" pos="0 0.75 0"/>
    <body><joint name="one" axis="0 0 1"/><geom type="capsule" size="0.02" fromto="0.1 0 0 0.3 0 0"/>
      <body pos="0.4 0 0"><joint name="two" axis="0 0 1"/><geom type="capsule" size="0.02" fromto="0.1 0 0 0.4 0 0"/>
        <site name="tip" pos="0.4 0 0"/>
      </body>
    </body>
  </worldbody>
</mujoco>
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("guarded") / "arm.xml"
    path.write_text(MODEL)
    return str(path)


def made(**how: Any) -> Guarded:
    """Returns a guard that has crossed to another process, at rest at 0."""
    crossed: MakeGuard = ForkingPickler.loads(ForkingPickler.dumps(MakeGuard(**how)))  # as a new process is given it
    guard = crossed(CAPS, PERIOD_S)
    guard.reset(np.zeros(2), None, 0.0)
    return guard


def without(*on: str) -> tuple[str, ...]:
    return tuple(word for word in OFF if word not in on)


def drive(guard: Guarded, target: np.ndarray) -> tuple[np.ndarray, set[str]]:
    """Returns where a second and a half towards a target end (2,) [rad], and which limits cut on the way."""
    q, cut = np.zeros(2), set[str]()
    for k in range(1, 150):
        state = ArmState(q, np.zeros(2), np.zeros(2), 0, 0, 0, k)
        left, which = guard.step(Setpoint(target), state, k * PERIOD_S)
        q, cut = left.q, cut | set(which)
    return q, cut


def test_it_is_a_guard() -> None:
    assert isinstance(made(), Guard) and not made().wants_temperature


def test_the_tip_stays_in_its_box(model: str) -> None:
    box = Box((-1.0, -1.0, -1.0), (1.0, 0.5, 1.0))
    how = {"share": 0.5, "more": {"boxes": (box,)}, "make_points": partial(points_of, model, NAMES, ("tip", "wrist"))}
    with pytest.raises(BadInput, match="no site or body 'wrist'"):
        made(without=without("workspace"), **how)
    how["make_points"] = partial(points_of, model, NAMES, ("tip",))
    q, cut = drive(made(without=without("workspace"), **how), np.array([1.5, 0.0]))
    assert "workspace" in cut and 0.4 < points_of(model, NAMES, ("tip",))(q)[0, 1] <= 0.5 + 1e-9


def test_the_arm_stops_before_the_wall_by_the_declared_margin(model: str) -> None:
    rest = (0.0, 0.0)
    share_of = partial(safe_share_of, model, NAMES, rest, ())
    how = {"share": 0.5, "without": without("collision"), "make_safe_share": share_of}
    q, cut = drive(made(**how, more={"collision_margin_m": 0.05}), np.array([1.5, 0.0]))
    assert "collision" in cut
    gap_m = 0.7 - (0.8 * np.sin(q[0]) + 0.02)  # of the round end
    assert 0.04 <= gap_m < 0.06
    near, _ = drive(made(**how, more={"collision_margin_m": 0.01}), np.array([1.5, 0.0]))
    assert near[0] > q[0] + 0.02


def test_a_limit_that_is_on_and_has_nothing_to_ask_is_refused_and_one_that_is_off_asks_nobody() -> None:
    with pytest.raises(BadInput, match="the collision limit needs safe_share"):
        made(without=without("collision"))
    assert made(make_safe_share=partial(safe_share_of, "/no/such.xml", NAMES, (0.0, 0.0), ()))
    with pytest.raises(BadInput, match=r"limits: /no/such.xml: .*"):
        made(without=without("collision"), make_safe_share=partial(safe_share_of, "/no/such.xml", NAMES, (0.0, 0.0), ()))


def test_a_joint_that_is_too_warm_or_of_which_nothing_is_known_does_not_move() -> None:
    guard = made(without=without("temperature"), more={"max_temperature": 60.0})
    assert guard.wants_temperature
    target = np.array([0.1, 0.0])
    guard.feel({"shoulder": 30.0, "gripper": 30.0})
    assert drive(guard, target)[1] == {"temperature"}
    guard.feel({"shoulder": 30.0, "elbow": 61.0})
    assert drive(guard, target)[1] == {"temperature"}
    guard.feel({"shoulder": 30.0, "elbow": 59.0})
    guard.reset(np.zeros(2), None, 0.0)
    q, cut = drive(guard, target)
    assert "temperature" not in cut
    np.testing.assert_allclose(q, target, atol=1e-6)
