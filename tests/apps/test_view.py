"""The viewer without a browser: what its server answers, which plots it makes, how labels reach the disk; the contact sheet."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("nicegui", reason="robolearn[view] is not installed")

from starlette.applications import Starlette
from starlette.testclient import TestClient

from robolearn import cli
from robolearn.apps import _view_flags, data_view
from robolearn.apps._view_api import Api
from robolearn.apps._view_bands import bands
from robolearn.apps._view_flags import Flags, flags_of
from robolearn.apps._view_frames import Frames
from robolearn.apps._view_labels import Labels
from robolearn.apps._view_scene import Stage
from robolearn.apps._view_series import Series, panels, thinned
from robolearn.core import ArraySpec, Spec
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput
from sim_envs import _base
from tests.apps import view_sets


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("view") / "small.zarr"
    view_sets.make(path, states=False)
    return path


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A set of this test's own."""
    shutil.copytree(made, tmp_path / "mine.zarr")
    return tmp_path / "mine.zarr"


@pytest.fixture
def client(copy: Path) -> Callable[..., TestClient]:
    def opened(read_only: bool = False, flags: Flags | None = None) -> TestClient:
        dataset = EpisodeSet.open(copy)
        return TestClient(Starlette(routes=Api(dataset, Labels(dataset, read_only), flags or Flags()).routes()))

    return opened


def unpacked(content: bytes) -> list[np.ndarray]:
    count = int(np.frombuffer(content, "<u4", 1)[0])
    at, images = 4 + 4 * count, []
    for length in np.frombuffer(content, "<u4", count, 4):
        images.append(cv2.imdecode(np.frombuffer(content, np.uint8, int(length), at), cv2.IMREAD_COLOR)[..., ::-1])
        at += int(length)
    return images


def test_small_pictures_come_back_bit_equal(client: Callable[..., TestClient], copy: Path) -> None:
    answer = client().get("/api/frames", params={"key": "wrist_image", "episode": 1, "first": 20, "count": 32})
    images = unpacked(answer.content)
    start, stop = EpisodeSet.open(copy).span(1)
    assert np.array_equal(np.stack(images), EpisodeSet.open(copy).read("wrist_image", start + 20, stop))


def test_frames_across_chunks_equal_the_set(made: Path) -> None:
    dataset = EpisodeSet.open(made)
    frames = Frames(dataset)
    for start, stop in ((0, 1), (14, 19), (0, dataset.n_steps), (dataset.n_steps - 1, dataset.n_steps)):
        assert np.array_equal(frames.read("front_image", start, stop), dataset.read("front_image", start, stop))


def test_the_pictures_held_stay_within_their_bound(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robolearn.apps._view_frames._HELD_BYTES", 40_000)
    frames = Frames(EpisodeSet.open(made))
    frames.read("front_image", 0, 90)
    assert 0 < frames._held <= 40_000


def test_curves_are_the_numbers_of_the_set(client: Callable[..., TestClient], copy: Path) -> None:
    api = client()
    about = api.get("/api/set").json()
    panel = next(panel for panel in about["panels"] if panel["title"] == "eef_pos · action")
    answer = api.get("/api/series", params={"panel": panel["id"], "episode": 0, "first": 5, "last": 30, "points": 400})
    rows, *lines = np.frombuffer(answer.content, "<f4").reshape(1 + len(panel["lines"]), -1)
    assert rows.tolist() == list(range(5, 30))
    episode = EpisodeSet.open(copy).episode(0)
    for line, values in zip(panel["lines"], lines, strict=True):
        assert np.array_equal(values, episode[line["key"]][5:30, line["column"]])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300), st.integers(4, 60))
def test_thinned_curves_keep_their_extremes_and_their_order(values: list[float], points: int) -> None:
    rows, thin = thinned(np.array([values]), points)
    assert thin.min() == min(values) and thin.max() == max(values)
    assert (np.diff(rows) >= 0).all() and len(rows) == thin.shape[1] <= max(points, len(values) if len(values) <= points else 0)


def test_thinned_curves_leave_gaps_where_there_is_no_number() -> None:
    values = np.concatenate([np.ones(50), np.full(100, np.nan), np.ones(50)])[None]
    assert np.isnan(thinned(values, 40)[1]).any()


def test_an_action_lies_over_the_observation_of_its_space() -> None:
    keys = {
        "state": ArraySpec((3,), names=("agent_x", "agent_y", "block_angle"), unit="px, rad"),
        "action": ArraySpec((2,), names=("x", "y"), unit="px"),
        "action_sent": ArraySpec((2,), names=("x", "y"), unit="px"),
        "img": ArraySpec((96, 96, 3), "uint8"),
    }
    first, second = panels(keys)
    assert [(line.key, line.name, line.colour) for line in first.lines] == [
        ("state", "agent_x", 0),
        ("state", "agent_y", 1),
        ("action", "x", 0),
        ("action", "y", 1),
        ("action_sent", "x", 0),
        ("action_sent", "y", 1),
    ]
    assert (first.unit, second.unit, second.lines[0].name) == ("px", "rad", "block_angle")


