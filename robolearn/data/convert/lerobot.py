"""LeRobot datasets: v3.0 read and written (parquet, pictures inside or as mp4), v2.0 and v2.1 read. Needs pyarrow.

LeRobot stamps row k with k / fps; our real clocks travel as columns of their own. Actions are written as they are, and
what was written is read back and compared before it gets its name.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from tqdm import tqdm

from robolearn.data._fan import fan_out
from robolearn.data.convert import _copy, _lerobot_layout, _lerobot_read
from robolearn.data.convert import _lerobot_write as writer
from robolearn.data.convert._copy import Foreign, Options
from robolearn.data.convert._lerobot_plan import make_plan
from robolearn.data.store import EpisodeSet

CHOOSES_IMAGES = True  # --images png, jpeg or video


def sniff(path: Path) -> bool:
    """Returns True for a folder with meta/info.json that names features."""
    info = Path(path) / _lerobot_layout.INFO
    return info.is_file() and b'"codebase_version"' in info.read_bytes()


def scan(src: Path, *, task: str = "", hz: float | None = None) -> Foreign:
    """Returns what the dataset holds, before any picture is decoded."""
    return _lerobot_read.scan(Path(src), task, hz)


def read(
    src: Path, dst: Path, *, task: str = "", hz: float | None = None, overwrite: bool = False, options: Options = Options()
) -> tuple[str, ...]:
    """Writes the LeRobot dataset in folder `src` as a robolearn set to `dst` and returns what it could not carry."""
    return _copy.take_over(scan(src, task=task, hz=hz), dst, overwrite=overwrite, workers=options.workers)


def cannot_carry(source: EpisodeSet, options: Options = Options()) -> tuple[str, ...]:
    """Returns what `write` would not carry; DatasetError where the set cannot be written at all."""
    plan = make_plan(source, _copy.images_of(source.keys, source.n_steps, options))
    return (*source.notes, *_copy.lossy_pictures(source, plan.images))


def write(source: EpisodeSet, dst: Path, *, overwrite: bool = False, options: Options = Options()) -> tuple[str, ...]:
    """Writes a set as a LeRobotDataset v3.0 and returns what it could not carry: pictures that are lossy, with their PSNR."""
    plan = make_plan(source, _copy.images_of(source.keys, source.n_steps, options))
    with _copy.built_aside(dst, overwrite) as part:
        total = source.n_steps * (1 + len(plan.cameras) * (plan.images == "video"))
        with tqdm(total=total, desc="to lerobot", unit="row", disable=not sys.stderr.isatty()) as bar:
            episodes, stats = writer.write_rows(plan, source, part, options.workers, bar.update)
            clips = list(writer.clips_of(plan, source, part))
            for made in fan_out(partial(writer.encode_clip, plan), clips, options.workers):
                for index, columns, found in made:
                    episodes[index] |= columns
                    stats[index][next(iter(columns)).split("/")[1]] = found
                    bar.update(episodes[index]["length"])
        writer.write_meta(plan, source, part, episodes, stats)
        lossy = _copy.verified(source, scan(part), options.workers)
    return (*source.notes, *lossy)
