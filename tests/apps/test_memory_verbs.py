"""From pictures to a policy with a long memory on the command line: record, three stages, verified evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn import cli, config
from robolearn.apps._evaluate import Options, evaluate, find, verified
from robolearn.data.store import EpisodeSet
from robolearn.policies._verified import Verification
from robolearn.rollout import rollout
from robolearn.training import embed, settings
from robolearn.training.checkpoint import load_policy
from sim_envs import _base as tasks

ENV = ["--env-set", "memory_steps=16", "image_size=32"]
QUIET = ["--device", "cpu", "--threads", "1"]


def short(name: str, path: Path, **changes: object) -> Path:
    """Writes the shipped config `name`, small, to `path`."""
    values = config.to_mapping(settings.load(config.find("train", name)))
    values["policy"] |= {"width": 16, "depth": 1, "crop": 28, "steps": 2}
    values |= {"steps": 3, "warmup": 1, "batch_size": 8, "log_every": 1, "tensorboard": False, **changes}
    path.write_text(json.dumps(values))  # which is YAML too
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set with pictures, an encoder and a head on its embeddings, by the two commands a user gives."""
    folder = tmp_path_factory.mktemp("stages")
    made = str(folder / "twice.zarr")
    assert cli.main(["record", "twice", "--cameras", "img", *ENV, "--episodes", "4", "--out", made]) == 0
    encoder = short("twice_image_diffusion_encoder", folder / "encoder.yaml")
    where = {"encoder": str(folder / "encoder"), "encoder_config": str(encoder)}
    head = short("twice_image_diffusion_ptp", folder / "head.yaml", **where)
    assert cli.main(["train", str(head), "--dataset.path", made, "--out", str(folder / "head"), *QUIET]) == 0
    return folder


def test_one_command_trains_the_encoder_caches_its_embeddings_and_trains_the_head(trained: Path) -> None:
    assert load_policy(trained / "encoder").net.config.n_obs_steps == 2
    head = load_policy(trained / "head")
    encoder, own = embed.Frozen.load(trained / "encoder").weights, head.net.encoder.state_dict()
    assert head.net.config.n_obs_steps == 16 and all(torch.equal(own[key], value) for key, value in encoder.items())
    assert len(list((trained / "twice.embeddings").glob("*.zarr"))) == 1


def test_the_second_stage_alone_finds_what_the_head_was_trained_on(trained: Path, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in (trained / "twice.embeddings").rglob("*")}
    assert (
        cli.main(["data", "embed", str(trained / "encoder"), str(trained / "twice.zarr"), "--json", str(trained / "e.json")]) == 0
    )
    steps = EpisodeSet.open(trained / "twice.zarr").n_steps
    found = json.loads((trained / "e.json").read_text())
    assert (found["steps"], found["variants"], found["dim"]) == (steps, 1, 64)
    assert before == {path: path.stat().st_mtime_ns for path in (trained / "twice.embeddings").rglob("*")}
    assert f"{steps} frames x 1 of width 64" in capsys.readouterr().out


def test_the_head_drives_with_pictures_and_verified_plans_alike_in_one_process_in_many_and_alone(trained: Path) -> None:
    subject, how = find(str(trained / "head")), Verification(draws=3, least=1)
    here = evaluate(subject, Options(3, 50_000, workers=0, max_steps=150, verify=how))
    there = evaluate(subject, Options(3, 50_000, workers=1, envs_per_worker=2, max_steps=150, verify=how))
    for a, b in zip(here.records, there.records, strict=True):
        np.testing.assert_allclose(a.actions[:140], b.actions[:140], atol=1e-3)
    body = tasks.make("twice", {**subject.env, "cameras": ["img"]})
    alone = verified(load_policy(trained / "head"), how)
    outcome = rollout(body, alone, max_steps=150, seed=50_001)
    assert outcome.steps == here.rows[1]["steps"] and alone.draws_taken > outcome.steps // 8 + 1


def test_what_is_recorded_says_what_rebuilds_its_body(trained: Path) -> None:
    made = EpisodeSet.open(trained / "twice.zarr")
    assert dict(made.env) == {"memory_steps": 16, "image_size": 32, "cameras": ["img"]}
    assert made.keys["img"].shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["record", "shell", "--env-set", "memory_step=16", "--out", "{}/x.zarr"], "did you mean 'memory_steps'"),
        (["eval", "{}/head", "--verify", "0"], "want verify >= 1"),
        (["eval", "{}/head", "--verify-least", "4"], "nothing is verified"),
        (["eval", "expert:shell", "--verify", "4", "--episodes", "1"], "predicts no past actions"),
        (
            ["eval", "{}/encoder", "--verify", "4", "--episodes", "1", "--videos", "0"],
            "needs a policy that predicts past actions",
        ),
        (["train", "twice_image_diffusion_ptp", "--encoder", "", "--dataset.path", "{}/twice.zarr"], "want `encoder` too"),
        (["data", "embed", "{}/nothing", "{}/twice.zarr"], "no such run folder"),
    ],
)
def test_what_cannot_work_is_one_line(trained: Path, capsys, flags: list[str], said: str) -> None:
    assert cli.main([flag.format(trained) for flag in flags]) == 2
    line = capsys.readouterr().err.strip()
    assert said in line and "\n" not in line
