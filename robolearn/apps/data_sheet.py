"""Makes a contact sheet: the first picture of every episode with its number, length and label, as PNG or one HTML file."""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import cv2
import numpy as np
import tyro
from tqdm import tqdm

from robolearn.apps._report import write_json
from robolearn.apps._view_frames import Frames
from robolearn.data._files import built_aside
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput, nearest

_STYLE = Path(__file__).with_name("_sheet.css")
_GAP, _TEXT = 8, 20  # [px] between pictures; of a line of text
_WIDE = 110  # [px]: pictures below leave no room for the word "steps"
_MOST_A_PAGE = 2000
_TONES = {"success": (28, 116, 69), "failure": (179, 38, 30), "partial": (138, 82, 0)}


@dataclass(frozen=True)
class Config:
    """Which set, and what the sheet looks like."""

    path: tyro.conf.Positional[Path]
    """A dataset with pictures."""
    out: Path = Path("sheet.png")
    """A name that ends in .png or .html."""
    key: str = ""
    """The camera; empty: the set's first."""
    size: int = 128
    """Height of a picture [px]."""
    columns: int = 10
    """Pictures in a row of a PNG."""
    rows: int = 40
    """Rows of a PNG; the rest goes to NAME_2.png and so on."""
    json: Path | None = None
    """Where to write the figures."""
    dry_run: bool = False
    """Say what would be written, write nothing."""
    overwrite: bool = False
    """Replace an existing sheet."""


@dataclass(frozen=True)
class Tile:
    """One episode on the sheet; label: a person's word, else the environment's, else ""."""

    episode: int
    steps: int
    label: str
    image: np.ndarray


def run(cfg: Config) -> int:
    """Writes the sheet, one picture in memory at a time (a PNG: one page)."""
    dataset = EpisodeSet.open(cfg.path)
    frames = Frames(dataset)
    if not frames.keys or not dataset.n_episodes:
        raise BadInput(f"{cfg.path}: the set has no {'episode' if frames.keys else 'pictures'}")
    key = cfg.key or frames.keys[0]
    if key not in frames.keys:
        raise BadInput(f"{cfg.path}: no camera '{key}'{nearest(key, frames.keys)}")
    if cfg.out.suffix not in (".png", ".html"):
        raise BadInput(f"--out {cfg.out}: want a name that ends in .png or .html")
    if min(cfg.size, cfg.columns, cfg.rows) < 1 or cfg.columns * cfg.rows > _MOST_A_PAGE:
        raise BadInput(f"want --size, --columns and --rows above 0 and at most {_MOST_A_PAGE} pictures a page")
    files = pages(cfg, dataset.n_episodes)
    taken = [file for file in files if file.exists()]
    if taken and not cfg.overwrite:
        raise AlreadyExists(taken[0], "sheet")
    if not cfg.dry_run:
        shown = tqdm(
            tiles(dataset, frames, key, cfg.size), total=dataset.n_episodes, desc="sheet", disable=not sys.stderr.isatty()
        )
        write_html(cfg, dataset, key, shown) if cfg.out.suffix == ".html" else write_pngs(cfg, files, png_pages(cfg, shown))
    print(f"{dataset.n_episodes} episodes of {cfg.path}, {key} -> {', '.join(map(str, files))}{' (not written)' * cfg.dry_run}")
    write_json(cfg.json, {"episodes": dataset.n_episodes, "key": key, "files": [str(file) for file in files]})
    return 0


