"""The episode store keeps what it was given, survives crashes in the middle of an append, and says what is broken."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import zarr
from small_sets import LENGTHS, SPEC, episode, make

from robolearn.core import ArraySpec
from robolearn.data import _zarr
from robolearn.data.store import EpisodeSet, _valid_prefix
from robolearn.errors import AlreadyExists, DatasetError


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_is_appended_is_read_back_bit_for_bit(tmp_path: Path, zarr_format: int) -> None:
    make(tmp_path / "a.zarr", zarr_format=zarr_format)
    again = EpisodeSet.open(tmp_path / "a.zarr")
    assert (again.task, again.env, again.hz, again.spec, again.zarr_format) == ("toy", {"max_steps": 50}, 10.0, SPEC, zarr_format)
    assert again.attrs["robot"] == "none" and again.keys["state"].names == ("x", "y", "yaw")
    assert again.episode_ends.tolist() == np.cumsum(LENGTHS).tolist() and again.episode_ends.dtype == np.int64
    for index, steps in enumerate(LENGTHS):
        for key, value in episode(steps, index).items():
            assert again.episode(index)[key].dtype == value.dtype
            np.testing.assert_array_equal(again.episode(index)[key], value)


def test_facts_are_kept_per_episode_and_unknown_ones_say_so(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr", lengths=(5,))
    made.append(episode(5, 1), seed=7, source="Göteborg" * 30, success=True, cut=[1.5, 2.5])
    made.append(episode(5, 2), seed=None, source="x", success=False)
    made.append(episode(5, 3))
    again = EpisodeSet.open(tmp_path / "a.zarr")
    assert again.facts() == ("cut", "seed", "source", "success")
    assert again.episode_field("seed").tolist() == [0, 7, -1, -1]
    assert again.episode_field("source").tolist() == ["", "Göteborg" * 30, "x", ""]
    assert again.episode_field("success").tolist() == [-1, 1, 0, -1]
    np.testing.assert_array_equal(again.episode_field("cut")[1], [1.5, 2.5])
    assert np.isnan(again.episode_field("cut")[[0, 2, 3]]).all()
    assert again.episode_field("operator") is None


def test_facts_read_back_without_warnings_about_unstable_types(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make(tmp_path / "a.zarr", lengths=(5,)).append(episode(5, 1), source="text", seed=1)
        assert EpisodeSet.open(tmp_path / "a.zarr").episode_field("source")[1] == "text"


class _Crash(Exception):
    pass


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_crash_at_any_write_of_an_append_loses_nothing_and_adds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zarr_format: int
) -> None:
    EpisodeSet.create(tmp_path / "whole.zarr", SPEC, task="toy", env={}, zarr_format=zarr_format)
    for seed in (0, 1):
        EpisodeSet.open(tmp_path / "whole.zarr", writable=True).append(episode(9, seed), seed=seed, source="a")
    real, count, limit = _zarr.write_durably, 0, 10**9

    def failing(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        if count > limit:
            raise _Crash
        real(path, content)

    monkeypatch.setattr(_zarr, "write_durably", failing)
    monkeypatch.setattr(_zarr, "side_by_side", lambda calls: [call() for call in calls])
    shutil.copytree(tmp_path / "whole.zarr", tmp_path / "counted.zarr")
    EpisodeSet.open(tmp_path / "counted.zarr", writable=True).append(episode(20, 2), seed=2, source="b" * 100)
    writes = count
    assert writes >= 9
    for limit in range(writes) if zarr_format == 3 else range(writes - 4, writes):
        path = tmp_path / f"crash{limit}.zarr"
        shutil.copytree(tmp_path / "whole.zarr", path)
        count = 0
        with pytest.raises(_Crash):
            EpisodeSet.open(path, writable=True).append(episode(20, 2), seed=2, source="b" * 100)
        after = EpisodeSet.open(path)
        complete = after.n_episodes == 3  # only where nothing but format 2's attributes of the ends was left to write
        assert after.n_episodes == 2 or (complete and zarr_format == 2 and limit == writes - 1)
        for index, (steps, seed) in enumerate([(9, 0), (9, 1), (20, 2)][: after.n_episodes]):
            for key, value in episode(steps, seed).items():
                np.testing.assert_array_equal(after.episode(index)[key], value)
        assert after.episode_field("seed").tolist() == [0, 1, 2][: after.n_episodes]
        assert after.episode_field("source").tolist() == ["a", "a", "b" * 100][: after.n_episodes]
        count, limit = 0, 10**9
        assert EpisodeSet.open(path, writable=True).append(episode(5, 3), seed=3, source="c") == after.n_episodes
        mended = EpisodeSet.open(path)
        assert mended.notes == () and mended.episode_field("source").tolist()[-1] == "c"
        np.testing.assert_array_equal(mended.episode(after.n_episodes)["action"], episode(5, 3)["action"])


def test_leftovers_of_an_unfinished_append_are_named_not_hidden(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "a.zarr")["data/action"].resize((60, 2))
    assert "11 rows after the last episode" in EpisodeSet.open(tmp_path / "a.zarr").notes[0]


def test_opening_takes_the_longest_rising_prefix_inside_all_arrays() -> None:
    assert _valid_prefix(np.array([3, 7, 7, 9]), 100).tolist() == [3, 7]
    assert _valid_prefix(np.array([3, 7, 12]), 10).tolist() == [3, 7]
    assert _valid_prefix(np.array([0, 4]), 10).tolist() == []
    assert _valid_prefix(np.array([], int), 10).tolist() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("action"), "key 'action' is missing"),
        (lambda d: d.update(stat=d.pop("state")), "unknown key 'stat'; did you mean 'state'"),
        (lambda d: d.update(action=np.zeros((5, 3), np.float32)), r"action: want rows of float32\(2,\), got float32\(3,\)"),
        (lambda d: d.update(action=d["action"][:-1]), "arrays of one length above 0"),
        (lambda d: d["state"].__setitem__((3, 1), np.nan), "state: NaN or infinity in row 3"),
        (lambda d: d.update(img=d["img"].astype(float)), "img: want uint8, got float64"),
    ],
)
def test_an_append_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, change, message: str) -> None:
    made, data = make(tmp_path / "a.zarr"), episode(5, 9)
    change(data)
    with pytest.raises(DatasetError, match=message) as caught:
        made.append(data)
    assert "\n" not in str(caught.value) and EpisodeSet.open(tmp_path / "a.zarr").n_episodes == 3


def test_bad_paths_are_one_line_with_the_nearest_name(tmp_path: Path) -> None:
    make(tmp_path / "pusht.zarr")
    with pytest.raises(DatasetError, match=r"no such dataset; did you mean 'pusht\.zarr'"):
        EpisodeSet.open(tmp_path / "pushd.zarr")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.txt").write_text("")
    with pytest.raises(DatasetError, match=r"want a zarr group .* got a folder with x.txt"):
        EpisodeSet.open(tmp_path / "folder")
    with pytest.raises(DatasetError, match="want a zarr group"):
        EpisodeSet.open(tmp_path / "folder" / "x.txt")
    with pytest.raises(DatasetError, match="no key 'stat'; did you mean 'state'"):
        EpisodeSet.open(tmp_path / "pusht.zarr").read("stat")
    with pytest.raises(DatasetError, match="no episode 3, the set has 3"):
        EpisodeSet.open(tmp_path / "pusht.zarr").episode(3)
    with pytest.raises(AlreadyExists):
        make(tmp_path / "pusht.zarr")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_truncated_chunk_is_named_with_its_key_and_rows(tmp_path: Path, zarr_format: int) -> None:
    make(tmp_path / "a.zarr", zarr_format=zarr_format)
    chunk = tmp_path / "a.zarr/data/state" / ("c.0.0" if zarr_format == 3 else "0.0")
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"state: chunk 0 \(rows 0 to 48\) is truncated or corrupt") as caught:
        EpisodeSet.open(tmp_path / "a.zarr").read("state")
    assert "\n" not in str(caught.value)
    chunk.unlink()
    with pytest.raises(DatasetError, match="state: 1 chunk files are missing"):
        EpisodeSet.open(tmp_path / "a.zarr").read("state")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr")
    chunk = tmp_path / "a.zarr/data/action/c.0.0"
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(DatasetError, match="action: chunk 0"):
        EpisodeSet.open(tmp_path / "a.zarr").read("action")


def test_extra_arrays_are_keys_but_no_observations(tmp_path: Path) -> None:
    extra = {"sim_state": ArraySpec((4,), "float64")}
    made = EpisodeSet.create(tmp_path / "a.zarr", SPEC, task="toy", env={}, extra=extra)
    made.append({**episode(5, 0), "sim_state": np.full((5, 4), np.pi)})
    again = EpisodeSet.open(tmp_path / "a.zarr")
    assert "sim_state" not in again.spec.obs and (again.read("sim_state") == np.pi).all()


def test_a_set_of_a_newer_schema_is_refused_by_name(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr")
    zarr.open_group(tmp_path / "a.zarr").attrs["schema"] = 99
    with pytest.raises(DatasetError, match="schema version 99, this robolearn reads up to 1"):
        EpisodeSet.open(tmp_path / "a.zarr")


def test_extend_adds_all_episodes_or_none(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr")
    data = episode(10, 5)

    def blocks(fail: bool):
        for key, rows in data.items():
            yield key, 0, rows[:6]
            if fail:
                raise _Crash
            yield key, 6, rows[6:]

    with pytest.raises(_Crash):
        made.extend([4, 10], blocks(fail=True), seed=[8, 9])
    assert EpisodeSet.open(tmp_path / "a.zarr").n_episodes == 3
    EpisodeSet.open(tmp_path / "a.zarr", writable=True).extend([4, 10], blocks(fail=False), seed=[8, 9])
    again = EpisodeSet.open(tmp_path / "a.zarr")
    assert again.n_episodes == 5 and again.episode_field("seed").tolist() == [0, 1, 2, 8, 9]
    np.testing.assert_array_equal(again.episode(4)["img"], data["img"][4:])


def test_the_fixture_of_schema_1_still_opens(root: Path) -> None:
    fixture = EpisodeSet.open(root / "tests/fixtures/schema1_pusht.zarr")
    assert (fixture.n_episodes, fixture.n_steps, fixture.hz, fixture.task) == (3, 165, 10.0, "pusht")
    assert fixture.episode_field("seed").tolist() == [60, 182, 205] and fixture.episode_field("operator")[0] == "human"
    assert fixture.read("img").shape == (165, 96, 96, 3) and fixture.read("img").mean() > 200
    np.testing.assert_allclose(fixture.read("action").mean(0), [244.6, 260.0], atol=100)


def test_the_original_pusht_file_opens_as_it_is(shared: Path) -> None:
    original = EpisodeSet.open(shared / "data/pusht_zarr/pusht_cchi_v7_replay.zarr")
    assert (original.n_episodes, original.n_steps, original.spec, original.hz) == (206, 25650, None, None)
    assert original.keys["img"].dtype == "float32" and original.notes == ()
    assert original.read("state", 0, 1).shape == (1, 5)
