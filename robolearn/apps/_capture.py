"""Take pictures of a board by hand, guided: a picture is taken when the board is still and new; what is missing is said."""

from __future__ import annotations

import contextlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml

from hardware._base import CAMERAS, FrameSource, make
from hardware._errors import TransportLost
from hardware.devices._tty import Keys
from robolearn import config
from robolearn.errors import AlreadyExists, BadInput, HardwareError, UnknownName
from robolearn.video.calibration.boards import Board, Sighting, detect
from robolearn.video.calibration.coverage import Coverage, still

_WAIT_S = 0.5  # for a frame
_BLIND_S = 5.0  # without one, until the camera counts as gone
_FEW = 3  # wishes that are said at a time


@dataclass
class Taking:
    """What has been taken. coverage: by view; count: pictures of each view; before: what the last frames showed, by view."""

    board: Board
    folder: Path
    coverage: dict[str, Coverage]
    count: int = 0
    before: dict[str, Sighting] = field(default_factory=dict)

    def offer(self, images: Mapping[str, np.ndarray]) -> str:
        """Takes the pictures of one time if they will do, and returns in a few words what happened to them."""
        seen = {view: detect(self.board, image) for view, image in images.items()}
        was, self.before = self.before, seen
        lost = [view for view, found in seen.items() if not len(found)]
        if lost:
            return f"no board in {', '.join(lost)}"
        if not all(view in was and still(was[view], found) for view, found in seen.items()):
            return "hold it still"
        if not any(self.coverage[view].is_new(found) for view, found in seen.items()):
            return "move on"
        self.count += 1
        for view, image in images.items():
            path = self.folder / view / f"{self.count:03d}.png"
            cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
            self.coverage[view].add(seen[view])
        return f"taken {self.count}"

    def missing(self) -> list[str]:
        """Returns what is still wanted, by view where there are several."""
        several = len(self.coverage) > 1
        wishes = {view: coverage.missing() for view, coverage in self.coverage.items()}
        return [f"{view}: {wish}" if several else wish for view, wanted in wishes.items() for wish in wanted]


def take(
    board: Board, cameras: Mapping[str, FrameSource], folder: Path, seconds: float, overwrite: bool
) -> dict[str, list[Path]]:
    """Connects the cameras, by view, leads through the pictures and returns them by view."""
    for view in cameras:
        prepare(folder / view, overwrite)
    try:
        for camera in cameras.values():
            camera.connect()
        taking = Taking(board, folder, {view: Coverage(board, camera.size) for view, camera in cameras.items()})
        until = time.monotonic() + seconds if seconds else math.inf
        with entered() as stopped:
            lead(taking, cameras, lambda: stopped() or time.monotonic() > until)
    finally:
        for camera in cameras.values():
            camera.close()
    if not taking.count:
        raise BadInput(f"no picture was taken: want {board} held still where {' and '.join(cameras)} can see all of it")
    return {view: sorted((folder / view).glob("*.png")) for view in cameras}


def lead(taking: Taking, cameras: Mapping[str, FrameSource], stopped: Callable[[], bool]) -> None:
    """Takes pictures until they will do, `stopped` says so, or a camera is gone, in which case those taken remain."""
    line = Line()
    while taking.missing() and not stopped():
        try:
            images = {view: frame_of(view, camera) for view, camera in cameras.items()}
        except TransportLost as error:
            if not taking.count:
                raise
            line.end()
            config.warn(f"{error}; going on with the {taking.count} pictures taken")
            return
        word = taking.offer(images)
        line.show(word, taking)
    line.end()


class Line:
    """What a person sees: one line that changes, and the cells of the picture after each picture taken."""

    def __init__(self) -> None:
        self._live, self._shown = sys.stdout.isatty(), 0

    def show(self, word: str, taking: Taking) -> None:
        """Shows what happened, and what is missing most."""
        text = f"{word:<18} missing: {'; '.join(taking.missing()[:_FEW]) or 'nothing'}"
        if taking.count > self._shown:
            self._shown = taking.count
            self.end()
            cells = zip(*(coverage.drawn() for coverage in taking.coverage.values()), strict=True)
            print("\n".join(["   ".join(row) for row in cells] + [text]))
        elif self._live:
            print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)

    def end(self) -> None:
        """Leaves the line that changes as it is."""
        if self._live:
            print()


def frame_of(view: str, camera: FrameSource) -> np.ndarray:
    """Returns the next picture of a camera; HardwareError where none comes."""
    for _ in range(round(_BLIND_S / _WAIT_S)):
        frame = camera.read(_WAIT_S)
        if frame is not None:
            return frame.image
    raise HardwareError(f"{view}: want a picture, got none for {_BLIND_S:g} s; is the camera plugged in?")


def opened(cameras: Sequence[tuple[str, str]], fields: Sequence[str]) -> dict[str, FrameSource]:
    """Returns the cameras (view, driver), not connected, with fields VIEW.FIELD=VALUE set."""
    settings: dict[str, dict[str, Any]] = {view: {} for view, _ in cameras}
    for text in fields:
        name, equals, value = text.partition("=")
        view, dot, key = name.partition(".")
        if not (equals and dot):
            raise BadInput(f"--capture-set {text}: want VIEW.FIELD=VALUE, such as left.path=/dev/video0")
        if view not in settings:
            raise UnknownName("view", view, settings, where=f"--capture-set {text}")
        settings[view][key] = yaml.safe_load(value)
    if len(settings) < len(cameras):
        raise BadInput("--capture: a view is given twice; want another name for each camera")
    return {view: make(CAMERAS, driver, settings[view], "camera") for view, driver in cameras}


def prepare(folder: Path, overwrite: bool) -> None:
    """Makes an empty folder for pictures; AlreadyExists where it has some and they may not be replaced."""
    old = sorted(folder.glob("*.png"))
    if old and not overwrite:
        raise AlreadyExists(folder, "folder of pictures")
    for path in old:
        path.unlink()
    folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def entered() -> Iterator[Callable[[], bool]]:
    """Yields what says whether Enter has been pressed; never where there is no terminal."""
    if not sys.stdin.isatty():
        yield lambda: False
        return
    with Keys() as keys:
        yield lambda: "enter" in keys.read()
