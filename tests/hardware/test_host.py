"""A driver in a process of its own: setpoints and samples through shared memory, and what is left when somebody dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from hardware._base import Setpoint, State, Stop
from hardware._errors import BadCommand, DeviceFault, NotReady, TransportLost
from hardware._host import Hosted
from hardware._records import Hosting, Sample
from hardware._ring import new_run, sweep
from hardware._way import Way
from hardware.robots.virtual import WATCHDOG
from robolearn.errors import BadInput, ConfigError
from tests.hardware import hosted

PATIENCE_S = 20.0  # shared cores stall
ROOT = Path(__file__).resolve().parent.parent.parent


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def arm() -> Iterator[Hosted]:
    run = new_run()
    arm = Hosted("arm", hosted.make_arm, hosted.make_guard, run, Hosting(hold_after_s=0.15))
    arm.connect()
    arm.configure()
    arm.activate()
    yield arm
    assert arm.close() == []
    assert sweep(run) == []  # nothing was left in shared memory


def test_what_is_asked_is_reached_and_shown(arm: Hosted) -> None:
    def there() -> bool:
        arm.command(Setpoint(np.array([0.2, -0.1, 0.0]), 0.5))
        return bool(np.abs(arm.read().state.q - [0.2, -0.1, 0.0]).max() < 1e-2)

    until(there, "the arm reaches its setpoint")
    assert arm.read().state.aperture == 0.5 and arm.read().life is State.ACTIVE


def test_no_setpoint_leaves_faster_than_the_guard_allows(arm: Hosted) -> None:
    seen: dict[int, Sample] = {}
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        arm.command(Setpoint(np.array([-1.0, 1.0, 1.0])))
        seen |= {sample.cycle: sample for sample in arm.history(60)}
        time.sleep(0.02)
    sent = [seen[k].sent for k in sorted(seen) if np.isfinite(seen[k].sent).all()]
    assert len(sent) > 5
    neighbours = [seen[k + 1].sent - seen[k].sent for k in seen if k + 1 in seen]
    assert np.nanmax(np.abs(neighbours)) <= hosted.SPEED * 0.01 + 1e-9
    assert any(seen[k].changed for k in seen) and arm.filters == ("velocity",)


def test_without_new_setpoints_it_holds(arm: Hosted) -> None:
    arm.command(Setpoint(np.zeros(3)))
    until(lambda: arm.read().holding, "it holds")
    cycle = arm.read().cycle
    held = [sample.sent for sample in (arm.read_fresh(cycle, PATIENCE_S), arm.read_fresh(cycle + 5, PATIENCE_S))]
    np.testing.assert_array_equal(held[0], held[1])


def test_what_is_not_finite_is_refused_before_shared_memory(arm: Hosted) -> None:
    with pytest.raises(BadCommand, match="want 3 finite numbers"):
        arm.command(Setpoint(np.array([0.0, np.nan, 0.0])))
    with pytest.raises(BadCommand, match="want 3 finite numbers"):
        arm.command(Setpoint(np.zeros(2)))
    with pytest.raises(BadCommand, match=r"want an aperture of 0 to 1, got 1.5"):
        arm.command(Setpoint(np.zeros(3), 1.5))


def test_an_error_in_the_process_is_the_same_error_here(arm: Hosted) -> None:
    with pytest.raises(NotReady, match="arm: activate: want state configured, it is active"):
        arm.activate()


def test_what_a_terminal_sends_to_all_its_processes_neither_ends_nor_stops_a_driver(arm: Hosted) -> None:
    for key in (signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGHUP):
        os.kill(arm.pid, key)
    cycle = arm.read().cycle
    until(lambda: arm.read().cycle > cycle + 3, "the driver goes on, so that it can ramp")
    assert arm.alive and arm.fault() is None and not arm.read().life.startswith("fault")


def test_health_counts_the_cycles(arm: Hosted) -> None:
    assert arm.health().counters["samples"] > 0


def test_reading_and_telling_before_connecting_say_so() -> None:
    arm = Hosted("early", hosted.make_arm, hosted.make_guard, new_run())
    with pytest.raises(NotReady, match="connect first"):
        arm.read()
    with pytest.raises(NotReady, match="hold: connect first"):
        arm.hold()
    with pytest.raises(NotReady, match="setpoint: connect first"):
        arm.command(Setpoint(np.zeros(3)))
    arm.close()
    arm.close()


def test_a_driver_that_was_killed_is_lost_and_leaves_nothing() -> None:
    run = new_run()
    arm = Hosted("victim", hosted.make_arm, hosted.make_guard, run)
    arm.connect()
    os.kill(arm.pid, signal.SIGKILL)
    until(lambda: not arm.alive, "the process ends")
    with pytest.raises(TransportLost, match=r"driver process has ended \(exit code -9\)"):
        arm.read()
    assert arm.close() == []
    assert sweep(run) == []


def test_a_driver_that_stood_still_for_longer_than_its_watchdog_finds_the_torque_off() -> None:
    arm = Hosted("stopped", hosted.quick_watchdog, hosted.make_guard, new_run())
    arm.connect(), arm.configure(), arm.activate()
    os.kill(arm.pid, signal.SIGSTOP)
    time.sleep(0.4)
    os.kill(arm.pid, signal.SIGCONT)
    until(lambda: arm.read().life is State.FAULT, "the watchdog's alarm is a fault")
    assert "watchdog" in str(arm.fault()) and arm.read().state.alarm == WATCHDOG
    arm.clear_fault()
    arm.configure(), arm.activate()
    arm.deactivate(Stop.RELEASE, drop=True)
    assert arm.close() == []


def test_a_driver_that_cannot_be_made_is_lost_in_one_line() -> None:
    arm = Hosted("broken", hosted.broken, hosted.make_guard, new_run())
    with pytest.raises(TransportLost, match="broken: connect: its driver process has ended"):
        arm.connect()
    arm.close()


def test_a_driver_that_refuses_to_be_made_says_why_in_its_own_words() -> None:
    arm = Hosted("refused", hosted.refused, hosted.make_guard, new_run())
    with pytest.raises(ConfigError, match="virtual: there is no such arm"):
        arm.connect()
    arm.close()


def test_a_limit_without_a_number_keeps_the_motors_off() -> None:
    arm = Hosted("unguarded", hosted.make_arm, hosted.no_guard, new_run())
    arm.connect(), arm.configure()
    with pytest.raises(BadInput, match="limits: no jerk"):
        arm.activate()
    assert arm.read_fresh(arm.read().cycle, PATIENCE_S).life is State.CONFIGURED
    assert arm.close() == []


def test_a_mistake_in_the_loop_lets_go_of_the_arm_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOLEARN_WITNESS", str(tmp_path / "stopped"))
    arm = Hosted("mistaken", hosted.make_witness, hosted.make_failing_guard, new_run())
    arm.connect(), arm.configure(), arm.activate()
    arm.command(Setpoint(np.zeros(3)))
    until(lambda: not arm.alive, "the process ends")
    assert (tmp_path / "stopped").read_text() == "deactivate hold\ndisconnect\n"
    arm.close()


def test_an_error_of_the_driver_is_not_taken_for_the_end_of_the_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOLEARN_WITNESS", str(tmp_path / "stopped"))
    arm = Hosted("clumsy", hosted.make_clumsy, hosted.make_guard, new_run())
    arm.connect(), arm.configure(), arm.activate()
    until(lambda: not arm.alive, "the process ends")
    with pytest.raises(TransportLost, match=r"has ended \(exit code 1\)"):
        arm.read()
    assert (tmp_path / "stopped").read_text() == "deactivate hold\ndisconnect\n"
    arm.close()


def test_an_alarm_that_is_there_already_is_raised_by_connect_with_its_bits() -> None:
    arm = Hosted("alarmed", hosted.make_alarmed, hosted.make_guard, new_run())
    with pytest.raises(DeviceFault, match="alarmed: the device raised an alarm") as caught:
        arm.connect()
    assert caught.value.bits == 8 and arm.read().life is State.FAULT
    assert arm.close() == []


def test_what_the_wire_may_not_see_holds_the_arm_which_goes_on_living() -> None:
    def lived() -> Sample | None:
        """Returns a sample of later than its watchdog; None where the machine stalled for longer than that."""
        arm = Hosted("far", hosted.quick_watchdog, hosted.make_far_guard, new_run())
        arm.connect(), arm.configure(), arm.activate()
        first = arm.read().cycle
        arm.command(Setpoint(np.zeros(3)))
        refused = "wants -2.000 to 2.000 rad, got 9.000"
        until(lambda: refused in str(arm.fault()) or "watchdog" in str(arm.fault()), "the refusal is told")
        until(lambda: arm.read().cycle > first + 40 or "watchdog" in str(arm.fault()), "it goes on")
        sample = None if "watchdog" in str(arm.fault()) else arm.read()
        assert arm.close() == []
        return sample

    sample = next((found for found in (lived() for _ in range(3)) if found is not None), None)
    assert sample is not None and sample.life is State.ACTIVE and sample.holding and np.abs(sample.state.q).max() < 1e-9


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one(arm: Hosted) -> None:
    def late() -> bool:
        try:
            arm.health(timeout_s=0.0)
        except TransportLost as error:
            return "health: its driver process does not answer" in str(error)
        return False  # this process was not let on for longer than the answer took

    assert any(late() for _ in range(50))
    assert arm.fault() is None and arm.health().counters["samples"] > 0


PARENT = """
import sys, time
from hardware._host import Hosted
from tests.hardware import hosted
if __name__ == "__main__":
    arm = Hosted("orphan", hosted.make_witness, hosted.make_guard, sys.argv[1])
    arm.connect(), arm.configure(), arm.activate()
    print(arm.pid, flush=True)
    time.sleep(60)
