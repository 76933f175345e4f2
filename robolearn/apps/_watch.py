"""A live view of a simulated scene in a browser: a sink that hands snapshots to a thread, which draws and serves them.

The control loop copies a state (some kB) at most `fps` times a second and nothing else; drawing happens in the thread, on its
own copy of the model, and a picture that is not ready when the next snapshot comes is simply late: snapshots are replaced.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import mujoco
import numpy as np

from robolearn.core import Flag, Outcome, SimEnv, Tick
from robolearn.errors import HardwareError, SpecMismatch
from sim_envs import _mujoco

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>robolearn: watch</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,"><style>
:root{color-scheme:light dark;--ink:#1d2430;--soft:#566072;--page:#f4f6f8;--good:#1c7445;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e7eaf0;--soft:#a3adbb;--page:#11151b;--good:#63cf97;--bad:#f58b7e}}
body{margin:0;background:var(--page);color:var(--ink);font:16px/1.45 system-ui,sans-serif;font-variant-numeric:tabular-nums}
main{max-width:960px;margin:0 auto;padding:12px 14px;display:flex;flex-direction:column;gap:8px}
h1{font-size:18px;margin:0}img{width:100%;max-height:78vh;object-fit:contain;border-radius:10px;background:#000}
p{margin:0}#line{color:var(--soft);min-height:1.5em}#line.lost{color:var(--bad);font-weight:600}
</style></head><body><main id="viewer"><h1>Live scene</h1><img alt="The simulated scene, live">
<p id="line" role="status">waiting for the first episode</p></main><script>
const line = document.getElementById("line");
// Not in the HTML: the page would count as loading until the first episode.
addEventListener("load", () => { document.querySelector("img").src = "/stream"; });
setInterval(async () => {
  try {
    const told = await (await fetch("/status")).json();
    line.textContent = told.text; line.className = ""; line.dataset.drawn = told.drawn;
  } catch { line.textContent = "the recording has ended or its connection is lost"; line.className = "lost"; }
}, 250);
</script></body></html>"""


@dataclass(frozen=True)
class Scene:
    """snapshot: called in the control loop, cheap; draw: called in the thread, makes a picture (height, width, 3) uint8 of it."""

    snapshot: Callable[[], Any]
    draw: Callable[[Any], np.ndarray]
    close: Callable[[], None] = lambda: None


def mujoco_scene(body: Any, size: int = 480, camera: Any = None) -> Scene:
    """Returns the scene of a MuJoCo body, seen by `camera` (default: the task's best view), size x size px."""
    live_model, live_data = body.model, body.data
    view = body.task_facts.view if camera is None else camera
    model = copy.copy(live_model)  # drawing hides geoms and moves bodies: not in the model that is being simulated
    data = mujoco.MjData(model)
    renderer = _mujoco.Renderer(model, size, _mujoco.FAST)

    def snapshot() -> tuple[np.ndarray, ...]:
        placed = live_model.body_pos.copy(), live_model.body_quat.copy()
        return (live_data.qpos.copy(), live_data.mocap_pos.copy(), live_data.mocap_quat.copy(), *placed)

    def draw(state: tuple[np.ndarray, ...]) -> np.ndarray:
        data.qpos[:], data.mocap_pos[:], data.mocap_quat[:], model.body_pos[:], model.body_quat[:] = state
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        mujoco.mj_camlight(model, data)
        return renderer.draw(data, view)

    return Scene(snapshot, draw, renderer.close)


def second_body_scene(body: SimEnv, make: Callable[[], SimEnv]) -> Scene:
    """Returns the scene of any simulated body, drawn by a second one that `make` builds in the thread, at the first picture."""
    other: list[SimEnv] = []

    def draw(state: np.ndarray) -> np.ndarray:
        if not other:
            other.append(make())
            other[0].reset(0)
        other[0].restore(state)
        return other[0].render()

    def close() -> None:
        for each in other:
            each.close()

    return Scene(body.state, draw, close)


