"""Which videos make which episode: from the files, folders and patterns that a user names to one video a view."""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from robolearn.errors import BadInput, ConfigError
from robolearn.video.clips import SUFFIXES

PLAIN = "front"  # the view of videos that are named without one


@dataclass(frozen=True)
class Source:
    """The videos of one episode by view, and the object's masks by view, where there are any."""

    videos: Mapping[str, Path]
    masks: Mapping[str, Path]

    @property
    def name(self) -> str:
        """Returns what tells this episode from all others of the set."""
        return "; ".join(f"{view}={path}" for view, path in self.videos.items())


def sources(plain: Sequence[Path], views: Sequence[str], masks: Sequence[str]) -> list[Source]:
    """Returns the episodes in the order of their files' names; BadInput where a view lacks a video.

    plain: files, folders or patterns of single videos; views, masks: VIEW=the same, for videos that belong together.
    """
    if bool(plain) == bool(views):
        raise ConfigError("tracks extract: want videos, or --view NAME=VIDEOS for every view, and not both")
    named = _named(views, "view") if views else {PLAIN: plain}
    files = {view: _files(patterns, f"view {view}", SUFFIXES) for view, patterns in named.items()}
    masked = {view: _files(found, f"masks of {view}", ()) for view, found in _named(masks, "masks").items()}
    for view, found in masked.items():
        if view not in files or len(found) != len(files[view]):
            want = f"{len(files[view])}, one a video" if view in files else f"one of the views {', '.join(files)}"
            raise BadInput(f"masks: {view}: want {want}, got {len(found)} files")
    if masked and set(masked) != set(files):
        raise BadInput(f"masks: want them for every view ({', '.join(files)}), got {', '.join(masked)}")
    paired = _paired(files)
    of_video = {video: mask for view in masked for video, mask in zip(files[view], masked[view], strict=True)}
    return [Source(videos, {view: of_video[path] for view, path in videos.items() if path in of_video}) for videos in paired]


def _named(words: Sequence[str], flag: str) -> dict[str, list[Path]]:
    """Returns patterns by view from VIEW=PATTERN."""
    found: dict[str, list[Path]] = {}
    for word in words:
        view, equals, pattern = word.partition("=")
        if not equals:  # a shell has turned VIEW=*.mp4 into several words
            raise ConfigError(f"--{flag}: want VIEW=VIDEOS, such as left='clips/*_left.mp4', got '{word}'")
        if not view.isidentifier():
            raise ConfigError(f"--{flag}: want a view's name of letters, digits and _, got '{view}'")
        found.setdefault(view, []).append(Path(pattern))
    return found


def _files(patterns: Sequence[Path], what: str, suffixes: Sequence[str]) -> list[Path]:
    """Returns files in the order of their names; a folder stands for the videos in it."""
    found: list[Path] = []
    for pattern in patterns:
        if pattern.is_dir():
            inside = sorted(path for path in pattern.iterdir() if path.is_file())
            found += [path for path in inside if not suffixes or path.suffix.lower() in suffixes]
        elif glob.has_magic(str(pattern)):
            found += [Path(name) for name in sorted(glob.glob(str(pattern)))]
        else:
            found.append(pattern)
    if not found:
        raise BadInput(f"{what}: want at least one file, {' '.join(map(str, patterns))} names none")
    doubled = sorted({path for path in found if found.count(path) > 1})
    if doubled:
        raise BadInput(f"{what}: {doubled[0]} is named twice")
    return found


def _paired(files: Mapping[str, Sequence[Path]]) -> list[dict[str, Path]]:
    """Returns the videos that belong together: of one name but for the view's, or else in the order of their names."""
    by_key = {view: {_key(path, view): path for path in found} for view, found in files.items()}
    keys = [set(found) for found in by_key.values()]
    if all(len(by_key[view]) == len(found) for view, found in files.items()) and set.intersection(*keys):
        for found in by_key.values():
            for other, names in by_key.items():
                lone = sorted(set(found) - set(names))
                if lone:
                    raise BadInput(f"{found[lone[0]]}: view '{other}' has no video for it (want one named like it)")
        return [{view: by_key[view][_key(path, first)] for view in files} for first in list(files)[:1] for path in files[first]]
    counts = {view: len(found) for view, found in files.items()}
    if len(set(counts.values())) > 1:
        raise BadInput(
            f"views: want one video a view and episode, got {', '.join(f'{n} of {view}' for view, n in counts.items())}"
        )
    return [dict(zip(files, videos, strict=True)) for videos in zip(*files.values(), strict=True)]


def _key(path: Path, view: str) -> str:
    return path.stem.replace(view, "").strip("_-. ")
