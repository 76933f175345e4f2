"""Cameras of a scene in processes of their own: they look at its state and draw it, so that drawing never holds up the robot.

They give way to it, too: where the processor is short, physics, wire and driver come first, and pictures get older.

The pixels are those that the plain task shows for that state. A camera driver is given a `ScenePainter`, or finds the pictures at
an address, where `serve` hands them out.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection

import numpy as np

from hardware._camera_host import HostedCamera
from hardware._process import die_with_parent
from hardware.cameras.synthetic import PICTURE, Config, Synthetic
from robolearn.apps._scene import SceneConfig
from robolearn.apps._scene_body import Twin
from robolearn.apps._scene_link import SceneLink
from robolearn.errors import HardwareError, RobolearnError

_NICE = 5  # of a process that only draws
_READY_S = 60.0  # until a camera's process has built its copy of the task and opened a renderer


class ScenePainter:
    """Draws one camera of a scene, as `hardware.cameras.synthetic` wants it."""

    def __init__(self, address: str, camera: str, size: int, nice: int = 0) -> None:
        """address: of the scene; camera: as the task names it; size: of the square pictures [px].

        nice: of the process, from `open` on, where it is not nicer already; 0 in a process that does more than draw.
        """
        self._address, self._camera, self._size, self._nice = address, camera, size, nice
        self._link: SceneLink | None = None
        self._twin: Twin | None = None

    def open(self) -> None:
        """Connects to the scene, builds a copy of its task and draws once; HardwareError where there is no scene."""
        if self._nice > os.getpriority(os.PRIO_PROCESS, 0):
            os.setpriority(os.PRIO_PROCESS, 0, self._nice)
        self._link = SceneLink(self._address)
        self._twin = Twin(filmed(self._link.config, (self._camera,), self._size), self._link)
        self.shoot(0, 0)  # the first picture opens the renderer, which takes seconds

    def shoot(self, seq: int, t_ns: int) -> tuple[np.ndarray, int]:
        """Returns the picture of what there is now, and since when [monotonic ns]."""
        del seq, t_ns  # Unused: the picture is of when it is drawn.
        if self._twin is None:
            raise HardwareError("scene camera: connect first")
        return self._twin.read(f"{self._camera}_image")

    def close(self) -> None:
        """Lets go of the scene."""
        if self._link is not None and self._twin is not None:
            self._link.close()
            self._twin.close()
        self._link, self._twin = None, None


def filmed(config: SceneConfig, cameras: Sequence[str], size: int) -> SceneConfig:
    """Returns a scene's config with these cameras; size: of the square pictures [px]."""
    return replace(config, overrides={**config.overrides, "cameras": tuple(cameras), "image_size": size})


@dataclass(frozen=True)
class Film:
    """What is filmed: cameras as the task names them, their square pictures [px], how many a second."""

    cameras: tuple[str, ...]
    size: int = 84
    hz: float = 30.0


@contextmanager
def hosted(address: str, film: Film, run: str) -> Iterator[dict[str, HostedCamera]]:
    """Yields the cameras of the scene at `address` by observation key, each at work in a process; run: of `new_run`.

    HardwareError where one does not come up; those that did are closed then, and at the end.
    """
    with ExitStack() as opened:
        eyes = {}
        for camera in film.cameras:
            key = f"{camera}_image"
            eyes[key] = HostedCamera(key, partial(yielding, address, camera, film.size, film.hz), run)
            opened.callback(eyes[key].close)
            eyes[key].connect(_READY_S)
        yield eyes


def scene_camera(
    address: str,
    camera: str,
    size: int = 84,
    hz: float = 30.0,
    clock_ns: Callable[[], int] = time.monotonic_ns,
    sleep: Callable[[float], None] = time.sleep,
) -> Synthetic:
    """Returns the camera of a scene as a `FrameSource`, not connected: for a partial that `HostedCamera` takes."""
    return Synthetic(Config((size, size), hz), clock_ns, sleep, ScenePainter(address, camera, size))


def yielding(address: str, camera: str, size: int, hz: float) -> Synthetic:
    """Returns the camera of a scene for a process of its own, which gives way to the robot's once it is connected."""
    return Synthetic(Config((size, size), hz), time.monotonic_ns, time.sleep, ScenePainter(address, camera, size, _NICE))


class Served:
    """A process that draws one camera for whoever asks. address: where, "" until `ready`."""

    def __init__(self, scene: str, camera: str, size: int = 84) -> None:
        """scene: address of the scene, which must be served meanwhile; size: of the square pictures [px]."""
        self.camera, self.size, self.address = camera, size, ""
        context = multiprocessing.get_context("spawn")
        self._pipe, far = context.Pipe()
        self._process = context.Process(target=serve, args=(scene, camera, size, far, os.getpid()), daemon=True)
        self._process.start()
        far.close()

    def ready(self) -> bool:
        """Returns whether it has come up, without waiting; HardwareError in one line where it could not."""
        if not self.address and self._pipe.poll():
            try:
                said = self._pipe.recv_bytes().decode()
            except EOFError:
                said = "! its process has ended"
            if said.startswith("!"):
                raise HardwareError(f"camera {self.camera}: {said[1:].strip()}")
            self.address = said
        return bool(self.address)

    def close(self) -> None:
        """Ends the process; may be called twice."""
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5.0)
        self._pipe.close()


def serve(address: str, camera: str, size: int, pipe: Connection, parent: int) -> None:
    """Draws in this process until its parent ends; says its address, or "!" and why there is none."""
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    painter = ScenePainter(address, camera, size, _NICE)
    try:
        painter.open()
    except RobolearnError as error:
        pipe.send_bytes(f"! {error}".encode())
        return
    with socket.create_server((address.rpartition(":")[0], 0)) as listener:
        host, port = listener.getsockname()
        pipe.send_bytes(f"{host}:{port}".encode())
        while True:
            client, _ = listener.accept()
            with client, suppress(OSError):
                _draw_for(client, painter, size)


def _draw_for(client: socket.socket, painter: ScenePainter, size: int) -> None:
    """Answers one client until it hangs up."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while client.recv(1):
        image, shown_ns = painter.shoot(0, 0)
        client.sendall(PICTURE.pack(size, size, shown_ns) + image.tobytes())
