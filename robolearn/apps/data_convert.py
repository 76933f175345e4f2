"""Converts a dataset of another program into a robolearn set, or (with --to FORMAT) any dataset into another format."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from robolearn import registry
from robolearn.apps._report import write_json
from robolearn.core import ArraySpec
from robolearn.data.convert import _copy, _estimate
from robolearn.data.convert._copy import Foreign, Images, Options
from robolearn.data.store import EpisodeSet
from robolearn.errors import AlreadyExists, BadInput, DatasetError, Findings, UnknownName

FORMATS = "robolearn.data.convert"
OURS = "robolearn"


@dataclass(frozen=True)
class Config:
    """From where to where."""

    src: tyro.conf.Positional[Path]
    """What to convert; its format is recognised."""
    dst: tyro.conf.Positional[Path]
    """Where to write."""
    to: str = ""
    """The format to write (lerobot, robomimic, replay_buffer, ...); a robolearn set where nothing is said."""
    images: Images = ""
    """How lerobot and folder keep pictures: png (lossless), jpeg, video; by default png up to 4 GiB of pictures, then video."""
    hz: float | None = None
    """The control rate [1/s], where the source does not know it."""
    task: str = ""
    """The task, where the source does not know it."""
    workers: Annotated[int | Literal["ray"], tyro.conf.arg(metavar="INT|ray")] = 0
    """Processes that decode and encode pictures (0: this one), or ray."""
    emulated: bool = False
    """Take a run log in which no metal moved, too; the set says so."""
    verify: bool = False
    """Read what was written once more and compare every row with where it came from."""
    dry_run: bool = False
    """Only say what would be written and what would not be carried."""
    json: Path | None = None
    """Where to write the figures."""
    overwrite: bool = False
    """Replace what is there."""

    @property
    def options(self) -> Options:
        """What the formats are told."""
        return Options(self.images, self.workers, self.emulated)


@dataclass
class Report:
    """What a conversion came to."""

    source_format: str
    episodes: int = 0
    steps: int = 0
    lengths: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    hz: float | None = None
    task: str = ""
    keys: dict[str, ArraySpec] = field(default_factory=dict)
    facts: tuple[str, ...] = ()
    not_carried: list[str] = field(default_factory=list)
    bytes: int = 0
    verified: dict[str, Any] | None = None
    wall_s: float = 0.0

    def of_set(self, made: EpisodeSet) -> None:
        """Takes over what a set holds."""
        self.hold(made.episode_ends, made.hz, made.task or "", dict(made.keys))
        self.facts = made.facts()

    def hold(self, ends: np.ndarray, hz: float | None, task: str, keys: dict[str, ArraySpec]) -> None:
        """Takes over episode ends, rate, task and keys."""
        self.lengths = np.diff(ends, prepend=0)
        self.episodes, self.steps, self.hz, self.task, self.keys = len(ends), int(ends[-1]) if len(ends) else 0, hz, task, keys


def run(cfg: Config) -> int:
    """Converts, and says what was written and what could not be carried."""
    if cfg.dst.exists() and not cfg.overwrite and not cfg.dry_run:
        raise AlreadyExists(cfg.dst, "dataset")
    writer = find_writer(cfg)
    started = time.monotonic()
    report = Report(OURS if writer is not None and is_ours(cfg.src) else recognise(cfg.src))
    (plan if cfg.dry_run else convert)(cfg, report, writer)
    report.wall_s = time.monotonic() - started
    tell(cfg, report)
    write_json(cfg.json, figures(cfg, report))
    return 0


def convert(cfg: Config, report: Report, writer: ModuleType | None) -> None:
    """Writes `cfg.dst`; from one foreign format to another by a set beside it that is removed again."""
    if report.source_format == OURS:
        assert writer is not None
        source = EpisodeSet.open(cfg.src)
        write(cfg, report, writer, source)
    elif writer is None:
        report.not_carried += read(cfg, report, cfg.dst)
        made = EpisodeSet.open(cfg.dst)
        report.of_set(made)
        report.bytes = size_of(cfg.dst)
        if cfg.verify:
            check(cfg, report, load(report.source_format).scan(cfg.src, task=cfg.task, hz=cfg.hz), made)
    else:
        cfg.dst.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{cfg.dst.name}.", dir=cfg.dst.parent) as folder:
            between = Path(folder) / f"{cfg.src.stem or 'set'}.zarr"
            report.not_carried += read(cfg, report, between)
            write(cfg, report, writer, EpisodeSet.open(between))


def read(cfg: Config, report: Report, dst: Path) -> list[str]:
    """Writes a foreign dataset as a set to `dst`; returns what was not carried."""
    reader = load(report.source_format)
    overwrite = cfg.overwrite and dst == cfg.dst
    return list(reader.read(cfg.src, dst, task=cfg.task, hz=cfg.hz, overwrite=overwrite, options=cfg.options))


def write(cfg: Config, report: Report, writer: ModuleType, source: EpisodeSet) -> None:
    """Writes a set in the format asked for."""
    report.of_set(source)
    report.not_carried += writer.write(source, cfg.dst, overwrite=cfg.overwrite, options=cfg.options)
    report.bytes = size_of(cfg.dst)
    if cfg.verify:
        check(cfg, report, writer.scan(cfg.dst), source)


def check(cfg: Config, report: Report, foreign: Foreign, dataset: EpisodeSet) -> None:
    """Compares every row on both sides; Findings where a number is not the same."""
    report.verified = _copy.compare(foreign, dataset, cfg.workers)
    changed = [key for key, row in report.verified["keys"].items() if not row["equal"] and "psnr_db" not in row]
    if changed or not report.verified["ends_equal"]:
        raise Findings(f"{cfg.dst}: {changed[0] if changed else 'the ends of the episodes'} differ from {cfg.src}")


def plan(cfg: Config, report: Report, writer: ModuleType | None) -> None:
    """Fills the report without writing: what there is, what would be lost, how large it would be."""
    if report.source_format == OURS:
        assert writer is not None
        source = EpisodeSet.open(cfg.src)
        report.of_set(source)
        report.not_carried += writer.cannot_carry(source, cfg.options)
        sample = {key: source.read(key, 0, _estimate.SAMPLE) for key in source.keys}
    else:
        foreign = load(report.source_format).scan(cfg.src, task=cfg.task, hz=cfg.hz)
        _copy.refuse_emulated(foreign, cfg.src, cfg.options)
        report.hold(foreign.ends, foreign.spec.hz, foreign.task, foreign.keys)
        report.facts, sample = tuple(sorted(foreign.facts)), _estimate.first_rows(foreign)
        report.not_carried += foreign.lost
        if writer is not None:
            report.not_carried += lost_of_sample(cfg, foreign, writer)
    chooses = writer is not None and getattr(writer, "CHOOSES_IMAGES", False)
    images = _copy.images_of(report.keys, report.steps, cfg.options) if chooses else "zarr"
    report.bytes = _estimate.estimated_bytes(report.keys, report.steps, sample, images, report.hz or 1.0)


def lost_of_sample(cfg: Config, foreign: Foreign, writer: ModuleType) -> list[str]:
    """Returns what `writer` cannot carry, from a set of the first rows in the system's temporary folder."""
    images = _copy.images_of(foreign.keys, int(foreign.ends[-1]), cfg.options)
    with tempfile.TemporaryDirectory() as folder:
        sample = _estimate.first_episode(foreign)
        _copy.take_over(sample, Path(folder) / "sample.zarr", overwrite=False)
        return list(writer.cannot_carry(EpisodeSet.open(Path(folder) / "sample.zarr"), Options(images)))


