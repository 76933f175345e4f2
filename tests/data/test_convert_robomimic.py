"""robomimic's format: its own reader sees what we wrote, strangers' files become sets that replay, broken ones are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from peer import read_with
from small_sets import LENGTHS, episode

from robolearn import cli
from robolearn.core import ArraySpec, Spec
from robolearn.data.convert import robomimic, robosuite_demo
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

SPEC = Spec({"pos": ArraySpec((3,), unit="m"), "top": ArraySpec((8, 8, 3), "uint8")}, ArraySpec((7,)), 20.0, codec="osc_delta")
ENV_ARGS = {
    "env_name": "PickPlaceCan",
    "type": 1,
    "env_version": "1.4.1",
    "env_kwargs": {
        "control_freq": 20,
        "robots": ["Panda"],
        "controller_configs": {"type": "OSC_POSE", "control_delta": True, "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5]},
    },
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    """Returns a set with states, success at every step, and filters."""
    extra = {"sim_state": ArraySpec((5,), "float64"), "step_success": ArraySpec((), "int8"), "t_wall": ArraySpec((), "int64")}
    path = tmp_path_factory.mktemp("robomimic") / "set.zarr"
    made = EpisodeSet.create(path, SPEC, task="lift", env={"robot": "Panda"}, extra=extra, durable=False)
    for seed, steps in enumerate(LENGTHS):
        rows = episode(steps, seed, SPEC)
        rows["action"] = np.clip(rows["action"] / 4, -1, 1)
        rows["sim_state"] = np.random.default_rng(seed).normal(size=(steps, 5))
        rows["step_success"] = (np.arange(steps) >= steps - 2).astype(np.int8)
        rows["t_wall"] = 10**18 + np.arange(steps)
        facts = {"model_xml": f"<mujoco model='{seed}'/>", "operator": ("ann", "bob", "")[seed]}
        made.append(
            rows, seed=seed, success=np.int8(1), filter_train=np.int8(seed != 1), filter_valid=np.int8(seed == 1), **facts
        )
    return EpisodeSet.open(path)


@pytest.fixture(scope="module")
def written(source: EpisodeSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the set as a robomimic file."""
    path = tmp_path_factory.mktemp("written") / "set.hdf5"
    robomimic.write(source, path)
    return path


def test_a_round_trip_keeps_every_bit_fact_and_filter(source, written, tmp_path) -> None:
    assert robomimic.sniff(written) and not robosuite_demo.sniff(written)
    assert robomimic.read(written, tmp_path / "back.zarr") == ()
    again = EpisodeSet.open(tmp_path / "back.zarr")
    assert again.spec == source.spec and again.keys == source.keys and again.env == source.env and again.task == "lift"
    for key in source.keys:
        assert again.read(key).dtype == source.read(key).dtype
        np.testing.assert_array_equal(again.read(key), source.read(key))
    assert again.facts() == source.facts()
    for fact in source.facts():
        np.testing.assert_array_equal(again.episode_field(fact), source.episode_field(fact))


def test_the_file_has_what_robomimic_documents(written, source) -> None:
    with h5py.File(written) as file:
        assert file["data"].attrs["total"] == source.n_steps
        env = json.loads(file["data"].attrs["env_args"])
        assert (env["env_name"], env["type"], env["env_kwargs"]["control_freq"]) == ("Lift", 1, 20.0)
        assert env["env_kwargs"]["controller_configs"]["type"] == "OSC_POSE"
        demo = file["data/demo_1"]
        assert demo.attrs["num_samples"] == LENGTHS[1] and demo.attrs["model_file"].startswith("<mujoco")
        assert file["mask/train"][:].tolist() == [b"demo_0", b"demo_2"] and file["mask/valid"][:].tolist() == [b"demo_1"]
        for key in ("pos", "top"):
            np.testing.assert_array_equal(demo[f"next_obs/{key}"][:-1], demo[f"obs/{key}"][1:])
            np.testing.assert_array_equal(demo[f"next_obs/{key}"][-1], demo[f"obs/{key}"][-1])
        assert demo["rewards"][:].tolist() == [0.0] * (LENGTHS[1] - 2) + [1.0, 1.0] and demo["dones"][:].sum() == 1


def test_robomimics_own_reader_sees_the_same(source, written, tmp_path) -> None:
    seen = read_with("robomimic", "robomimic", [str(written), "pos,top"], tmp_path)
    assert seen["demos"].tolist() == ["demo_0", "demo_1", "demo_2"] and str(seen["env_name"]) == "Lift"
    for name, key in (("actions", "action"), ("obs/pos", "pos"), ("obs/top", "top")):
        np.testing.assert_array_equal(seen[name], source.read(key))
    picked = read_with("robomimic", "robomimic", [str(written), "pos", "valid"], tmp_path)
    assert picked["demos"].tolist() == ["demo_1"] and len(picked["actions"]) == LENGTHS[1]


