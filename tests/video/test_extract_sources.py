"""Which videos make an episode: by their names, else by their order, and a line where one is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from robolearn.apps._tracks_sources import sources
from robolearn.errors import BadInput, ConfigError


def files(folder: Path, *names: str) -> None:
    """Makes empty files."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def pairs(views: list[str]) -> list[tuple[str, ...]]:
    """Returns the names of the files of every episode."""
    return [tuple(path.name for path in source.videos.values()) for source in sources((), views, ())]


def test_videos_of_one_name_but_for_the_view_belong_together(tmp_path: Path) -> None:
    files(tmp_path, "b_right.mp4", "a_left.mp4", "b_left.mp4", "a_right.mp4", "notes.txt")
    found = pairs([f"left={tmp_path}/*_left.mp4", f"right={tmp_path}/*_right.mp4"])
    assert found == [("a_left.mp4", "a_right.mp4"), ("b_left.mp4", "b_right.mp4")]


def test_folders_of_one_view_each_are_paired_by_name_and_else_by_order(tmp_path: Path) -> None:
    files(tmp_path, "left/2.mp4", "left/10.mp4", "right/10.MOV", "right/2.MOV", "left/readme.md")
    assert pairs([f"left={tmp_path}/left", f"right={tmp_path}/right"]) == [("10.mp4", "10.MOV"), ("2.mp4", "2.MOV")]
    files(tmp_path, "cam0/0001.avi", "cam0/0002.avi", "cam1/a.avi", "cam1/b.avi")
    assert pairs([f"left={tmp_path}/cam0", f"right={tmp_path}/cam1"]) == [("0001.avi", "a.avi"), ("0002.avi", "b.avi")]


def test_single_videos_are_episodes_of_one_view(tmp_path: Path) -> None:
    files(tmp_path, "b.mp4", "a.mp4", "c.webm")
    found = sources([tmp_path], (), ())
    assert [source.videos["front"].name for source in found] == ["a.mp4", "b.mp4", "c.webm"]
    assert found[0].name == f"front={tmp_path}/a.mp4"


def test_a_masks_file_belongs_to_the_video_in_its_place(tmp_path: Path) -> None:
    files(tmp_path, "l/a.mp4", "l/b.mp4", "r/a.mp4", "r/b.mp4", "ml/1.npz", "ml/2.npz", "mr/1.mp4", "mr/2.mp4")
    views = [f"left={tmp_path}/l", f"right={tmp_path}/r"]
    _, second = sources((), views, [f"left={tmp_path}/ml", f"right={tmp_path}/mr"])
    assert {view: path.name for view, path in second.masks.items()} == {"left": "2.npz", "right": "2.mp4"}
    with pytest.raises(BadInput, match=r"masks: want them for every view \(left, right\), got left"):
        sources((), views, [f"left={tmp_path}/ml"])
    with pytest.raises(BadInput, match=r"masks: left: want 2, one a video, got 1 files"):
        sources((), views, [f"left={tmp_path}/ml/1.npz", f"right={tmp_path}/mr"])


def test_what_does_not_fit_is_one_line(tmp_path: Path) -> None:
    files(tmp_path, "l/a.mp4", "l/b.mp4", "r/a.mp4", "s/x.mp4", "s/y.mp4", "s/z.mp4")
    with pytest.raises(BadInput, match=r"l/b.mp4: view 'right' has no video for it"):
        pairs([f"left={tmp_path}/l", f"right={tmp_path}/r"])
    with pytest.raises(BadInput, match="want one video a view and episode, got 2 of left, 3 of right"):
        pairs([f"left={tmp_path}/l", f"right={tmp_path}/s"])
    with pytest.raises(ConfigError, match="want videos, or --view NAME=VIDEOS for every view, and not both"):
        sources([tmp_path / "l"], [f"left={tmp_path}/l"], ())
    with pytest.raises(ConfigError, match=r"--view: want VIEW=VIDEOS, such as .*, got 'clips'"):
        pairs(["clips"])
    with pytest.raises(ConfigError, match="want a view's name of letters, digits and _, got 'a b'"):
        pairs([f"a b={tmp_path}/l"])
    with pytest.raises(BadInput, match=r"view left: want at least one file, .*none\*\.mp4 names none"):
        pairs([f"left={tmp_path}/none*.mp4"])
    with pytest.raises(BadInput, match="is named twice"):
        sources([tmp_path / "l", tmp_path / "l/a.mp4"], (), ())
