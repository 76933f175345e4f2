"""The tracks over their pictures: points where they are, rings where they were filled in, one page with every episode."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from robolearn import cli
from robolearn.apps import _tracks_overlay
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.video import clips

POINTS = np.array([[60, 20], [90, 40], [30, 40], [90, 80], [30, 80]], np.float32)  # base, right1, left1, right2, left2
ROWS = 6


def write(path: Path, embodiment: str = "human") -> EpisodeSet:
    """Writes two episodes of black pictures (96, 128) in two views; the left view does not see rows 2 and 3."""
    obs: dict[str, ArraySpec] = {"gripper_open": ArraySpec((1,))}
    rows = {"gripper_open": np.array([1, 1, 1, 0, 0, 0], np.float32)[:, None]}
    for view in ("left", "right"):
        obs |= {f"{view}_image": ArraySpec((96, 128, 3), "uint8"), f"tracks/{view}": ArraySpec((5, 2))}
        rows |= {f"{view}_image": np.zeros((ROWS, 96, 128, 3), np.uint8), f"tracks/{view}": np.tile(POINTS, (ROWS, 1, 1))}
        if embodiment == "human":
            obs |= {f"valid/{view}": ArraySpec((1,), "uint8"), f"hand/{view}": ArraySpec((21, 2))}
            seen = np.ones((ROWS, 1), np.uint8)
            seen[2:4] = view == "right"
            rows |= {f"valid/{view}": seen, f"hand/{view}": np.full((ROWS, 21, 2), 50, np.float32)}
    made = EpisodeSet.create(path, Spec(obs, ArraySpec((0,)), hz=10.0), task="", env={})
    for name in ("a", "b"):
        made.append(rows, embodiment=embodiment, source=f"<{name}>", right_hand=1)
    return made


def test_points_are_drawn_where_they_are_in_their_colours(tmp_path: Path) -> None:
    made = write(tmp_path / "set.zarr")
    first, _, filled, *_ = _tracks_overlay.frames(made, 0, height=192)
    assert first.shape == (192 + 22, 2 * 256, 3)
    for point in POINTS:
        u, v = np.round((point + 0.5) * 2 - 0.5).astype(int)
        assert first[v, u].max() > 150 and first[v, u + 256].max() > 150
    u, v = np.round((POINTS[3] + 0.5) * 2 - 0.5).astype(int)
    assert np.abs(first[v, u].astype(int) - _tracks_overlay.COLOURS["right2"]).max() < 5
    assert not np.array_equal(first[:192, :256], filled[:192, :256]), "a ring where it was filled in"
    assert np.array_equal(first[:192, 256:], filled[:192, 256:]), "the other view saw it"


@pytest.mark.parametrize("embodiment", ["human", "robot"])
def test_the_page_holds_every_episode_and_its_video_plays(tmp_path: Path, embodiment: str) -> None:
    write(tmp_path / "set.zarr", embodiment)
    flags = ["tracks", "view", str(tmp_path / "set.zarr"), "--height", "96", "--json", str(tmp_path / "v.json")]
    assert cli.main(flags) == 0
    out = tmp_path / "set_view"
    text = (out / "index.html").read_text()
    assert text.count("<video") == 2 and "&lt;a&gt;" in text and "<a>" not in text, "what a file is called cannot become HTML"
    clip = clips.probe(out / "episode_1.mp4")
    assert clip.size == (256, 118) and clip.fps == 10.0
    rows = json.loads((tmp_path / "v.json").read_text())["rows"]
    share = 4 / 6 if embodiment == "human" else 1.0
    assert rows[0]["seen"] == {"left": pytest.approx(share), "right": 1.0} and rows[0]["closed"] == 0.5
    assert cli.main(flags) == 2, "an old page is not replaced unasked"
    assert cli.main([*flags, "--overwrite", "--episodes", "1"]) == 0
    assert not (out / "episode_0.mp4").exists()


def test_spans_that_were_not_seen_are_shares_of_the_episode() -> None:
    seen = {"left": np.array([0, 1, 1, 0, 0, 1, 1, 0, 1, 1], bool), "right": np.ones(10, bool)}
    assert [(a, b) for a, b, _ in _tracks_overlay.unseen_spans(seen)] == [(0.0, 0.1), (0.3, 0.5), (0.7, 0.8)]


def test_what_cannot_be_drawn_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "set.zarr")
    assert cli.main(["tracks", "view", str(tmp_path / "set.zarr"), "--episodes", "7"]) == 2
    assert "no episode 7, the set has 2" in capsys.readouterr().err
    plain = Spec({"point": ArraySpec((2,))}, ArraySpec((2,)), hz=10.0)
    EpisodeSet.create(tmp_path / "plain.zarr", plain, task="", env={})
    assert cli.main(["tracks", "view", str(tmp_path / "plain.zarr")]) == 2
    assert "want a set with tracks/VIEW, as `tracks extract` writes it, got point, action" in capsys.readouterr().err
    assert cli.main(["tracks", "view", str(tmp_path / "set.zarr"), "--height", "33"]) == 2
    assert "height: want an even number of at least 64, got 33" in capsys.readouterr().err


def test_a_point_outside_the_picture_is_drawn_nowhere_and_breaks_nothing() -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    _tracks_overlay._dot(picture, np.array([1e9, -1e9]), (255, 255, 255), True, True)
    _tracks_overlay._lines(picture, np.array([[1e9, 0.0], [0.0, 1e9]]), [(0, 1)], (255, 255, 255), 1)
    assert picture[-1].max() == 0
