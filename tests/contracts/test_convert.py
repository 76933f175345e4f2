"""What every foreign format promises: it recognises its own files only, and what it can write comes back equal."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest

from robolearn import registry
from robolearn.data.convert.robosuite_demo import read_demo
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, DatasetError

FORMATS = "robolearn.data.convert"
SUFFIXES = {"replay_buffer": (".zarr", ".zarr.zip"), "robosuite_demo": (".hdf5",), "robomimic": (".hdf5",)}
WRITTEN = [
    (name, suffix)
    for name in registry.names(FORMATS)
    if hasattr(registry.load(FORMATS, name), "write")
    for suffix in SUFFIXES.get(name, ("",))
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, EpisodeSet]:
    """Returns sets to convert: one with images and observations, one with simulator states only."""
    folder = tmp_path_factory.mktemp("sources")
    demo = folder / "demo.hdf5"
    rng = np.random.default_rng(0)
    with h5py.File(demo, "w") as file:
        data = file.create_group("data")
        data.attrs["env"] = "PandaLift"
        for name in ("demo_2", "demo_10"):
            group = data.create_group(name)
            group["states"] = np.concatenate([np.arange(25)[:, None] * 0.05, rng.normal(size=(25, 6))], axis=1)
            group["actions"] = rng.normal(size=(25, 7))
            group.attrs["model_file"] = f"<mujoco model='{name}'/>"
    registry.load(FORMATS, "robosuite_demo").read(demo, folder / "states.zarr")
    whole = EpisodeSet.open(root / "tests/fixtures/schema1_pusht.zarr")
    small = EpisodeSet.create(folder / "small.zarr", whole.spec, task=whole.task, env=whole.env, durable=False)
    for index in range(2):
        small.append({key: rows[:9] for key, rows in whole.episode(index).items() if key in small.keys}, seed=index)
    return {
        "observations": whole,
        "small": EpisodeSet.open(folder / "small.zarr"),
        "states": EpisodeSet.open(folder / "states.zarr"),
    }


def load(name: str) -> ModuleType:
    return registry.load(FORMATS, name)


@pytest.mark.parametrize("name", registry.names(FORMATS))
def test_a_format_can_be_recognised_and_read_and_refuses_strangers(name: str, tmp_path: Path) -> None:
    module = load(name)
    (tmp_path / "stranger.bin").write_bytes(b"nothing of the kind")
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "stranger.bin", tmp_path / "empty", tmp_path / "missing"):
        assert not module.sniff(path)
        with pytest.raises(DatasetError) as caught:
            module.read(path, tmp_path / "out.zarr")
        assert "\n" not in str(caught.value) and not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize(("name", "suffix"), WRITTEN)
def test_what_is_written_is_recognised_and_comes_back_equal(
    name: str, suffix: str, sources: dict[str, EpisodeSet], tmp_path: Path
) -> None:
    module, carried = load(name), 0
    for title in ("observations", "states"):
        source = sources[title]
        foreign, back = tmp_path / f"{title}{suffix}", tmp_path / f"{title}-back.zarr"
        try:
            module.write(source, foreign)
        except DatasetError:
            assert not foreign.exists()
            continue
        carried += 1
        assert [other for other in registry.names(FORMATS) if load(other).sniff(foreign)] == [name]
        module.read(foreign, back)
        again = EpisodeSet.open(back)
        assert (again.task, again.hz, again.spec.codec, again.zarr_format) == (source.task, source.hz, source.spec.codec, 3)
        np.testing.assert_array_equal(again.episode_ends, source.episode_ends)
        for key in ("action", *(key for key in again.keys if key in source.keys)):
            np.testing.assert_array_equal(again.read(key), source.read(key))
        with pytest.raises(AlreadyExists):
            module.write(source, foreign)
    assert carried


@pytest.mark.parametrize(("name", "suffix"), WRITTEN)
def test_a_format_tells_beforehand_what_it_reads_and_loses_and_writes_nothing(
    name: str, suffix: str, sources: dict[str, EpisodeSet], tmp_path: Path
) -> None:
    module = load(name)
    source = sources["states" if name == "robosuite_demo" else "small"]
    told = module.cannot_carry(source)
    assert not list(tmp_path.iterdir())
    lost = module.write(source, tmp_path / f"a{suffix}")
    assert len(told) == len(lost) and all("\n" not in what for what in lost)
    found = module.scan(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(found.ends, source.episode_ends)
    rows = found.rows(next(iter(found.pieces())))
    assert all(rows[key].shape[1:] == array.shape for key, array in found.keys.items() if key in rows)
    assert [p.name for p in tmp_path.iterdir()] == [f"a{suffix}"]


@pytest.mark.parametrize(("name", "suffix"), WRITTEN)
def test_a_file_that_was_cut_off_is_refused_in_one_line(
    name: str, suffix: str, sources: dict[str, EpisodeSet], tmp_path: Path
) -> None:
    module = load(name)
    source = sources["states" if name == "robosuite_demo" else "small"]
    whole = tmp_path / f"a{suffix}"
    module.write(source, whole)
    files = [whole] if whole.is_file() else sorted(p for p in whole.rglob("*") if p.is_file() and p.stat().st_size > 4)
    by_kind = {(p.suffix, p.parent.name.rstrip("0123456789")): p for p in files if not p.name.startswith((".z", "zarr"))}
    assert by_kind
    for file in by_kind.values():
        raw = file.read_bytes()
        file.write_bytes(raw[: len(raw) // 2])
        if file.name not in ("stats.json", "robolearn.json"):  # not needed, or only to know what was whole before
            with pytest.raises(DatasetError) as caught:
                module.read(whole, tmp_path / "out.zarr")
            assert "\n" not in str(caught.value) and not (tmp_path / "out.zarr").exists(), file
        file.write_bytes(raw)
    module.read(whole, tmp_path / "out.zarr")


def test_a_replay_buffer_carries_every_key_fact_and_attribute_of_a_set(sources: dict[str, EpisodeSet], tmp_path: Path) -> None:
    source = sources["observations"]
    load("replay_buffer").write(source, tmp_path / "b.zarr")
    written = EpisodeSet.open(tmp_path / "b.zarr")
    assert written.zarr_format == 2 and written.array("img").chunks == (1, 96, 96, 3) and written.array("img").dtype == np.uint8
    assert (tmp_path / "b.zarr/meta/episode_ends/0").read_bytes()[:8] == int(source.episode_ends[0]).to_bytes(8, "little")
    load("replay_buffer").read(tmp_path / "b.zarr", tmp_path / "c.zarr")
    again = EpisodeSet.open(tmp_path / "c.zarr")
    assert again.spec == source.spec and again.keys == source.keys and again.facts() == source.facts()
    for fact in source.facts():
        np.testing.assert_array_equal(again.episode_field(fact), source.episode_field(fact))
    assert again.attrs["licence"] == source.attrs["licence"]


def test_a_buffer_without_a_rate_asks_for_it_and_takes_it(shared: Path, tmp_path: Path) -> None:
    original = shared / "data/pusht_zarr/pusht_cchi_v7_replay.zarr"
    with pytest.raises(DatasetError, match="does not say its control rate; give --hz"):
        load("replay_buffer").read(original, tmp_path / "a.zarr")


def test_umi_poses_become_actions_of_the_next_row(tmp_path: Path) -> None:
    import zarr

    group = zarr.create_group(tmp_path / "umi.zarr", zarr_format=2)
    rows = {"eef_pos": 3, "eef_rot_axis_angle": 3, "gripper_width": 1}
    poses = {name: np.random.default_rng(0).normal(size=(9, n)).astype(np.float32) for name, n in rows.items()}
    for name, values in poses.items():
        group.create_array(f"data/robot0_{name}", data=values)
    group.create_array("meta/episode_ends", data=np.array([4, 9]))
    lost = load("replay_buffer").read(tmp_path / "umi.zarr", tmp_path / "a.zarr", hz=60.0, task="cup")
    made = EpisodeSet.open(tmp_path / "a.zarr")
    whole = np.concatenate(list(poses.values()), axis=1)
    np.testing.assert_array_equal(made.read("action"), whole[[1, 2, 3, 3, 5, 6, 7, 8, 8]])
    assert made.spec.codec == "pose_axis_angle_abs" and made.hz == 60.0 and any("UMI" in what for what in lost)


@pytest.mark.parametrize(
    ("folder", "task", "robot", "steps", "codec", "hz"),
    [
        ("1.0.1/lift", "lift", "Panda", 412, "osc_delta", 20.0),
        ("1.0.1/nut-assembly", "nut_assembly", "Panda", 1036, "osc_delta", 20.0),
        ("1.0.1/wipe", "wipe", "Panda", 174, "osc_delta", 20.0),
        ("0.3.0/SawyerStack", "stack", "Sawyer", 1252, "joint_velocity", 100.0),
    ],
)
def test_real_robosuite_demonstrations_are_understood(shared: Path, folder, task, robot, steps, codec, hz) -> None:
    demo = read_demo(shared / "data/robosuite_human_demos" / folder)
    assert (demo.task, demo.robot, len(demo.states), demo.codec, demo.hz) == (task, robot, steps, codec, hz)
    assert demo.model_xml.lstrip().startswith("<") and len(demo.actions) == steps
    if task == "lift":
        assert demo.states[:, 12].min() == pytest.approx(0.819, abs=1e-3) and demo.states[:, 12].max() == pytest.approx(
            0.904, abs=1e-3
        )
