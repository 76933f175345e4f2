"""Every kind of damage planted in a set is found where it was planted, and a sound set gives no flag."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_sets import episode, make

from robolearn import cli
from robolearn.core import ArraySpec, Spec
from robolearn.data.check import check, runs
from robolearn.data.store import EpisodeSet

SPEC = Spec(
    {"state": ArraySpec((2,)), "img": ArraySpec((8, 8, 3), "uint8"), "timestamp": ArraySpec((1,), "float64")},
    ArraySpec((2,)),
    10.0,
)


def sound(path: Path, n: int = 4, steps: int = 40) -> list[dict[str, np.ndarray]]:
    """Returns the rows of `n` sound episodes."""
    rows = [episode(steps, seed, SPEC) for seed in range(n)]
    for data in rows:
        data["timestamp"] = np.arange(steps)[:, None] * 0.1
    return rows


def flags_after(path: Path, damage) -> tuple[dict[int, list[str]], list[str]]:
    rows = sound(path)
    damage(rows)
    made = EpisodeSet.create(path / "a.zarr", SPEC, task="toy", env={}, durable=False)
    for data in rows:
        made.append(data)
    found = check(EpisodeSet.open(path / "a.zarr"))
    return dict(found.episodes), found.whole


def freeze(rows) -> None:
    rows[2]["img"][10:25] = rows[2]["img"][10]


def repeat(rows) -> None:
    rows[3].update({key: value.copy() for key, value in rows[1].items()})


def jump(rows) -> None:
    rows[1]["timestamp"][20:] += 1.0


def turn_back(rows) -> None:
    rows[1]["timestamp"][20] = 0.0


def slow(rows) -> None:
    rows[0]["timestamp"] *= 2


def saturate(rows) -> None:
    rows[2]["action"][5:30, 1] = max(data["action"][:, 1].max() for data in rows)


def blacken(rows) -> None:
    rows[0]["img"][7:9] = 3


def shorten(rows) -> None:
    rows[1].update({key: value[:4] for key, value in rows[1].items()})


@pytest.mark.parametrize(
    ("damage", "where", "flag"),
    [
        (freeze, 2, "frozen: img, rows 10 to 24"),
        (repeat, 3, "duplicate: the same as episode 1"),
        (jump, 1, "gap: timestamp jumps by 1.1 s (period 0.1 s), first at row 20"),
        (turn_back, 1, "backwards: timestamp does not rise at row 20"),
        (slow, 0, "rate: timestamp runs at 5 Hz, the set says 10 Hz"),
        (saturate, 2, "saturated: action[1] at its maximum"),
        (blacken, 0, "black: img, 2 frames, first at row 7"),
        (shorten, 1, "short: 4 steps"),
    ],
)
def test_planted_damage_is_found_in_its_episode_and_nowhere_else(tmp_path: Path, damage, where: int, flag: str) -> None:
    episodes, whole = flags_after(tmp_path, damage)
    assert whole == [] and set(episodes) == {where}
    assert any(found.startswith(flag) for found in episodes[where]), episodes


def test_a_sound_set_and_a_still_scene_give_no_flag(tmp_path: Path) -> None:
    def wait(rows) -> None:
        rows[0]["img"][10:30], rows[0]["state"][10:30] = rows[0]["img"][10], rows[0]["state"][10]

    assert flags_after(tmp_path, wait) == ({}, [])


def test_a_gripper_that_is_open_or_closed_is_not_saturated(tmp_path: Path) -> None:
    def grip(rows) -> None:
        for data in rows:
            data["action"][:, 0] = np.where(np.arange(40) < 20, -1, 1)

    assert flags_after(tmp_path, grip) == ({}, [])


def test_an_element_that_never_changes_is_named(tmp_path: Path) -> None:
    def still(rows) -> None:
        for data in rows:
            data["state"][:, 1] = 0.5

    assert flags_after(tmp_path, still) == ({}, ["constant: state[1] never changes"])


def test_nan_ends_the_command_with_1_and_is_named_by_key_and_row(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr")
    rows = made.read("state")
    rows[12 + 4] = np.nan
    made.array("state")[:] = rows
    assert cli.main(["data", "check", str(tmp_path / "a.zarr"), "--json", str(tmp_path / "o.json"), "--min-steps", "5"]) == 1
    report = json.loads((tmp_path / "o.json").read_text())
    assert report["episodes"] == [
        {"episode": 0, "flags": []},
        {"episode": 1, "flags": ["nan: state row 4, 1 rows in all"]},
        {"episode": 2, "flags": []},
    ]
    assert report["set_flags"] == [] and report["errors"] == 1


def test_warnings_alone_end_the_command_with_0(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", lengths=(30, 5))
    assert cli.main(["data", "check", str(tmp_path / "a.zarr")]) == 0


def test_broken_and_lost_chunks_are_errors(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr")
    (tmp_path / "a.zarr/data/state/c/0/0").write_bytes(b"rubbish")
    (tmp_path / "a.zarr/data/img/c/0/0/0/0").unlink()
    found = check(EpisodeSet.open(tmp_path / "a.zarr"), min_steps=5)
    assert any(flag.startswith("corrupt: state: chunk 0") for flag in found.whole)
    assert any(flag.startswith("lost: img: 1 chunk") for flag in found.whole)
    assert found.n_errors >= 2


def test_arrays_of_different_lengths_in_a_foreign_buffer_are_an_error(tmp_path: Path) -> None:
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    for name, rows in (("data/action", 20), ("data/state", 25), ("meta/episode_ends", 1)):
        group.create_array(name, data=np.full((rows, 2) if "data" in name else (rows,), 20, np.int64))
    found = check(EpisodeSet.open(tmp_path / "a.zarr"))
    assert "length: state has 25 rows, the episodes have 20" in found.whole and found.n_errors == 1


def test_runs_are_the_stretches_of_true() -> None:
    assert runs(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 2), (3, 4), (6, 7)]


def test_real_human_data_have_no_flag(root: Path) -> None:
    found = check(EpisodeSet.open(root / "tests/fixtures/schema1_pusht.zarr"))
    assert found.codes() == []