def strangers(path: Path, env_args: dict | None = None, **changes: np.ndarray) -> Path:
    """Writes a file as robomimic's own scripts leave it; changes: other arrays of demo_10."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(ENV_ARGS if env_args is None else env_args)
        for name, steps in (("demo_2", 6), ("demo_10", 4)):
            group = data.create_group(name)
            group.attrs["num_samples"], group.attrs["model_file"] = steps, "<mujoco/>"
            arrays = {
                "actions": rng.uniform(-1, 1, (steps, 7)),
                "states": rng.normal(size=(steps, 9)),
                "rewards": np.zeros(steps),
                "dones": np.zeros(steps, np.int64),
                "obs/object": rng.normal(size=(steps, 14)),
                "obs/agentview_image": rng.integers(0, 256, (steps, 16, 16, 3), np.uint8),
                "next_obs/object": rng.normal(size=(steps, 14)),
                "action_dict/abs_pos": rng.normal(size=(steps, 3)),
            }
            for key, rows in {**arrays, **(changes if name == "demo_10" else {})}.items():
                if rows is not None:
                    group[key] = rows
        file["mask/better"] = np.array([b"demo_10"])
    return path


def test_a_strangers_file_becomes_a_set_of_our_task(tmp_path) -> None:
    file = strangers(tmp_path / "low_dim.hdf5")
    lost = robomimic.read(file, tmp_path / "a.zarr")
    made = EpisodeSet.open(tmp_path / "a.zarr")
    assert (made.task, made.hz, made.spec.codec, made.env) == (
        "can",
        20.0,
        "osc_delta",
        {"action": "osc_delta", "robot": "Panda"},
    )
    assert set(made.spec.obs) == {"object", "agentview_image"} and made.episode_ends.tolist() == [6, 10]
    assert {"sim_state", "rewards", "dones", "action_dict.abs_pos"} <= set(made.keys)
    assert made.episode_field("filter_better").tolist() == [0, 1] and any("next_obs" in what for what in lost)
    with h5py.File(file) as raw:
        np.testing.assert_array_equal(made.read("action", 6, 10), raw["data/demo_10/actions"][:])
    robomimic.write(made, tmp_path / "again.hdf5")
    with h5py.File(tmp_path / "again.hdf5") as again, h5py.File(file) as raw:
        assert json.loads(again["data"].attrs["env_args"]) == ENV_ARGS
        np.testing.assert_array_equal(again["data/demo_1/actions"][:], raw["data/demo_10/actions"][:])


def test_another_scale_of_actions_and_an_unknown_environment_are_said(tmp_path) -> None:
    kwargs = {**ENV_ARGS["env_kwargs"], "controller_configs": {"type": "OSC_POSE", "output_max": [0.1] * 3 + [0.5] * 3}}
    file = strangers(tmp_path / "a.hdf5", {**ENV_ARGS, "env_name": "Liftt", "env_kwargs": kwargs})
    lost = robomimic.scan(file).lost
    assert any("the scale of actions" in what for what in lost) and any("'Liftt': no task of ours; did" in what for what in lost)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs/object": None}, "demo_10: 'obs/object' is missing"),
        ({"actions": np.zeros((4, 6))}, r"demo_10: actions: want 4 rows of float64\(7,\), got float64\(4, 6\)"),
        ({"obs/object": np.zeros((3, 14))}, "demo_10: obs/object: want 4 rows"),
        ({"timestamp": np.zeros(4)}, None),
    ],
)
def test_demonstrations_that_differ_are_refused(tmp_path, changes, message) -> None:
    file = strangers(tmp_path / "a.hdf5", None, **changes)
    if message is None:
        assert robomimic.read(file, tmp_path / "a.zarr")
        return
    with pytest.raises(DatasetError, match=message) as caught:
        robomimic.read(file, tmp_path / "a.zarr")
    assert "\n" not in str(caught.value) and not (tmp_path / "a.zarr").exists()


def test_a_cut_off_file_a_strange_mask_and_broken_json_are_refused(tmp_path) -> None:
    file = strangers(tmp_path / "a.hdf5")
    (tmp_path / "half.hdf5").write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DatasetError, match="cut off or none"):
        robomimic.read(tmp_path / "half.hdf5", tmp_path / "x.zarr")
    shutil.copy(file, tmp_path / "mask.hdf5")
    with h5py.File(tmp_path / "mask.hdf5", "a") as raw:
        raw["mask/odd"] = np.array([b"demo_3"])
    with pytest.raises(DatasetError, match="mask/odd lists 'demo_3', which is no demonstration"):
        robomimic.scan(tmp_path / "mask.hdf5")
    with h5py.File(file, "a") as raw:
        raw["data"].attrs["env_args"] = "{"
    with pytest.raises(DatasetError, match="attribute 'env_args': want JSON"):
        robomimic.scan(file)


def test_nan_times_are_refused(tmp_path) -> None:
    with h5py.File(strangers(tmp_path / "a.hdf5"), "a") as raw:
        for name in ("demo_2", "demo_10"):
            raw[f"data/{name}/timestamp"] = np.full(raw["data"][name].attrs["num_samples"], np.nan)
    with pytest.raises(DatasetError, match="timestamp: NaN or infinity in row 0"):
        robomimic.read(tmp_path / "a.hdf5", tmp_path / "a.zarr")


def test_actions_replay_in_the_simulator_after_the_way_through_robomimic(tmp_path) -> None:
    robot, file, back = tmp_path / "lift.zarr", tmp_path / "lift.hdf5", tmp_path / "back.zarr"
    assert cli.main(["record", "lift", "--action", "osc_delta", "--episodes", "2", "--out", str(robot)]) == 0
    assert cli.main(["data", "convert", str(robot), str(file), "--to", "robomimic", "--verify"]) == 0
    with h5py.File(file, "a") as raw:  # what is left is a stranger's file: task, body and rate must come from env_args
        del raw["data"].attrs["robolearn"]
    assert cli.main(["data", "convert", str(file), str(back)]) == 0
    assert cli.main(["replay", str(back), "--max-error", "0", "--json", str(tmp_path / "replay.json")]) == 0
    found = json.loads((tmp_path / "replay.json").read_text())
    assert found["episodes"] == 2 and found["success_rate"] == 1.0
    assert found["from_state"]["sim_state"]["equal_steps"] == found["steps"]