@given(st.integers(1, 200), st.sampled_from(["", "m", "m, rad", "ns"]))
def test_every_number_of_a_key_is_in_one_plot(size: int, unit: str) -> None:
    found = [line.column for panel in panels({"key": ArraySpec((size,), unit=unit)}) for line in panel.lines]
    assert sorted(found) == list(range(size))


def test_a_clock_is_drawn_as_its_intervals_and_gives_the_time(made: Path) -> None:
    series = Series(EpisodeSet.open(made))
    assert series.episode("t_monotonic", 0)[[1, 20], 0].tolist() == [50.0, 250.0]
    times = series.times(0)
    assert times is not None and times[0] == 0 and times[20] == pytest.approx(1.2)


def test_bands_say_who_acted_and_where_a_clock_strays(made: Path) -> None:
    lanes = {lane["name"]: lane["runs"] for lane in bands(EpisodeSet.open(made), 0)}
    assert [(run["first"], run["last"], run["name"]) for run in lanes["source"]] == [(0, 19, "policy"), (20, 39, "operator")]
    assert lanes["intervention"] == [{"first": 11, "last": 14, "name": "intervention"}]
    assert [run["first"] for run in lanes["clock"]] == [20]


def test_a_label_is_on_the_disk_for_another_process_and_can_be_undone(client: Callable[..., TestClient], copy: Path) -> None:
    api = client()
    for episode, label in ((2, "failure"), (2, "partial")):
        assert api.post("/api/label", json={"episode": episode, "label": label, "by": "Anna"}).status_code == 200
    code = (
        "import sys, zarr; meta = zarr.open_group(sys.argv[1], mode='r')['meta']\n"
        "print(*(bytes(meta[f'episode_{n}'][2]).rstrip(b'\\0').decode() for n in ('label', 'label_by', 'label_time')))"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(copy)], capture_output=True, text=True, check=True).stdout.split()
    assert shown[:2] == ["partial", "reviewer:Anna"] and shown[2].startswith("20")
    assert api.post("/api/undo", json={}).json()["label"]["label"] == "failure"
    assert api.post("/api/undo", json={}).json()["can_undo"] is False
    assert api.post("/api/undo", json={}).json()["episode"] is None
    assert EpisodeSet.open(copy).episode_field("label").tolist() == ["", "", ""]
    assert EpisodeSet.open(copy).episode_field("label_by").tolist() == ["", "", ""]


def test_labels_are_refused_with_the_reason(client: Callable[..., TestClient], made: Path) -> None:
    asked = {"episode": 0, "label": "success", "by": "Anna"}
    answer = client(read_only=True).post("/api/label", json=asked)
    assert answer.status_code == 400 and "--read-only" in answer.json()["error"]
    assert "reviewer's name" in client().post("/api/label", json={**asked, "by": " "}).json()["error"]
    assert "want one of" in client().post("/api/label", json={**asked, "label": "fine"}).json()["error"]
    assert "no episode 9" in client().post("/api/label", json={**asked, "episode": 9}).json()["error"]
    assert "unpack" in Labels(_zipped(made)).closed


def _zipped(path: Path) -> EpisodeSet:
    return EpisodeSet.open(shutil.make_archive(str(path.with_name("packed")), "zip", path))


