"""Motion-track sets of people and robots become one training set; nothing of a view or an episode is lost or shifted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robolearn import cli
from robolearn.core import ArraySpec, Camera, Spec
from robolearn.data.layout import Layout
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import DatasetError, SpecMismatch
from robolearn.training.loader import Loader
from robolearn.training.settings import DatasetConfig, TrainConfig
from robolearn.training.state import balanced
from robolearn.video.pack import Packing, pack

CAMERA = Camera(
    (40, 30), ((50.0, 0.0, 19.5), (0.0, 50.0, 14.5), (0.0, 0.0, 1.0)), (), tuple(map(tuple, np.eye(4).tolist())), "one"
)
SIZE = (30, 40, 3)


def track_set(
    path: Path, embodiment: str, lengths: tuple[int, ...], views: tuple[str, ...] = ("left", "right"), seed: int = 0
) -> Path:
    """Writes a motion-track set of random pictures; a track's numbers count its rows, so that a shift is seen."""
    human = embodiment == "human"
    obs: dict[str, ArraySpec] = {"gripper_open": ArraySpec((1,))}
    for view in views:
        obs |= {
            f"{view}_image": ArraySpec(SIZE, "uint8"),
            f"tracks/{view}": ArraySpec((5, 2)),
            f"valid/{view}": ArraySpec((1,), "uint8"),
        }
    spec = Spec(obs, ArraySpec((0,)) if human else ArraySpec((10,)), 10.0, {f"{view}_image": CAMERA for view in views})
    made = EpisodeSet.create(path, spec, task="" if human else "drawer", env={}, durable=False)
    rng = np.random.default_rng(seed)
    for steps in lengths:
        rows: dict[str, np.ndarray] = {"gripper_open": rng.integers(0, 2, (steps, 1)).astype(np.float32)}
        for view in views:
            rows[f"{view}_image"] = rng.integers(0, 256, (steps, *SIZE), np.uint8)
            rows[f"tracks/{view}"] = rng.uniform(0, 30, (steps, 5, 2)).astype(np.float32)
            rows[f"valid/{view}"] = np.ones((steps, 1), np.uint8)
        made.append(rows if human else rows | {"action": np.zeros((steps, 10), np.float32)}, embodiment=embodiment, right_hand=1)
    return path


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Returns a robot's set and a person's."""
    folder = tmp_path_factory.mktemp("sets")
    return [
        track_set(folder / "robot.zarr", "robot", (12, 20)),
        track_set(folder / "human.zarr", "human", (9, 15, 11, 30), seed=1),
    ]


def test_every_view_is_an_episode_and_the_action_is_the_track_of_its_row(sources: list[Path], tmp_path: Path) -> None:
    packed = pack(sources, tmp_path / "train.zarr", Packing(size=0))
    made = EpisodeSet.open(tmp_path / "train.zarr")
    assert packed.episodes == made.n_episodes == 12 and made.spec is not None
    assert made.spec.codec == "tracks" and made.task == "drawer" and set(made.spec.cameras) == {"left_image", "right_image"}
    assert made.episode_field("embodiment").tolist() == ["robot"] * 4 + ["human"] * 8
    assert made.episode_field("view").tolist() == ["left", "right"] * 6
    human = EpisodeSet.open(sources[1]).episode(1)
    rows = made.episode(4 + 3)  # of the second human episode the right view
    np.testing.assert_array_equal(rows["image"], human["right_image"])
    np.testing.assert_array_equal(rows["track"], human["tracks/right"].reshape(-1, 10))
    np.testing.assert_array_equal(rows["action"], np.concatenate([rows["track"], human["gripper_open"]], axis=1))


def test_pictures_are_scaled_and_points_and_cameras_with_them(sources: list[Path], tmp_path: Path) -> None:
    pack(sources, tmp_path / "train.zarr", Packing(size=20))
    made, robot = EpisodeSet.open(tmp_path / "train.zarr"), EpisodeSet.open(sources[0]).episode(0)
    assert made.keys["image"].shape == (20, 20, 3) and made.spec is not None
    points = robot["tracks/left"].reshape(-1, 5, 2)
    wanted = (points + 0.5) * (20 / 40, 20 / 30) - 0.5
    np.testing.assert_allclose(made.episode(0)["track"].reshape(-1, 5, 2), wanted, atol=1e-5)
    camera = made.spec.cameras["left_image"]
    assert camera.size == (20, 20) and camera.hash == "one"
    np.testing.assert_allclose((camera.K[0][0], camera.K[1][1]), (25.0, 50.0 * 20 / 30))


def test_joint_rows_hold_both_views_side_by_side(sources: list[Path], tmp_path: Path) -> None:
    pack(sources, tmp_path / "train.zarr", Packing(size=0, joint=True))
    made, robot = EpisodeSet.open(tmp_path / "train.zarr"), EpisodeSet.open(sources[0]).episode(1)
    rows = made.episode(1)
    assert made.n_episodes == 6 and rows["track"].shape == (20, 20) and rows["action"].shape == (20, 21)
    np.testing.assert_array_equal(rows["track"][:, 10:], robot["tracks/right"].reshape(-1, 10))
    np.testing.assert_array_equal(rows["right_image"], robot["right_image"])
    assert rows["valid"].shape == (20, 2)


def test_a_view_is_cut_to_where_it_was_seen_and_left_out_where_it_hardly_was(tmp_path: Path) -> None:
    """Leading and trailing gaps (T9) end a view by itself; views of one episode may differ in length."""
    path = track_set(tmp_path / "human.zarr", "human", (20,))
    source = EpisodeSet.open(path, writable=True)
    left, right = np.ones((20, 1), np.uint8), np.zeros((20, 1), np.uint8)
    left[:3] = left[18:] = left[8] = 0
    right[[2, 15]] = 1  # seen twice: the rest is invention
    source.array("valid/left")[:], source.array("valid/right")[:] = left, right
    packed = pack([path], tmp_path / "train.zarr", Packing(size=0))
    made = EpisodeSet.open(tmp_path / "train.zarr")
    assert made.episode_ends.tolist() == [15] and packed.sources[0]["left_out"] == {"mostly filled in": 1}
    np.testing.assert_array_equal(made.read("track"), source.read("tracks/left")[3:18].reshape(-1, 10))
    assert made.read("valid")[:, 0].tolist() == [1] * 5 + [0] + [1] * 9
    with pytest.raises(DatasetError, match=r"no episode is left to train on .*mostly filled in"):
        pack([path], tmp_path / "joint.zarr", Packing(size=0, joint=True))


def test_windows_of_two_joined_sets_equal_the_raw_rows(sources: list[Path], tmp_path: Path) -> None:
    """T6: joining must not shift windows, whatever the lengths of the episodes before."""
    pack(sources, tmp_path / "train.zarr", Packing(size=0))
    windows = Windows(EpisodeSet.open(tmp_path / "train.zarr"), ("image", "track"), layout=Layout(1, 8, 0), pad_after=3)
    raw = [EpisodeSet.open(path) for path in sources]
    episodes = [(dataset.episode(i), view) for dataset in raw for i in range(dataset.n_episodes) for view in ("left", "right")]
    every = np.arange(len(windows))
    batch, seen = windows.batch(every), set()
    for k, episode, place in zip(every, windows.episode_of(every), windows.place_of(every), strict=True):
        rows, view = episodes[episode]
        inside = np.clip(np.arange(place, place + 8), 0, len(rows["gripper_open"]) - 1)
        np.testing.assert_array_equal(batch["obs"]["image"][k, 0], rows[f"{view}_image"][place])
        np.testing.assert_array_equal(batch["action"][k, :, :10], rows[f"tracks/{view}"][inside].reshape(8, 10))
        np.testing.assert_array_equal(batch["action"][k, :, 10:], rows["gripper_open"][inside])
        seen.add((int(episode), int(place)))
    assert len(seen) == len(windows) and {episode for episode, _ in seen} == set(range(12))


def test_track_and_action_are_scaled_alike(sources: list[Path], tmp_path: Path) -> None:
    """The state condition and the rows that are predicted from it are in the same units."""
    from robolearn.training.trainer import fit_normalizer

    pack(sources, tmp_path / "train.zarr", Packing(size=0))
    dataset = EpisodeSet.open(tmp_path / "train.zarr")
    windows = Windows(dataset, ("image", "track"), layout=Layout(1, 8, 0), pad_after=3)
    normalizer = fit_normalizer(TrainConfig(), dataset, windows)
    np.testing.assert_array_equal(normalizer.scale["track"], normalizer.scale["action"][:10])
    np.testing.assert_array_equal(normalizer.offset["track"], normalizer.offset["action"][:10])


def batches_of(path: Path, batch_size: int = 16, workers: int = 0) -> tuple[Loader, np.ndarray]:
    windows = Windows(EpisodeSet.open(path), ("track",), layout=Layout(1, 8, 0), pad_after=3)
    cfg = replace(TrainConfig(), dataset=DatasetConfig(balance="embodiment"))
    return Loader(windows, batch_size, 3, workers, groups=balanced(cfg, windows)), windows.fact("embodiment")


def test_half_of_every_batch_is_human_although_the_sets_are_unequal(sources: list[Path], tmp_path: Path) -> None:
    """T7: exactly 50 % in every batch, the smaller set wraps, and no window of a group is given twice before all were."""
    pack(sources, tmp_path / "train.zarr", Packing(size=0))
    loader, embodiment = batches_of(tmp_path / "train.zarr")
    given = np.concatenate([loader.indices(number) for number in range(60)])
    human = (embodiment == "human")[given].reshape(60, 16)
    assert (human.sum(1) == 8).all() and (embodiment == "human").mean() > 0.6
    assert human[:, ::2].all() and not human[:, 1::2].any(), "even rows are human, odd ones robot"
    for name in ("human", "robot"):
        count = int((embodiment == name).sum())
        mine = given[embodiment[given] == name]
        assert len(set(mine[:count].tolist())) == count and len(set(mine[count : 2 * count].tolist())) == min(
            count, len(mine) - count
        )


def test_a_balanced_training_goes_on_where_it_was_for_any_number_of_workers(sources: list[Path], tmp_path: Path) -> None:
    pack(sources, tmp_path / "train.zarr", Packing(size=0))
    whole = iter(batches_of(tmp_path / "train.zarr")[0])
    wanted = [next(whole) for _ in range(12)]
    begun, _ = batches_of(tmp_path / "train.zarr", workers=2)
    first = iter(begun)
    for _ in range(7):
        next(first)
    resumed, _ = batches_of(tmp_path / "train.zarr", workers=3)
    resumed.restore(begun.state())
    for batch, other in zip(wanted[7:], iter(resumed), strict=False):
        assert batch["action"].equal(other["action"]) and batch["group"].tolist() == other["group"].tolist() == [0, 1] * 8


def test_one_embodiment_alone_needs_no_balance_and_an_unknown_fact_is_refused(sources: list[Path], tmp_path: Path) -> None:
    pack(sources[:1], tmp_path / "train.zarr", Packing(size=0))
    loader, _ = batches_of(tmp_path / "train.zarr")
    assert loader.groups is None
    windows = Windows(EpisodeSet.open(tmp_path / "train.zarr"), ("track",), layout=Layout(1, 8, 0), pad_after=3)
    with pytest.raises(DatasetError, match=r"no fact 'embodyment'.*embodiment"):
        balanced(replace(TrainConfig(), dataset=DatasetConfig(balance="embodyment")), windows)


def test_sets_that_do_not_fit_are_refused_by_name(sources: list[Path], tmp_path: Path) -> None:
    mono = track_set(tmp_path / "mono.zarr", "human", (9,), views=("left",))
    with pytest.raises(SpecMismatch, match="--joint: want two views, got left"):
        pack([sources[0], mono], tmp_path / "train.zarr", Packing(joint=True))
    assert pack([sources[0], mono], tmp_path / "train.zarr").views == ("left",)
    plain = EpisodeSet.create(tmp_path / "plain.zarr", Spec({"state": ArraySpec((2,))}, ArraySpec((2,)), 10.0), task="", env={})
    with pytest.raises(DatasetError, match="want keys tracks/VIEW"):
        pack([plain.path], tmp_path / "other.zarr")


def test_the_verb_says_what_came_from_where(sources: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, figures = tmp_path / "train.zarr", tmp_path / "f.json"
    words = ["tracks", "pack", *map(str, sources), "--out", str(out), "--size", "32", "--json", str(figures)]
    assert cli.main(words) == 0
    assert "robot (robot): 4 episodes, 64 steps" in capsys.readouterr().out
    found = json.loads(figures.read_text())
    assert [row["episodes"] for row in found["rows"]] == [4, 8] and "meta" in found
    assert cli.main(words) == 2, "what is there is not overwritten"
