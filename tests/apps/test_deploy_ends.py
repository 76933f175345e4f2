"""What stands between `deploy` and somebody's hand: consent, words, a dead-man, who takes over, and every way to end."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from hardware._base import Identity
from robolearn.apps import _deploy_checks as checks
from robolearn.apps import _deploy_mind as minds
from robolearn.apps import _deploy_people, deploy
from robolearn.apps._deploy_people import People, invited
from robolearn.apps._deploy_rig import Rig
from robolearn.apps._deploy_screen import Board, Screen
from robolearn.apps._deployment import Wishes
from robolearn.apps._robot_file import Kinematics, Part
from robolearn.apps.bench_soak import children
from robolearn.core import ArraySpec, Chunk, Flag, Outcome, Spec, TeleopSample, Verdict
from robolearn.errors import BadInput, Findings, Halted, HardwareError
from robolearn.runtime.limits import defaults
from robolearn.runtime.runs import episodes, open_run
from robolearn.runtime.state import Machine
from tests.apps.deploys import PANDA, Outing
from tests.apps.wavers import HOME, NAMES, SPEC

ROOT = Path(__file__).resolve().parents[2]
METAL, EMULATED = Identity("ur5e"), Identity("2f85", emulated=True)


def config(**given: Any) -> deploy.Config:
    return deploy.Config(Path("run"), "virtual_panda", **given)


@pytest.mark.parametrize(("said", "asks"), [([METAL, EMULATED], True), ([EMULATED, METAL], True), ([EMULATED, EMULATED], False)])
def test_whatever_is_metal_is_asked_about(said: list[Identity], asks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(PANDA, said=dict(zip(("arm", "gripper"), said, strict=True)))
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    if asks:
        with pytest.raises(BadInput, match="this moves a real arm"):
            deploy.consent(config(), rig)
    else:
        deploy.consent(config(), rig)


@pytest.mark.parametrize("answer", ["", "y", "no", EOFError()])
def test_only_yes_is_yes(answer: str | EOFError, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(prompt: str) -> str:
        if isinstance(answer, EOFError):
            raise answer
        return answer

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", typed)
    with pytest.raises(BadInput, match="nothing was moved"):
        deploy.consent(config(), Rig(PANDA, said={"arm": METAL}))


def test_an_arm_whose_gripper_does_not_answer_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[tuple[str, str]] = []

    class Hosted:
        def __init__(self, name: str, *_: Any) -> None:
            self.name = name

        def connect(self) -> Identity:
            if self.name == "robotiq_2f":
                raise HardwareError("robotiq_2f: no answer")
            log.append((self.name, "connect"))
            return Identity(self.name)

        def close(self) -> list[str]:
            log.append((self.name, "close"))
            return []

    monkeypatch.setattr("robolearn.apps._deploy_rig.Hosted", Hosted)
    rig = Rig(replace(PANDA, gripper=Part("robotiq_2f", {"port": "none"})))
    for _ in range(2):  # also where it is opened anew
        with pytest.raises(HardwareError, match="no answer"):
            rig.make_ready()
    assert rig.arm is None
    assert [call for name, call in log if name == "virtual"] == ["connect", "close"] * 2


@pytest.mark.parametrize(
    ("start", "fine"), [((), True), (tuple(HOME), True), ((0.0, 0.0), False), (tuple(np.rad2deg(HOME)), False)]
)
def test_a_start_that_is_none_of_this_arm_is_missing_before_anything_moves(start: tuple[float, ...], fine: bool) -> None:
    off = ("workspace", "collision", "effort", "temperature")
    limits = defaults([f"q{i}" for i in range(7)], [-3.0] * 7, [3.0] * 7, [1.0] * 7, without=off)
    assert [line.blocks for line in checks.start(replace(PANDA, start=start), limits)] == ([] if fine else [True])


@pytest.mark.parametrize(
    ("codec", "names", "fine"),
    [
        ("joint_abs", (*NAMES, "gripper"), True),
        ("joint_abs", (), True),
        ("osc_delta", ("dx", "gripper"), True),
        ("osc_delta", ("x", "gripper"), False),
        ("osc_delta", (), False),
    ],
)
def test_a_policy_whose_last_action_would_go_on_is_refused_in_one_line(codec: str, names: tuple[str, ...], fine: bool) -> None:
    spec = replace(SPEC, action=ArraySpec((max(len(names), 2),), names=names), codec=codec)
    lines = checks.stays(spec)
    assert [line.ok for line in lines] == ([] if fine else [False])
    assert all("it cannot be held; train with actions named dx" in line.text() for line in lines)


def test_why_no_new_planner_came_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(make: Any) -> Any:
        raise HardwareError("planner: out of memory")

    monkeypatch.setattr(minds, "InProcess", none)
    told: list[str] = []
    reviver = minds.Reviver(minds.Source(Outing.spec, lambda: None, {}), lambda planner: None, told.append)  # type: ignore[arg-type, return-value]
    end = time.monotonic() + 10
    while not told and time.monotonic() < end:
        assert reviver({}) is False
    assert reviver({}) is False and told == ["no new planner: planner: out of memory"]


def test_a_new_planner_that_ends_at_once_is_closed_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(planner: Any) -> None:
        raise HardwareError("planner: its process has ended")

    closed, told = [], list[str]()
    reviver = minds.Reviver(minds.Source(Outing.spec, lambda: None, {}), gone, told.append, times=0)  # type: ignore[arg-type, return-value]
    reviver._made = SimpleNamespace(close=lambda: closed.append(True))  # type: ignore[assignment]
    assert reviver({}) is False and closed == [True] and told == ["no new planner: planner: its process has ended"]


def test_a_monitor_is_shown_whole_plans_as_they_are_taken_and_its_verdict_stands_between() -> None:
    plans: list[Chunk] = []
    seen: list[int] = []

    class Watch:
        def reset(self) -> None:
            seen.clear()

        def update(self, obs: Any, chunk: Chunk) -> Verdict:
            seen.append(len(chunk.actions))
            return Verdict(2.0, 1.0, True)

    monitor = minds.OnPlans(Watch(), lambda: plans)
    monitor.reset()
    one = Chunk(np.zeros((1, 8), np.float32), 0)
    assert not monitor.update({}, one).alarm and seen == []
    plans.append(Chunk(np.zeros((12, 8), np.float32), 0))
    assert monitor.update({}, one).alarm and seen == [12]
    plans.clear()
    assert monitor.update({}, one).alarm and seen == [12]
    monitor.reset()
    assert not monitor.update({}, one).alarm


def test_an_episode_that_an_alarm_ended_is_exit_code_3(tmp_path: Path) -> None:
    mind = SimpleNamespace(statistics=lambda: Wishes(tmp_path))  # any dataclass will do
    ended = [Outcome(0, 7, None, None, "alarm:fiper", alarm_step=7)]
    machine = Machine(sink=lambda change: None)
    deployment: Any = SimpleNamespace(wishes=Wishes(tmp_path), outcomes=ended, lines=(), mind=mind, why="", machine=machine)
    with pytest.raises(Halted, match="alarm:fiper"):
        deploy.report(config(), deployment, True)
    assert Halted.exit_code == 3


def test_a_fault_that_is_left_at_the_horizon_is_a_finding(tmp_path: Path) -> None:
    mind, machine = SimpleNamespace(statistics=lambda: Wishes(tmp_path)), Machine(sink=lambda change: None)
    machine.react("servo_alert", "elbow: overload", 1)
    ended = [Outcome(0, 7, None, None, "horizon")]
    deployment: Any = SimpleNamespace(wishes=Wishes(tmp_path), outcomes=ended, lines=(), mind=mind, why="", machine=machine)
    with pytest.raises(Findings, match="fault: servo_alert"):
        deploy.report(config(), deployment, True)


def test_a_line_that_cannot_be_printed_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    board = Board("")
    Screen(board, "", plain=True)
    monkeypatch.setattr("builtins.print", full)
    board.note("run -> hold")
    assert list(board.notes) == ["run -> hold"]


def test_a_key_means_the_same_with_caps_lock() -> None:
    people = People(Rig(PANDA), None, keys=lambda: ["H", "space", "x", "q"])  # type: ignore[arg-type]
    assert people.hear() == ["hold", "estop", "quit"]


class Pedal:
    """A device that is read, and stamps what it says when it is: held while the arm is at `when`."""

    kind, arms, deadman = "delta", 1, True

    def __init__(self, held: Callable[[], bool]) -> None:
        self.held = held

    def connect(self) -> None:
        pass

    def read(self) -> Sequence[TeleopSample]:
        t_ns = time.monotonic_ns()
        return (TeleopSample(t_ns, t_ns, delta=np.zeros(6), deadman=self.held()),)

    def close(self) -> None:
        pass


def test_a_dead_man_let_go_holds_and_where_nobody_is_there_the_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wishes = {"episodes": 2, "seconds": 60.0}
    outing = Outing(tmp_path / "a", replace(PANDA, deadman=Part("gamepad")), wishes=wishes, give_up_s=1.0)
    missed = list[int]()  # ticks at which it was not held, and that was seen

    def pressed() -> bool:
        """The person lets go, takes hold again as soon as the arm stands, and lets go for good a little later."""
        ticks = outing.deployment.mind.statistics().ticks
        missed.extend([ticks] if "deadman" in outing.machine.causes else [])
        return ticks < 8 if not missed else ticks < missed[0] + 10

    monkeypatch.setattr(_deploy_people, "make_device", lambda name, fields: Pedal(pressed))
    (outcome,) = outing.run().outcomes
    assert outcome.reason == "stopped:hold: deadman for 1 s" and outing.modes().count(("hold", "deadman")) == 2
    assert outing.machine.mode == "idle"


@pytest.mark.slow
def test_a_person_takes_over_from_where_the_arm_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where, turn = ("x", "y", "z"), tuple(f"r{i}" for i in range(6))
    obs = {**Outing.spec.obs, "eef_pos": ArraySpec((3,), names=where), "eef_rot6d": ArraySpec((6,), names=turn)}
    spec = Spec(obs, ArraySpec((10,), names=(*where, *turn, "gripper")), 20.0, codec="pose_abs", execute=4)
    robot = replace(PANDA, kinematics=Kinematics("panda", "right_hand"), takeover=Part("gamepad"))
    outing = Outing(tmp_path / "a", robot, spec, fields={"drift": 0.005}, wishes={"seconds": 20.0})
    began, pressed = list[np.ndarray](), list[int]()

    def presses() -> bool:
        """The person waits until the policy has moved the arm, and drives for 15 ticks; then the run may end."""
        here = outing.deployment._newest.get("eef_pos", np.zeros(3))
        began.extend([here] if not began and here.any() else [])
        if began and (pressed or np.abs(here - began[0]).max() > 0.06):
            pressed.append(outing.deployment.mind.statistics().ticks)
        return bool(pressed) and pressed[-1] - pressed[0] < 15

    outing.until = lambda outing: bool(pressed) and pressed[-1] - pressed[0] > 20
    monkeypatch.setattr(_deploy_people, "make_device", lambda name, fields: Pedal(presses))
    outing.run()
    (episode,) = episodes(outing.log, emulated=True)
    marked = np.flatnonzero(episode.arrays["flags"] & Flag.INTERVENTION)
    place, asked = episode.arrays["obs/eef_pos"], episode.arrays["asked"][marked]
    assert 10 <= len(marked) <= 16 and np.ptp(place[: marked[0]], axis=0).max() > 0.05
    assert np.allclose(asked[:, :3], place[marked[0]], atol=1e-3)  # a hand that does not move asks the arm to stay there
    assert (asked[:, -1] < 0).all()  # and the gripper to stay as open as the policy had it


@pytest.mark.parametrize("codec", ["joint_abs", "pose_abs"])
def test_a_policy_that_nobody_can_take_over_from_is_refused(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_deploy_people, "make_device", lambda name, fields: Pedal(lambda: False))
    people = People(Rig(replace(PANDA, takeover=Part("leader"))), SimpleNamespace(callback=lambda close: None))  # type: ignore[arg-type]
    body: Any = SimpleNamespace(spec=Spec({"joint_pos": ArraySpec((7,))}, ArraySpec((8,)), 20.0, codec=codec))
    with pytest.raises(BadInput, match="takeover: leader: want a policy that reads eef_pos"):
        people.over(None, body)  # type: ignore[arg-type]


def test_a_program_that_is_killed_leaves_no_process_and_a_log_that_opens(tmp_path: Path) -> None:
    out = tmp_path / "a"
    run = f"Outing(Path({str(out)!r}), wishes={{'seconds': 99.0}}).run()"
    code = f"from pathlib import Path; from tests.apps.deploys import Outing; {run}"
    program = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def running() -> bool:
        events = out / "events.jsonl"
        return events.is_file() and '"aligned"' in events.read_text()

    until(running, "it runs")
    time.sleep(0.5)
    below = children(program.pid)
    program.kill()
    program.wait()
    assert len(below) >= 3  # driver, planner, writer
    until(lambda: not any(alive(pid) for pid in below), "all of its processes end")
    (episode,) = episodes(open_run(out), emulated=True)
    assert len(episode.arrays["asked"]) > 2


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 60.0  # shared cores stall
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def signals() -> Any:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_closing_is_not_stopped_half_way(signals: None) -> None:
    done: list[str] = []

    def close() -> list[str]:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        done.append("closed")
        return []

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as the command sets them
    deploy.closed(SimpleNamespace(close=close))  # type: ignore[arg-type]
    assert done == ["closed"]


def test_metal_waits_for_a_word_before_the_next_episode() -> None:
    board = Board("")
    for said, begins in ((["hold", "resume"], True), (["hold", "quit"], False)):
        words = [[], *([word] for word in said)]
        assert invited(board, lambda words=words: words.pop(0), lambda seconds: None) is begins
        assert not words
    assert "nobody near" in board.notes[0]


def test_the_screen_is_drawn_in_a_terminal_from_its_first_moment() -> None:
    console = Console(force_terminal=True, width=80, file=io.StringIO())
    with Screen(Board("50% of the top speed"), "deploy on virtual", console=console):
        pass
    assert "50% of the top speed" in console.file.getvalue()  # type: ignore[attr-defined]
