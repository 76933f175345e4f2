"""Deleting loses nothing: what is deleted comes back as it was, in any order, and a crash at any write leaves a whole set."""

from __future__ import annotations

import itertools
import os
import pathlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_sets import episode, make

from robolearn.core import ArraySpec, Spec
from robolearn.data import _compose, _files, _trash, images
from robolearn.data.edit import Selection, delete, set_filter, trashed, undelete
from robolearn.data.journal import TRASH, folder_of
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, DatasetError

LENGTHS = (5, 9, 40, 7, 6, 8)
TEXT = ["a", "", "ünï" * 40, "d", "e", ""]
SPEC = Spec({"state": ArraySpec((3,))}, ArraySpec((2,)), 10.0)


def made_of(folder: Path, zarr_format: int) -> EpisodeSet:
    """Returns a set with ids, texts, numbers with gaps, a filter and a journal."""
    made = make(folder / "toy.zarr", lengths=LENGTHS, zarr_format=zarr_format)
    made.set_fact("id", {i: 10 + i for i in range(6)})
    made.set_fact("note", dict(enumerate(TEXT)))
    made.set_fact("score", {1: 0.5, 4: float("nan")})
    set_filter(made, "good", np.array([0, 2, 5]))
    for number in range(10, 16):
        (folder_of(made.path) / f"ep_{number:06d}").mkdir(parents=True)
    return EpisodeSet.open(made.path)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    return made_of(tmp_path_factory.mktemp("sets"), 3)


@pytest.fixture(scope="module", params=[2, 3])
def either(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    """Returns the same of either format of zarr, for what depends on how files lie."""
    return made_of(tmp_path_factory.mktemp("sets"), request.param)


def copy_of(original: EpisodeSet, folder: Path) -> Path:
    """Returns the path of a copy of a set and its journal."""
    for path in (original.path, folder_of(original.path)):
        shutil.copytree(path, folder / path.name)
    return folder / original.path.name


def assert_same(got: EpisodeSet, want: EpisodeSet, episodes: list[int] | None = None) -> None:
    """Fails unless `got` holds these episodes of `want`, bit for bit, facts, filters and attributes included."""
    places = list(range(want.n_episodes)) if episodes is None else episodes
    assert got.n_episodes == len(places) and got.facts() == want.facts() and list(got.keys) == list(want.keys)
    for index, place in enumerate(places):
        theirs = want.episode(place)
        for key, value in got.episode(index).items():
            assert value.dtype == theirs[key].dtype and value.tobytes() == theirs[key].tobytes()
    for name in want.facts():
        mine, theirs = got.episode_field(name), want.episode_field(name)
        assert mine.dtype.kind == theirs.dtype.kind
        np.testing.assert_array_equal(mine, theirs[places])
    changing = ("generation", "trash", "next_id")
    assert {k: v for k, v in got.attrs.items() if k not in changing} == want.attrs
    assert got.notes == () and got.zarr_format == want.zarr_format


def journals(path: Path, corner: str = "") -> list[int]:
    return sorted(int(p.name[3:]) for p in (folder_of(path) / corner).glob("ep_*"))


@settings(max_examples=3, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sets(st.integers(0, 5), min_size=1))
def test_any_deleted_subset_comes_back_bit_for_bit(
    either: EpisodeSet, tmp_path_factory: pytest.TempPathFactory, gone: set[int]
) -> None:
    path = copy_of(either, tmp_path_factory.mktemp("copy"))
    change = delete(path, Selection(episodes=",".join(map(str, gone))), time="now")
    left = sorted(set(range(6)) - gone)
    assert (change.episodes, change.left, change.generation) == (sorted(gone), len(left), 1)
    assert_same(EpisodeSet.open(path), either, left)
    assert journals(path) == [10 + i for i in left] and journals(path, TRASH) == [10 + i for i in sorted(gone)]
    undelete(path, trashed(EpisodeSet.open(path)))
    after = EpisodeSet.open(path)
    assert_same(after, either)
    assert set(after.attrs) - set(either.attrs) == {"generation"} and after.attrs["generation"] == 2
    assert journals(path) == list(range(10, 16)) and list((folder_of(path) / TRASH).iterdir()) == []


@settings(max_examples=1, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(6)), st.permutations(range(6)), st.integers(2, 4))
def test_deleted_one_by_one_and_brought_back_in_any_order_everything_is_where_it_was(
    original: EpisodeSet, tmp_path_factory: pytest.TempPathFactory, out: list[int], back: list[int], count: int
) -> None:
    path = copy_of(original, tmp_path_factory.mktemp("copy"))
    alive = set(range(6))
    for place in out[:count]:
        delete(path, Selection(where=f"id == {10 + place}"), time="now")
        alive -= {place}
        assert EpisodeSet.open(path).episode_field("id").tolist() == [10 + i for i in sorted(alive)]
    for place in [p for p in back if p in out[:count]]:
        undelete(path, trashed(EpisodeSet.open(path)), [10 + place])
        alive |= {place}
        assert EpisodeSet.open(path).episode_field("id").tolist() == [10 + i for i in sorted(alive)]
    assert_same(EpisodeSet.open(path), original)


