"""The pages of the robots: their files are files that the programs take, and the messages they explain are the drivers' own."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hardware._base import ROBOTS, Driver
from hardware._calibration import ServoCalibration, save
from robolearn import config, registry
from robolearn.apps._robot_file import RobotFile

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs" / "robots").glob("*.md"))
FILES = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
SOURCES = ("hardware/*.py", "hardware/robots/*.py", "hardware/grippers/*.py", "robolearn/apps/*.py", "robolearn/runtime/*.py")


def files(page: Path) -> list[dict[str, Any]]:
    return [config.yaml.safe_load(text) for text in FILES.findall(page.read_text())]


@cache
def spoken() -> str:
    """Returns every string of the sources but their docstrings, one a line; an f-string in pieces, without what it puts in."""
    said = []
    for path in sorted(path for pattern in SOURCES for path in ROOT.glob(pattern)):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        comments = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        strings = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in comments]
        said += [node.value for node in strings if isinstance(node.value, str)]
    return "\n".join(said)


def test_every_robot_that_is_metal_has_a_page() -> None:
    assert {page.stem for page in PAGES} == set(registry.names(ROBOTS)) - {"virtual"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_robot_file_of_a_page_is_one(page: Path) -> None:
    robots = [file for file in files(page) if "driver" in file]
    assert len(robots) == 1
    robot = config.from_mapping(RobotFile, robots[0], where=page.name)
    robot.check()
    assert robot.driver == page.stem
    assert robot.share == 0.1, "the first motion is slow"


def test_the_calibrations_that_pages_show_are_taken_by_their_drivers(tmp_path: Path) -> None:
    taken = set[str]()
    shown = [(page, file) for page in PAGES for file in files(page) if "joints" in file]
    for page, file in shown:
        save(config.from_mapping(ServoCalibration, file, where=page.name), tmp_path / "servos.yaml")
        module = registry.load(ROBOTS, page.stem)
        assert isinstance(module.make(module.Config(calibration=str(tmp_path / "servos.yaml"))), Driver)
        taken.add(page.stem)
    assert "so101" in taken


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_messages_of_a_page_are_in_the_sources(page: Path) -> None:
    table = page.read_text().split("## Troubles")[1].split("##")[0]
    rows = re.findall(r"^\| (`.*?) \| ", table.replace("\\|", "¦"), re.MULTILINE)
    assert len(rows) >= 8
    for message in (message for row in rows for message in re.findall(r"`([^`]+)`", row)):
        for piece in re.split(r"\.\.\.|; |: |[()]", message.replace("¦", "|")):
            assert piece.strip(" ,") in spoken(), f"{page.name}: no source says '{piece}' of '{message}'"
