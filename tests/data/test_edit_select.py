"""Episodes are selected by place, list, condition and flag, alike in every verb; what is not understood is refused by name."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sets import make

from robolearn.data._select import Selection, filter_episodes, filters, format_ranges, parse_ranges
from robolearn.data._where import evaluate
from robolearn.data.edit import set_filter
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError

COLUMNS = {
    "index": np.arange(4),
    "steps": np.array([10, 60, 70, 80]),
    "label": np.array(["success", "", "failure", "success"]),
    "success": np.array([1, -1, 0, 1], np.int8),
    "score": np.array([0.5, np.nan, 0.2, 2.0]),
    "cut": np.zeros((4, 2)),
}


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("label == success and steps > 50", [3]),
        ("label == 'success' or label == failure", [0, 2, 3]),
        ("label != success", [1, 2]),
        ("label == unknown", [1]),
        ("unknown == success", [1]),
        ("score == unknown", [1]),
        ("success", [0, 3]),
        ("success == true", [0, 3]),
        ("success == 0", [2]),
        ("not success", [1, 2]),
        ("success < 1", [2]),
        ("score > -1", [0, 2, 3]),
        ("10 < steps <= 70", [1, 2]),
        ("70 <= steps", [2, 3]),
        ("label in (success, failure) and index not in [0]", [2, 3]),
        ("index in ()", []),
        ("not (label == success and (steps > 50 or index == 0))", [1, 2]),
    ],
)
def test_a_condition_takes_what_it_says(text: str, chosen: list[int]) -> None:
    assert np.flatnonzero(evaluate(text, COLUMNS)).tolist() == chosen


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lable == success", r"no fact 'lable'; did you mean 'label'\? \(known: cut, index, label"),
        ("__import__('os').system('true')", "want comparisons such as"),
        ("[i for i in index]", "want comparisons such as"),
        ("(lambda: 1)() == 1", "want a fact on one side"),
        ("steps + 1 > 3", "want a fact on one side, got 'steps \\+ 1 > 3'"),
        ("label.upper == 3", "want a fact on one side"),
        ("steps >", "does not read as one"),
        ("steps == many", "'steps' is a number, so a number must stand beside it, got 'many'"),
        ("steps is 3", "want comparisons such as"),
        ("index in 3", "want a list after 'in'"),
        ("cut > 1", "'cut' has 2 values an episode"),
        ("1 == 1", "want a fact on one side"),
        ("(" * 900, "does not read as one"),
        ("x" * 3000, "at most 2000 characters"),
        ("a\0b", "does not read as one"),
    ],
)
def test_what_is_no_condition_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(BadInput, match=says) as caught:
        evaluate(text, COLUMNS)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=40))
def test_no_text_whatever_gets_past_the_parser(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert evaluate(text, COLUMNS).dtype == bool


@given(st.sets(st.integers(0, 300)))
def test_ranges_are_read_as_they_are_written(numbers: set[int]) -> None:
    text = format_ranges(sorted(numbers))
    assert text == "" if not numbers else parse_ranges(text).tolist() == sorted(numbers)


def test_ranges_that_are_none_are_refused() -> None:
    for text in ("3-1", "a", "1,,2", "-3", "1.5"):
        with pytest.raises(BadInput, match=r"want places such as 0,3,5-9, got"):
            parse_ranges(text)


@pytest.fixture
def toy(tmp_path: Path) -> EpisodeSet:
    made = make(tmp_path / "toy.zarr", lengths=(5, 9, 12, 7))
    set_filter(made, "long", np.array([1, 2]))
    return made


def test_criteria_add_up_and_can_be_turned_round(toy: EpisodeSet) -> None:
    assert Selection().indices(toy).tolist() == [0, 1, 2, 3] and not Selection().given
    assert Selection(episodes="0,2-3").indices(toy).tolist() == [0, 2, 3]
    assert Selection(episodes="0,2-3", filter="long").indices(toy).tolist() == [2]
    assert Selection(episodes="0,2-3", filter="long", invert=True).indices(toy).tolist() == [0, 1, 3]
    assert Selection(where="steps > 6 and not filter_long").indices(toy).tolist() == [3]
    assert filters(toy) == {"long": 2} and filter_episodes(toy, "long").tolist() == [1, 2]
    with pytest.raises(DatasetError, match="no episode 4, the set has 4"):
        Selection(episodes="1-4").indices(toy)
    with pytest.raises(DatasetError, match="no filter 'lang'; did you mean 'long'"):
        Selection(filter="lang").indices(toy)
    with pytest.raises(BadInput, match="--invert: of what"):
        Selection(invert=True).indices(toy)


def test_episodes_appended_after_a_filter_are_not_in_it(toy: EpisodeSet) -> None:
    toy.append(toy.episode(0))
    assert filter_episodes(toy, "long").tolist() == [1, 2]
    assert Selection(where="filter_long == 0").indices(toy).tolist() == [0, 3]


def test_flags_are_read_from_a_report_of_the_check(toy: EpisodeSet, tmp_path: Path) -> None:
    report = tmp_path / "check.json"
    flags = [["nan: state row 3"], [], ["frozen: img, rows 3 to 9", "short: 3 steps"], []]
    report.write_text(json.dumps({"episodes": [{"episode": i, "flags": f} for i, f in enumerate(flags)]}))
    assert Selection(flagged="nan", check=report).indices(toy).tolist() == [0]
    assert Selection(flagged="nan,frozen", check=report).indices(toy).tolist() == [0, 2]
    assert Selection(check=report).indices(toy).tolist() == Selection(flagged="any", check=report).indices(toy).tolist() == [0, 2]
    assert Selection(flagged="short", check=report, invert=True).indices(toy).tolist() == [0, 1, 3]
    with pytest.raises(BadInput, match="--flagged nan: in which report"):
        Selection(flagged="nan").indices(toy)
    report.write_text(json.dumps({"episodes": [{"episode": 0, "flags": []}]}))
    with pytest.raises(DatasetError, match=r"speaks of 1 episodes, .* has 4"):
        Selection(check=report).indices(toy)
    report.write_text('{"episodes": 3}')
    with pytest.raises(DatasetError, match="want the report of `robolearn data check --json`"):
        Selection(check=report).indices(toy)
