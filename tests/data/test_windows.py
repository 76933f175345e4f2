"""Windows are what a plain loop over the episodes gives, at the edges too; images come from a cache that is never stale."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import LENGTHS, SPEC, make

from robolearn.core import ArraySpec, Spec
from robolearn.data import images
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows, split_episodes
from robolearn.errors import DatasetError


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    return make(tmp_path_factory.mktemp("sets") / "toy.zarr")


def expected(toy: EpisodeSet, n_obs: int, horizon: int, pad_after: int, episodes: list[int]):
    """Yields (obs, action, is_pad) of every window, by the definition."""
    for index in episodes:
        data = toy.episode(index)
        steps = len(data["action"])
        for t in range(steps):
            first = t - (n_obs - 1)
            if t > 0 and first + horizon - steps > pad_after:
                continue
            token = [first + h for h in range(horizon)]
            rows = [min(max(k, 0), steps - 1) for k in token]
            yield data["state"][rows[:n_obs]], data["action"][rows], [k != r for k, r in zip(token, rows, strict=True)], index


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 4), st.integers(0, 20), st.data())
def test_windows_equal_their_definition(toy: EpisodeSet, n_obs: int, more: int, data) -> None:
    horizon = n_obs + more
    pad_after = data.draw(st.integers(0, horizon - 1))
    episodes = data.draw(st.lists(st.sampled_from(range(len(LENGTHS))), unique=True, min_size=1))
    windows = Windows(toy, ("state",), n_obs, horizon, pad_after, episodes)
    want = list(expected(toy, n_obs, horizon, pad_after, episodes))
    assert len(windows) == len(want)
    batch = windows.batch(np.arange(len(windows)))
    np.testing.assert_array_equal(batch["obs"]["state"], np.stack([w[0] for w in want]))
    np.testing.assert_array_equal(batch["action"], np.stack([w[1] for w in want]))
    np.testing.assert_array_equal(batch["is_pad"], np.stack([w[2] for w in want]))
    assert windows.episode_of(np.arange(len(windows))).tolist() == [w[3] for w in want]


def test_a_window_never_reaches_into_another_episode(toy: EpisodeSet) -> None:
    batch = Windows(toy, ("state",), 3, 16, 15).batch(np.arange(20))
    assert (np.diff(batch["obs"]["state"][..., 0], axis=1) >= 0).all()


def test_every_episode_gives_a_window_even_one_shorter_than_the_horizon(toy: EpisodeSet) -> None:
    windows = Windows(toy, ("state",), 2, 32, 0)
    assert set(windows.episode_of(np.arange(len(windows)))) == {0, 1, 2}


def test_images_are_the_stored_ones_and_uint8(toy: EpisodeSet, tmp_path: Path) -> None:
    batch = Windows(toy, ("img",), 2, 4, 0, cache=tmp_path).batch(np.array([3, 12, 30]))
    assert batch["obs"]["img"].dtype == np.uint8 and batch["obs"]["img"].shape == (3, 2, 8, 8, 3)
    np.testing.assert_array_equal(batch["obs"]["img"][0], toy.read("img", 2, 4))


def test_the_image_cache_is_used_again_and_made_anew_after_an_append(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path / "a.zarr")
    images.load_frames(made, "img")
    with monkeypatch.context() as patch:
        patch.setattr(images, "_decode", lambda *_: pytest.fail("decoded twice"))
        np.testing.assert_array_equal(images.load_frames(EpisodeSet.open(tmp_path / "a.zarr"), "img"), made.read("img"))
    made.append(made.episode(0))
    assert len(images.load_frames(EpisodeSet.open(tmp_path / "a.zarr"), "img")) == sum(LENGTHS) + LENGTHS[0]
    assert len(list((tmp_path / "a.cache").iterdir())) == 1


def test_a_decoding_that_fails_leaves_no_cache_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path / "a.zarr")

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(images, "_decode", broken)
    with pytest.raises(KeyboardInterrupt):
        images.load_frames(made, "img")
    assert list((tmp_path / "a.cache").iterdir()) == []


def test_without_a_writable_cache_images_are_held_in_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make(tmp_path / "a.zarr")
    (tmp_path / "a.cache").write_text("in the way")
    frames = images.load_frames(made, "img")
    assert not isinstance(frames, np.memmap) and (frames == made.read("img")).all()
    assert "held in memory" in capsys.readouterr().err


@pytest.mark.parametrize(("factor", "fits"), [(1.0, True), (1 / 255, True), (2.0, False)])
def test_float_images_become_uint8_or_are_refused(tmp_path: Path, factor: float, fits: bool) -> None:
    spec = Spec({"img": ArraySpec((8, 8, 3), "float32")}, ArraySpec((2,)), 10.0)
    made = EpisodeSet.create(tmp_path / "a.zarr", spec, task="toy", env={})
    whole = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3)).astype(np.float32)
    whole[0, 0, 0, 0] = 255
    made.append({"img": whole * np.float32(factor), "action": np.zeros((20, 2), np.float32)})
    if fits:
        np.testing.assert_array_equal(images.load_frames(made, "img"), whole.astype(np.uint8))
    else:
        with pytest.raises(DatasetError, match=r"want images of 0..255 \(or 0..1\), got values 0..510"):
            images.load_frames(made, "img")


def test_nan_in_the_data_is_refused_by_key_episode_and_row(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr")
    rows = made.read("state")
    rows[12 + 4, 1] = np.nan
    made.array("state")[:] = rows
    with pytest.raises(DatasetError, match="state: NaN or infinity in episode 1, row 4"):
        Windows(made, ("state",))


def test_wrong_keys_and_sizes_are_refused(toy: EpisodeSet) -> None:
    with pytest.raises(DatasetError, match="no key 'stat'; did you mean 'state'"):
        Windows(toy, ("stat",))
    with pytest.raises(DatasetError, match="horizon 1"):
        Windows(toy, ("state",), n_obs_steps=2, horizon=1)
    assert len(Windows(toy, ("state",), episodes=[])) == 0


def test_all_windows_of_a_set_share_their_arrays(toy: EpisodeSet) -> None:
    one, two = Windows(toy, ("state",), episodes=[0]), Windows(toy, ("state",), episodes=[1])
    assert one._arrays["state"] is two._arrays["state"] and SPEC.obs["state"].unit == one.keys["state"].unit


@given(st.integers(1, 300), st.floats(0, 0.99), st.integers(0, 10))
def test_a_split_is_a_partition_that_the_seed_fixes(n: int, ratio: float, seed: int) -> None:
    train, val = split_episodes(n, ratio, seed)
    assert sorted([*train, *val]) == list(range(n)) and len(train) >= 1
    assert (len(val) > 0) == (ratio > 0 and n > 1)
    assert all((a == b).all() for a, b in zip((train, val), split_episodes(n, ratio, seed), strict=True))


def test_mirrored_windows_follow_the_recorded_ones_and_keep_to_their_episodes(toy: EpisodeSet) -> None:
    plain = Windows(toy, ("state",), episodes=[0, 2])
    twice = Windows(toy, ("state",), episodes=[0, 2], mirror=lambda rows: {key: -a for key, a in rows.items()})
    assert len(twice) == 2 * len(plain) and not len(plain.mirrored_rows("state"))
    one, both = plain.batch(np.arange(len(plain))), twice.batch(np.arange(len(twice)))
    np.testing.assert_array_equal(both["action"], np.concatenate([one["action"], -one["action"]]))
    np.testing.assert_array_equal(both["obs"]["state"], np.concatenate([one["obs"]["state"], -one["obs"]["state"]]))
    np.testing.assert_array_equal(both["is_pad"], np.tile(one["is_pad"], (2, 1)))
    recorded = np.concatenate([toy.episode(k)["state"] for k in (0, 2)])
    np.testing.assert_array_equal(twice.mirrored_rows("state"), -recorded)
    with pytest.raises(DatasetError, match="cannot mirror 'state'"):
        Windows(toy, ("state",), mirror=lambda rows: {"action": rows["action"]})
    with pytest.raises(DatasetError, match="'img' is an image"):
        Windows(toy, ("state", "img"), mirror=lambda rows: dict(rows))
