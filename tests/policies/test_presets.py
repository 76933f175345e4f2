"""Every shipped preset makes the network that its first line tells of."""

from __future__ import annotations

import re

import pytest
import torch

from robolearn import config, registry
from robolearn.core import ArraySpec, Spec
from robolearn.training import settings

ARM = {"eef_pos": (3,), "eef_rot6d": (6,), "gripper": (1,)}
SHAPES = {
    "pusht": {"state": (5,), "keypoint": (9, 2)},
    "shell": {"state": (6,)},
    "twice": {"state": (3,)},
    "drawer": {"eef_pos": (3,), "eef_quat_wxyz": (4,), "gripper_open": (1,), "track": (0,)},
    "": {"wrist": (9,), "points": (27,), "track": (0,)},
    "two_arm_lift": {f"{key}_{arm}": shape for key, shape in ARM.items() for arm in (0, 1)} | {"object": (27,)},
}
ACTIONS = {"point": (28,), "zeromimic": (90,)}


def parameters(name: str) -> int:
    cfg = settings.load(config.find("train", name))
    images = {key: ArraySpec((96, 96, 3), "uint8") for key in cfg.policy.obs if key in ("img", "image") or key.endswith("_image")}
    low = SHAPES.get(cfg.task, ARM | {"object": (9,), "joint_pos": (7,)})
    tracks = 10 * max(1, len(images)) if "track" in cfg.policy.obs else 0  # five points a picture
    paper = name.partition("_")[0]  # a recipe of people's video is bound to no body
    action = {"pusht": (2,), "shell": (2,), "twice": (2,), "two_arm_lift": (20,)}.get(cfg.task, ACTIONS.get(paper, (10,)))
    read = cfg.policy.obs or ("points",)
    shapes = {key: (tracks,) if key == "track" else shape for key, shape in low.items() if key in read}
    spec = Spec(
        obs={key: ArraySpec(shape) for key, shape in shapes.items()} | images,
        action=ArraySpec((tracks + 1,) if tracks else action),
        hz=10.0,
    )
    assert set(spec.obs) == set(read), f"{name}: {cfg.policy.obs}"
    module = registry.load("robolearn.policies", cfg.policy.name, what="policy")
    with torch.device("meta"):  # shapes only: nothing is allocated
        return sum(p.numel() for p in module.Net(cfg.policy, spec).parameters())


@pytest.mark.parametrize("name", config.shipped("train"))
def test_a_preset_makes_its_network_and_says_its_size(name: str) -> None:
    millions = parameters(name) / 1e6
    said = re.search(r"(\d+) M\b", config.find("train", name).read_text().splitlines()[0])
    if said:
        assert round(millions) == int(said[1])
    if not name.endswith("_paper"):
        assert millions < (1 if name.startswith("memory_") else 8), "sized for 2 CPU cores"
