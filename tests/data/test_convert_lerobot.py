"""LeRobot's format: what we write is what its own reader sees, what others wrote is read, what is broken is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from peer import read_with
from small_sets import LENGTHS, make

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert import _pictures, lerobot
from robolearn.data.convert._copy import Options
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

RICH = Spec(
    {
        "state": ArraySpec((3,), names=("x", "y", "yaw"), unit="m"),
        "points": ArraySpec((4, 2)),
        "top": ArraySpec((32, 40, 3), "uint8"),
        "odd": ArraySpec((31, 33, 3), "uint8"),
    },
    ArraySpec((2,), "float64"),
    10.0,
)
CLOCKS = {"t_wall": ArraySpec((), "int64", unit="ns"), "flags": ArraySpec((), "int32"), "sim_state": ArraySpec((5,), "float64")}


def smooth_pictures(steps: int, height: int, width: int, seed: int) -> np.ndarray:
    """Returns pictures that a video codec was made for: slow gradients."""
    y, x, t = np.arange(height)[:, None], np.arange(width)[None, :], np.arange(steps)[:, None, None]
    one = 127 + 80 * np.sin((x / width + y / height) * 2 + t / 15 + seed)
    return np.stack([one, 255 - one, np.full_like(one, 90 + seed)], axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    """Returns a set with two cameras, clocks of its own and facts of every kind."""
    path = tmp_path_factory.mktemp("lerobot") / "set.zarr"
    made = EpisodeSet.create(path, RICH, task="toy", env={"max_steps": 9}, meta={"robot": "arm"}, extra=CLOCKS, durable=False)
    rng, now = np.random.default_rng(0), 1_760_000_000_000_000_000
    for seed, steps in enumerate(LENGTHS):
        rows = {
            "state": rng.normal(size=(steps, 3)).astype(np.float32),
            "points": rng.normal(size=(steps, 4, 2)).astype(np.float32),
            "top": smooth_pictures(steps, 32, 40, seed),
            "odd": smooth_pictures(steps, 31, 33, seed),
            "action": rng.normal(size=(steps, 2)),
            "t_wall": now + np.cumsum(rng.integers(99_000_000, 101_000_000, steps)),
            "flags": rng.integers(0, 9, steps).astype(np.int32),
            "sim_state": rng.normal(size=(steps, 5)),
        }
        made.append(rows, seed=seed, success=np.int8(seed % 2), operator=("ann", "", "bob")[seed], filter_good=np.int8(seed == 2))
    return EpisodeSet.open(path)


@pytest.fixture(scope="module")
def written(source: EpisodeSet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the set in LeRobot's format, pictures once as PNG and once as video."""
    folder = tmp_path_factory.mktemp("written")
    for images in ("png", "video"):
        lerobot.write(source, folder / images, options=Options(images=images))
    return {images: folder / images for images in ("png", "video")}


@pytest.mark.parametrize("images", ["png", "video"])
def test_a_round_trip_keeps_spec_facts_clocks_and_every_number(source, written, images, tmp_path) -> None:
    lost = lerobot.read(written[images], tmp_path / "back.zarr")
    again = EpisodeSet.open(tmp_path / "back.zarr")
    assert lost == () and again.spec == source.spec and again.keys == source.keys and again.env == source.env
    assert again.facts() == source.facts() and again.attrs["robot"] == "arm"
    for fact in source.facts():
        got, want = again.episode_field(fact), source.episode_field(fact)
        assert got.dtype == want.dtype or got.dtype.kind == "U"
        np.testing.assert_array_equal(got, want)
    for key in source.keys:
        if images == "png" or key not in ("top", "odd"):
            assert again.read(key).dtype == source.read(key).dtype
            np.testing.assert_array_equal(again.read(key), source.read(key))
    errors = _pictures.squared_errors(again.read("top"), source.read("top"))
    assert _pictures.psnr(errors.max(), 32 * 40 * 3) > 35


