"""The live view: it draws the newest snapshot, never waits, says what goes wrong, and is seen by a browser."""

from __future__ import annotations

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import mujoco
import numpy as np
import pytest

from robolearn.apps._watch import Scene, Watch, mujoco_scene, second_body_scene, watch
from robolearn.core import Flag, Outcome, Step, Tick
from robolearn.errors import HardwareError, SpecMismatch
from robolearn.rollout import Episode
from sim_envs import _mujoco

_MODEL = """<mujoco><worldbody><light pos="0 0 3"/><body name="ball"><freejoint/>
<geom group="1" size="0.3" rgba="1 0 0 1"/></body></worldbody></mujoco>"""


def tick(k: int, flags: Flag = Flag(0)) -> Tick:
    action = np.zeros(2)
    return Tick(k, {}, action, Step({}, action, action, flags=int(flags)), "operator", None)


class Stage:
    """A scene whose state is a counter and whose drawing waits until it is let go."""

    def __init__(self) -> None:
        self.state, self.free, self.drawn, self.closed = 0, threading.Event(), [], False

    def snapshot(self) -> int:
        return self.state

    def draw(self, state: int) -> np.ndarray:
        assert self.free.wait(10.0)
        self.drawn.append(state)
        if state < 0:
            raise ValueError("cannot draw that")
        return np.full((8, 8, 3), state, np.uint8)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def view(stage: Stage) -> Iterator[Watch]:
    now = iter(range(10_000))
    made = Watch(
        Scene(stage.snapshot, stage.draw, stage.close), fps=1.0, clock=lambda: float(next(now)), status=lambda: "2 of 5 saved"
    )
    yield made
    stage.free.set()
    made.close()
    made.close()
    assert stage.closed and not any(thread.is_alive() for thread in made._threads)


def until(claim: Callable[[], Any]) -> Any:
    pause = threading.Event()
    for _ in range(1000):
        if found := claim():
            return found
        pause.wait(0.01)
    raise AssertionError("never came true")


def get(view: Watch, path: str) -> bytes:
    with urllib.request.urlopen(view.address + path, timeout=10) as answer:
        return answer.read()


def test_a_slow_picture_holds_up_no_tick_and_the_newest_snapshot_is_drawn_next(stage: Stage, view: Watch) -> None:
    view.begin(None, {})
    for k in range(50):  # with the drawing stuck: each of these would wait for ten seconds if it waited
        stage.state = k + 1
        view.record(tick(k))
    stage.free.set()
    until(lambda: 50 in stage.drawn or 49 in stage.drawn)
    assert len(stage.drawn) <= 2


def test_snapshots_are_taken_no_oftener_than_asked(stage: Stage) -> None:
    taken: list[int] = []
    now = [0.0]
    stage.free.set()
    made = Watch(Scene(lambda: taken.append(1) or 0, stage.draw), fps=10.0, clock=lambda: now[0])
    for k in range(100):
        now[0] = 0.05 * k
        made.record(tick(k))
    made.close()
    assert 45 <= len(taken) <= 55


def test_the_status_line_says_episode_step_flags_and_the_callers_words(stage: Stage, view: Watch) -> None:
    stage.free.set()
    view.begin(None, {})
    view.record(tick(6, Flag.ENGAGED | Flag.LATE))
    told = json.loads(get(view, "status"))
    assert told["text"] == "episode 1 · step 7 · engaged, late · 2 of 5 saved"
    view.end(Outcome(0, 7, True, 1.0, "success"))
    assert "7 steps · ended: success" in json.loads(get(view, "status"))["text"]


def test_a_picture_that_cannot_be_drawn_is_said_and_ends_nothing(stage: Stage, view: Watch) -> None:
    stage.free.set()
    stage.state = -1
    view.begin(None, {})
    until(lambda: "cannot draw that" in view.told()["text"])
    view.record(tick(0))
    assert "cannot draw that" in json.loads(get(view, "status"))["text"]  # the page still answers
    stage.state = 0
    view.record(tick(1))
    until(lambda: "step 2" in json.loads(get(view, "status"))["text"])


def test_the_stream_is_a_row_of_jpegs(stage: Stage, view: Watch) -> None:
    stage.free.set()
    view.begin(None, {})
    with urllib.request.urlopen(view.address + "stream", timeout=10) as answer:
        assert "multipart/x-mixed-replace" in answer.headers["Content-Type"]
        for _ in range(2):
            assert answer.readline() == b"--frame\r\n" and answer.readline() == b"Content-Type: image/jpeg\r\n"
            length = int(answer.readline().split(b":")[1])
            answer.readline()
            assert answer.read(length)[:2] == b"\xff\xd8" and answer.readline() == b"\r\n"
            view.record(tick(1))


def test_a_path_that_is_none_is_not_found(view: Watch) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(view, "etc/passwd")


def test_a_port_that_is_taken_is_said_in_one_line(stage: Stage, view: Watch) -> None:
    with pytest.raises(HardwareError, match=f"cannot serve at 127.0.0.1:{view.port}.*give another port"):
        Watch(Scene(stage.snapshot, stage.draw), port=view.port)


def test_a_mujoco_scene_is_drawn_from_its_own_copy_where_the_body_was_at_the_snapshot() -> None:
    model = mujoco.MjModel.from_xml_string(_MODEL)
    data = mujoco.MjData(model)
    body = SimpleNamespace(model=model, data=data, task_facts=SimpleNamespace(view=_mujoco.View((0, 0, 0), 3.0, 90.0, -20.0)))
    scene = mujoco_scene(body, size=64)
    here = scene.snapshot()
    data.qpos[0] = 50.0
    mujoco.mj_forward(model, data)
    before = data.qpos.copy(), model.geom_group.copy()
    red = lambda picture: int(((picture[..., 0] > 60) & (picture[..., 1] < 40)).sum())  # noqa: E731
    assert red(scene.draw(here)) > 100 and red(scene.draw(scene.snapshot())) == 0
    np.testing.assert_array_equal(data.qpos, before[0])
    np.testing.assert_array_equal(model.geom_group, before[1])
    scene.close()


def test_any_simulated_body_is_drawn_by_a_second_one() -> None:
    from sim_envs import _base

    body = _base.make("pusht", {})
    body.reset(3)
    scene = second_body_scene(body, lambda: _base.make("pusht", {}))
    np.testing.assert_array_equal(scene.draw(scene.snapshot()), body.render())
    scene.close()
    body.close()


def test_a_body_without_a_mujoco_model_is_refused_by_name() -> None:
    with pytest.raises(SpecMismatch, match="want a MuJoCo body, got Episode"):
        watch(Episode(0, 1))
