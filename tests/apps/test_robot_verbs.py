"""The verbs about robots: what is here, and robots that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hardware._base import CAMERAS, GRIPPERS, ROBOTS
from hardware.emulators._base import emulator_names
from hardware.robots import ur5e
from robolearn import cli, registry
from robolearn.apps import emulate
from robolearn.errors import BadInput, ConfigError, UnknownName

ROOT = Path(__file__).resolve().parent.parent.parent


def test_robots_lists_every_driver_and_the_line_that_adds_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ur5e, "NEEDS", ("no_such_library", "ur"))
    assert cli.main(["robots", "--json", str(tmp_path / "robots.json")]) == 0
    shown = capsys.readouterr().out
    assert "missing no_such_library: pip install 'robolearn[ur]'" in shown
    rows = {row["name"]: row for row in json.loads((tmp_path / "robots.json").read_text())["rows"]}
    assert {"koch", "so101", "ur5e", "virtual", "robotiq_2f", "synthetic"} <= set(rows)
    assert rows["virtual"]["ready"] and not rows["ur5e"]["ready"]


def test_every_extra_that_is_named_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package in (ROBOTS, GRIPPERS, CAMERAS):
        for name in registry.names(package):
            needs = registry.load(package, name).NEEDS
            assert not needs or needs[1] in extras, f"{package}.{name} names the extra {needs[1]}"


def test_every_robot_that_can_be_rehearsed_has_its_emulator() -> None:
    speaks = emulate.protocols()
    assert set(speaks.values()) == set(emulator_names())
    assert {"koch", "viperx", "so101", "ur5e", "xarm7", "robotiq_2f"} <= set(speaks)


@pytest.mark.parametrize(
    ("robot", "models"), [("viperx", [1120] * 7 + [1020] * 2), ("koch", [1060] * 2 + [1200] * 4), ("dynamixel", [1200] * 6)]
)
def test_a_robot_is_emulated_with_its_own_servos(robot: str, models: list[int]) -> None:
    emulator = emulate.made(emulate.Config(robot))
    assert [servo.get(0) for servo in emulator._servos] == models
    emulator.close()


def test_servos_that_are_asked_for_by_id_are_those_alone() -> None:
    emulator = emulate.made(emulate.Config("viperx", set=("ids=[1,2]",)))
    assert [servo.id for servo in emulator._servos] == [1, 2]
    emulator.close()


def test_emulate_prints_an_address_takes_faults_and_ends_at_ctrl_c() -> None:
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits 'ignore'\n"
        "from robolearn.cli import main; sys.exit(main(['emulate', 'so101', '--seconds', '600', '--set', 'ids=[1,2]']))\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("so101: EMULATED, at ") and Path(first.split(" at ")[1].split(";")[0]).exists()
        process.stdin.write("dead id=2\nstats\nfly\ndrop\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(4)]
        assert answers[0] == {} and "goals" in answers[1] and "unknown op 'fly'" in answers[2]["error"]
        process.send_signal(2)  # Ctrl-C
        assert process.wait(60) == 0


def test_emulate_ends_after_its_seconds_though_nobody_types(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        assert cli.main(["emulate", "koch", "--seconds", "0.05"]) == 0
    assert "koch: EMULATED" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["emulate", "so100"], "unknown robot 'so100'; did you mean 'so101'"),
        (["emulate", "koch", "--set", "idz=[1]"], "idz"),
        (["emulate", "koch", "--set", "ids"], "'ids': want FIELD=VALUE"),
        (["emulate", "koch", "--set", "ids=[1"], "ids: "),
        (["emulate", "koch", "--seconds", "-1"], "seconds"),
        (["emulate", "koch", "--scene", "lift"], "unknown robot in a scene 'koch' (known: ur5e, viperx)"),
        (["emulate", "ur5e", "--cameras", "agentview"], "scene: cameras, scene_set and robot_file are of a scene"),
    ],
)
def test_what_makes_no_sense_is_one_line(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and "\n" not in error


def test_the_errors_are_of_the_family() -> None:
    with pytest.raises(BadInput):
        emulate.pair("x")
    with pytest.raises(ConfigError):
        emulate.pair("x=[1")
    with pytest.raises(UnknownName):
        emulate.run(emulate.Config("nobody"))
