"""Merge, split, filters, labels, names and statistics: what does not fit is named, nothing is lost, originals stay."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_sets import SPEC, episode, make

from robolearn.core import ArraySpec, Camera, Spec
from robolearn.data import _summary, edit
from robolearn.data._compose import Piece
from robolearn.data.edit import MergeOptions, Split
from robolearn.data.journal import folder_of
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput, DatasetError, SpecMismatch, UnknownName


def with_obs(**changes: ArraySpec) -> Spec:
    return dataclasses.replace(SPEC, obs={**SPEC.obs, **changes})


def test_a_merge_holds_every_row_and_fact_in_order(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a.zarr", lengths=(5, 9)), make(tmp_path / "b.zarr", lengths=(4, 3, 6), zarr_format=2)
    a.set_fact("operator", {0: "anna"})
    b.set_fact("score", {2: 0.5})
    edit.set_filter(b, "good", np.array([1]))
    merged = edit.merge([a.path, b.path], tmp_path / "m.zarr")
    made = EpisodeSet.open(tmp_path / "m.zarr")
    assert (merged.episodes, merged.steps, made.n_episodes, made.spec, made.task) == (5, 27, 5, SPEC, "toy")
    for index, (source, place) in enumerate([(a, 0), (a, 1), (b, 0), (b, 1), (b, 2)]):
        for key, value in made.episode(index).items():
            assert value.tobytes() == source.episode(place)[key].tobytes()
    assert made.episode_field("seed").tolist() == [0, 1, 0, 1, 2]
    assert made.episode_field("operator").tolist() == ["anna", "", "", "", ""]
    np.testing.assert_array_equal(made.episode_field("score"), [np.nan, np.nan, np.nan, np.nan, 0.5])
    assert edit.filter_episodes(made, "good").tolist() == [3]
    assert made.episode_field("origin").tolist() == ["a", "a", "b", "b", "b"]
    assert made.episode_field("origin_id").tolist() == [0, 1, 0, 1, 2] and made.episode_field("id").tolist() == [0, 1, 2, 3, 4]
    assert [row["name"] for row in made.attrs["merged"]] == ["a", "b"] and merged.renumbered


def test_ids_are_kept_where_they_are_unique_and_new_where_not(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a.zarr", lengths=(5, 5)), make(tmp_path / "b.zarr", lengths=(5,))
    a.set_fact("id", {0: 3, 1: 7})
    b.set_fact("id", {0: 4})
    assert not edit.merge([a.path, b.path], tmp_path / "m.zarr").renumbered
    assert EpisodeSet.open(tmp_path / "m.zarr").episode_field("id").tolist() == [3, 7, 4]
    b.set_fact("id", {0: 7})
    assert edit.merge([a.path, b.path], tmp_path / "m.zarr", MergeOptions(overwrite=True)).renumbered
    made = EpisodeSet.open(tmp_path / "m.zarr")
    assert made.episode_field("id").tolist() == [0, 1, 2] and made.episode_field("origin_id").tolist() == [3, 7, 7]


CAMERA = Camera((8, 8), ((1.0, 0.0, 4.0), (0.0, 1.0, 4.0), (0.0, 0.0, 1.0)))
MOVED = dataclasses.replace(CAMERA, K=((2.0, 0.0, 4.0), (0.0, 1.0, 4.0), (0.0, 0.0, 1.0)))


@pytest.mark.parametrize(
    ("here", "there", "says"),
    [
        (SPEC, dataclasses.replace(SPEC, hz=20.0), "rate 10.0 here, 20.0 there. --allow rate takes the first set's"),
        (SPEC, dataclasses.replace(SPEC, action=ArraySpec((3,))), "action: shape (2,) here, (3,) there"),
        (SPEC, dataclasses.replace(SPEC, codec="osc_delta"), "action: codec unknown here, osc_delta there"),
        (SPEC, with_obs(state=ArraySpec((3,), "float64")), "state: dtype float32 here, float64 there"),
        (SPEC, with_obs(state=ArraySpec((3,), names=("x", "y", "yaw"), unit="mm")), "state: unit m here, mm there"),
        (SPEC, with_obs(state=ArraySpec((3,), names=("y", "x", "yaw"), unit="m")), "state: names ('x', 'y', 'yaw') here, ('y'"),
        (
            SPEC,
            with_obs(state=ArraySpec((3,), names=("x", "y", "yaw"), unit="m", frame="base")),
            "state: frame unknown here, base there",
        ),
        (
            dataclasses.replace(SPEC, cameras={"img": CAMERA}),
            dataclasses.replace(SPEC, cameras={"img": MOVED}),
            "img: camera K [[1.0, 0.0, 4.0]",
        ),
        (SPEC, dataclasses.replace(SPEC, cameras={"img": CAMERA}), "img: camera not calibrated here, calibrated there"),
        (with_obs(more=ArraySpec((1,))), SPEC, "more: key present here, missing there. --keys leaves 'more' out"),
        (SPEC, with_obs(more=ArraySpec((1,))), "holds 'more', which"),
    ],
)
def test_a_merge_refuses_sets_that_differ_by_key_and_field(tmp_path: Path, here: Spec, there: Spec, says: str) -> None:
    a, b = make(tmp_path / "a.zarr", lengths=(5,), spec=here), make(tmp_path / "b.zarr", lengths=(5,), spec=there)
    with pytest.raises(SpecMismatch) as caught:
        edit.merge([a.path, b.path], tmp_path / "m.zarr")
    assert says in str(caught.value) and "\n" not in str(caught.value) and not (tmp_path / "m.zarr").exists()


def test_a_merge_of_a_set_with_itself_is_refused_however_it_is_spelled(tmp_path: Path) -> None:
    a = make(tmp_path / "a.zarr")
    with pytest.raises(BadInput, match="is given twice"):
        edit.merge([a.path, tmp_path / "x" / ".." / "a.zarr"], tmp_path / "m.zarr")


def test_a_merge_names_another_task_or_environment(tmp_path: Path) -> None:
    make(tmp_path / "a.zarr", lengths=(5,))
    for name, task, env in (("b", "other", {"max_steps": 50}), ("c", "toy", {"max_steps": 60})):
        EpisodeSet.create(tmp_path / f"{name}.zarr", SPEC, task=task, env=env, meta={"robot": "none"}).append(episode(5, 0))
    with pytest.raises(SpecMismatch, match="task toy here, other there"):
        edit.merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], tmp_path / "m.zarr")
    with pytest.raises(SpecMismatch, match=r"env max_steps=50 here, max_steps=60 there\. --allow env"):
        edit.merge([tmp_path / "a.zarr", tmp_path / "c.zarr"], tmp_path / "m.zarr")
    edit.merge([tmp_path / "a.zarr", tmp_path / "c.zarr"], tmp_path / "m.zarr", MergeOptions(allow=["env"]))
    assert EpisodeSet.open(tmp_path / "m.zarr").env == {"max_steps": 50}
    with pytest.raises(UnknownName, match="unknown field to allow 'shape'"):
        edit.merge([tmp_path / "a.zarr", tmp_path / "c.zarr"], tmp_path / "n.zarr", MergeOptions(allow=["shape"]))


def test_the_common_keys_of_different_sets_merge_on_request(tmp_path: Path) -> None:
    a = make(tmp_path / "a.zarr", lengths=(5,))
    b = make(tmp_path / "b.zarr", lengths=(6,), spec=dataclasses.replace(SPEC, obs={"state": SPEC.obs["state"]}))
    edit.merge([a.path, b.path], tmp_path / "m.zarr", MergeOptions(keys=["state"]))
    made = EpisodeSet.open(tmp_path / "m.zarr")
    assert list(made.keys) == ["state", "action"] and made.spec is not None and list(made.spec.obs) == ["state"]
    np.testing.assert_array_equal(made.episode(1)["action"], b.episode(0)["action"])
    with pytest.raises(UnknownName, match="unknown key 'stat'; did you mean 'state'"):
        edit.merge([a.path, b.path], tmp_path / "n.zarr", MergeOptions(keys=["stat"]))


def test_an_episode_that_is_in_two_sets_is_refused_or_taken_once(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a.zarr", lengths=(5, 6)), make(tmp_path / "b.zarr", lengths=(5, 6))
    a.set_fact("uuid", {0: "u0", 1: "u1"})
    b.set_fact("uuid", {0: "u9", 1: "u0"})
    with pytest.raises(DatasetError, match=r"b.zarr: episode 1 is episode 0 of a once more \(uuid u0\); --skip-duplicates"):
        edit.merge([a.path, b.path], tmp_path / "m.zarr")
    merged = edit.merge([a.path, b.path], tmp_path / "m.zarr", MergeOptions(skip_duplicates=True))
    assert merged.skipped == {"b": [1]} and merged.episodes == 3
    assert EpisodeSet.open(tmp_path / "m.zarr").episode_field("uuid").tolist() == ["u0", "u1", "u9"]


def test_facts_of_two_kinds_are_refused_by_name(tmp_path: Path) -> None:
    a, b = make(tmp_path / "a.zarr", lengths=(5,)), make(tmp_path / "b.zarr", lengths=(5,))
    a.set_fact("note", {0: "text"})
    b.set_fact("note", {0: 3})
    with pytest.raises(DatasetError, match=r"fact 'note': text in .*a\.zarr, numbers of shape"):
        edit.merge([a.path, b.path], tmp_path / "m.zarr")
    with pytest.raises(BadInput, match="want two sets or more, got 1"):
        edit.merge([a.path], tmp_path / "m.zarr")


@given(st.integers(2, 200), st.floats(0.01, 0.99), st.integers(0, 5), st.integers(1, 6))
def test_a_drawn_split_is_a_partition_with_the_share_of_every_label(n: int, ratio: float, seed: int, kinds: int) -> None:
    labels = np.random.default_rng(seed).integers(0, kinds, n)
    first = edit._draw(labels, ratio, np.random.default_rng(seed))
    assert first.any() and not first.all()
    assert abs(first.sum() - n * ratio) <= 1.0 + 1e-6
    for kind in range(kinds):
        members = labels == kind
        assert abs(first[members].sum() - members.sum() * ratio) <= 2.0
    np.testing.assert_array_equal(first, edit._draw(labels, ratio, np.random.default_rng(seed)))


def test_what_belongs_together_is_not_torn_apart_by_a_split(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr", lengths=(5,) * 12)
    made.set_fact("source", {i: f"demo{i // 3}" for i in range(9)})
    pool = np.arange(12)
    train, val = edit.random_split(made, pool, Split(0.5, seed=1, together="source"))
    assert sorted([*train, *val]) == list(range(12)) and len(val) and len(train)
    for group in (range(3), range(3, 6), range(6, 9)):
        assert set(group) <= set(train) or set(group) <= set(val)
    with pytest.raises(DatasetError, match="no single-valued fact 'sorce'; did you mean 'source'"):
        edit.random_split(made, pool, Split(together="sorce"))
    with pytest.raises(DatasetError, match="want at least 2 episodes that differ in 'source', got 1"):
        edit.random_split(made, np.arange(3), Split(together="source"))
    with pytest.raises(BadInput, match="--ratio: want a share between 0 and 1, got 1"):
        edit.random_split(made, pool, Split(1.0))


def test_filters_are_small_facts_that_can_be_replaced_and_removed(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr")
    edit.set_filter(made, "hard", np.array([0, 2]))
    assert made.episode_field("filter_hard").dtype == np.int8 and made.episode_field("filter_hard").tolist() == [1, 0, 1]
    edit.set_filter(made, "hard", np.array([1]))
    assert edit.filters(made) == {"hard": 1}
    edit.remove_filter(made, "hard")
    assert edit.filters(EpisodeSet.open(made.path)) == {} and EpisodeSet.open(made.path).facts() == ("seed",)
    for name, episodes, says in (("a b", [0], "want a name of letters"), ("none", [], "want at least one of the 3 episodes")):
        with pytest.raises(BadInput, match=says):
            edit.set_filter(made, name, np.array(episodes, int))


def test_a_label_says_who_and_when_and_outlives_the_set(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr")
    made.set_fact("id", {0: 5, 1: 6, 2: 7})
    made.set_fact("uuid", {0: "u5", 1: "u6"})
    edit.set_label(made, [0, 2], "success", "reviewer:anna", "2026-01-02T03:04:05+00:00", note="clean")
    edit.set_label(made, [0], "failure", "reviewer:bo", "2026-01-03T00:00:00+00:00")
    want = {"label": ["failure", "", "success"], "label_by": ["reviewer:bo", "", "reviewer:anna"]}
    assert {name: made.episode_field(name).tolist() for name in want} == want
    lines = [json.loads(line) for line in (folder_of(made.path) / "labels.jsonl").read_text().splitlines()]
    assert [(line["id"], line["uuid"], line["label"], line["note"]) for line in lines] == [
        (5, "u5", "success", "clean"),
        (7, "", "success", "clean"),
        (5, "u5", "failure", ""),
    ]
    again = make(tmp_path / "a.zarr", lengths=(5, 6), overwrite=True)
    again.set_fact("id", {0: 7, 1: 5})
    again.set_fact("uuid", {1: "u5"})
    assert edit.apply_labels(again) == 2
    assert again.episode_field("label").tolist() == ["success", "failure"]
    edit.set_label(again, [0], "", "", "")
    assert again.episode_field("label").tolist() == ["", "failure"]


def test_labels_that_are_none_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr")
    with pytest.raises(UnknownName, match="unknown label 'sucess'; did you mean 'success'"):
        edit.set_label(made, [0], "sucess", "x", "now")
    with pytest.raises(BadInput, match="label: by whom"):
        edit.set_label(made, [0], "success", "", "now")
    with pytest.raises(DatasetError, match="no episode 3, the set has 3"):
        edit.set_label(made, [0, 3], "success", "x", "now")
    assert not folder_of(made.path).exists() and made.facts() == ("seed",)


def test_a_set_is_renamed_with_journal_and_cache_and_a_cut_off_rename_goes_on(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr")
    for name in ("a.episodes", "a.cache", "other.cache"):
        (tmp_path / name).mkdir()
    with pytest.raises(DatasetError, match=r"other\.cache: is there already and belongs to another set"):
        edit.rename_set(made.path, "other")
    edit.rename_set(made.path, "b")
    assert {p.name for p in tmp_path.iterdir() if p.name[0] != "."} == {"b.zarr", "b.episodes", "b.cache", "other.cache"}
    (tmp_path / "b.episodes").rename(tmp_path / "a.episodes")  # as if the power had gone after the first of the renames
    edit.rename_set(tmp_path / "a.zarr", "b")
    assert (tmp_path / "b.episodes").is_dir() and EpisodeSet.open(tmp_path / "b.zarr").n_episodes == 3
    make(tmp_path / "c.zarr")
    with pytest.raises(AlreadyExists):
        edit.rename_set(tmp_path / "c.zarr", "b.zarr")
    with pytest.raises(DatasetError, match="no such dataset"):
        edit.rename_set(tmp_path / "absent.zarr", "d")


def test_a_key_is_renamed_everywhere_at_once(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, cameras={"img": CAMERA})
    made = make(tmp_path / "a.zarr", spec=spec)
    rows = made.read("img")
    edit.rename_key(made.path, "img", "camera0_rgb")
    after = EpisodeSet.open(made.path)
    assert (
        after.spec is not None
        and list(after.spec.obs) == ["state", "camera0_rgb"]
        and list(after.spec.cameras) == ["camera0_rgb"]
    )
    assert list(after.keys) == ["state", "camera0_rgb", "action"] and after.attrs["generation"] == 1
    np.testing.assert_array_equal(after.read("camera0_rgb"), rows)
    after = EpisodeSet.open(made.path, writable=True)
    after.append({**{k: v for k, v in episode(4, 9).items() if k != "img"}, "camera0_rgb": episode(4, 9)["img"]})
    assert EpisodeSet.open(made.path).n_episodes == 4
    for old, new, says in (
        ("state", "camera0_rgb", "there is a key 'camera0_rgb' already"),
        ("stat", "x", "unknown key 'stat'; did you mean 'state'"),
        ("action", "x", "'action' is the name that every reader knows"),
        ("state", "a/b", "want a key of letters"),
    ):
        with pytest.raises(BadInput, match=says):
            edit.rename_key(made.path, old, new)
    edit.rename_task(made.path, "pushing")
    assert EpisodeSet.open(made.path).task == "pushing"


def test_statistics_are_those_of_numpy_and_name_the_episode_that_spoils_them(tmp_path: Path) -> None:
    spec = Spec({"state": ArraySpec((3,), "float64", names=("x", "y", "yaw"))}, ArraySpec((2,)), 10.0)
    made = EpisodeSet.create(tmp_path / "a.zarr", spec, task="", env={}, durable=False)
    rng = np.random.default_rng(0)
    for index in range(8):
        state = rng.normal(size=(40 + index, 3))
        state[:, 2] = 0.25
        if index == 5:
            state[:, 0] += 1e9
            state[3, 1] = np.nan
        action = rng.normal(size=(len(state), 2)).astype(np.float32)
        made.extend([len(state)], [("state", 0, state), ("action", 0, action)])  # append would refuse the NaN
    piece = Piece(made, np.arange(8))
    found = _summary.summarise(piece, "state")
    rows = made.read("state")
    np.testing.assert_allclose(found.std, np.nanstd(rows, 0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.mean, np.nanmean(rows, 0), rtol=1e-12)
    np.testing.assert_allclose(found.quantiles, np.nanquantile(rows, _summary.QUANTILES, axis=0))
    others = np.delete(rows, slice(*made.span(5)), axis=0)
    assert found.extreme[0] == 5 and found.not_finite.tolist() == [0, 1, 0]
    np.testing.assert_allclose(found.std_without[0], others.std(0)[0], rtol=1e-9)
    said = _summary.warnings("state", made.keys["state"], found)
    assert any("state[x]: episode 5 inflates the std" in text for text in said)
    assert any("state[y]: 1 values are NaN" in text for text in said)
    assert any("state[yaw]: hardly varies" in text for text in said)
    chosen = _summary.summarise(Piece(made, np.array([0, 3])), "action")
    both = np.concatenate([made.episode(0)["action"], made.episode(3)["action"]]).astype(float)
    np.testing.assert_allclose(chosen.std, both.std(0), rtol=1e-9)
    assert chosen.episodes == 2 and not any(
        "inflates" in text for text in _summary.warnings("action", made.keys["action"], chosen)
    )


@given(st.integers(0, 10**6))
def test_the_streamed_quantiles_are_values_of_that_rank(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = np.concatenate([rng.normal(size=(300, 2)), rng.normal(size=(3, 2)) * 1e6, np.full((20, 2), 0.125)])
    rows = rows[rng.permutation(len(rows))]

    class Rows:
        def __init__(self) -> None:
            self.blocks = np.array_split(rows, 4)

    source = Rows()
    original, _summary._blocks = _summary._blocks, lambda piece, key: iter(piece.blocks)
    try:
        found = _summary._from_histogram(source, "x", rows.min(0), rows.max(0), np.full(2, len(rows)))
    finally:
        _summary._blocks = original
    low = np.quantile(rows, _summary.QUANTILES, axis=0, method="lower")
    assert (np.abs(found - low) <= np.ptp(rows, axis=0) / 2**23).all()