def tell(cfg: Config, report: Report) -> None:
    """Prints what was, or would be, written."""
    way = f"from {report.source_format}" + (f" to {cfg.to}" if cfg.to else "")
    size = f"{'about ' if cfg.dry_run else ''}{report.bytes / 1e6:.1f} MB"
    head = f"{cfg.dst}: {'would be ' if cfg.dry_run else ''}{report.episodes} episodes, {report.steps} steps"
    print(f"{head}, keys {', '.join(report.keys)} ({way}, {size})")
    for what in report.not_carried:
        print(f"not carried: {what}")
    if report.verified is not None:
        for key, row in report.verified["keys"].items():
            same = "equal in every bit" if row["equal"] else f"PSNR {row['psnr_db']:.1f} dB, worst {row['worst_psnr_db']:.1f} dB"
            print(f"compared: {key} {row['dtype']}{tuple(row['shape'])}: {same}")
        for key in report.verified["not_compared"]:
            print(f"not compared: {key}: the other side has no such array")
    if cfg.dry_run:
        print("nothing was written (--dry-run)")


def figures(cfg: Config, report: Report) -> dict[str, Any]:
    """Returns what `data convert --json` keeps."""
    return {
        "source": cfg.src.name,
        "from": report.source_format,
        "to": cfg.to or OURS,
        "format": cfg.to or report.source_format,
        "dry_run": cfg.dry_run,
        "episodes": report.episodes,
        "steps": report.steps,
        "length_min": int(report.lengths.min(initial=report.steps)),
        "length_max": int(report.lengths.max(initial=0)),
        "hz": report.hz,
        "task": report.task,
        "keys": {key: {"shape": array.shape, "dtype": array.dtype, "unit": array.unit} for key, array in report.keys.items()},
        "facts": report.facts,
        "not_carried": report.not_carried,
        "estimated_bytes" if cfg.dry_run else "bytes": report.bytes,
        "verified": report.verified,
        "wall_s": report.wall_s,
    }


def find_writer(cfg: Config) -> ModuleType | None:
    """Returns the module of --to; UnknownName lists those that can write."""
    if not cfg.to:
        if cfg.images:
            raise BadInput(
                f"--images {cfg.images} is for a format that leaves the choice: add --to {' or --to '.join(choosers())}"
            )
        return None
    if cfg.to not in writers():
        raise UnknownName("format to write", cfg.to, writers())
    if cfg.images and cfg.to not in choosers():
        raise BadInput(
            f"--images {cfg.images}: {cfg.to} keeps pictures bit for bit; the choice is with {' and '.join(choosers())}"
        )
    return load(cfg.to)


def writers() -> list[str]:
    """Returns the formats that can be written."""
    return [name for name in registry.names(FORMATS) if hasattr(load(name), "write")]


def choosers() -> list[str]:
    """Returns the formats that can keep pictures in several ways."""
    return [name for name in writers() if getattr(load(name), "CHOOSES_IMAGES", False)]


def load(name: str) -> ModuleType:
    """Returns the module of a format."""
    return registry.load(FORMATS, name)


def size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files below a folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def recognise(path: Path) -> str:
    """Returns the name of the format that `path` has; DatasetError lists the known ones."""
    names = registry.names(FORMATS)
    for name in names:
        if path.exists() and load(name).sniff(path):
            return name
    if not path.exists() or (path / "meta").exists():
        EpisodeSet.open(path)
    raise DatasetError(f"{path}: want one of the known formats ({', '.join(names)}), got none of them")


def is_ours(path: Path) -> bool:
    """Returns True for a set of ours, exported or not: it can be written in another format as it lies there."""
    try:
        return EpisodeSet.open(path).spec is not None
    except Exception:  # any other format; what is wrong with a set of ours is said when it is read
        return False