def test_a_lossy_choice_says_its_psnr_and_the_default_loses_nothing(source, tmp_path) -> None:
    assert lerobot.write(source, tmp_path / "default") == ()
    lost = lerobot.write(source, tmp_path / "jpeg", options=Options(images="jpeg"))
    assert any("'top' bit for bit: PSNR" in what for what in lost)
    assert "lossy" in lerobot.cannot_carry(source, Options(images="video"))[0]


@pytest.mark.parametrize("images", ["png", "video"])
def test_lerobots_own_reader_sees_the_same(source, written, images, tmp_path) -> None:
    seen = read_with("lerobot", "lerobot", [str(written[images]), "10"], tmp_path)
    about = json.loads(str(seen["about"]))
    assert (about["episodes"], about["frames"], about["fps"]) == (3, source.n_steps, 10) and about["task"] == "toy"
    assert about["names"] == ["x", "y", "yaw"] and "fact/operator" in about["columns"]
    np.testing.assert_array_equal(seen["ends"], source.episode_ends)
    for key, column in (
        ("action", "action"),
        ("state", "observation.state"),
        ("points", "observation.points"),
        ("t_wall", "t_wall"),
        ("sim_state", "sim_state"),
    ):
        np.testing.assert_array_equal(seen[f"column/{column}"].astype(source.keys[key].dtype), source.read(key))
    for camera in ("top", "odd"):
        got, want = seen[f"column/observation.images.{camera}"], source.read(camera)
        if images == "png":
            np.testing.assert_array_equal(got, want)
        else:
            worst = _pictures.squared_errors(got, want).max()
            assert got.shape == want.shape and _pictures.psnr(worst, want[0].size) > 30
    action, ends = source.read("action").astype(np.float32), source.episode_ends
    inside = ~seen["windows/pad"]
    np.testing.assert_array_equal(seen["windows/action"][inside[:, 2], 2], action[np.flatnonzero(inside[:, 2]) + 1])
    assert (~inside[:, 2]).nonzero()[0].tolist() == (ends - 1).tolist()
    assert int(seen["some_episodes"]) == LENGTHS[1]
    np.testing.assert_allclose(seen["stats/mean"], source.read("action").mean(axis=0))
    np.testing.assert_allclose(seen["stats/std"], source.read("action").std(axis=0))


def test_several_vectors_are_joined_to_the_state_that_its_policies_read(tmp_path) -> None:
    spec = Spec({"pos": ArraySpec((3,), names=("x", "y", "z")), "grip": ArraySpec((1,))}, ArraySpec((2,)), 12.5)
    source = make(tmp_path / "a.zarr", spec=spec)
    lerobot.write(source, tmp_path / "lr")
    info = json.loads((tmp_path / "lr/meta/info.json").read_text())
    assert info["features"]["observation.state"]["names"] == ["pos.x", "pos.y", "pos.z", "grip.0"] and info["fps"] == 12.5
    table = pq.read_table(tmp_path / "lr/data/chunk-000/file-000.parquet")
    joined = np.array(table["observation.state"].to_pylist(), np.float32)
    np.testing.assert_array_equal(joined, np.concatenate([source.read("pos"), source.read("grip")], axis=1))
    lerobot.read(tmp_path / "lr", tmp_path / "b.zarr")
    assert EpisodeSet.open(tmp_path / "b.zarr").keys == source.keys


def test_a_dataset_edited_elsewhere_is_read_by_what_it_says_now(written, tmp_path) -> None:
    shutil.copytree(written["png"], tmp_path / "lr")
    (tmp_path / "lr/meta/robolearn.json").unlink()
    lost = lerobot.read(tmp_path / "lr", tmp_path / "a.zarr")
    made = EpisodeSet.open(tmp_path / "a.zarr")
    assert {"observation.state", "observation.images.top", "action", "t_wall", "timestamp"} <= set(made.keys)
    assert made.spec.obs["observation.state"].names == ("x", "y", "yaw") and made.keys["t_wall"].shape == ()
    assert any("timestamp is frame_index / 10" in what for what in lost)
    assert made.episode_field("instruction").tolist() == ["toy"] * 3 and made.episode_field("seed").tolist() == [0, 1, 2]