def test_what_was_appended_and_said_in_the_meantime_stays(either: EpisodeSet, tmp_path: Path) -> None:
    path = copy_of(either, tmp_path)
    delete(path, Selection(episodes="1,5"), time="now")
    assert EpisodeSet.open(path).attrs["next_id"] == 16, "the id of a deleted last episode is not given again"
    EpisodeSet.open(path, writable=True).append(episode(4, 99), id=16, seed=99, label="success")
    undelete(path, trashed(EpisodeSet.open(path)))
    after = EpisodeSet.open(path)
    assert after.episode_field("id").tolist() == [10, 11, 12, 13, 14, 15, 16]
    assert after.episode_field("label").tolist() == [""] * 6 + ["success"]
    np.testing.assert_array_equal(after.episode(6)["action"], episode(4, 99)["action"])
    assert "next_id" not in after.attrs and "trash" not in after.attrs


def test_a_filter_that_was_removed_does_not_come_back_with_an_episode(original: EpisodeSet, tmp_path: Path) -> None:
    path = copy_of(original, tmp_path)
    delete(path, Selection(episodes="0"), time="now")
    _trash_filter = path / "meta" / "episode_filter_good"
    shutil.rmtree(_trash_filter)
    undelete(path, trashed(EpisodeSet.open(path)))
    assert "filter_good" not in EpisodeSet.open(path).facts()


def test_a_set_can_be_emptied_and_filled_again(either: EpisodeSet, tmp_path: Path) -> None:
    path = copy_of(either, tmp_path)
    delete(path, Selection(where="steps > 0"), time="now")
    assert EpisodeSet.open(path).n_episodes == 0 == EpisodeSet.open(path).n_steps
    undelete(path, trashed(EpisodeSet.open(path)))
    assert_same(EpisodeSet.open(path), either)


def test_nothing_selected_means_nothing_done(original: EpisodeSet, tmp_path: Path) -> None:
    path = copy_of(original, tmp_path)
    assert delete(path, Selection(where="steps > 1000"), time="now").episodes == []
    with pytest.raises(BadInput, match="delete: of which episodes"):
        delete(path, Selection(), time="now")
    assert EpisodeSet.open(path).attrs == original.attrs and not (folder_of(path) / TRASH).exists()


class _Crash(BaseException):
    pass


def _count_and_crash(monkeypatch: pytest.MonkeyPatch, limit: int, dead: bool) -> list[str]:
    """Makes change number `limit` on the disk fail (dead: and every one after it); returns the list of changes made."""
    made: list[str] = []

    def wrap(owner: Any, name: str, after: bool = False) -> None:
        real = getattr(owner, name)

        def changed(*args: Any, **options: Any) -> Any:
            made.append(name)
            broken = len(made) > limit if dead else len(made) == limit + 1
            if broken and not after:
                raise _Crash
            result = real(*args, **options)
            if broken:
                raise _Crash
            return result

        monkeypatch.setattr(owner, name, changed)

    wrap(pathlib.Path, "replace")
    wrap(os, "link")
    wrap(shutil, "rmtree")
    wrap(_files, "_exchange", after=True)
    return made


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    made = make(tmp_path_factory.mktemp("sets") / "toy.zarr", lengths=(5, 6, 7), spec=SPEC)
    made.set_fact("id", {0: 0, 1: 1, 2: 2})
    for number in range(3):
        (folder_of(made.path) / f"ep_{number:06d}").mkdir(parents=True)
    return EpisodeSet.open(made.path)


