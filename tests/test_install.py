"""The wheel carries everything the program needs and works outside a checkout; the set-up files agree with each other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("robolearn", "sim_envs", "hardware", "configs", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the wheel built from a copy of the sources, so that an old build/ folder cannot slip into it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, source / part, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, source / part)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("robolearn-*.whl"))


def test_the_wheel_holds_every_module_config_and_asset(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for package in ("robolearn", "sim_envs", "hardware"):
        for path in (ROOT / package).rglob("*.*"):
            if "_configs" not in path.parts and path.suffix in (".py", ".xml", ".html", ".css", ".js", ".png", ".stl", ".obj"):
                assert str(path.relative_to(ROOT)) in inside
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert f"robolearn/_configs/{path.relative_to(ROOT / 'configs')}" in inside


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"robolearn", "sim_envs", "hardware"}


def test_the_wheel_works_outside_a_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "from pathlib import Path; from robolearn import config, cli; from sim_envs import _base;"
        "print(config.config_folder()); print(*config.shipped('train')); print(*_base.names()); print(cli.main(['--help']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder, configs, tasks, *_ = done.stdout.splitlines()
    assert Path(folder) == tmp_path / "site" / "robolearn" / "_configs"
    assert configs.split() == sorted(path.stem for path in (ROOT / "configs" / "train").glob("*.yaml"))
    assert "pusht" in tasks.split()


def test_every_dependency_is_pinned_within_the_range_we_promise() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "one name==version a line"
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    for text in project["dependencies"] + project["optional-dependencies"]["dev"]:
        want = Requirement(text)
        assert canonicalize_name(want.name) in pins, f"{want.name} is not in constraints.txt"
        assert want.specifier.contains(pins[canonicalize_name(want.name)]), (
            f"{text}: pinned to {pins[canonicalize_name(want.name)]}"
        )


def test_the_make_targets_that_the_docs_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets >= {"demo", "test", "check", "fmt", "bench", "sdk", "video", "test-gpu"}


def test_ci_runs_the_developers_own_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "make check" in script and "make test" in script


def test_the_version_has_its_entry_in_the_changelog() -> None:
    from robolearn import __version__

    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(rf"^## \[{re.escape(__version__)}\]", text, re.MULTILINE) or "## [Unreleased]" in text
