"""Human video, measured without learning: what track errors cost, oracle tracks as plans, wrist paths, hands in real clips."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from robolearn.apps import _bench, _oracle_tracks, _to_demos_rows
from robolearn.apps._report import write_json
from robolearn.apps._trials import FIRST_TEST_SEED
from robolearn.errors import BadInput, MissingDependency
from robolearn.video import _error_table, _wrist_table, clips
from robolearn.video.hands import Settings, make_detector

Part = Literal["table", "oracle", "wrist", "chain", "hands"]
STORED = "_mp01021_landmarks.npz"  # beside a clip: MediaPipe 0.10.21's landmarks of it, `kpts` (frames, 21, 2) [px]
SHARES = (0.0, 0.01, 0.05, 0.10)  # of the hand's size


@dataclass(frozen=True)
class Config:
    """What to measure."""

    parts: tuple[Part, ...] = get_args(Part)
    """table: track errors [px] into pose errors; oracle: true tracks, and noisy ones, as plans on the bench's tasks; wrist: a
    wrist's path from noisy landmarks; chain: such paths performed by the bench's gripper; hands: detectors on the clips given."""
    clips: tuple[Path, ...] = ()
    """Videos for `hands`; those with stored landmarks (NAME_mp01021_landmarks.npz) beside them are compared with these."""
    detectors: tuple[str, ...] = ("litert", "mediapipe")
    max_hands: int = 1
    draws: int = 2000
    """Of the table."""
    episodes: int = 100
    """Of the oracle, a task and noise."""
    chain_episodes: int = 20
    """Of the chain, a task, rule and noise."""
    tasks: tuple[str, ...] = _oracle_tracks.TASKS
    sigmas_px: tuple[float, ...] = _oracle_tracks.SIGMAS
    """Noise of the oracle's future points, in pixels of a picture 640 px wide."""
    seed: int = FIRST_TEST_SEED
    """Of the oracle's first episode."""
    json: Path | None = None
    """Write the figures to this file."""

    def __post_init__(self) -> None:
        """Refuses what cannot be measured; ValueError names the field."""
        if self.draws < 10 or self.episodes < 1:
            raise ValueError(f"want draws >= 10 and episodes >= 1, got {self.draws} and {self.episodes}")


def run(cfg: Config) -> int:
    """Measures the parts, prints their rows, and writes them."""
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
    if "hands" in cfg.parts:
        figures["hands"] = [hands_row(clip, name, cfg.max_hands) for clip in cfg.clips for name in cfg.detectors]
        print(shown("hands", figures["hands"], ("clip", "detector", "frames", "detected", "error_px", "fps")))
    write_json(cfg.json, figures, cfg.seed)
    return 0


def wrist_rows() -> list[dict[str, Any]]:
    """Returns how far wrist paths are from the truth, by the rule that makes them and the noise of the landmarks."""
    return [{"rule": name, **_wrist_table.rows(share, rule)} for name, rule in _wrist_table.RULES.items() for share in SHARES]


def hands_row(clip: Path, detector: str, max_hands: int) -> dict[str, Any]:
    """Returns how often a detector finds a hand in a clip, how far it is from the stored landmarks [px], and frames a second."""
    row: dict[str, Any] = {"clip": clip.name, "detector": detector, "frames": 0, "detected": None, "error_px": None, "fps": None}
    try:
        hands = make_detector(detector, replace(Settings(), max_hands=max_hands), clip)
    except MissingDependency as missing:
        return row | {"why": str(missing)}
    frames = list(clips.pictures(clips.probe(clip)))
    began = time.perf_counter()
    try:
        found = [hands.detect(picture.rgb, picture.t_s) for picture in frames]
    finally:
        hands.close()
    took = time.perf_counter() - began
    seen = [each[0].landmarks_px if each else np.full((21, 2), np.nan) for each in found]
    error = against_stored(clip, np.stack(seen))
    counted = {"frames": len(frames), "detected": sum(bool(each) for each in found)}
    return row | counted | {"error_px": error, "fps": len(frames) / took}


def against_stored(clip: Path, landmarks_px: np.ndarray) -> float | None:
    """Returns the mean distance [px] to the stored landmarks where both found a hand, None where there are none stored."""
    path = clip.with_name(clip.stem + STORED)
    if not path.is_file():
        return None
    with np.load(path) as stored:
        kept = stored["kpts"]
    if kept.shape != landmarks_px.shape:
        raise BadInput(f"{path}: want landmarks {landmarks_px.shape} as the clip has frames, got {kept.shape}")
    apart = np.linalg.norm(kept - landmarks_px, axis=-1)
    return float(np.nanmean(apart))


def shown(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Returns rows as lines for a terminal: the columns named, and for the table of errors what came of them."""
    results = [key for key in (rows[0] if rows else {}) if key not in columns and key.endswith(("_mm", "_deg", "why"))]

    def text(value: Any) -> str:
        return f"{value:.3g}" if isinstance(value, float) else str(value)

    lines = [title, "  ".join(f"{column:>16}" for column in (*columns, *results))]
    lines += ["  ".join(f"{text(row.get(column, '')):>16}" for column in (*columns, *results)) for row in rows]
    return "\n".join(lines)