def write_v21(root: Path, source: EpisodeSet) -> None:
    """Writes a set as LeRobot 2.1 did: one parquet and one video an episode, lists in jsonl files."""
    (root / "meta").mkdir(parents=True)
    features = {
        "observation.state": {"dtype": "float32", "shape": [3], "names": {"motors": ["a", "b", "c"]}},
        "observation.images.top": {"dtype": "video", "shape": [3, 32, 40], "names": ["channels", "height", "width"]},
        "action": {"dtype": "float64", "shape": [2], "names": None},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        "episode_index": {"dtype": "int64", "shape": [1], "names": None},
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
        "note": {"dtype": "string", "shape": [1], "names": None},
    }
    info = {"codebase_version": "v2.1", "fps": 10, "total_episodes": 3, "total_frames": source.n_steps, "chunks_size": 2}
    info |= {"robot_type": "so100", "features": features}
    (root / "meta/info.json").write_text(json.dumps(info))
    (root / "meta/tasks.jsonl").write_text('{"task_index": 0, "task": "push"}\n{"task_index": 1, "task": "pull"}\n')
    lines = []
    for index in range(3):
        first, last = source.span(index)
        chunk, name = index // 2, f"episode_{index:06d}"
        (root / f"data/chunk-{chunk:03d}").mkdir(parents=True, exist_ok=True)
        columns = {
            "observation.state": source.read("state", first, last).tolist(),
            "action": source.read("action", first, last).tolist(),
            "timestamp": (np.arange(last - first) / 10).astype(np.float32),
            "episode_index": np.full(last - first, index),
            "task_index": np.full(last - first, index % 2),
            "note": ["x"] * (last - first),
        }
        kinds = {"observation.state": pa.list_(pa.float32()), "action": pa.list_(pa.float64())}
        table = pa.table({key: pa.array(values, kinds.get(key)) for key, values in columns.items()})
        pq.write_table(table, root / f"data/chunk-{chunk:03d}/{name}.parquet")
        clip = root / f"videos/chunk-{chunk:03d}/observation.images.top/{name}.mp4"
        _pictures.write_video(clip, source.read("top", first, last), 10)
        lines.append(json.dumps({"episode_index": index, "tasks": [("push", "pull")[index % 2]], "length": last - first}))
    (root / "meta/episodes.jsonl").write_text("\n".join(lines) + "\n")


def test_version_2_1_is_read(source, tmp_path) -> None:
    write_v21(tmp_path / "v21", source)
    lost = lerobot.read(tmp_path / "v21", tmp_path / "a.zarr", task="toy", options=Options(workers=0))
    made = EpisodeSet.open(tmp_path / "a.zarr")
    np.testing.assert_array_equal(made.episode_ends, source.episode_ends)
    np.testing.assert_array_equal(made.read("action"), source.read("action"))
    np.testing.assert_array_equal(made.read("observation.state"), source.read("state"))
    assert made.keys["observation.images.top"].shape == (32, 40, 3) and "'note': string per step" in lost
    assert _pictures.psnr(_pictures.squared_errors(made.read("observation.images.top"), source.read("top")).max(), 3840) > 35
    assert made.episode_field("instruction").tolist() == ["push", "pull", "push"] and made.attrs["robot"] == "so100"


def rewrite(path: Path, change) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def nan_times(table: pa.Table) -> pa.Table:
    times = table["timestamp"].to_numpy().copy()
    times[5] = np.nan
    return table.set_column(table.column_names.index("timestamp"), "timestamp", pa.array(times))