def test_another_sites_page_cannot_set_a_label(client: Callable[..., TestClient], copy: Path) -> None:
    body = json.dumps({"episode": 0, "label": "success", "by": "x"})
    answer = client().post("/api/label", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 400 and EpisodeSet.open(copy).episode_field("label") is None


def test_a_set_that_another_process_shortened_takes_no_label(copy: Path) -> None:
    labels = Labels(EpisodeSet.open(copy))
    shutil.rmtree(copy)
    view_sets.make(copy, states=False)
    ends = EpisodeSet.open(copy, writable=True)
    ends._group["meta/episode_ends"][0] = 39
    with pytest.raises(BadInput, match="changed by another process"):
        labels.set(0, "success", "Anna")


def test_bad_questions_are_one_line(client: Callable[..., TestClient]) -> None:
    api = client()
    asked = [
        "frames?key=top&episode=0&first=0&count=1",
        "frames?key=front_image&episode=0&first=99&count=1",
        "frames?key=front_image&episode=7&first=0&count=1",
        "series?panel=99&episode=0&first=0&last=1&points=9",
        "episode?episode=x",
        "episode",
        "poses?episode=0&first=0&count=1",
    ]
    for question in asked:
        answer = api.get(f"/api/{question}")
        assert answer.status_code == 400 and "\n" not in answer.json()["error"], question
    assert api.get("/view/_view_api.py").status_code == 404
    assert "neither 'sim_state' nor joint angles" in api.get("/api/scene").json()["why"]


def test_flags_come_from_a_report_of_either_kind(made: Path, tmp_path: Path) -> None:
    dataset, report = EpisodeSet.open(made), tmp_path / "check.json"
    old = {
        "episodes": [{"episode": i, "flags": ["frozen: front_image, rows 3 to 9 are one picture"] * (i == 1)} for i in range(3)]
    }
    report.write_text(json.dumps(old))
    assert flags_of(dataset, report).episodes[1][0]["first"] == 3
    new = [{"episode": i, "flags": [], "flag_rows": [{"code": "late", "rows": [2, 4], "key": "", "text": "t"}]} for i in range(3)]
    report.write_text(json.dumps({"episodes": new, "set_flags": ["constant: z"]}))
    flags = flags_of(dataset, report)
    assert flags.whole == ["constant: z"] and (flags.episodes[2][0]["first"], flags.episodes[2][0]["last"]) == (2, 4)
    report.write_text(json.dumps({"episodes": new[:1]}))
    with pytest.raises(BadInput, match="1 episodes"):
        flags_of(dataset, report)
    report.write_text("{}")
    with pytest.raises(BadInput, match="want a report"):
        flags_of(dataset, report)


@pytest.mark.parametrize(
    ("flag", "rows"),
    [
        ("nan: action row 12, 3 rows in all", (12, 12)),
        ("frozen: img, rows 3 to 9 are one", (3, 9)),
        ("short: 5 steps", (None, None)),
    ],
)
def test_rows_are_found_in_the_text_of_a_flag(flag: str, rows: tuple[int | None, int | None]) -> None:
    mark = _view_flags.parsed(flag)
    assert (mark["first"], mark["last"]) == rows and mark["code"] == flag.split(":")[0]


def test_a_set_too_large_to_check_unasked_says_how(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_view_flags, "_MOST_BYTES", 1000)
    flags = flags_of(EpisodeSet.open(made), None)
    assert flags.state == "none" and "--check check.json" in flags.why


def test_the_viewer_refuses_in_one_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["data", "view", str(made), "--port", str(port), "--no-open"]) == 2
    assert "another --port" in capsys.readouterr().err
    assert cli.main(["data", "view", str(made), "--episode", "9", "--no-open"]) == 2
    assert cli.main(["data", "view", str(tmp_path / "none.zarr")]) == 2


def test_without_nicegui_the_viewer_says_how_to_install_it(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from robolearn.errors import MissingDependency

    for name in [name for name in sys.modules if name.split(".")[0] == "nicegui" or name == "robolearn.apps._view_page"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("robolearn.apps._view_page", raising=False)
    monkeypatch.setitem(sys.modules, "nicegui", None)
    with pytest.raises(MissingDependency, match=r"robolearn\[view\]"):
        data_view.run(data_view.Config(made, open=False))


def test_the_scene_is_where_the_simulator_says(tmp_path: Path) -> None:
    env: Any = _base.make("lift")
    env.reset(3)
    states = []
    for k in range(2):
        env.data.qpos[env.arms[0].qpos[0]] = 0.3 * k
        states.append(env.state())
    spec = Spec({}, ArraySpec((1,)), 20.0)
    extra = {"sim_state": ArraySpec(states[0].shape, "float64")}
    made = EpisodeSet.create(tmp_path / "lift.zarr", spec, task="lift", env={}, extra=extra, durable=False)
    made.append({"sim_state": np.stack(states), "action": np.zeros((2, 1), np.float32)})
    stage = Stage(made)
    poses = stage.poses(0, 0, 9)
    assert not stage.why and poses.shape == (2, len(stage.shapes), 7)
    env.restore(states[1])
    shown = {tuple(np.round(position, 4)) for position in env.data.geom_xpos}
    assert {tuple(np.round(pose[:3].astype(float), 4)) for pose in poses[1]} <= shown
    assert np.abs(poses[1] - poses[0]).max() > 0.05 and np.allclose(np.linalg.norm(poses[..., 3:], axis=2), 1, atol=1e-5)
    assert all(np.allclose(np.linalg.norm(mesh["normals"], axis=1), 1, atol=1e-3) for mesh in stage.meshes.values())
    assert {shape["kind"] for shape in stage.shapes} >= {"mesh", "box"}


def test_a_contact_sheet_has_a_picture_of_every_episode(copy: Path, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    assert cli.main(["data", "sheet", str(copy), "--out", str(out), "--size", "48", "--columns", "2", "--rows", "1"]) == 0
    first = cv2.imread(str(out))
    assert first.shape == (8 + 48 + 40 + 8, 8 + 2 * (64 + 8), 3)
    assert first[20, 20].tolist() == [60, 60, 60] and first[20, 90].tolist() == [60, 61, 60]  # BGR of (row, episode, camera)
    assert cv2.imread(str(tmp_path / "sheet_2.png")).shape[1] == 8 + 64 + 8
    assert cli.main(["data", "sheet", str(copy), "--out", str(out)]) == 2
    page = tmp_path / "sheet.html"
    assert cli.main(["data", "sheet", str(copy), "--out", str(page), "--key", "wrist_image"]) == 0
    text = page.read_text()
    assert text.count("<img") == 3 and "http" not in text and 'class="failure">failure' in text
    assert cli.main(["data", "sheet", str(copy), "--out", str(tmp_path / "dry.png"), "--dry-run"]) == 0
    assert not (tmp_path / "dry.png").exists()
    assert cli.main(["data", "sheet", str(copy), "--key", "top"]) == 2
