"""What the viewer's page asks its server for: the set, an episode, pictures, curves, poses; and the labels it changes."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from robolearn.apps import _view_bands, _view_labels, _view_scene
from robolearn.apps._report import plain
from robolearn.apps._view_flags import Flags
from robolearn.apps._view_frames import Frames, pack
from robolearn.apps._view_labels import Labels
from robolearn.apps._view_series import Series, panels
from robolearn.data.store import EpisodeSet
from robolearn.errors import BadInput, RobolearnError

ASSETS = {
    "_view.css": "text/css",
    "_view.js": "text/javascript",
    "_view_frames.js": "text/javascript",
    "_view_list.js": "text/javascript",
    "_view_plots.js": "text/javascript",
    "_view_scene.js": "text/javascript",
    "_view_time.js": "text/javascript",
}
_FOLDER = Path(__file__).parent
_MOST_ROWS = 512  # of one answer with pictures or poses
_LONG_FACT = 120  # characters
_UNSHOWN = ("model_xml",)  # a file in itself


class Api:
    """One set behind the routes of the viewer."""

    def __init__(self, dataset: EpisodeSet, labels: Labels, flags: Flags) -> None:
        self.dataset, self.labels, self.flags = dataset, labels, flags
        self.frames, self.series = Frames(dataset), Series(dataset)
        self.panels = panels(dataset.keys)
        self._facts = {name: dataset.episode_field(name) for name in dataset.facts() if name not in _UNSHOWN}
        self._stage: _view_scene.Stage | None = None
        self._stage_lock = threading.Lock()

    def routes(self) -> list[Route]:
        """Returns the routes below /api and /view."""
        answers = {"set": self.set, "episode": self.episode, "frames": self.pictures, "series": self.curves, "check": self.check}
        answers |= {"scene": self.scene, "meshes": self.meshes, "poses": self.poses}
        changes = {"label": self.label, "undo": self.undo}
        return [
            *(Route(f"/api/{name}", guarded(answer), methods=["GET"]) for name, answer in answers.items()),
            *(Route(f"/api/{name}", guarded(change), methods=["POST"]) for name, change in changes.items()),
            Route("/view/{name}", asset, methods=["GET"]),
        ]

    def set(self, _: dict[str, Any]) -> Response:
        """Answers what the page needs once: episodes, cameras, plots, whether labels can be changed."""
        dataset = self.dataset
        lengths = np.diff(dataset.episode_ends, prepend=0)
        episodes = [self._episode_row(index, int(steps)) for index, steps in enumerate(lengths)]
        return JSONResponse(
            {
                "name": dataset.path.name,
                "task": dataset.task,
                "hz": dataset.hz,
                "steps": dataset.n_steps,
                "episodes": episodes,
                "notes": dataset.notes,
                "cameras": [{"key": key, "size": dataset.keys[key].shape[:2]} for key in self.frames.keys],
                "panels": [
                    {**vars(panel), "id": i, "lines": [vars(line) for line in panel.lines]} for i, panel in enumerate(self.panels)
                ],
                "closed": self.labels.closed,
                "can_undo": self.labels.can_undo,
            }
        )

    def episode(self, ask: dict[str, Any]) -> Response:
        """Answers what is known of one episode: times of its rows, bands, facts."""
        index = int(ask["episode"])
        times = self.series.times(index)
        facts = {name: _short(values[index]) for name, values in self._facts.items() if values is not None}
        return JSONResponse(
            {
                "times": None if times is None else np.round(times, 4).tolist(),
                "bands": _view_bands.bands(self.dataset, index),
                "facts": {name: value for name, value in facts.items() if value not in ("", None)},
                "label": _view_labels.to_json(self.labels[index]),
            }
        )

    def pictures(self, ask: dict[str, Any]) -> Response:
        """Answers rows [first, first + count) of one camera of an episode, packed."""
        first, last = self._rows(ask)
        if ask["key"] not in self.frames.keys:
            raise BadInput(f"no camera '{ask['key']}'")
        return Response(pack(self.frames.encoded(ask["key"], first, last)), media_type="application/octet-stream")

    def curves(self, ask: dict[str, Any]) -> Response:
        """Answers the lines of one plot: float32 rows (n,), then values (lines, n)."""
        panel, first, last = self.panels[int(ask["panel"])], int(ask["first"]), int(ask["last"])
        rows, values = self.series.drawn(panel, int(ask["episode"]), first, last, int(ask["points"]))
        return Response(np.vstack([rows, values]).astype("<f4").tobytes(), media_type="application/octet-stream")

    def check(self, _: dict[str, Any]) -> Response:
        """Answers what the check found so far."""
        return JSONResponse(plain(self.flags.to_json()))

    def scene(self, _: dict[str, Any]) -> Response:
        """Answers the shapes of the 3-D scene, or why there is none."""
        stage = self._staged()
        table, _block = _view_scene.packed(stage.meshes)
        about = {"why": stage.why, "note": stage.note, "view": stage.view}
        return JSONResponse({**about, "shapes": stage.shapes, "meshes": table})

    def meshes(self, _: dict[str, Any]) -> Response:
        """Answers the meshes of the scene as one block of bytes."""
        return Response(_view_scene.packed(self._staged().meshes)[1], media_type="application/octet-stream")

    def poses(self, ask: dict[str, Any]) -> Response:
        """Answers float32 (rows, shapes, 7) of rows [first, first + count) of an episode."""
        stage = self._staged()
        if stage.why:
            raise BadInput(f"no scene: {stage.why}")
        first = int(ask["first"])
        poses = stage.poses(int(ask["episode"]), first, first + min(int(ask["count"]), _MOST_ROWS))
        return Response(poses.astype("<f4").tobytes(), media_type="application/octet-stream")

    def label(self, ask: dict[str, Any]) -> Response:
        """Changes the label of one episode and answers how it is on the disk now."""
        index = int(ask["episode"])
        self.dataset.span(index)
        self.labels.set(index, str(ask["label"]), str(ask["by"]))
        return self._changed(index)

    def undo(self, _: dict[str, Any]) -> Response:
        """Takes the last change of a label back."""
        return self._changed(self.labels.undo())

    def _changed(self, index: int | None) -> Response:
        label = None if index is None else _view_labels.to_json(self.labels[index])
        return JSONResponse({"episode": index, "label": label, "can_undo": self.labels.can_undo})

    def _rows(self, ask: dict[str, Any]) -> tuple[int, int]:
        """Returns the rows of the set [first, last) that a question about an episode means."""
        start, stop = self.dataset.span(int(ask["episode"]))
        first = start + int(ask["first"])
        last = min(stop, first + min(int(ask["count"]), _MOST_ROWS))
        if not start <= first < last:
            raise BadInput(f"episode {ask['episode']}: no rows {ask['first']} to {int(ask['first']) + int(ask['count']) - 1}")
        return first, last

    def _episode_row(self, index: int, steps: int) -> dict[str, Any]:
        success = self._facts.get("success")
        words = {name: _short(values[index]) for name, values in self._facts.items() if values is not None and values.ndim == 1}
        found = " ".join(f"{name}:{value}" for name, value in words.items() if value not in ("", None) and len(str(value)) < 60)
        env = None if success is None or int(success[index]) < 0 else bool(success[index])
        return {"steps": steps, "success": env, "words": found, **_view_labels.to_json(self.labels[index])}

    def _staged(self) -> _view_scene.Stage:
        with self._stage_lock:
            if self._stage is None:
                self._stage = _view_scene.Stage(self.dataset)
            return self._stage


def guarded(answer: Any) -> Any:
    """Returns a route's function: a question's fields as a dict; what cannot be answered becomes one line and status 400."""

    async def ask(request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool

        try:
            fields = dict(request.query_params)
            if request.method == "POST":
                # A page of another site cannot send this type without asking first, and is refused then.
                if request.headers.get("content-type", "").split(";")[0] != "application/json":
                    raise BadInput("want application/json")
                fields = json.loads(await request.body() or b"{}")
            response: Response = await run_in_threadpool(answer, fields)
        except RobolearnError as error:
            return JSONResponse({"error": " ".join(str(error).split())}, status_code=400)
        except (KeyError, ValueError, IndexError, TypeError) as error:
            return JSONResponse({"error": f"{request.url.path}: {type(error).__name__}: {error}"}, status_code=400)
        except OSError as error:
            return JSONResponse({"error": f"{error.filename or 'system'}: {error.strerror or error}"}, status_code=400)
        response.headers["cache-control"] = "no-store"
        return response

    return ask


async def asset(request: Request) -> Response:
    """Answers one of the page's own files."""
    name = request.path_params["name"]
    if name not in ASSETS:
        return JSONResponse({"error": f"no file {name}"}, status_code=404)
    return Response((_FOLDER / name).read_text(), media_type=ASSETS[name], headers={"cache-control": "no-cache"})


def _short(value: Any) -> Any:
    """Returns a fact as a plain value that fits on a line; None where it is not known."""
    if isinstance(value, np.ndarray):
        return plain(value) if value.size <= 8 else f"{value.dtype}{value.shape}"
    value = plain(value)
    if value == -1:
        return None
    return value if not isinstance(value, str) or len(value) <= _LONG_FACT else value[:_LONG_FACT] + " …"
