"""Human video, measured without learning: track errors, oracle tracks as plans, wrist paths, film to arm, hands in real clips."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from robolearn.apps import _bench, _hands_rows, _oracle_tracks, _real_chain, _to_demos_rows
from robolearn.apps._report import write_json
from robolearn.apps._trials import FIRST_TEST_SEED
from robolearn.errors import BadInput
from robolearn.video import _error_table, _wrist_table

Part = Literal["table", "oracle", "wrist", "chain", "real_chain", "hands", "extract"]
ALONE: tuple[Part, ...] = ("table", "oracle", "wrist", "chain", "real_chain")  # that need no clips
SHARES = (0.0, 0.01, 0.05, 0.10)  # of the hand's size


@dataclass(frozen=True)
class Config:
    """What to measure."""

    parts: tuple[Part, ...] = ALONE
    """table: track errors [px] into pose errors; oracle: true tracks, and noisy ones, as plans on the bench's tasks; wrist: a
    wrist's path from noisy landmarks; chain: such paths performed by the bench's gripper; real_chain: the same with everything
    filmed, from a calibration board to an arm; hands: detectors on the clips given; extract: `tracks extract` timed on them."""
    clips: tuple[Path, ...] = ()
    """Videos for `hands` and `extract`; `hands` compares with stored landmarks (NAME_mp01021_landmarks.npz) beside them."""
    detectors: tuple[str, ...] = ("litert", "mediapipe")
    max_hands: int = 1
    draws: int = 2000
    """Of the table."""
    episodes: int = 100
    """Of the oracle, a task and noise."""
    chain_episodes: int = 20
    """Of the chain, a task, rule and noise."""
    real_episodes: int = 5
    """Clips of the real chain, a task."""
    folder: Path | None = None
    """Where the real chain leaves pictures, calibrations, films and sets; a temporary folder where none is said."""
    workers: tuple[int, ...] = (1, 2)
    """Of `extract`: a row each."""
    tasks: tuple[str, ...] = _oracle_tracks.TASKS
    sigmas_px: tuple[float, ...] = _oracle_tracks.SIGMAS
    """Noise of the oracle's future points, in pixels of a picture 640 px wide."""
    seed: int = FIRST_TEST_SEED
    """Of the oracle's and the real chain's first episode."""
    json: Path | None = None
    """Write the figures to this file."""

    def __post_init__(self) -> None:
        """Refuses what cannot be measured; ValueError names the field."""
        if self.draws < 10 or self.episodes < 1 or self.real_episodes < 1 or min(self.workers, default=1) < 1:
            raise ValueError(
                "want draws >= 10 and episodes, real_episodes and workers >= 1, got "
                f"{self.draws}, {self.episodes}, {self.real_episodes} and {', '.join(map(str, self.workers))}"
            )


def run(cfg: Config) -> int:
    """Measures the parts, prints their rows, and writes them."""
    needs = [part for part in ("hands", "extract") if part in cfg.parts and not cfg.clips]
    if needs:
        raise BadInput(f"bench video --parts {' '.join(needs)}: want --clips VIDEO..., got none; name other --parts without them")
    figures: dict[str, Any] = {"reference_per_s": _bench.reference_per_s(), "machine": _bench.machine(1)}
    if "table" in cfg.parts:
        figures["track_error"] = _error_table.rows(cfg.draws)
        print(shown("track error into pose error", figures["track_error"], ("angle_deg", "sigma_px", "quantised", "shift_px")))
    if "oracle" in cfg.parts:
        figures["oracle"] = _oracle_tracks.oracle_rows(cfg.tasks, cfg.episodes, cfg.sigmas_px, cfg.seed)
        print(shown("oracle tracks", figures["oracle"], ("task", "sigma_px", "demo_success", "replay_success", "success")))
    if "wrist" in cfg.parts:
        figures["wrist"] = wrist_rows()
        print(shown("wrist path", figures["wrist"], ("rule", "noise_share", "position_median_mm", "rotation_median_deg")))
    if "chain" in cfg.parts:
        figures["chain"] = _to_demos_rows.chain_rows(cfg.tasks, episodes=cfg.chain_episodes)
        print(shown("human clips performed", figures["chain"], ("task", "rule", "noise_share", "success")))
    if "real_chain" in cfg.parts:
        with kept(cfg.folder) as folder:
            figures["real_chain"] = _real_chain.real_chain(cfg.tasks, cfg.real_episodes, cfg.seed, folder)
        tell_real_chain(figures["real_chain"])
    if "hands" in cfg.parts:
        figures["hands"] = [_hands_rows.hands_row(clip, name, cfg.max_hands) for clip in cfg.clips for name in cfg.detectors]
        print(shown("hands", figures["hands"], ("clip", "detector", "frames", "detected", "error_px", "fps")))
    if "extract" in cfg.parts:
        with kept(None) as folder:
            each = [(name, workers) for name in cfg.detectors for workers in cfg.workers]
            figures["extract"] = [_hands_rows.extract_row(cfg.clips, name, workers, folder) for name, workers in each]
        print(shown("tracks extract", figures["extract"], ("detector", "workers", "frames", "wall_s", "frames_per_s")))
    write_json(cfg.json, figures, cfg.seed)
    return 0


@contextmanager
def kept(folder: Path | None) -> Iterator[Path]:
    """Gives the folder, which stays, or one that is removed afterwards."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


def tell_real_chain(figures: Mapping[str, Any]) -> None:
    """Prints the calibration, the paths and the replays of the real chain."""
    views = ("view", "pictures", "rms_px", "focal_error_percent", "principal_point_error_px", "place_error_mm", "turn_error_deg")
    print(shown("real chain: the cameras found, beside the true ones", figures["calibration"]["views"], views))
    print(shown("real chain: paths beside the truth", figures["paths"], ("task", "landmarks", "filmed", "clips")))
    print(shown("real chain: performed", figures["replays"], ("task", "landmarks", "body", "filmed", "refused", "success")))


def wrist_rows() -> list[dict[str, Any]]:
    """Returns how far wrist paths are from the truth, by the rule that makes them and the noise of the landmarks."""
    return [{"rule": name, **_wrist_table.rows(share, rule)} for name, rule in _wrist_table.RULES.items() for share in SHARES]


def shown(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Returns rows as lines for a terminal: the columns named, and for the table of errors what came of them."""
    results = [key for key in (rows[0] if rows else {}) if key not in columns and key.endswith(("_mm", "_deg", "why"))]

    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = [title, "  ".join(f"{column:>16}" for column in (*columns, *results))]
    lines += ["  ".join(f"{text(row.get(column, '')):>16}" for column in (*columns, *results)) for row in rows]
    return "\n".join(lines)