def tiles(dataset: EpisodeSet, frames: Frames, key: str, size: int) -> Iterator[Tile]:
    """Yields the first picture of each episode, `size` high, with what is known of the episode."""
    labels, success = dataset.episode_field("label"), dataset.episode_field("success")
    for index in range(dataset.n_episodes):
        start, stop = dataset.span(index)
        image = frames.read(key, start, start + 1)[0]
        width = max(1, round(size * image.shape[1] / image.shape[0]))
        shrinks = size < image.shape[0]
        image = cv2.resize(image, (width, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        label = "" if labels is None else str(labels[index])
        if not label and success is not None and int(success[index]) >= 0:
            label = "success" if success[index] else "failure"
        yield Tile(index, stop - start, label, image)


def pages(cfg: Config, episodes: int) -> list[Path]:
    """Returns the files of the sheet."""
    if cfg.out.suffix == ".html":
        return [cfg.out]
    count = -(-episodes // (cfg.columns * cfg.rows))
    return [cfg.out] + [cfg.out.with_stem(f"{cfg.out.stem}_{k}") for k in range(2, count + 1)]


def png_pages(cfg: Config, shown: Iterable[Tile]) -> Iterator[np.ndarray]:
    """Yields the pages of a PNG sheet, uint8 (height, width, 3) RGB."""
    page: list[np.ndarray] = []
    for tile in shown:
        page.append(drawn(tile))
        if len(page) == cfg.columns * cfg.rows:
            yield pasted(page, cfg.columns)
            page = []
    if page:
        yield pasted(page, cfg.columns)


def pasted(cells: list[np.ndarray], columns: int) -> np.ndarray:
    """Returns equal pictures side by side on white, `columns` in a row."""
    height, width = cells[0].shape[:2]
    columns = min(columns, len(cells))
    rows = -(-len(cells) // columns)
    page = np.full((_GAP + rows * (height + _GAP), _GAP + columns * (width + _GAP), 3), 255, np.uint8)
    for k, cell in enumerate(cells):
        y, x = _GAP + k // columns * (height + _GAP), _GAP + k % columns * (width + _GAP)
        page[y : y + height, x : x + width] = cell
    return page


def drawn(tile: Tile) -> np.ndarray:
    """Returns a picture with two lines of text under it."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = tile.image.shape[:2]
    cell = Image.new("RGB", (width, height + 2 * _TEXT), "white")
    cell.paste(Image.fromarray(np.ascontiguousarray(tile.image)), (0, 0))
    pen, font = ImageDraw.Draw(cell), ImageFont.load_default(13)
    pen.text((1, height + 3), f"{tile.episode} · {tile.steps}{' steps' * (width >= _WIDE)}", fill=(29, 36, 48), font=font)
    pen.text((1, height + _TEXT), tile.label or "unknown", fill=_TONES.get(tile.label, (86, 96, 114)), font=font)
    return np.asarray(cell)


def write_pngs(cfg: Config, files: list[Path], shown: Iterator[np.ndarray]) -> None:
    """Writes the pages, each whole or not at all."""
    for file, page in zip(files, shown, strict=True):
        with built_aside(file, cfg.overwrite, "sheet") as part:
            part.write_bytes(cv2.imencode(".png", np.ascontiguousarray(page[..., ::-1]))[1].tobytes())


def write_html(cfg: Config, dataset: EpisodeSet, key: str, shown: Iterable[Tile]) -> None:
    """Writes one page that opens offline, pictures inside."""
    title = html.escape(f"{dataset.path.name}: {dataset.n_episodes} episodes, {key}")
    with built_aside(cfg.out, cfg.overwrite, "sheet") as part, part.open("w") as file:
        file.write(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE.read_text()}</style>'
        )
        file.write(f"<h1>{title}</h1><main>\n")
        for tile in shown:
            put(file, tile)
        file.write("</main></html>\n")


def put(file: TextIO, tile: Tile) -> None:
    """Writes one episode of an HTML sheet."""
    picture: Any = cv2.imencode(".jpg", np.ascontiguousarray(tile.image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
    data = base64.b64encode(picture.tobytes()).decode()
    label = html.escape(tile.label or "unknown")
    height, width = tile.image.shape[:2]
    file.write(
        f'<figure><img loading="lazy" width="{width}" height="{height}" alt="episode {tile.episode}, first picture" '
        f'src="data:image/jpeg;base64,{data}"><figcaption><b>{tile.episode}</b> {tile.steps} steps '
        f'<span class="{label}">{label}</span></figcaption></figure>\n'
    )
