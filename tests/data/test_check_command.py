"""`robolearn data check`: exit codes, the report as JSON and as a page, and the replay."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from check_sets import build
from small_sets import make
from test_check import BAD, blacken, freeze, gap, not_a_number

from robolearn import cli
from robolearn.apps import _check_page
from robolearn.data.check import check
from robolearn.data.store import EpisodeSet


def run(*words: object) -> int:
    return cli.main(["data", "check", *map(str, words)])


def test_the_report_keeps_its_contract_and_adds_rows_and_cards(tmp_path: Path) -> None:
    build(tmp_path / "a.zarr", gap)
    assert run(tmp_path / "a.zarr", "--json", tmp_path / "o.json") == 0
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["set_flags"] == [] and [row["episode"] for row in report["episodes"]] == list(range(9))
    bad = report["episodes"][BAD]
    assert [flag.split(":")[0] for flag in bad["flags"]] == ["gap"]
    assert bad["flag_rows"][0] | {"text": ""} == {"code": "gap", "rows": [60, 60], "key": "t_monotonic", "text": ""}
    assert (
        bad["card"]["grade"] == "B"
        and bad["card"]["why"] == "gap"
        and bad["card"]["worst_gap_s"] == pytest.approx(0.35, abs=1e-3)
    )
    assert report["set_card"]["grades"] == {"A": 8, "B": 1, "C": 0, "D": 0} and report["set_card"]["worst"] == [BAD]
    assert report["counts"] == {"gap": 1} and report["errors"] == 0 and report["limits"]["gap_periods"] == 2.0
    assert set(bad["card"]["series"]["joint_pos[j0]"]) == {"sparc", "jerk", "max_speed"}


def test_nan_ends_the_command_with_1_and_is_named_by_key_and_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "a.zarr", not_a_number)
    assert run(tmp_path / "a.zarr") == 1
    shown = capsys.readouterr().out
    assert "episode 5    D nan: force row 40, 1 rows in all" in shown and "1 nan (error)" in shown


@pytest.mark.parametrize(
    ("flags", "code"), [((), 0), (("--strict",), 1), (("--fail-on", "frozen,gap"), 1), (("--fail-on", "black"), 0)]
)
def test_warnings_end_the_command_with_1_only_where_that_is_asked_for(tmp_path: Path, flags: tuple[str, ...], code: int) -> None:
    build(tmp_path / "a.zarr", gap)
    assert run(tmp_path / "a.zarr", *flags) == code


def test_a_sound_set_is_fine_even_when_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "a.zarr")
    assert run(tmp_path / "a.zarr", "--strict") == 0
    assert "grade A (9 A)" in capsys.readouterr().out


def test_an_unknown_code_is_refused_with_the_nearest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "a.zarr")
    assert run(tmp_path / "a.zarr", "--fail-on", "frosen") == 2
    assert "--fail-on: unknown code 'frosen'; did you mean 'frozen'?" in capsys.readouterr().err


def test_limits_are_flags(tmp_path: Path) -> None:
    build(tmp_path / "a.zarr", gap)
    assert run(tmp_path / "a.zarr", "--strict", "--limits.gap-periods", "10") == 0
    make(tmp_path / "b.zarr")
    assert run(tmp_path / "b.zarr", "--fail-on", "short") == 1
    assert run(tmp_path / "b.zarr", "--fail-on", "short", "--min-steps", "5") == 0


class Outline(HTMLParser):
    """Collects what a page would fetch, and its headings."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "href") and not (value or "").startswith("data:"):
                self.links.append(value or "")
        self.pictures += tag == "img"


@pytest.mark.parametrize("fault", [None, blacken, freeze])
def test_the_page_opens_offline_and_shows_pictures_grades_and_flags(tmp_path: Path, fault) -> None:
    build(tmp_path / "a.zarr", fault)
    assert run(tmp_path / "a.zarr", "--html", tmp_path / "sub" / "o.html") == 0
    text = (tmp_path / "sub" / "o.html").read_text()
    page = Outline()
    page.feed(text)
    assert page.links == [] and "http" not in re.sub(r'xmlns="[^"]*"', "", text)
    assert page.pictures == (6 if fault is None else 1)
    assert ("Flagged episodes" in text) == (fault is not None) and "prefers-color-scheme: dark" in text
    assert "Lag [ms]" in text and "median" in text


def test_text_of_a_set_cannot_become_markup(tmp_path: Path) -> None:
    made = build(tmp_path / "a.zarr", lambda e: [rows["facts"].update(reason="stopped: <script>x</script>") for rows in e])
    text = _check_page.page(made, check(made))
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_actions_that_the_simulator_repeats_have_no_flag_and_changed_ones_have(tmp_path: Path, root: Path) -> None:
    for name in ("sound", "changed"):
        shutil.copytree(root / "tests/fixtures/schema1_pusht.zarr", tmp_path / f"{name}.zarr")
    made = EpisodeSet.open(tmp_path / "changed.zarr", writable=True)
    start, stop = made.span(1)
    rows = made.read("action", start, stop)
    made.array("action")[start:stop] = np.clip(rows + 40, 0, 512)
    assert run(tmp_path / "sound.zarr", "--replay", "3", "--json", tmp_path / "o.json", "--fail-on", "replay") == 0
    cards = [row["card"] for row in json.loads((tmp_path / "o.json").read_text())["episodes"]]
    assert all(card["replay_error"] < 1e-3 for card in cards)
    assert run(tmp_path / "changed.zarr", "--replay", "3", "--json", tmp_path / "o.json", "--fail-on", "replay") == 1
    flags = [[flag.split(":")[0] for flag in row["flags"]] for row in json.loads((tmp_path / "o.json").read_text())["episodes"]]
    assert "replay" in flags[1] and "replay" not in flags[0] + flags[2]


def test_a_set_without_a_simulator_cannot_be_replayed_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(tmp_path / "a.zarr")
    assert run(tmp_path / "a.zarr", "--replay", "2") == 2
    assert "no simulator for task 'toy'" in capsys.readouterr().err
