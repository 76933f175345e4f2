"""A scene served from another thread: what tests of its referee and of its cameras are made of."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from robolearn.apps._scene import Scene, SceneConfig
from robolearn.apps._scene_link import SceneServer

CONFIG = SceneConfig(overrides={"robot": "UR5e"})


@contextmanager
def answering(scene: Scene, **given: Any) -> Iterator[SceneServer]:
    """Serves a scene from another thread, which is its owner meanwhile."""
    server, over = SceneServer(scene, **given), threading.Event()

    def own() -> None:
        while not over.wait(0.001):
            server.turn()

    thread = threading.Thread(target=own)
    thread.start()
    try:
        yield server
    finally:
        over.set()
        thread.join(10.0)
        server.close()