"""


def test_when_the_parent_is_killed_the_arm_is_stopped_the_driver_goes_and_shared_memory_too(tmp_path: Path) -> None:
    script, run = tmp_path / "parent.py", new_run()
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ROBOLEARN_WITNESS": str(tmp_path / "stopped")}
    parent = subprocess.Popen([sys.executable, str(script), run], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(
        lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2],
        "the driver goes",
    )
    assert (tmp_path / "stopped").read_text() == "deactivate hold\ndisconnect\n"
    until(lambda: not list(Path("/dev/shm").glob(f"{run}*")), "shared memory goes")


def test_no_process_of_ours_is_left() -> None:
    assert [child.name for child in multiprocessing.active_children() if child.name.startswith("driver ")] in ([], ["driver arm"])


def test_a_way_is_straight_and_in_time() -> None:
    way = Way().to(Setpoint(np.array([1.0]), None, 100), np.array([0.0]), 0)
    np.testing.assert_allclose([way.at(t, 1.0).q[0] for t in (0, 25, 50, 100, 200)], [0.0, 0.25, 0.5, 1.0, 1.0])  # type: ignore[union-attr]
    turned = way.to(Setpoint(np.array([0.0]), None, 150), np.array([9.0]), 50)  # from where it is, not from where the arm lags
    np.testing.assert_allclose([turned.at(t, 1.0).q[0] for t in (50, 100, 150)], [0.5, 0.25, 0.0])  # type: ignore[union-attr]
    assert turned.at(50 + 2_000_000_000, 1.0) is None and Way().at(0, 1.0) is None
