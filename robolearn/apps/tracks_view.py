"""Draws the tracks of a motion-track set over its pictures: a video an episode, and one page with all of them."""

from __future__ import annotations

import base64
import html
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from tqdm import tqdm

from robolearn.apps import _html, _tracks_overlay
from robolearn.apps._edit import counted
from robolearn.apps._report import write_json
from robolearn.apps._tracks_set import views_of
from robolearn.apps._video import write_mp4
from robolearn.data._files import built_aside
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput

_MOST = 12  # episodes drawn where none are named: the page holds their videos


@dataclass(frozen=True)
class Config:
    """Which set, which of its episodes, and where to."""

    path: tyro.conf.Positional[Path]
    """A motion-track set, of a person or a robot."""
    out: Path | None = None
    """The folder to write; SET_view beside the set where nothing is said."""
    episodes: tuple[int, ...] = ()
    """Which; the first 12 where none are named."""
    height: int = 360
    """Of a picture in the videos [px]."""
    json: Path | None = None
    """Where to write the figures."""
    overwrite: bool = False
    """Replace what is there."""

    def __post_init__(self) -> None:
        """Refuses heights that cannot be filmed; ValueError names the field."""
        if self.height < 64 or self.height % 2:
            raise ValueError(f"height: want an even number of at least 64, got {self.height}")


def run(cfg: Config) -> int:
    """Writes episode_N.mp4 and index.html."""
    dataset = EpisodeSet.open(cfg.path)
    views = views_of(dataset)
    if not dataset.n_episodes:
        raise BadInput(f"{cfg.path}: the set has no episode to draw")
    episodes = cfg.episodes or tuple(range(min(_MOST, dataset.n_episodes)))
    for episode in episodes:
        dataset.span(episode)
    out = cfg.out or cfg.path.with_name(f"{cfg.path.name.removesuffix('.zarr')}_view")
    if out.exists() and not cfg.overwrite:
        raise AlreadyExists(out, "folder")
    with built_aside(out, cfg.overwrite, "folder") as part:
        part.mkdir()
        cards, rows = [], []
        for episode in tqdm(episodes, unit="episode", disable=not sys.stderr.isatty()):
            pictures = _tracks_overlay.frames(dataset, episode, cfg.height)
            video = write_mp4(part / f"episode_{episode}.mp4", pictures, dataset.hz or 10.0)
            rows.append(figures(dataset, episode, views))
            cards.append(_card(dataset, episode, video, rows[-1]))
        (part / "index.html").write_text(_page(cfg, dataset, cards, rows))
    print(f"{out / 'index.html'}: {counted(len(episodes), 'episode')} of {dataset.n_episodes}, views {', '.join(views)}")
    write_json(cfg.json, {"out": out, "views": views, "rows": rows})
    return 0


def figures(dataset: EpisodeSet, episode: int, views: tuple[str, ...]) -> dict[str, Any]:
    """Returns what is known of one episode: its facts, and by view the share of rows in which the hand was seen."""
    start, stop = dataset.span(episode)
    values = {name: dataset.episode_field(name) for name in ("embodiment", "right_hand", "source", "longest_gap_s")}
    known = {name: row[episode].item() for name, row in values.items() if row is not None}
    seen = {view: float(_seen(dataset, view, start, stop).mean()) for view in views}
    closed = float((dataset.read("gripper_open", start, stop) < 0.5).mean())
    return {"episode": episode, "rows": stop - start, "closed": closed, "seen": seen, **known}


def _seen(dataset: EpisodeSet, view: str, start: int, stop: int) -> np.ndarray:
    if f"valid/{view}" not in dataset.keys:
        return np.ones(stop - start, bool)
    return dataset.read(f"valid/{view}", start, stop)[:, 0] > 0


def _card(dataset: EpisodeSet, episode: int, video: Path, row: dict[str, Any]) -> str:
    """Returns one episode's box: its video, and the gripper over time with the rows in which the hand was not seen."""
    start, stop = dataset.span(episode)
    spans = _tracks_overlay.unseen_spans({view: _seen(dataset, view, start, stop) for view in row["seen"]})
    gripper = _html.sparkline(dataset.read("gripper_open", start, stop)[:, 0].tolist(), spans, width=320)
    data = base64.b64encode(video.read_bytes()).decode()
    player = f'<video controls muted loop playsinline style="width:100%" src="data:video/mp4;base64,{data}"></video>'
    who = {1: "right hand", 0: "left hand"}.get(row.get("right_hand", -1), "") if row.get("embodiment") != "robot" else "robot"
    seen = ", ".join(f"{view} {share:.0%}" for view, share in row["seen"].items())
    words = html.escape(f"{who}; seen: {seen}{_pictures_with_a_hand(dataset, episode)}")
    below = "gripper over time, up: open; bars below: filled in"
    return _html.card(
        f"Episode {episode}",
        f'{player}<p class="note">{words}</p>{gripper}<p class="note">{below}</p>',
        str(row.get("source", "")),
    )


def _pictures_with_a_hand(dataset: EpisodeSet, episode: int) -> str:
    """Returns in how many of the video's pictures there was a hand; rows before the first and after the last of them are cut."""
    frames, detected = dataset.episode_field("frames"), dataset.episode_field("detected")
    if frames is None or detected is None:
        return ""
    pairs = zip(np.ravel(detected[episode]).tolist(), np.ravel(frames[episode]).tolist(), strict=True)
    return "; pictures with a hand: " + ", ".join(f"{hits:g} of {n:g}" for hits, n in pairs)


def _page(cfg: Config, dataset: EpisodeSet, cards: list[str], rows: list[dict[str, Any]]) -> str:
    seen = [share for row in rows for share in row["seen"].values()]
    big = [
        _html.card("Episodes", _html.figure(str(len(rows)), f"of {dataset.n_episodes}, {dataset.n_steps} rows")),
        _html.card("Seen", _html.figure(f"{np.mean(seen):.0%}", "of the rows and views; the rest was filled in")),
        _html.card("Closed", _html.figure(f"{np.mean([row['closed'] for row in rows]):.0%}", "of the rows")),
    ]
    about = {"task": dataset.task} if dataset.task else {}
    about |= {"rate": f"{dataset.hz or 0:g} Hz", "views": ", ".join(views_of(dataset))}
    about |= {"closed is": dataset.attrs.get("grasp", {}).get("words", "as the gripper was")}
    if cameras := (dataset.spec.cameras if dataset.spec else {}):
        about["calibration"] = ", ".join(
            f"{key.removesuffix('_image')}: {camera.hash or 'exact'}" for key, camera in cameras.items()
        )
    if how := dataset.attrs.get("extract"):
        about["hands by"] = (
            f"{how['detector']}, confidence {how['settings']['confidence']:g}, smoothed over {how['smooth_s']:g} s"
        )
    legend = "White: base; orange: the right finger; blue: the left finger; yellow: the hand's 21 points. Rings were filled in."
    parts = [_html.grid(big), _html.card("The set", _html.facts(about), legend), _html.grid(cards, least=420)]
    return _html.page(
        f"Motion tracks: {cfg.path.name}", "Five points of a hand or gripper over the pictures they belong to.", parts
    )
