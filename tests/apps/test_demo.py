"""`robolearn demo`, small and honest: it learns; interrupted, it goes on; finished, it says so and changes nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from robolearn.apps import _video, demo, train
from robolearn.cli import main


def test_one_demonstration_teaches_lifting_over_an_interruption(tmp_path: Path, shared: Path, monkeypatch, capsys):
    source = shared / "data" / "robosuite_human_demos" / "1.0.1"
    args = ["demo", "--out", str(tmp_path / "run"), "--demos", str(tmp_path / "demos"), "--source", str(source)]
    args += ["--expanded", "30", "--steps", "200", "--episodes", "10", "--workers", "1"]
    load = train.load

    def smaller(path):
        """A network that learns as much in a third of the time, if it has only so few steps."""
        preset = load(path)
        return dataclasses.replace(preset, policy=dataclasses.replace(preset.policy, width=192, depth=3), lr=3e-3, warmup=20)

    def interrupted(cfg):
        raise KeyboardInterrupt

    frames = _video.frames
    monkeypatch.setattr(_video, "frames", lambda body, actions: frames(body, actions[:3]))  # a picture takes 50 ms
    monkeypatch.setattr(train, "load", smaller)
    with monkeypatch.context() as patch:
        patch.setattr(train, "run", interrupted)
        assert main(args) == 130
    made = tmp_path / "demos" / "demo_lift.zarr"
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    assert main(args) == 0
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}, "nothing is expanded twice"

    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert (report["task"], report["source_demonstrations"], report["expanded"], report["n"]) == ("lift", 1, 30, 10)
    assert report["successes"] >= 5, "30 episodes out of one demonstration and 200 steps solve most unseen ones (15 of 20)"
    assert (
        len(report["wilson95"]) == 2 and report["wall_s"] >= sum(demo.seconds(demo.Config(demos=tmp_path / "demos")).values()) - 1
    )
    page = (tmp_path / "run" / "report.html").read_text()
    assert "http://" not in page and "https://" not in page, "the page opens offline"
    assert (tmp_path / "run" / "video.mp4").stat().st_size > 10_000
    capsys.readouterr()
    assert main(args) == 0
    assert "made before; --overwrite begins anew" in capsys.readouterr().out