@dataclass
class Watch:
    """The sink. `address` is where to look; `drawn` counts the pictures; status: words shown beside step and flags."""

    scene: Scene
    port: int = 0
    host: str = "127.0.0.1"
    fps: float = 10.0
    clock: Callable[[], float] = time.monotonic
    status: Callable[[], str] = lambda: ""
    drawn: int = 0
    error: str = ""
    _due: float = -np.inf
    _episode: int = 0
    _text: str = "waiting for the first episode"
    _jpeg: bytes = b""
    _state: Any = None
    _more: threading.Condition = field(default_factory=threading.Condition)
    _closed: bool = False

    def __post_init__(self) -> None:
        try:
            self._server = ThreadingHTTPServer((self.host, self.port), _handler(self))
        except OSError as error:
            raise HardwareError(f"watch: cannot serve at {self.host}:{self.port} ({error}); give another port, or 0") from None
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.address = f"http://{self.host}:{self.port}/"
        self._threads = [
            threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True),
            threading.Thread(target=self._draw, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, spec: Any, meta: Mapping[str, Any]) -> None:
        """Shows the first state of an episode."""
        self._episode += 1
        self._offer("the episode begins")

    def record(self, tick: Tick) -> None:
        """Takes a snapshot where one is due; never waits for a picture."""
        if self.clock() < self._due:
            return
        flags = ", ".join(flag.name.lower() for flag in Flag if flag & tick.step.flags and flag.name)
        self._offer(f"step {tick.k + 1}" + (f" · {flags}" if flags else ""))

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None:
        """Shows no raw streams."""

    def end(self, outcome: Outcome) -> None:
        """Says how the episode ended."""
        self._offer(f"{outcome.steps} steps · ended: {outcome.reason}")

    def close(self) -> None:
        """Stops serving; safe to call twice."""
        if self._closed:
            return
        with self._more:
            self._closed = True
            self._more.notify_all()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join(10.0)

    def told(self) -> dict[str, Any]:
        """Returns what the page's status line says."""
        return {"text": self.error or self._text, "drawn": self.drawn}

    def _offer(self, text: str) -> None:
        self._due = self.clock() + 1.0 / self.fps
        said = self.status()
        state = self.scene.snapshot()
        with self._more:
            self._text = f"episode {self._episode} · {text}" + (f" · {said}" if said else "")
            self._state = state
            self._more.notify_all()

    def _draw(self) -> None:
        """Draws the newest snapshot whenever there is one; what cannot be drawn is said on the page and nowhere else."""
        while True:
            with self._more:
                self._more.wait_for(lambda: self._closed or self._state is not None)
                if self._closed:
                    break
                state, self._state = self._state, None
            try:
                jpeg = _jpeg(self.scene.draw(state))
            except Exception as error:  # a view must never end a recording
                self.error = f"no picture: {error}"
                continue
            with self._more:
                self._jpeg, self.drawn, self.error = jpeg, self.drawn + 1, ""
                self._more.notify_all()
        self.scene.close()

    def next_picture(self, after: int) -> tuple[int, bytes]:
        """Returns (number, JPEG) of a picture newer than number `after`, waiting for it; (after, b"") once closed."""
        with self._more:
            self._more.wait_for(lambda: self._closed or self.drawn > after)
            return (after, b"") if self._closed else (self.drawn, self._jpeg)


def watch(body: Any, port: int = 0, status: Callable[[], str] = lambda: "") -> Watch:
    """Returns a sink that shows a MuJoCo body live; SpecMismatch where the body is something else."""
    if not isinstance(getattr(body, "model", None), mujoco.MjModel):
        raise SpecMismatch(f"watch: want a MuJoCo body, got {type(body).__name__}; use Watch(second_body_scene(body, make))")
    return Watch(mujoco_scene(body), port, status=status)


def _jpeg(picture: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=80)
    return file.getvalue()


def _handler(view: Watch) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Serves the page, its status and the pictures."""

        def do_GET(self) -> None:
            """Answers one request; a browser that goes away in the middle is no error."""
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                if self.path == "/":
                    self._whole(_PAGE.encode(), "text/html; charset=utf-8")
                elif self.path == "/status":
                    self._whole(json.dumps(view.told()).encode(), "application/json")
                elif self.path == "/stream":
                    self._stream()
                else:
                    self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            """Writes nothing: the terminal belongs to the recording."""

        def _whole(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(content)

        def _stream(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            number, jpeg = view.next_picture(0)
            while jpeg:
                self.wfile.write(
                    b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(jpeg) + jpeg + b"\r\n"
                )
                number, jpeg = view.next_picture(number)

    return Handler