@pytest.mark.parametrize("dead", [False, True], ids=["one change fails", "all later ones fail too"])
@pytest.mark.parametrize("verb", ["delete", "undelete"])
def test_a_crash_at_any_write_or_rename_loses_nothing(
    small: EpisodeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, dead: bool
) -> None:
    def act(path: Path) -> None:
        if verb == "delete":
            delete(path, Selection(episodes="1"), time="now")
        else:
            undelete(path, trashed(EpisodeSet.open(path)))

    before = copy_of(small, tmp_path)
    if verb == "undelete":
        delete(before, Selection(episodes="1"), time="now")
    start = EpisodeSet.open(before)

    def fresh(name: str) -> Path:
        shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-{name}", dirs_exist_ok=True)
        return tmp_path.parent / f"{tmp_path.name}-{name}" / before.name

    with monkeypatch.context() as patch:
        made = _count_and_crash(patch, 10**9, dead)
        act(fresh("whole"))
    changes = list(made)
    assert "_exchange" in changes and len(changes) > 15
    late = changes.index("_exchange") - 3  # from here on everything, before it a sample of the writes
    for limit in [*range(5, late, 50), *range(late, len(changes), 1 if dead else 3)]:
        path = fresh(str(limit))
        with monkeypatch.context() as patch:
            _count_and_crash(patch, limit, dead)
            with pytest.raises((_Crash, OSError)):  # OSError: zarr's other threads still write into what is cleared away
                act(path)
        after = EpisodeSet.open(path)
        generation = after.attrs.get("generation", 0)
        assert generation in (start.attrs.get("generation", 0), start.attrs.get("generation", 0) + 1)
        deleted = (generation % 2) == 1
        assert_same(after, small, [0, 2] if deleted else None)
        assert sum(len(batch.places) for batch in trashed(after)) == int(deleted)
        if deleted:
            undelete(path, trashed(after))
            assert_same(EpisodeSet.open(path), small)
            assert journals(path) == [0, 1, 2] and journals(path, TRASH) == []
        else:
            delete(path, Selection(episodes="1"), time="now")
            assert_same(EpisodeSet.open(path), small, [0, 2])
            assert journals(path) == [0, 2] and journals(path, TRASH) == [1]


