"""Plain folders: numbers keep every digit, pictures find their rows, and what does not fit is refused with its place."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from small_sets import make

from robolearn.core import ArraySpec, Spec
from robolearn.data.convert import _folder_csv, _pictures, folder
from robolearn.data.convert._copy import Options
from robolearn.data.store import EpisodeSet
from robolearn.errors import DatasetError

SPEC = Spec(
    {"state": ArraySpec((2,), names=("x", "y"), unit="m"), "points": ArraySpec((2, 2)), "top": ArraySpec((16, 24, 3), "uint8")},
    ArraySpec((2,), "float64"),
    10.0,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> EpisodeSet:
    return make(tmp_path_factory.mktemp("folder") / "set.zarr", (5, 9), SPEC)


@pytest.mark.parametrize("images", ["png", "jpeg", "video"])
def test_a_round_trip_keeps_numbers_units_and_facts(source, images, tmp_path) -> None:
    lost = folder.write(source, tmp_path / "f", options=Options(images=images))
    assert (lost == ()) == (images == "png") and folder.read(tmp_path / "f", tmp_path / "back.zarr") == ()
    again = EpisodeSet.open(tmp_path / "back.zarr")
    assert again.spec == source.spec and again.keys == source.keys and again.env == source.env
    for key in (*(k for k in source.keys if k != "top"), *(("top",) if images == "png" else ())):
        np.testing.assert_array_equal(again.read(key), source.read(key))
    np.testing.assert_array_equal(again.episode_field("seed"), source.episode_field("seed"))


@given(arrays.arrays(np.float32, (4,), elements=st.floats(width=32, allow_nan=False)), st.integers(-(2**63), 2**63 - 1))
def test_text_keeps_every_float_and_every_nanosecond(values: np.ndarray, time: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "a.csv"
        clock, wide = np.full(4, time, np.int64), values.astype(np.float64) / 3
        _folder_csv.write_table(path, {"v": values, "t": clock, "w": wide})
        table = _folder_csv.read_table(path)
        np.testing.assert_array_equal(_folder_csv.values(table, ["v"], "float32")[:, 0], values)
        np.testing.assert_array_equal(_folder_csv.values(table, ["t"], "int64")[:, 0], clock)
        np.testing.assert_array_equal(_folder_csv.values(table, ["w"], "float64")[:, 0], wide)


def picture(number: int) -> np.ndarray:
    return np.full((16, 24, 3), 10 * number, np.uint8)


def strangers(root: Path, rows: int = 6, frames: int = 6, episodes: int = 2) -> Path:
    """Writes folders as a person would: a CSV with times and grouped columns, and numbered pictures of grey 10 * i."""
    for index in range(episodes):
        place = root / f"take {index + 1}"
        (place / "wrist").mkdir(parents=True)
        lines = ["timestamp,state.x,state.y,action.0,action.1,reward"]
        lines += [f"{k * 0.05:.3f},{k * 0.1:.2f},{-k},{k * 0.123456789012:.12f},0.5,{k}" for k in range(rows)]
        (place / "log.csv").write_text("\n".join(lines) + "\n")
        for k in range(frames):
            cv2.imwrite(str(place / "wrist" / f"frame{k}.png"), picture(k))
    return root


def test_a_strangers_folders_are_grouped_by_prefix_and_timed_by_their_column(tmp_path) -> None:
    lost = folder.read(strangers(tmp_path / "f", rows=12, frames=12), tmp_path / "a.zarr", task="toy")
    made = EpisodeSet.open(tmp_path / "a.zarr")
    assert made.hz == 20.0 and made.n_episodes == 2 and set(made.spec.obs) == {"state", "wrist"}
    assert made.spec.obs["state"].names == ("x", "y") and made.keys["action"].dtype == "float64"
    assert made.keys["state"].dtype == "float32" and made.keys["timestamp"].unit == "s" and "reward" in made.keys
    assert made.read("wrist")[:, 0, 0, 0].tolist() == [10 * k for k in range(12)] * 2  # frame10 comes after frame9
    assert made.episode_field("source").tolist() == ["take 1", "take 2"] and any("units" in what for what in lost)


def test_pictures_with_times_of_their_own_go_to_the_nearest_row(tmp_path) -> None:
    root = strangers(tmp_path / "f", rows=6, frames=4, episodes=1)
    times = [0.0, 0.06, 0.16, 0.24]
    (root / "take 1/wrist_timestamps.csv").write_text("timestamp\n" + "\n".join(map(str, times)) + "\n")
    lost = folder.read(root, tmp_path / "a.zarr")
    rows = np.arange(6) * 0.05
    want = [10 * int(np.argmin(np.abs(np.array(times) - t))) for t in rows]
    assert EpisodeSet.open(tmp_path / "a.zarr").read("wrist")[:, 0, 0, 0].tolist() == want
    assert "the times of 'wrist': its pictures lie up to 40 ms from their rows" in lost


def test_a_video_of_variable_rate_is_decoded_by_presentation_time(tmp_path) -> None:
    from fractions import Fraction

    import av

    root = strangers(tmp_path / "f", rows=6, frames=6, episodes=1)
    shutil.rmtree(root / "take 1/wrist")
    with av.open(str(root / "take 1/wrist.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.height, stream.width, stream.pix_fmt = 16, 24, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for k, time in enumerate((0, 40, 130, 140, 220, 300)):
            frame = av.VideoFrame.from_ndarray(picture(k), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    folder.read(root, tmp_path / "a.zarr")
    got = EpisodeSet.open(tmp_path / "a.zarr").read("wrist")[:, 8, 12, 1].astype(int)
    assert np.abs(got - 10 * np.arange(6)).max() <= 4
    np.testing.assert_allclose(_pictures.all_times(root / "take 1/wrist.mp4"), [0, 0.04, 0.13, 0.14, 0.22, 0.3], atol=1e-3)


def rewrite(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: rewrite(f / "take 2/log.csv", "0.100,", "nan,"), "log.csv:4: timestamp: want a time, got NaN"),
        (lambda f: rewrite(f / "take 2/log.csv", "0.100,", "0.020,"), "log.csv:4: timestamp: does not rise"),
        (lambda f: rewrite(f / "take 1/log.csv", "0.20,-2", "fast,-2"), "log.csv:4: state.x: want float64, got 'fast'"),
        (lambda f: rewrite(f / "take 2/log.csv", "state.y", "state.z"), "want the columns of the first folder"),
        (
            lambda f: rewrite(f / "take 1/log.csv", "0.5,5\n", ""),
            "log.csv:7: want 6 cells as in the first line, got 5",
        ),
        (lambda f: (f / "take 2/wrist/frame3.png").unlink(), "wrist has 5 pictures, log.csv 6 rows; add wrist_timestamps.csv"),
        (lambda f: (f / "take 2/other.csv").write_text("a\n1\n"), "want one CSV of numbers, got log.csv, other.csv"),
        (lambda f: shutil.rmtree(f / "take 2/wrist"), "want the cameras wrist, got none"),
        (lambda f: (f / "take 1/wrist/frame0.png").write_bytes(b"\x89PNG half"), "want a PNG or JPEG"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(tmp_path, change, message) -> None:
    change(strangers(tmp_path / "f"))
    with pytest.raises(DatasetError, match=message) as caught:
        folder.read(tmp_path / "f", tmp_path / "a.zarr")
    assert "\n" not in str(caught.value) and not (tmp_path / "a.zarr").exists()


def test_folders_without_actions_or_a_rate_say_what_they_lack(tmp_path) -> None:
    (tmp_path / "f/one").mkdir(parents=True)
    (tmp_path / "f/one/a.csv").write_text("state.x,action.0\n1,2\n3,4\n")
    with pytest.raises(DatasetError, match=r"no column 'timestamp' .* give --hz"):
        folder.scan(tmp_path / "f")
    assert folder.scan(tmp_path / "f", hz=5.0).spec.hz == 5.0
    (tmp_path / "f/one/a.csv").write_text("state.x,effort\n1,2\n")
    with pytest.raises(DatasetError, match=r"want columns action.0, action.1, ..., got state.x, effort"):
        folder.scan(tmp_path / "f", hz=5.0)
