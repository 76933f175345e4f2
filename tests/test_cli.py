"""The program: which verb is meant, which exit code an end has, and that an error is one line without a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from robolearn import __version__, cli, errors, registry


@dataclass(frozen=True)
class Config:
    """Flags of the made-up verb."""

    times: int = 1


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    """Returns a made-up verb `data tickle` beside the real ones; set its `run`."""
    module = types.SimpleNamespace(Config=Config, run=lambda cfg: None, __doc__="Tickles a dataset.")
    real = registry.names(cli.APPS)
    load = registry.load
    monkeypatch.setattr(cli.registry, "names", lambda package: (*real, "data_tickle"))
    monkeypatch.setattr(
        cli.registry, "load", lambda package, name, what="": module if name == "data_tickle" else load(package, name, what)
    )
    return module


def test_the_list_of_verbs_is_the_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    for name in registry.names(cli.APPS):
        assert f"  {name.replace('_', ' ')} " in shown


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("name", registry.names(cli.APPS))
def test_every_verb_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([*name.split("_", 1), "--help"]) == 0
    assert "usage: robolearn " + name.replace("_", " ") in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("doctr", "unknown verb 'doctr'; did you mean 'doctor'?"),
        ("xyzzyq", "unknown verb 'xyzzyq' (known: "),
        ("data tikle", "robolearn data: unknown verb 'tikle'; did you mean 'tickle'?"),
        ("data tickle --tims 3", "robolearn data tickle: unknown flag --tims; did you mean --times?"),
        ("data tickle --times many", "robolearn data tickle: --times: want INT, got 'many'"),
        ("data_tickle", "unknown verb 'data_tickle'"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_code_2(
    line: str, said: str, verb: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(line.split()) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert said in shown.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.Findings("three black images"), 1),
        (errors.TrainingDiverged("loss is nan at step 3"), 1),
        (errors.DatasetError("a.zarr: no such dataset"), 2),
        (errors.AlreadyExists("runs/a"), 2),
        (errors.Halted("rnd"), 3),
        (KeyboardInterrupt(), 130),
        (PermissionError(13, "Permission denied", "data/x"), 2),
    ],
)
def test_an_error_ends_with_its_exit_code_and_one_line(
    error: BaseException, code: int, verb: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(cfg: Config) -> None:
        raise error

    verb.run = run
    assert cli.main(["data", "tickle"]) == code
    shown = capsys.readouterr().err
    assert len(shown.splitlines()) == 1 and shown.startswith("robolearn")
    assert "Traceback" not in shown


def test_a_verb_gets_its_flags_and_its_result_is_the_exit_code(verb: types.SimpleNamespace) -> None:
    seen = []

    def run(cfg: Config) -> int:
        seen.append(cfg)
        return 1

    verb.run = run
    assert cli.main(["data", "tickle", "--times", "4"]) == 1
    assert seen == [Config(4)]


def test_traceback_shows_more(verb: types.SimpleNamespace) -> None:
    def run(cfg: Config) -> None:
        raise errors.DatasetError("gone")

    verb.run = run
    with pytest.raises(errors.DatasetError):
        cli.main(["data", "tickle", "--traceback"])


def test_a_mistake_of_ours_is_not_hidden(verb: types.SimpleNamespace) -> None:
    def run(cfg: Config) -> None:
        raise ZeroDivisionError

    verb.run = run
    with pytest.raises(ZeroDivisionError):
        cli.main(["data", "tickle"])


def test_a_message_stays_one_line(verb: types.SimpleNamespace, capsys: pytest.CaptureFixture[str]) -> None:
    def run(cfg: Config) -> None:
        raise errors.DatasetError("two\nlines")

    verb.run = run
    cli.main(["data", "tickle"])
    assert capsys.readouterr().err == "robolearn: two lines\n"


def test_a_config_is_wanted_before_the_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train"]) == 2
    assert "want a config first" in capsys.readouterr().err


def test_the_program_answers_in_a_process_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys; from robolearn.cli import main; sys.exit(main(['nonsense']))"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.startswith("robolearn: unknown verb 'nonsense'")


def test_naming_a_verb_imports_no_other() -> None:
    code = (
        "import sys; from robolearn.cli import main; main(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'mujoco', 'zarr')))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_doctor_says_what_works_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--data", str(tmp_path), "--json", str(tmp_path / "d.json")]) == 0
    assert "Everything required is here." in capsys.readouterr().out
    kept = json.loads((tmp_path / "d.json").read_text())
    assert kept["ok"] and set(kept["meta"]) >= {"command", "commit", "dirty", "seed", "date", "versions"}
    assert {"python", "torch device", "renderer egl"} <= {row["name"] for row in kept["rows"]}
    assert all(row["mend"] for row in kept["rows"] if not row["ok"])


def test_doctor_ends_with_1_when_something_required_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robolearn.apps import doctor

    monkeypatch.setattr(doctor, "REQUIRED", ("numpy", "a-package-nobody-has"))
    monkeypatch.setattr(doctor, "_draw", lambda gl: (False, "no such library"))
    assert cli.main(["doctor", "--data", str(tmp_path)]) == 1
    shown = capsys.readouterr()
    assert "pip install -c constraints.txt a-package-nobody-has" in shown.out
    assert doctor.GL_INSTALL in shown.out
    assert "missing: a-package-nobody-has, renderer egl, renderer osmesa" in shown.err
