"""The cover of hand and gripper: what it hides, what it leaves, and that no network of a covered config sees what is below it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.apps._two_hands_sets import Wanted, open_bench, performed, rows_of
from robolearn.core import ArraySpec, Spec
from robolearn.nets.cover import COLOUR, covered
from robolearn.policies import mt_pi
from tests.policies.test_mt_pi import make_net, toy_windows

SIDE = 48
SMALL = dict(denoiser="mlp", width=32, depth=2, image_net="small", image_features=16, execute=8, cover=True)
POINTS = torch.tensor([[24.0, 20.0], [21.0, 26.0], [27.0, 26.0], [21.0, 32.0], [27.0, 32.0]])  # a hand from above, 12 px long


def hidden(picture: torch.Tensor) -> torch.Tensor:
    return (picture == torch.tensor(COLOUR, dtype=torch.uint8)).all(-1)


def test_hand_and_forearm_are_filled_and_what_is_beside_them_stays() -> None:
    picture = torch.randint(0, 200, (SIDE, SIDE, 3), dtype=torch.uint8)
    found = covered(picture, POINTS)
    mask = hidden(found)
    assert all(mask[int(v), int(u)] for u, v in POINTS) and not mask[29, 24], "the points, and not what is between the fingers"
    assert mask[:20, 24].all(), "the forearm, up to the edge of the picture"
    assert not mask[:, :15].any() and not mask[:, 34:].any() and not mask[38:].any()
    assert found[~mask].equal(picture[~mask])


def test_each_picture_of_a_batch_is_covered_by_its_own_points_and_a_hand_outside_covers_nothing() -> None:
    pictures = torch.zeros((2, 1, SIDE, SIDE, 3), dtype=torch.uint8)
    masks = hidden(covered(pictures, torch.stack((POINTS, POINTS + 1000.0))[:, None]))
    assert masks[0].any() and not masks[1].any()
    assert masks[0, 0].equal(hidden(covered(pictures[0, 0], POINTS)))


@pytest.mark.parametrize("joint", [False, True])
def test_what_is_below_the_cover_changes_no_plan_and_what_is_beside_it_does(joint: bool) -> None:
    keys = ("left_image", "right_image") if joint else ("image",)
    n = 10 * len(keys)
    spec = Spec(
        {**{key: ArraySpec((SIDE, SIDE, 3), "uint8") for key in keys}, "track": ArraySpec((n,))}, ArraySpec((n + 1,)), 10.0
    )
    net = mt_pi.Net(mt_pi.Config(**{**SMALL, "obs": (*keys, "track"), "joint": joint}), spec)
    net.track_scale.fill_(2.0 / SIDE)
    net.track_offset.fill_(-1.0)
    track = torch.cat([(POINTS + 3 * k).flatten() for k in range(len(keys))]) * 2.0 / SIDE - 1.0
    obs = {key: torch.randint(0, 200, (1, 1, SIDE, SIDE, 3), dtype=torch.uint8) for key in keys} | {"track": track[None, None]}
    seen = net.encode(obs)
    for k, key in enumerate(keys):
        mask = hidden(covered(obs[key][0, 0], POINTS + 3 * k))
        below, beside = obs[key].clone(), obs[key].clone()
        below[0, 0, mask] = 7
        beside[0, 0, ~mask] = 7
        assert net.encode({**obs, key: below}).equal(seen) and not net.encode({**obs, key: beside}).equal(seen)


@pytest.mark.parametrize(
    ("obs", "joint", "message"),
    [
        (("track",), False, "cover: want obs with image, track, got track without image"),
        (("image",), False, "cover: want obs with image, track, got image without track"),
        (("left_image", "track"), True, "left_image, right_image, track, got left_image, track without right_image"),
    ],
)
def test_a_cover_without_its_picture_or_its_points_is_refused(obs: tuple[str, ...], joint: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mt_pi.Config(**{**SMALL, "obs": obs, "joint": joint})
    mt_pi.Config(**{**SMALL, "obs": obs, "joint": joint, "cover": False})


def test_a_training_keeps_what_a_pixel_is_and_a_policy_that_is_not_covered_has_nothing_of_it(tmp_path: Path) -> None:
    windows, normalizer = toy_windows(tmp_path)
    net = make_net(cover=True)
    net.prepare(windows, normalizer, seed=0)
    np.testing.assert_array_equal(net.state_dict()["track_scale"].numpy(), normalizer.scale["track"])
    np.testing.assert_array_equal(net.state_dict()["track_offset"].numpy(), normalizer.offset["track"])
    assert "track_scale" not in make_net().state_dict()


def test_most_of_what_tells_a_person_from_a_gripper_is_below_the_cover() -> None:
    """The same moments of one scene of the bench, performed by both: where their pictures differ, there is a body."""
    shown = {}
    for body in ("robot", "human"):
        given = {"cameras": ["left", "right"], "image_size": 64, "embodiment": body, "direction": "left"}
        with closing(open_bench("drawer", given)) as scene:
            shown[body] = rows_of(scene, performed(scene, 50_001), Wanted("drawer", 1, 50_001, body), np.random.default_rng(0))
    for view in ("left", "right"):
        pictures, masks = {}, {}
        for body, rows in shown.items():
            picture, points = (torch.from_numpy(rows[key][:30]) for key in (f"{view}_image", f"tracks/{view}"))
            pictures[body], masks[body] = picture.numpy().astype(int), hidden(covered(picture, points)).numpy()
        differ = np.abs(pictures["robot"] - pictures["human"]).max(-1) > 8
        assert (differ & (masks["robot"] | masks["human"])).sum() > 0.85 * differ.sum()
        assert (masks["robot"] & masks["human"]).sum() > 0.7 * (masks["robot"] | masks["human"]).sum(), "the covers are alike"