def wrong_shape(table: pa.Table) -> pa.Table:
    values = pa.array([[0.0]] * len(table), pa.list_(pa.float64()))
    return table.set_column(table.column_names.index("action"), "action", values)


def moved(table: pa.Table) -> pa.Table:
    shifted = pa.array(np.roll(table["episode_index"].to_numpy(), 1))
    return table.set_column(table.column_names.index("episode_index"), "episode_index", shifted)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nan_times, "timestamp: NaN in row 5"),
        (wrong_shape, r"action: want rows of shape \(2,\)"),
        (moved, "rows of episode 0 belong to episode"),
        (lambda table: table.drop_columns(["action"]), "column 'action' is missing"),
        (lambda table: table.slice(0, 30), "wants rows up to"),
    ],
)
def test_broken_rows_are_refused_in_one_line(written, tmp_path, change, message) -> None:
    shutil.copytree(written["png"], tmp_path / "lr")
    rewrite(tmp_path / "lr/data/chunk-000/file-000.parquet", change)
    with pytest.raises(DatasetError, match=message) as caught:
        lerobot.read(tmp_path / "lr", tmp_path / "a.zarr")
    assert "\n" not in str(caught.value) and not (tmp_path / "a.zarr").exists()


def test_counts_that_do_not_agree_are_refused(written, tmp_path) -> None:
    shutil.copytree(written["png"], tmp_path / "lr")
    info = json.loads((tmp_path / "lr/meta/info.json").read_text())
    (tmp_path / "lr/meta/info.json").write_text(json.dumps(info | {"total_episodes": 7}))
    with pytest.raises(DatasetError, match="counts 7 episodes, the list of episodes holds 3"):
        lerobot.scan(tmp_path / "lr")
    (tmp_path / "lr/meta/info.json").write_text(json.dumps(info | {"codebase_version": "v1.6"}))
    with pytest.raises(DatasetError, match=r"is LeRobot v1.6, robolearn reads v2.0, v2.1 and v3.0"):
        lerobot.scan(tmp_path / "lr")


def test_a_video_too_short_for_its_episodes_is_refused(written, tmp_path) -> None:
    shutil.copytree(written["video"], tmp_path / "lr")
    clip = tmp_path / "lr/videos/observation.images.top/chunk-000/file-000.mp4"
    _pictures.write_video(clip, smooth_pictures(20, 32, 40, 0), 10)
    with pytest.raises(DatasetError, match=r"no picture within 50 ms of 2.0000 s"):
        lerobot.read(tmp_path / "lr", tmp_path / "a.zarr")


def test_two_keys_that_would_share_a_name_are_refused(tmp_path) -> None:
    spec = Spec({"state": ArraySpec((2,)), "observation.state": ArraySpec((2,))}, ArraySpec((2,)), 10.0)
    source = make(tmp_path / "a.zarr", spec=spec)
    with pytest.raises(DatasetError, match=r"keys state and observation.state would both be 'observation.state'"):
        lerobot.write(source, tmp_path / "lr")
    assert not (tmp_path / "lr").exists()


def test_long_sets_are_cut_into_files(source, tmp_path, monkeypatch) -> None:
    from robolearn.data.convert import _lerobot_write as writer

    monkeypatch.setattr(writer, "_FILE_BYTES", 30_000)
    monkeypatch.setattr(writer, "_VIDEO_BYTES", 13 * 32 * 40 * 3)
    lerobot.write(source, tmp_path / "lr", options=Options(images="video"))
    assert len(list((tmp_path / "lr/videos/observation.images.top").rglob("*.mp4"))) == 3
    lerobot.read(tmp_path / "lr", tmp_path / "a.zarr")
    made = EpisodeSet.open(tmp_path / "a.zarr")
    np.testing.assert_array_equal(made.read("t_wall"), source.read("t_wall"))
    assert replace(made.spec, hz=10.0) == source.spec
