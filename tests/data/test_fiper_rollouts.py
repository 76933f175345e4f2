"""FIPER's published rollouts: both forms of file, robots in lists or in turns, what is refused, and zarr and back."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from robolearn.data.convert import _fiper_rollouts as fiper
from robolearn.errors import AlreadyExists, BadInput, DatasetError

T, B, H, A, D = 5, 4, 8, 3, 6  # plans, draws, plan length, action, embedding

Content = dict[str, Any]


def episode(seed: int = 0, dtype: str = "float32", good: bool = True, robots: int = 1, steps: int = T) -> Content:
    """An episode in the published form, as stacking has it: nothing is wrapped."""
    rng = np.random.default_rng(seed)
    rollout = []
    for k in range(steps):
        samples = rng.normal(size=(B, H, A)).astype(dtype)
        rollout.append(
            {
                "rgb": rng.integers(0, 256, (4, 6, 3), dtype=np.uint8),
                "action": samples[0],
                "action_pred": samples,
                "agent_pos": rng.normal(size=2).astype(np.float32),
                "obs_embedding": rng.normal(size=D).astype(np.float32),
                "state_embedding": None,
                "timestamp": 0.2 * k,
                "step": k,
            }
        )
    metadata = {
        "metadata": True,
        "task": "stacking",
        "episode": seed,
        "num_robots": robots,
        "num_steps": steps,
        "successful": np.bool_(good),
        "rollout_type": "test",
        "rollout_subtype": "id",
        "action_prediction_horizon": H,
        "action_execution_horizon": 4,
        "action_batch_size": B,
        "action_mappings": {"pos": [0, 1, 2], "gripper": None},
    }
    return {"metadata": metadata, "rollout": rollout}


def wrapped(content: Content, robots: int = 1, keys: tuple[str, ...] = ("action", "action_pred")) -> Content:
    """As push_t has it: what belongs to a robot is a list with an entry a robot (here: robot r has r more)."""
    for step in content["rollout"]:
        for key in keys:
            step[key] = [step[key] + r for r in range(robots)]
    return content


def save(content: object, folder: Path, name: str = "episode_s_0000.pkl", split: str = "test") -> Path:
    path = folder / "stacking" / "rollouts" / split / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return path


def read(content: object, folder: Path, name: str = "episode_s_0000.pkl", split: str = "test") -> fiper.Rollout:
    return fiper.read_episode(save(content, folder, name, split), split)


def stacked(content: Content, key: str) -> np.ndarray:
    return np.stack([step[key] for step in content["rollout"]])


def equal(a: fiper.Rollout, b: fiper.Rollout) -> bool:
    """Whether two episodes are the same to the last bit."""
    first, second = a.arrays(), b.arrays()
    same = all(first[k].dtype == second[k].dtype and np.array_equal(first[k], second[k]) for k in first)
    return same and set(first) == set(second) and a.facts() == b.facts() and dict(a.parts) == dict(b.parts)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_episode_is_read_in_the_precision_it_was_published_in(tmp_path: Path, dtype: str) -> None:
    content = episode(dtype=dtype)
    got = read(content, tmp_path)
    for name, key in fiper.KEYS.items():
        if key == "state_embedding":
            assert got.states is None
        else:
            assert np.array_equal(getattr(got, name), stacked(content, key)), name
    assert got.samples.dtype == dtype and got.samples.shape == (T, B, H, A) and got.features.shape == (T, D)
    assert (got.name, got.task, got.split, got.success, got.kind) == ("episode_s_0000", "stacking", "test", True, "id")
    assert (got.in_distribution, got.horizon, got.execute, got.robots, len(got)) == (True, H, 4, 1, T)
    assert got.parts == {"pos": (0, 1, 2)}


@pytest.mark.parametrize("inner", [False, True])
def test_the_older_form_is_a_list_that_begins_with_the_metadata(tmp_path: Path, inner: bool) -> None:
    content = episode()
    first = {"metadata": content["metadata"]} if inner else content["metadata"]
    assert equal(read([first, *content["rollout"]], tmp_path / "a"), read(content, tmp_path / "b"))


def test_a_list_of_one_robot_is_that_robots_value(tmp_path: Path) -> None:
    one = read(episode(), tmp_path / "a")
    assert equal(read(wrapped(episode()), tmp_path / "b"), one)
    every = ("action", "action_pred", "obs_embedding", "agent_pos", "timestamp")
    assert equal(read(wrapped(episode(), keys=every), tmp_path / "c"), one)


def test_robots_are_interleaved_and_share_what_is_not_in_lists(tmp_path: Path) -> None:
    content = episode(robots=2)
    alone = stacked(content, "action_pred")
    got = read(wrapped(content, robots=2), tmp_path)
    assert len(got) == 2 * T and got.robots == 2
    assert np.array_equal(got.samples[0::2], alone) and np.array_equal(got.samples[1::2], alone + 1)
    assert np.array_equal(got.features[0::2], got.features[1::2]) and got.timestamps is not None
    assert got.timestamps.tolist() == np.repeat(0.2 * np.arange(T), 2).tolist()
    second = got.robot(1)
    assert second.robots == 1 and np.array_equal(second.samples, alone + 1) and len(second) == T
    with pytest.raises(BadInput, match="want a robot from 0 to 1, got 2"):
        got.robot(2)


def test_robots_that_take_turns_are_read_as_the_same_rows(tmp_path: Path) -> None:
    content = episode(robots=2)
    turns = episode(robots=2)
    turns["rollout"] = [
        {**step, "action": step["action"] + r, "action_pred": step["action_pred"] + r}
        for step in turns["rollout"]
        for r in range(2)
    ]
    assert equal(read(turns, tmp_path / "a"), read(wrapped(content, robots=2), tmp_path / "b"))
    turns["rollout"].pop()
    with pytest.raises(DatasetError, match="want the steps of 2 robots in turns, got 9 steps"):
        read(turns, tmp_path / "c")


@pytest.mark.parametrize(
    ("split", "kind", "inside"),
    [
        ("test", "id", True),
        ("test", "na", True),
        ("test", "ca", True),
        ("test", "hh", False),
        ("test", "eb", False),
        ("test", None, False),
        ("calibration", None, True),
        ("calibration", "rb", False),
    ],
)
def test_a_subtype_says_whether_an_episode_is_in_distribution(tmp_path: Path, split: str, kind: str | None, inside: bool) -> None:
    content = episode()
    content["metadata"]["rollout_subtype"] = kind
    got = read(content, tmp_path, split=split)
    assert (got.in_distribution, got.kind) == (inside, kind or "")


@pytest.mark.parametrize(
    ("told", "name", "success"),
    [
        (True, "episode_s_0001.pkl", True),
        (False, "episode_f_0001.pkl", False),
        (np.bool_(False), "episode_7.pkl", False),
        (1, "episode_7.pkl", True),
        (None, "episode_f_0001.pkl", False),
        (None, "episode_s_0001.pkl", True),
    ],
)
def test_success_is_that_of_the_metadata_or_else_of_the_name(tmp_path: Path, told: object, name: str, success: bool) -> None:
    content = episode()
    content["metadata"]["successful"] = told
    assert read(content, tmp_path, name).success is success


def test_a_success_that_its_name_denies_is_refused_unless_the_metadata_are_believed(tmp_path: Path) -> None:
    path = save(episode(good=False), tmp_path, "episode_s_0003.pkl")
    with pytest.raises(
        DatasetError, match=r"episode_s_0003.pkl: the metadata say failure, the name says success; correct one, or"
    ):
        fiper.read_episode(path, "test")
    assert fiper.read_episode(path, "test", believe="metadata").success is False


def without(*keys: str) -> Callable[[Content], None]:
    """Removes a key of the metadata, or of step 2 (of every step: "*key")."""

    def change(content: Content) -> None:
        for key in keys:
            content["metadata"].pop(key, None)
            for step in content["rollout"] if key[0] == "*" else content["rollout"][2:3]:
                step.pop(key.lstrip("*"), None)

    return change


def meta(**values: object) -> Callable[[Content], None]:
    return lambda content: content["metadata"].update(values)


def step(**values: object) -> Callable[[Content], None]:
    return lambda content: content["rollout"][2].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("obs_embedding"), "step 2: 'obs_embedding' is missing, which other steps have"),
        (without("*obs_embedding"), "step 0: 'obs_embedding' is missing"),
        (without("*action_pred"), "step 0: 'action_pred' is missing; did you mean 'action'"),
        (without("timestamp"), "step 2: 'timestamp' is missing, which other steps have"),
        (without("action_execution_horizon"), "action_execution_horizon: want a whole number from 1 to 10000, got None"),
        (meta(action_execution_horizon=9), "want 9 of 8 steps of a plan to be executed, got plans of 8"),
        (meta(action_prediction_horizon=16), "want 4 of 16 steps of a plan to be executed, got plans of 8"),
        (meta(num_robots=0), "num_robots: want a whole number from 1 to 16, got 0"),
        (meta(num_robots=10**9), "num_robots: want a whole number from 1 to 16"),
        (meta(successful="yes"), "successful: want True or False, got 'yes'"),
        (meta(successful=2), "successful: want True or False"),
        (meta(rollout_subtype=np.zeros(3)), "rollout_subtype: want text, got ndarray"),
        (meta(action_mappings=[0, 1]), "action_mappings: want lists of indices by name, got list"),
        (meta(action_mappings={"pos": [0, 3]}), "action_mappings: want indices from 0 to 2"),
        (
            step(obs_embedding=np.zeros(D + 1, np.float32)),
            r"step 2: obs_embedding: want numbers float32\(6,\), got float32\(7,\)",
        ),
        (step(obs_embedding=np.zeros(D)), r"step 2: obs_embedding: want numbers float32\(6,\), got float64\(6,\)"),
        (step(obs_embedding="none"), r"step 2: obs_embedding: want numbers float32\(6,\), got 'none'"),
        (step(obs_embedding=[[0.0] * D]), "step 2: obs_embedding: want numbers .*, got list"),
        (step(action_pred=[np.zeros((B, H, A))] * 2), r"step 2: action_pred: want one entry a robot \(1\), got 2"),
        (step(obs_embedding=np.full(D, np.nan, np.float32)), "obs_embedding: holds NaN or infinity"),
        (lambda content: content["rollout"].clear(), "want steps that are dicts, at least one, got 0"),
        (lambda content: content["rollout"].append(3), "want steps that are dicts, at least one, got 6"),
        (lambda content: content.pop("rollout"), "want a dict of metadata and rollout, or a list .*, got keys 'metadata'"),
        (lambda content: [s.update(obs_embedding=np.float32(0)) for s in content["rollout"]], r"want 2 axes .*, got \(5,\)"),
    ],
)
def test_an_episode_that_does_not_fit_the_format_is_refused(
    tmp_path: Path, change: Callable[[Content], object], message: str
) -> None:
    content = episode()
    change(content)
    with pytest.raises(DatasetError, match=rf"episode_s_0000\.pkl: .*{message}") as caught:
        read(content, tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [3, [], [1, 2], [{"rgb": 1}], "text"])
def test_what_is_no_rollout_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(DatasetError, match="want a dict of metadata and rollout, or a list that begins with metadata, got"):
        read(content, tmp_path)


def test_an_episode_without_any_label_is_refused(tmp_path: Path) -> None:
    content = episode()
    del content["metadata"]["successful"]
    with pytest.raises(DatasetError, match="neither the metadata nor the name says whether it was a success"):
        read(content, tmp_path, "episode_4.pkl")


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_broken_or_hostile_file_is_refused_by_name_and_leaves_no_zarr(tmp_path: Path) -> None:
    save(episode(), tmp_path, "episode_s_0000.pkl")
    bad = save(episode(), tmp_path, "episode_s_0001.pkl")
    bad.write_bytes(bad.read_bytes()[:-100])
    out = tmp_path / "out.zarr"
    with pytest.raises(BadInput, match=r"episode_s_0001\.pkl: byte 2: want \d+ more bytes, got \d+; the file is cut off"):
        fiper.to_zarr(tmp_path / "stacking", out)
    content = episode()
    content["rollout"][3]["rgb"] = Hostile(tmp_path / "marker")
    save(content, tmp_path, "episode_s_0001.pkl")
    with pytest.raises(BadInput, match=r"episode_s_0001\.pkl: refused "):
        fiper.to_zarr(tmp_path / "stacking", out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stacking"]


def folder_of(tmp_path: Path) -> Path:
    """A task with two calibration episodes and three tests, of unequal lengths."""
    save(episode(1, steps=3), tmp_path, "episode_s_0010.pkl", "calibration")
    save(episode(2), tmp_path, "episode_s_0009.pkl", "calibration")
    save(episode(3, good=False, steps=9), tmp_path, "episode_f_0001.pkl")
    save(wrapped(episode(4)), tmp_path, "episode_s_0002.pkl")
    save(wrapped(episode(5, robots=2), robots=2), tmp_path, "episode_s_0012.pkl")
    return tmp_path / "stacking"


def test_episodes_come_in_order_of_their_numbers_calibration_first(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    save(episode(), tmp_path, "episode_10.pkl")
    save(episode(), tmp_path, "episode_9.pkl")
    (folder / "rollouts" / "test" / "notes.txt").write_text("not an episode")
    names = [(split, path.stem) for split, path in fiper.find(folder)]
    assert names[:2] == [("calibration", "episode_s_0009"), ("calibration", "episode_s_0010")]
    assert [name for _, name in names[2:]] == [
        "episode_9",
        "episode_10",
        "episode_f_0001",
        "episode_s_0002",
        "episode_s_0012",
    ]
    assert fiper.find(folder / "rollouts") == fiper.find(folder)


def test_a_folder_without_episodes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.raises(DatasetError, match=r"want calibration/ or test/ with episode_\*.pkl, got videos"):
        fiper.find(tmp_path)
    with pytest.raises(DatasetError, match="got nothing"):
        fiper.find(tmp_path / "none")


@pytest.mark.parametrize("images", [True, False])
def test_a_folder_becomes_zarr_and_comes_back_bit_for_bit(tmp_path: Path, images: bool) -> None:
    folder, out = folder_of(tmp_path), tmp_path / "out.zarr"
    assert fiper.to_zarr(folder, out, images=images) == 5
    want = [one if images else replace(one, images=None) for one in fiper.read(folder)]
    got = list(fiper.read_zarr(out))
    assert len(got) == 5 and all(equal(a, b) for a, b in zip(got, want, strict=True))
    assert all(one.images is None for one in fiper.read_zarr(out, images=False))


def test_the_zarr_group_holds_one_array_a_key_the_ends_and_the_facts(tmp_path: Path) -> None:
    folder, out = folder_of(tmp_path), tmp_path / "out.zarr"
    fiper.to_zarr(folder, out)
    group = zarr.open_group(str(out), mode="r")
    assert sorted(group["data"]) == ["actions", "agent_pos", "features", "images", "samples", "timestamps"]
    assert group["meta/episode_ends"][:].tolist() == [5, 8, 17, 22, 32]
    assert group["data/samples"].shape == (32, B, H, A)
    facts = group.attrs["episodes"]
    assert [fact["success"] for fact in facts] == [True, True, False, True, True]
    assert facts[4]["robots"] == 2 and facts[0]["parts"] == {"pos": [0, 1, 2]} and facts[2]["split"] == "test"


def test_a_zarr_that_is_there_is_not_overwritten_unasked(tmp_path: Path) -> None:
    folder, out = folder_of(tmp_path), tmp_path / "out.zarr"
    fiper.to_zarr(folder, out)
    with pytest.raises(AlreadyExists, match="--overwrite"):
        fiper.to_zarr(folder, out)
    assert fiper.to_zarr(folder, out, overwrite=True) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("*rgb"), "want actions, .*, images, .*, got actions, "),
        (
            lambda content: [s.update(state_embedding=np.zeros(3)) for s in content["rollout"]],
            "states: want none, as in episode_s_0000, got",
        ),
        (
            lambda content: [s.update(action_pred=s["action_pred"][:2]) for s in content["rollout"]],
            r"samples: want float32\(4, 8, 3\), got float32\(2, 8, 3\)",
        ),
        (
            lambda content: [s.update(action_pred=s["action_pred"].astype(float)) for s in content["rollout"]],
            r"samples: want float32\(4, 8, 3\), got float64\(4, 8, 3\)",
        ),
    ],
)
def test_episodes_that_differ_in_what_they_hold_do_not_share_a_zarr(
    tmp_path: Path, change: Callable[[Content], object], message: str
) -> None:
    save(episode(), tmp_path)
    content = episode()
    change(content)
    save(content, tmp_path, "episode_s_0001.pkl")
    with pytest.raises(DatasetError, match=f"test/episode_s_0001: {message}"):
        fiper.to_zarr(tmp_path / "stacking", tmp_path / "out.zarr")
    assert not (tmp_path / "out.zarr").exists()


def test_another_or_a_damaged_zarr_is_refused(tmp_path: Path) -> None:
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w").attrs.update({"format": "set"})
    with pytest.raises(DatasetError, match=r"want a zarr group of .*fiper_rollouts.*, got .*'set'"):
        list(fiper.read_zarr(tmp_path / "other.zarr"))
    out = tmp_path / "out.zarr"
    fiper.to_zarr(folder_of(tmp_path), out)
    group = zarr.open_group(str(out), mode="r+")
    group["data/features"].resize((20, D))
    with pytest.raises(DatasetError, match=r"want 5 episodes that end in .*32.*, got rows .*'features': 20"):
        list(fiper.read_zarr(out))
