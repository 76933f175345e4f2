"""One human demonstration becomes a set of successes that replay, and a source that does not work becomes nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robolearn.apps import _expand, expand
from robolearn.apps._joints import HandSolver
from robolearn.cli import main
from robolearn.data.adapt import lifted
from robolearn.data.convert.robosuite_demo import read_demo
from robolearn.data.source import read_source
from robolearn.data.store import EpisodeSet
from sim_envs import _base

FOLDERS = {"lift": "lift", "stack": "stack", "can": "pick-place", "square": "nut-assembly", "door": "door"}


@pytest.fixture(scope="session")
def demos(shared: Path) -> Path:
    """Returns the folder of the human Panda demonstrations."""
    return shared / "data" / "robosuite_human_demos" / "1.0.1"


@pytest.fixture(scope="session")
def lift(demos: Path) -> Path:
    """Returns the human Lift demonstration."""
    return demos / "lift" / "panda" / "demo.hdf5"


@pytest.fixture(scope="session")
def expanded(lift: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder with lift.zarr, three episodes expanded from one, and its report.json."""
    folder = tmp_path_factory.mktemp("expanded")
    flags = ["--out", str(folder / "lift.zarr"), "--episodes", "3", "--json", str(folder / "report.json")]
    assert main(["expand", str(lift), *flags]) == 0
    return folder


def try_once(path: Path, task: str, env: dict[str, Any], seed: int, noise: float = 0.0) -> _expand.Episode:
    tries = expand.Tries(path, task, env, noise)
    body = _base.make(task, env)
    try:
        return _expand.attempt(body, tries.source, tries.recipe, tries.cuts, seed, noise)
    finally:
        body.close()


def test_every_episode_says_where_it_comes_from(expanded: Path, lift: Path) -> None:
    dataset = EpisodeSet.open(expanded / "lift.zarr")
    assert dataset.n_episodes == 3
    assert dataset.task == "lift"
    assert dataset.env == {"robot": "Panda", "action": "pose_abs"}
    facts = {name: dataset.episode_field(name) for name in dataset.facts()}
    assert facts["seed"].tolist() == [0, 1, 2]
    assert facts["success"].all()
    assert set(facts["source"]) == {read_demo(lift).source_sha256}
    cuts = json.loads(facts["cuts"][0])
    assert cuts["reach"] < cuts["grasp"] < cuts["carry"] <= cuts["end"] == 412
    assert np.array(json.loads(facts["transforms"][0])["object"]).shape == (4, 4)


def test_the_episodes_are_short_and_begin_at_the_tasks_own_resets(expanded: Path) -> None:
    dataset = EpisodeSet.open(expanded / "lift.zarr")
    body = _base.make("lift", dataset.env)
    for k in range(dataset.n_episodes):
        episode, obs = dataset.episode(k), body.reset(k)
        assert 40 <= len(episode["action"]) <= 110
        assert all(np.array_equal(obs[key], episode[key][0]) for key in obs)
    body.close()


def test_what_is_recorded_is_what_the_body_was_told(expanded: Path) -> None:
    dataset = EpisodeSet.open(expanded / "lift.zarr")
    body = _base.make(dataset.task, dataset.env)
    episode = dataset.episode(1)
    body.restore(episode["sim_state"][0])
    solved = False
    for k, action in enumerate(episode["action"]):
        assert np.array_equal(body.state(), episode["sim_state"][k])
        solved = bool(body.step(action).success)
    assert solved
    body.close()


def test_the_report_counts_attempts_and_reasons(expanded: Path) -> None:
    report = json.loads((expanded / "report.json").read_text())
    assert report["task"] == "lift"
    assert report["successes"] == 3
    assert report["attempts"] == 3 + sum(report["reasons"].values())
    assert report["yield"] == pytest.approx(3 / report["attempts"])
    assert report["meta"]["seed"] == 0


def test_an_interrupted_expansion_goes_on_to_the_same_set(expanded: Path, lift: Path, tmp_path: Path) -> None:
    out = tmp_path / "lift.zarr"
    assert main(["expand", str(lift), "--out", str(out), "--episodes", "1"]) == 0
    assert main(["expand", str(lift), "--out", str(out), "--episodes", "3", "--resume"]) == 0
    whole, resumed = EpisodeSet.open(expanded / "lift.zarr"), EpisodeSet.open(out)
    assert resumed.keys == whole.keys
    assert all(np.array_equal(resumed.read(key), whole.read(key)) for key in whole.keys)
    assert all(np.array_equal(resumed.episode_field(name), whole.episode_field(name)) for name in whole.facts())


def test_worker_processes_write_the_same_set(expanded: Path, lift: Path, tmp_path: Path) -> None:
    out = tmp_path / "lift.zarr"
    assert main(["expand", str(lift), "--out", str(out), "--episodes", "3", "--workers", "2"]) == 0
    whole, shared_work = EpisodeSet.open(expanded / "lift.zarr"), EpisodeSet.open(out)
    assert all(np.array_equal(shared_work.read(key), whole.read(key)) for key in whole.keys)