def test_a_second_writer_is_refused_by_name(original: EpisodeSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy_of(original, tmp_path)
    clock = itertools.count(step=6)
    with _files.locked(path, "dataset"):
        monkeypatch.setattr(_files, "time", SimpleNamespace(monotonic=lambda: next(clock), sleep=lambda _: None))
        with pytest.raises(DatasetError, match=f"process {os.getpid()} is writing to this dataset; wait"):
            delete(path, Selection(episodes="1"), time="now")
        with pytest.raises(DatasetError, match="is writing to this dataset"):
            undelete(path, [])
    with _files.locked(folder_of(path), "journal"), pytest.raises(DatasetError, match="is writing to this journal"):
        delete(path, Selection(episodes="1"), time="now")
    assert EpisodeSet.open(path).n_episodes == 6


def test_a_handle_from_before_an_edit_cannot_write_into_what_came_after(original: EpisodeSet, tmp_path: Path) -> None:
    path = copy_of(original, tmp_path)
    stale = EpisodeSet.open(path, writable=True)
    delete(path, Selection(episodes="1"), time="now")
    EpisodeSet.open(path, writable=True).append(episode(9, 1), id=16)  # as many episodes as before
    for write in (lambda: stale.set_fact("score", {1: 0.1}), lambda: stale.append(episode(5, 1))):
        with pytest.raises(DatasetError, match="its episodes were edited since it was opened for writing; open the set again"):
            write()
    assert EpisodeSet.open(path).episode_field("id").tolist() == [10, 12, 13, 14, 15, 16]


def test_the_frames_of_an_old_generation_are_not_taken_for_those_of_the_new(either: EpisodeSet, tmp_path: Path) -> None:
    path = copy_of(either, tmp_path)
    for step in ("", "delete", "undelete", "delete"):
        if step == "delete":
            delete(path, Selection(episodes="1"), time="now")
        elif step:
            undelete(path, trashed(EpisodeSet.open(path)))
        dataset = EpisodeSet.open(path)
        np.testing.assert_array_equal(images.load_frames(dataset, "img"), dataset.read("img"))
    delete(path, Selection(where="id == 13"), time="now")
    undelete(path, trashed(EpisodeSet.open(path)), [11])
    dataset = EpisodeSet.open(path)
    np.testing.assert_array_equal(images.load_frames(dataset, "img"), dataset.read("img"))


def test_files_before_the_first_deleted_episode_are_shared_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = Spec({"img": ArraySpec((8, 8, 3), "uint8")}, ArraySpec((2,)), 10.0)
    made = make(tmp_path / "a.zarr", lengths=(300, 300, 5), spec=spec, shard_rows=128)
    first = made.path / "data/img/c.0.0.0.0"
    node = first.stat().st_ino
    delete(made.path, Selection(episodes="1"), time="now")
    assert first.stat().st_ino == node, "the first shard was copied"
    np.testing.assert_array_equal(EpisodeSet.open(made.path).read("img")[:300], episode(300, 0, spec)["img"])
    undelete(made.path, trashed(EpisodeSet.open(made.path)))

    def no_links(*_: object) -> None:
        raise OSError("not on this file system")

    monkeypatch.setattr(_compose, "os", SimpleNamespace(link=no_links))
    delete(made.path, Selection(episodes="2"), time="now")
    np.testing.assert_array_equal(EpisodeSet.open(made.path).read("img")[300:], episode(300, 1, spec)["img"])


def test_a_set_with_a_lost_chunk_is_refused_not_copied_as_zeros(either: EpisodeSet, tmp_path: Path) -> None:
    path = copy_of(either, tmp_path)
    chunk = next(p for p in (path / "data/state").rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr")))
    chunk.unlink()
    with pytest.raises(DatasetError, match="state: 1 chunk files are missing"):
        delete(path, Selection(episodes="1"), time="now")
    assert EpisodeSet.open(path).n_episodes == 6 and journals(path) == list(range(10, 16))


def test_what_cannot_be_edited_is_refused_in_one_line(either: EpisodeSet, tmp_path: Path) -> None:
    path = copy_of(either, tmp_path)
    shutil.copytree(path / "meta" / "episode_seed", path / "meta" / "runs")
    with pytest.raises(DatasetError, match="meta/runs is unknown here and cannot be cut by episode"):
        delete(path, Selection(episodes="1"), time="now")
    (tmp_path / "z.zarr.zip").write_bytes(b"")
    with pytest.raises(DatasetError, match="a zip cannot be changed; `robolearn data convert`"):
        delete(tmp_path / "z.zarr.zip", Selection(episodes="1"), time="now")


def test_a_trash_that_was_emptied_by_hand_is_named(original: EpisodeSet, tmp_path: Path) -> None:
    path = copy_of(original, tmp_path)
    delete(path, Selection(episodes="1"), time="now")
    shutil.rmtree(folder_of(path) / TRASH)
    with pytest.raises(DatasetError, match="is not there any more; somebody emptied the trash"):
        undelete(path, trashed(EpisodeSet.open(path)))
    delete(path, Selection(episodes="0"), time="now")
    undelete(path, trashed(EpisodeSet.open(path))[-1:])
    assert EpisodeSet.open(path).episode_field("id").tolist() == [10, 12, 13, 14, 15]


def test_a_set_larger_than_the_blocks_is_edited_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    monkeypatch.setattr(_compose, "_BLOCK_BYTES", 2**20)
    spec = Spec({"img": ArraySpec((64, 64, 3), "uint8")}, ArraySpec((2,)), 10.0)
    made = EpisodeSet.create(tmp_path / "a.zarr", spec, task="toy", env={}, shard_rows=64, durable=False)
    for index in range(8):
        made.append({"img": np.full((256, 64, 64, 3), index, np.uint8), "action": np.zeros((256, 2), np.float32)})
    tracemalloc.start()
    delete(made.path, Selection(episodes="0,4"), time="now")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20 < made.n_steps * 64 * 64 * 3, f"{peak / 2**20:.1f} MiB for a set of 24 MiB"
    left = EpisodeSet.open(made.path)
    assert left.read("img")[:, 0, 0, 0].tolist() == [i for i in (1, 2, 3, 5, 6, 7) for _ in range(256)]


def test_the_places_of_the_living_are_those_that_the_dead_do_not_hold() -> None:
    batch = _trash.Batch(Path("x"), "", np.array([1, 4]))
    assert _trash._alive_places(4, [batch]).tolist() == [0, 2, 3, 5]
    assert _trash._alive_places(0, [batch]).tolist() == []
    assert _trash._alive_places(3, []).tolist() == [0, 1, 2]
