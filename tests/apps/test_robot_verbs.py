"""The verbs about robots: what is here, and robots that are not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hardware.emulators._base import emulator_names
from robolearn import cli
from robolearn.apps import emulate, robots
from robolearn.errors import BadInput, ConfigError, UnknownName


def test_robots_lists_every_driver_and_the_line_that_adds_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(robots.SDKS, "robots.ur5e", ("no_such_library", "ur"))
    assert cli.main(["robots", "--json", str(tmp_path / "robots.json")]) == 0
    shown = capsys.readouterr().out
    assert "missing no_such_library: pip install 'robolearn[ur]'" in shown
    rows = {row["name"]: row for row in json.loads((tmp_path / "robots.json").read_text())["rows"]}
    assert {"koch", "so101", "ur5e", "virtual", "robotiq_2f", "synthetic"} <= set(rows)
    assert rows["virtual"]["ready"] and not rows["ur5e"]["ready"]


def test_every_library_named_is_of_a_driver_that_exists() -> None:
    known = {
        f"{package.rsplit('.', 1)[1]}.{row.name}"
        for package in ("hardware.robots", "hardware.grippers", "hardware.cameras")
        for row in robots.drivers(package)
    }
    assert set(robots.SDKS) <= known


def test_every_robot_that_can_be_rehearsed_has_its_emulator() -> None:
    assert set(emulate.ROBOTS.values()) == set(emulator_names())


def test_emulate_prints_an_address_takes_faults_and_ends_in_time() -> None:
    command = [sys.executable, "-m", "robolearn", "emulate", "so101", "--seconds", "20", "--set", "ids=[1,2]"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        first = process.stdout.readline()
        assert first.startswith("so101: EMULATED, at ") and Path(first.split(" at ")[1].split(";")[0]).exists()
        process.stdin.write("dead id=2\nstats\nfly\ndrop\n")
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(4)]
        assert answers[0] == {} and "goals" in answers[1] and "unknown op 'fly'" in answers[2]["error"]
        process.send_signal(2)  # Ctrl-C
        assert process.wait(20) == 0


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
