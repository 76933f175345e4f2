"""A set may keep what belongs together under one name (`tracks/left`), and what a person did in a video, where no action was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robolearn import cli
from robolearn.apps._view_series import panels
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import DatasetError

TRACKS = {
    "left_image": ArraySpec((8, 8, 3), "uint8"),
    "tracks/left": ArraySpec((5, 2), unit="px"),
    "valid/left": ArraySpec((1,), "uint8"),
}
HUMAN = Spec(TRACKS, ArraySpec((0,)), 10.0)
ROBOT = Spec(TRACKS, ArraySpec((10,)), 10.0)


def rows(steps: int, seed: int, spec: Spec = HUMAN) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {
        "left_image": rng.integers(0, 256, (steps, 8, 8, 3), np.uint8),
        "tracks/left": rng.uniform(0, 8, (steps, 5, 2)).astype(np.float32),
        "valid/left": rng.integers(0, 2, (steps, 1), np.uint8),
    }
    return made if spec is HUMAN else made | {"action": rng.standard_normal((steps, *spec.action.shape)).astype(np.float32)}


def made(path: Path, spec: Spec = HUMAN, lengths: tuple[int, ...] = (12, 20, 9), zarr_format: int = 3) -> EpisodeSet:
    dataset = EpisodeSet.create(path, spec, task="", env={}, zarr_format=zarr_format, durable=False)
    for seed, steps in enumerate(lengths):
        dataset.append(rows(steps, seed, spec), embodiment="human", right_hand=seed % 2)
    return dataset


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("spec", [HUMAN, ROBOT], ids=["human", "robot"])
def test_nested_keys_come_back_bit_for_bit_with_and_without_actions(tmp_path: Path, spec: Spec, zarr_format: int) -> None:
    made(tmp_path / "a.zarr", spec, zarr_format=zarr_format)
    again = EpisodeSet.open(tmp_path / "a.zarr")
    assert again.spec == spec and again.notes == ()
    assert set(again.keys) == {*TRACKS, *(("action",) if spec is ROBOT else ())}
    for index, steps in enumerate((12, 20, 9)):
        for key, value in rows(steps, index, spec).items():
            np.testing.assert_array_equal(again.episode(index)[key], value)


def test_many_episodes_without_actions_are_added_at_once(tmp_path: Path) -> None:
    dataset = made(tmp_path / "a.zarr", lengths=(4,))
    more = rows(11, 5)
    dataset.extend([5, 11], [(key, 0, value) for key, value in more.items()], embodiment=["human", "robot"])
    again = EpisodeSet.open(tmp_path / "a.zarr")
    assert again.episode_ends.tolist() == [4, 9, 15]
    np.testing.assert_array_equal(again.read("tracks/left", 4), more["tracks/left"])


def test_a_lost_chunk_of_a_nested_key_is_noticed(tmp_path: Path) -> None:
    made(tmp_path / "a.zarr")
    next((tmp_path / "a.zarr/data/tracks/left").glob("c*")).unlink()
    with pytest.raises(DatasetError, match="tracks/left: 1 chunk files are missing"):
        EpisodeSet.open(tmp_path / "a.zarr").read("tracks/left")


def test_an_action_that_the_set_does_not_keep_is_refused_by_name(tmp_path: Path) -> None:
    dataset = made(tmp_path / "a.zarr")
    with pytest.raises(DatasetError, match="unknown key 'action'"):
        dataset.append(rows(5, 0, ROBOT))


def test_training_on_a_set_without_actions_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"without actions .* `robolearn tracks pack`"):
        Windows(made(tmp_path / "a.zarr"), obs=("tracks/left",))


def test_the_data_verbs_take_a_set_without_actions(tmp_path: Path) -> None:
    path, figures = tmp_path / "a.zarr", tmp_path / "f.json"
    made(path)
    shutil.copytree(path, tmp_path / "b.zarr")
    assert cli.main(["data", "info", str(path), "--json", str(figures)]) == 0
    assert set(json.loads(figures.read_text())["keys"]) == set(TRACKS)
    assert cli.main(["data", "check", str(path)]) == 0
    assert cli.main(["data", "stats", str(path)]) == 0
    assert cli.main(["data", "merge", str(path), str(tmp_path / "b.zarr"), "--out", str(tmp_path / "m.zarr")]) == 0
    assert cli.main(["data", "delete", str(tmp_path / "m.zarr"), "--episodes", "1"]) == 0
    merged = EpisodeSet.open(tmp_path / "m.zarr")
    assert merged.episode_ends.tolist() == [12, 21, 33, 53, 62]
    np.testing.assert_array_equal(merged.episode(1)["tracks/left"], rows(9, 2)["tracks/left"])


def test_the_viewer_plots_nested_keys(tmp_path: Path) -> None:
    titles = [panel.title for panel in panels(made(tmp_path / "a.zarr").keys)]
    assert titles == ["tracks/left", "valid/left"]
