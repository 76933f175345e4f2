"""default < file < flag, and every mistake named with file, field and the nearest right name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from robolearn import config
from robolearn.apps.record import Config as RecordConfig
from robolearn.errors import ConfigError, UnknownName, nearest


@dataclass(frozen=True)
class Optimiser:
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)


@dataclass(frozen=True)
class Train:
    dataset: Path
    steps: int = 100
    name: str = "flow"
    ema: bool = True
    device: Literal["cpu", "cuda"] = "cpu"
    seed: int | None = None
    hidden: tuple[int, ...] = (64, 64)
    env: Mapping[str, Any] = field(default_factory=dict)
    optimiser: Optimiser = Optimiser()

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps must be positive, got {self.steps}")


def read(text: str, folder: Path) -> Train:
    path = folder / "run.yaml"
    path.write_text(text)
    return config.from_mapping(Train, config.read_yaml(path), str(path))


def test_a_file_fills_what_it_names_and_leaves_the_defaults(tmp_path: Path) -> None:
    got = read("dataset: set.zarr\nsteps: 7\noptimiser: {lr: 1e-4}\nhidden: [1, 2, 3]\nseed: null\n", tmp_path)
    assert got == Train(Path("set.zarr"), steps=7, optimiser=Optimiser(lr=1e-4), hidden=(1, 2, 3))


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "0.0001", "1e-04"])
def test_every_way_to_write_a_small_number_is_a_number(text: str, tmp_path: Path) -> None:
    assert read(f"dataset: a\noptimiser: {{lr: {text}}}\n", tmp_path).optimiser.lr == 1e-4


def test_a_whole_number_fits_a_float_and_a_name_that_begins_like_one_stays_a_name(tmp_path: Path) -> None:
    assert read("dataset: a\noptimiser: {lr: 1}\n", tmp_path).optimiser.lr == 1.0
    assert read("dataset: a\nname: 1e4b\n", tmp_path).name == "1e4b"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset: a\nstepz: 3\n", "run.yaml: unknown field 'stepz'; did you mean 'steps'?"),
        ("dataset: a\noptimiser: {lrr: 3}\n", "run.yaml: optimiser: unknown field 'lrr'; did you mean 'lr'?"),
        ("dataset: a\nsteps: many\n", "run.yaml: steps: want int, got 'many'"),
        ("dataset: a\nsteps: 3.5\n", "steps: want int, got 3.5"),
        ("dataset: a\nsteps: true\n", "steps: want int, got True"),
        ("dataset: a\nema: 1\n", "ema: want bool, got 1"),
        ("dataset: a\noptimiser: {lr: fast}\n", "optimiser: lr: want float, got 'fast'"),
        ("dataset: a\noptimiser: fast\n", "optimiser: want a mapping, got 'fast'"),
        ("dataset: a\noptimiser: {betas: [0.9]}\n", "betas: want 2 values, got 1"),
        ("dataset: a\ndevice: cuda0\n", "device: unknown value 'cuda0'; did you mean 'cuda'?"),
        ("steps: 3\n", "field 'dataset' is required"),
        ("dataset: a\nsteps: 1\nsteps: 2\n", "run.yaml:3:1: 'steps' is given twice"),
        ("dataset: [a\n", "run.yaml:2"),
        ("- a\n- b\n", "want 'key: value' lines, got list"),
        ("dataset: a\nsteps: 0\n", "run.yaml: steps must be positive"),
    ],
)
def test_a_mistake_names_the_file_the_field_and_what_would_work(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text, tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_config_survives_its_own_yaml(tmp_path: Path) -> None:
    before = Train(Path("a.zarr"), steps=3, seed=4, env={"action": "pose_abs"}, hidden=(), optimiser=Optimiser(1e-5, (0.5, 0.9)))
    assert read(config.to_yaml(before), tmp_path) == before


def test_a_flag_beats_the_file_and_the_file_beats_the_default(tmp_path: Path) -> None:
    from_file = read("dataset: a\nsteps: 7\noptimiser: {lr: 0.5}\n", tmp_path)
    got = config.from_flags(Train, ["--optimiser.lr", "0.25", "--name", "bc"], "robolearn train", default=from_file)
    assert (got.steps, got.optimiser.lr, got.name, got.ema) == (7, 0.25, "bc", True)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--stepz", "3"], "robolearn train: unknown flag --stepz; did you mean --steps?"),
        (["--optimiser.lrr", "3"], "unknown flag --optimiser.lrr; did you mean --optimiser.lr?"),
        (["--zzzzzz", "3"], "unknown flag --zzzzzz"),
        (["--steps", "many"], "--steps: want INT, got 'many'"),
        (["--steps"], "--steps: want 1 value"),
        (["--optimiser.betas", "1"], "--optimiser.betas: want 2 values"),
        (["--device", "tpu"], "--device: want one of 'cpu', 'cuda', got 'tpu'"),
        (["stray"], "unexpected argument 'stray'"),
        (["--steps", "0"], "steps must be positive"),
    ],
)
def test_a_wrong_flag_is_one_line_in_plain_words(flags: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.from_flags(Train, flags, "robolearn train", default=Train(Path("a")))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value) and "helptext" not in str(caught.value)


def test_a_required_field_is_asked_for() -> None:
    with pytest.raises(ConfigError, match="missing: --dataset PATH"):
        config.from_flags(Train, [], "robolearn train")


def test_a_shipped_config_is_found_by_name_and_a_near_miss_is_told() -> None:
    name = config.shipped("train")[0]
    assert config.find("train", name).is_file()
    with pytest.raises(UnknownName, match=f"did you mean '{name}'"):
        config.find("train", name + "x")


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("a: 1\n")
    assert config.find("train", str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"
    with pytest.raises(ConfigError, match="no such file"):
        config.find("train", str(tmp_path / "yours.yaml"))


def test_where_nothing_is_known_no_list_is_shown() -> None:
    assert nearest("x", []) == ""
    assert nearest("flwo", ["flow", "bc"]) == "; did you mean 'flow'? (known: flow, bc)"


def test_a_config_that_refuses_its_values_is_not_named_by_its_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^robolearn record: seed: attempts use the seeds 100000 to"):
        config.from_flags(RecordConfig, ["pusht", "--out", str(tmp_path), "--seed", "100000"], "robolearn record")