def test_a_source_with_the_gripper_reversed_yields_nothing(lift: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(lift.parent, tmp_path / "panda", copy_function=shutil.copyfile)
    reversed_source = tmp_path / "panda" / "demo.hdf5"
    with h5py.File(reversed_source, "r+") as file:
        file["data/demo_1/actions"][:, -1] *= -1
    out, report = tmp_path / "lift.zarr", tmp_path / "report.json"
    flags = ["--out", str(out), "--episodes", "3", "--attempts", "4", "--json", str(report)]
    assert main(["expand", str(reversed_source), *flags]) == 1
    assert not out.exists()
    figures = json.loads(report.read_text())
    assert (figures["attempts"], figures["successes"], figures["yield"]) == (4, 0, 0)
    assert sum(figures["reasons"].values()) == 4
    assert "0 of 3 episodes after 4 attempts" in capsys.readouterr().err


@pytest.mark.parametrize("task", ["stack", "can", "square", "door"])
def test_every_task_is_solved_from_new_places(task: str, demos: Path) -> None:
    source = demos / FOLDERS[task] / "panda" / "demo.hdf5"
    episode = try_once(source, task, {}, seed=2)
    assert len(episode.rows) < _base.configure(task).max_steps


@pytest.mark.parametrize(
    ("robot", "action", "width"), [("UR5e", "joint_abs", 7), ("Panda", "joint_abs", 8), ("UR5e", "pose_abs", 10)]
)
def test_the_pose_carries_over_to_other_arms_and_to_joints(robot: str, action: str, width: int, lift: Path) -> None:
    episode = try_once(lift, "lift", {"robot": robot, "action": action}, seed=0)
    assert episode.rows[0]["action"].shape == (width,)


def test_noise_moves_the_hand_but_not_what_is_recorded(lift: Path) -> None:
    clean, noisy = (try_once(lift, "lift", {}, seed=3, noise=noise) for noise in (0.0, 0.003))
    assert np.array_equal(clean.rows[0]["action"], noisy.rows[0]["action"])
    assert not np.array_equal(clean.rows[1]["sim_state"], noisy.rows[1]["sim_state"])


def test_the_hand_solver_reaches_the_pose_it_is_asked_for() -> None:
    body = _base.make("lift", {"action": "joint_abs"})
    body.reset(0)
    joints = body.data.qpos[body.arms[0].qpos].copy()
    target = body.eef_pose()
    target[:3, 3] += [0.03, -0.02, -0.03]
    solver = HandSolver(body, joints)
    solution = solver.solve(body.data.qpos, target)
    solver.scratch.qpos[body.arms[0].qpos] = solution
    body.data.qpos[:] = solver.scratch.qpos
    body.restore(body.state())
    assert np.allclose(body.eef_pose(), target, atol=1e-3)
    body.close()


def test_the_source_has_the_poses_of_the_simulator_but_for_the_millimetre_its_robot_stood_higher(lift: Path) -> None:
    source = read_source(read_demo(lift), {"cube": ("cube",)})
    body = _base.make("lift", {})
    for k in (0, 200, 411):
        body.restore_legacy(read_demo(lift).states[k])
        assert np.allclose(lifted(body.eef_pose(), 0.001), source.hand[k], atol=1e-6)
        assert np.allclose(body.object_poses()["cube"], source.things["cube"][k], atol=1e-6)
    body.close()


def refused(arguments: list[str], capsys: Any) -> str:
    assert main(["expand", *arguments]) == 2
    return capsys.readouterr().err


def test_bad_input_is_refused_in_one_line(expanded: Path, lift: Path, demos: Path, tmp_path: Path, capsys: Any) -> None:
    out = ["--out", str(tmp_path / "new.zarr")]
    old = ["--out", str(expanded / "lift.zarr"), "--episodes", "3"]
    assert "this dataset exists already; give --resume" in refused([str(lift), *old], capsys)
    assert "was expanded with noise 0.0, not 0.01" in refused([str(lift), *old, "--resume", "--noise", "0.01"], capsys)
    assert "for evaluation" in refused([str(lift), *out, "--seed", "910000"], capsys)
    assert "want at least 1, got 0" in refused([str(lift), *out, "--episodes", "0"], capsys)
    assert "did you mean 'lift'?" in refused(["lifd", *out], capsys)
    assert "cannot be expanded for task 'stack'" in refused([str(lift), *out, "--task", "stack"], capsys)
    assert "cannot be expanded" in refused([str(demos / "wipe" / "panda" / "demo.hdf5"), *out], capsys)
    assert not (tmp_path / "new.zarr").exists()
