"""`robolearn record` as a person meets it: keys in a terminal, kill -9 and resume, the page, the ghost; `replay --live`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from robolearn.apps import _ghost, _live, _teleop_session
from robolearn.apps._session import Board, State
from robolearn.apps._session_live import scene_of
from robolearn.apps._session_screen import Screen
from robolearn.apps._teleop_session import Script, Terminal, session
from robolearn.cli import main
from robolearn.core import Flag
from sim_envs import _base as tasks


def test_a_session_in_a_terminal_survives_kill_9_and_loses_no_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def verb(folder: Path, report: str, arguments: list[str]) -> tuple[int, dict[str, Any]]:
        code = main([*arguments, "--json", str(folder / report)])  # in this process: it is the recording that needs its own
        return code, json.loads((folder / report).read_text())

    monkeypatch.setattr(_teleop_session, "_verb", verb)
    got = session(tmp_path, 7, Script(driver="expert", episodes=3, max_steps=12, train=0))
    wanted = {"exit_code": 0, "episodes": 3, "redone": 1, "lost": 0, "unpacked": 0, "seeds_twice": 0, "terminal_restored": True}
    assert wanted.items() <= got.items() and got["resume_counts_right"]
    assert got["replay_max_error_from_state"] == 0.0 == got["replay_max_error_from_seed"]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_live.Deadline, "wait", lambda deadline: 0.0)  # its pace is not what is tested


@pytest.mark.usefixtures("quick")
def test_an_episode_played_live_repeats_itself_and_a_changed_one_says_where_it_strays(tmp_path: Path, capsys) -> None:
    out, report = tmp_path / "a.zarr", tmp_path / "r.json"
    assert main(["record", "pusht", "--live", "--out", str(out), "--episodes", "1", "--max-steps", "30"]) == 0
    assert main(["replay", str(out), "--episode", "0", "--live", "--json", str(report)]) == 0
    same = json.loads(report.read_text())
    assert same["keys"]["state"]["max_error"] == 0.0 and same["keys"]["state"]["first_beyond"] is None and same["steps"] == 30
    from robolearn.data.store import EpisodeSet

    changed = EpisodeSet.open(out, writable=True)
    action = changed.read("action")
    monkey = action.copy()
    monkey[10:] += 20.0
    changed.read = lambda key, *span: monkey if key == "action" else EpisodeSet.read(changed, key, *span)  # type: ignore[method-assign]
    from robolearn.apps import _replay_live

    found = _replay_live.run(changed, "pusht", 0, 0.01, False)["keys"]["state"]
    assert found["first_beyond"] == 11 and found["max_error"] >= found["mean_error"] > 0
    assert main(["replay", str(out), "--episode", "5", "--live"]) == 2 and "want one of 0 to 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--driver keybord", "did you mean 'keyboard'"),
        ("--device-set speed=1 --live", "is for devices"),
        ("--driver keyboard --device-set sped=1", "sped"),
    ],
)
def test_a_driver_that_does_not_fit_is_one_line_and_writes_nothing(tmp_path: Path, capsys, flags: str, said: str) -> None:
    assert main(["record", "lift", "--out", str(tmp_path / "c.zarr"), *flags.split()]) == 2
    text = capsys.readouterr().err.strip().splitlines()
    assert len(text) == 1 and said in text[0] and not list(tmp_path.iterdir())


@pytest.mark.usefixtures("quick")
def test_a_recording_of_another_body_is_not_gone_on_with(tmp_path: Path, capsys) -> None:
    live = ["record", "pusht", "--live", "--out", str(tmp_path / "a.zarr"), "--max-steps", "3"]
    assert main([*live, "--episodes", "1"]) == 0
    assert main([*live, "--episodes", "2", "--resume", "--cameras", "img"]) == 2
    assert "was recorded with env {}" in capsys.readouterr().err


@pytest.mark.usefixtures("quick")
def test_the_ghost_is_the_reference_sets_first_scene(tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    assert main(["record", "pusht", "--live", "--out", str(out), "--episodes", "1", "--max-steps", "3", "--seed", "5"]) == 0
    body = tasks.make("pusht")
    body.reset(5)
    np.testing.assert_array_equal(_ghost.first_picture(out), body.render())
    more = ["record", "pusht", "--out", str(tmp_path / "b.zarr"), "--episodes", "1", "--max-steps", "3", "--ghost", str(out)]
    assert main(more) == 0 and (tmp_path / "b.ghost.png").stat().st_size > 100


def test_a_blend_keeps_the_views_size_and_is_the_weighted_mean() -> None:
    view, ghost = np.full((4, 6, 3), 100, np.uint8), np.full((8, 12, 3), 200, np.uint8)
    np.testing.assert_array_equal(_ghost.blend(view, ghost, 0.25), np.full((4, 6, 3), 125, np.uint8))


def test_the_page_draws_the_bodys_own_state_under_the_ghost() -> None:
    body = tasks.make("pusht")
    body.reset(3)
    ghost = np.zeros((64, 64, 3), np.uint8)
    scene = scene_of("pusht", {}, body, ghost)
    drawn = scene.draw(scene.snapshot())
    np.testing.assert_array_equal(drawn, _ghost.blend(body.render(), ghost))
    scene.close()


def test_the_screen_says_count_state_limits_and_keys() -> None:
    board = Board(State.RECORDING, 3, 10, 42, 7, 200, flags=int(Flag.CLAMPED | Flag.ENGAGED), notes=("episode 2 is back",))
    console = Console(force_terminal=True, width=120, record=True)
    console.print(Screen(lambda: board, "record lift", 20.0, console=console).picture())
    text = console.export_text()
    assert all(
        word in text for word in ("3 of 10", "recording, seed 42", "7 of 200", "limits hold back", "episode 2 is back", "undo")
    )


def test_the_addresses_of_page_and_view_can_be_read_whole_above_the_screen(tmp_path: Path) -> None:
    flags = ["record", "lift", "--driver", "webxr", "--device-set", "host=127.0.0.1", "port=0", "token=a-token-long-enough"]
    with Terminal([*flags, "--watch", "--out", str(tmp_path / "a.zarr")]) as terminal:
        terminal.wait_for("the page's address", lambda: b"/?token=a-token-long-enough" in terminal.text)
        terminal.wait_for("the view's address", lambda: b"the scene: http://127.0.0.1:" in terminal.text)
        terminal.press("q")
        assert terminal.process.wait(60) == 1  # nothing was recorded
        assert terminal.restored()


@pytest.mark.parametrize("flags", ["--driver replayed --device-set path=nowhere.csv", "--driver scripted --ghost nowhere.zarr"])
def test_a_device_or_ghost_that_is_not_there_writes_nothing_and_replaces_nothing(tmp_path: Path, capsys, flags: str) -> None:
    out = tmp_path / "a.zarr"
    assert main(["record", "lift", "--out", str(out), *flags.split()]) == 2
    assert not list(tmp_path.iterdir())
    (out / "kept").mkdir(parents=True)
    assert main(["record", "lift", "--overwrite", "--out", str(out), *flags.split()]) == 2
    assert (out / "kept").is_dir() and "nowhere" in capsys.readouterr().err
