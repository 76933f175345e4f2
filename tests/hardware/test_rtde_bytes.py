"""The side of RTDE and the dashboard that a controller has, byte by byte and without any SDK, and the machine behind them."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.emulators import _ur_controller as ur
from hardware.emulators import ur as emulator
from hardware.emulators._plants import FirstOrder
from hardware.emulators._rtde import Session, packet, packets, type_of
from robolearn.errors import BadInput, ConfigError

HELLO = bytes.fromhex("0005 56 0002 0003 76")
START = bytes.fromhex("0003 53")


def session(owners: dict[str, object] | None = None) -> tuple[Session, list[dict[str, object]]]:
    taken: list[dict[str, object]] = []
    return Session((5, 11, 1, 108318), lambda values: taken.append(dict(values)), {} if owners is None else owners), taken


def outputs(hz: float, names: str) -> bytes:
    return packet(ord("O"), struct.pack(">d", hz) + names.encode())


def machine(q: float = 0.0) -> ur.Controller:
    """Returns a controller whose program runs."""
    controller = ur.Controller(FirstOrder([q] * 6, 0.03, np.pi), unlock_s=5.0)
    controller.script("def rtde_control():\nend\n")
    for _ in range(20):
        controller.advance(0.002)
    assert controller.program
    return controller


def give(controller: ur.Controller, command: int, *doubles: float) -> None:
    registers = {f"input_double_register_{k}": value for k, value in enumerate(doubles)}
    controller.take({"input_int_register_0": command, **registers})


def test_the_handshake_is_the_guides() -> None:
    talk, _ = session()
    assert talk.feed(HELLO) == bytes.fromhex("0004 56 01 0013 76 00000005 0000000b 00000001 0001a71e")
    assert session()[0].feed(bytes.fromhex("0005 56 0001")) == bytes.fromhex("0004 56 00")  # protocol 1 is not spoken


def test_an_output_recipe_answers_types_and_its_data_are_big_endian() -> None:
    talk, _ = session()
    answer = talk.feed(outputs(500.0, "timestamp,actual_q,robot_mode,"))  # ur_rtde ends its lists with a comma
    assert answer == b"\x00\x19O\x01DOUBLE,VECTOR6D,INT32"
    assert talk.sample({}) == b""  # not started
    assert talk.feed(START) == bytes.fromhex("0004 53 01")
    sent = talk.sample({"timestamp": 1.5, "actual_q": (1, 2, 3, 4, 5, 6), "robot_mode": 7})
    assert sent == struct.pack(">HBB7di", 64, ord("U"), 1, 1.5, 1, 2, 3, 4, 5, 6, 7)


def test_what_the_controller_has_not_is_not_found_and_nothing_starts() -> None:
    talk, _ = session()
    assert talk.feed(outputs(125.0, "timestamp,actual_mood")) == b"\x00\x14O\x00DOUBLE,NOT_FOUND"
    assert talk.feed(START) == bytes.fromhex("0004 53 00")
    assert type_of("output_int_register_47", "output") == "INT32" and type_of("output_int_register_48", "output") == "NOT_FOUND"
    assert type_of("output_int_register_0", "input") == "NOT_FOUND"


def test_an_input_has_one_writer_until_it_goes() -> None:
    owners: dict[str, object] = {}
    (first, taken), (second, _) = session(owners), session(owners)
    ask = packet(ord("I"), b"input_int_register_0,input_double_register_0,")
    assert first.feed(ask) == b"\x00\x10I\x01INT32,DOUBLE" and first.feed(ask)[3] == 2  # recipes count up
    assert second.feed(ask) == b"\x00\x11I\x00IN_USE,IN_USE"
    first.feed(packet(ord("U"), struct.pack(">Bid", 2, 11, -0.5)))
    first.feed(packet(ord("U"), b"\x02\x00"))  # too short: dropped
    assert taken == [{"input_int_register_0": 11, "input_double_register_0": -0.5}]
    first.end()
    assert second.feed(ask)[3] == 1


@settings(max_examples=30)
@given(st.lists(st.integers(1, 40), max_size=12))
def test_answers_do_not_depend_on_how_the_stream_is_cut(cuts: list[int]) -> None:
    stream = HELLO + outputs(500.0, "timestamp,") + packet(ord("I"), b"input_int_register_0") + START + packet(ord("x"))
    whole = session()[0].feed(stream)
    talk, answers, at = session()[0], b"", 0
    for cut in [*cuts, len(stream)]:
        answers += talk.feed(stream[at : at + cut])
        at += cut
    assert answers == whole and len(packets(whole)[0]) == 6


def test_a_size_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="a packet of 2 bytes"):
        packets(b"\x00\x02V")


def test_servo_stays_ready_and_a_move_is_done_once_it_has_arrived() -> None:
    controller = machine()
    give(controller, ur.SERVO_J, 0.1, *(0.0,) * 10)
    assert controller.outputs()["output_int_register_0"] == 1
    give(controller, ur.MOVE_J, *(0.5,) * 6, 1.0, 4.0)
    states = []
    for _ in range(2000):
        controller.advance(0.002)
        states.append(controller.outputs()["output_int_register_0"])
        if states[-1] == 2:
            break
    assert states[0] == 1 and states[-1] == 2 and len(states) > 200  # a way of 0.5 rad at 1 rad/s
    np.testing.assert_allclose(controller.outputs()["actual_q"], 0.5, atol=2e-3)
    give(controller, 0)
    assert controller.outputs()["output_int_register_0"] == 1


@settings(max_examples=30)
@given(st.floats(-3, 3), st.floats(0.05, 3), st.floats(0.1, 20))
def test_a_move_keeps_its_speed_and_ends_at_its_goal(way: float, speed: float, acceleration: float) -> None:
    move = ur.Move(np.zeros(6), np.full(6, way), speed, acceleration, 0.0)
    path = np.array([move.at(t)[0] for t in np.arange(0.0, 0.5, 0.01)] + [move.at(1e6)[0]])
    assert path[-1] == way
    assert np.abs(np.diff(path[:-1])).max() <= speed * 0.01 + 1e-9


def test_the_watchdog_ends_the_program_when_the_client_is_silent_and_not_when_the_emulator_is() -> None:
    controller = machine()
    give(controller, ur.SET_WATCHDOG, 10.0)
    controller.advance(3.0)  # this process was stopped: nobody else's silence
    give(controller, ur.KICK)
    for _ in range(49):
        controller.advance(0.002)
    assert controller.program
    for _ in range(5):
        controller.advance(0.002)
    assert not controller.program and controller.stats()["watchdog"] == 1
    give(controller, ur.SERVO_J, *(1.0,) * 11)
    controller.advance(1.0)
    np.testing.assert_allclose(controller.outputs()["actual_q"], 0.0, atol=1e-9)  # goals are nobody's now


def test_a_goal_that_is_no_number_is_seen_and_not_followed() -> None:
    controller = machine()
    give(controller, ur.SERVO_J, float("nan"), *(0.0,) * 10)
    controller.advance(0.1)
    goals = controller.stats()["goals"]
    assert goals["count"] == goals["non_finite"] == 1 and goals["last"][0] == "nan" and goals["min"] is None
    np.testing.assert_allclose(controller.outputs()["actual_q"], 0.0)


def test_frozen_values_stand_still_while_the_clock_goes_on() -> None:
    controller = machine()
    controller.frozen = True
    give(controller, ur.SERVO_J, *(0.5,) * 6)
    before = controller.outputs()
    controller.advance(1.0)
    after = controller.outputs()
    assert after["timestamp"] > before["timestamp"] and (after["actual_q"] == before["actual_q"]).all()


def test_a_protective_stop_is_locked_for_its_time_and_an_emergency_stop_takes_the_power() -> None:
    controller = machine()
    talk = emulator.Dashboard(controller, emulator.Counter())
    controller.stop(ur.PROTECTIVE)
    assert controller.outputs()["safety_status_bits"] == 1 << 2 | 1 << 10 and not controller.program
    assert talk.feed(b"unlock protective stop\n").startswith(b"Cannot unlock")
    controller.advance(5.0)
    assert talk.feed(b"unlock protective stop\nsafetymode\n") == b"Protective stop releasing\nSafetymode: NORMAL\n"
    controller.stop(ur.ESTOP)
    assert controller.outputs()["safety_status_bits"] == 0b100_1100_0000 and controller.outputs()["robot_mode"] == ur.POWER_OFF
    assert talk.feed(b"power on\nrobotmode\n") == b"Powering on\nRobotmode: POWER_OFF\n"  # the button is pressed
    controller.safety = ur.NORMAL
    assert talk.feed(b"power on\nbrake release\nrobotmode\n") == b"Powering on\nBrake releasing\nRobotmode: RUNNING\n"


def test_the_dashboard_says_what_polyscope_says() -> None:
    talk = emulator.Dashboard(machine(), emulator.Counter())
    assert talk.greet() == b"Connected: Universal Robots Dashboard Server\n"
    assert talk.feed(b"Polyscope") == b"" and b"EMULATED" in talk.feed(b"Version\n")
    lines = b"is in remote control\nrunning\nprogramState\nstop\nrunning\nclose popup\npopup hello\nplay\nsing\n"
    assert talk.feed(lines).decode().splitlines() == [
        "true", "Program running: true", "PLAYING <unnamed>", "Stopped", "Program running: false", "closing popup",
        "showing popup", "Failed to execute: play", "could not understand: sing",
    ]  # fmt: skip


def test_half_a_script_starts_nothing() -> None:
    controller = ur.Controller(FirstOrder([0.0] * 6))
    port = emulator.Script(controller)
    port.feed(b"def rtde_control():\n  servoj(q)\n")
    assert controller.stats()["programs"] == 0
    port.feed(b"end\n")
    assert controller.stats()["programs"] == 1


def test_a_wrong_configuration_and_an_unknown_op_say_what_would_work() -> None:
    with pytest.raises(ConfigError, match=r"ur: want hz above 0, 6 angles in q .* got 500, 5 and 5"):
        emulator.Config(q=(0.0,) * 5)
    robot = emulator.make(emulator.Config())
    with pytest.raises(BadInput, match=r"unknown op 'corrupt'.*known: set, dead"):
        robot.control("corrupt", {"p": 0.5})  # TCP has its own checksums
