"""Measure retargeting beside mink: exactness, rates, streams under a speed cap, the hand's exact pose, faults, two arms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tqdm import tqdm

from robolearn.apps._bench import machine
from robolearn.apps._report import write_json
from robolearn.errors import MissingDependency, RobolearnError

ARMS = ("panda", "iiwa", "kinova3", "gr1_right", "sawyer")


@dataclass(frozen=True)
class Config:
    """What to measure, and how long."""

    arms: tuple[str, ...] = ARMS
    """Which arms."""
    seed: int = 0
    """Of all targets."""
    repeats: int = 5
    """Of every timing; the median counts."""
    quick: bool = False
    """A tenth of the targets: to see that it works."""
    bimanual: bool = True
    """Two arms on one torso, with both collision filters."""
    webxr: bool = False
    """The WebXR page in headless Chromium moves a simulated arm."""
    session: bool = False
    """A whole recording session in a pseudo-terminal (minutes)."""
    json: Path | None = None
    """Write the figures to this file."""


def run(cfg: Config) -> int:
    """Measures, prints a table, and returns 1 where a residual, a cap or a fault does not hold."""
    try:
        import mink  # noqa: F401  the peer
    except ImportError as error:
        raise MissingDependency("mink", "bench teleop", "pip install mink daqp") from error
    from robolearn.apps import _teleop_arms as arms
    from robolearn.apps._teleop_faults import faults
    from robolearn.teleop import robots

    many, some = (200, 20) if cfg.quick else (2000, 150)
    figures: dict[str, Any] = {"machine": machine(1), "arms": {}}
    for name in tqdm(cfg.arms, desc="arms", disable=None):
        figures["arms"][name] = arms.exactness(name, many, cfg.seed) | arms.beside_mink(name, some, cfg.repeats, cfg.seed)
    figures["batch"] = arms.batch_rate(1000, cfg.repeats, cfg.seed)
    figures["batch_solves_per_s"] = min(figures["batch"].values())
    figures["stream"] = arms.stream_rows(cfg.arms[:2], 2.0 if cfg.quick else 20.0, cfg.seed)
    figures["mode_c"] = arms.mode_c(("panda", "iiwa"), 40 if cfg.quick else 500, cfg.seed)
    figures["human_paths"] = _part("human", True, lambda m: m.human(2 if cfg.quick else 10, cfg.seed))
    figures["faults"] = faults(robots.arm("panda"), cfg.seed)
    figures["bimanual"] = _part("bimanual", cfg.bimanual, lambda m: m.bimanual(90 if cfg.quick else 765, cfg.seed))
    figures["webxr"] = _part("webxr", cfg.webxr, lambda m: m.webxr(cfg.seed))
    figures["session"] = _part("session", cfg.session, lambda m: m.session(Path("data/bench/teleop_session"), cfg.seed))
    print(table(figures))
    write_json(cfg.json, figures, cfg.seed)
    return int(not held(figures))


def _part(name: str, wanted: bool, measure: Callable[[Any], Any]) -> Any:
    """Returns the figures of an optional part, or why there are none."""
    if not wanted:
        return {"holds": None, "why": f"not asked for: --{name}"}
    try:
        return measure(import_module(f"robolearn.apps._teleop_{name}"))
    except RobolearnError as error:
        return {"holds": None, "why": str(error)}


def held(figures: Mapping[str, Any]) -> bool:
    """Returns whether everything that must hold on any machine does; rates are not among it."""
    exact = all(row["max_residual_rad"] <= 1e-9 and row["round_trip_share"] == 1.0 for row in figures["arms"].values())
    calm = all(row["within_cap"] for row in figures["stream"] if row["method"].startswith("sew"))
    parts = all(figures[part].get("holds") is not False for part in ("bimanual", "webxr", "session"))
    return exact and calm and parts and all(row["holds"] for row in figures["faults"].values())


def table(figures: Mapping[str, Any]) -> str:
    """Returns what the terminal shows."""
    lines = ["arm          residual   found   solves/s   mink same   x      cold: ours  mink    mink hand pose/s"]
    for name, row in figures["arms"].items():
        lines.append(
            f"{name:<12} {row['max_residual_rad']:.1e}  {100 * row['round_trip_share']:5.1f} % {row['solves_per_s']:8,.0f}  "
            f"{row['mink_same_objective_solves_per_s']:8,.0f} {row['ratio']:6.1f}{'*' if row['ratio_is_void'] else ' '} "
            f"{100 * row['cold_converged_share']:9.0f} % {100 * row['mink_cold_converged_share']:5.0f} % "
            f"{row['mink_hand_pose_solves_per_s']:12,.0f}"
        )
    lines.append(f"batch of 1,000: {', '.join(f'{name} {rate:,.0f}/s' for name, rate in figures['batch'].items())}")
    lines.append("stream                                          u, l, H [deg]        largest step   frames/s")
    for row in figures["stream"]:
        errors = " ".join(f"{value:5.2f}" for value in row["mean_error_deg"])
        lines.append(
            f"{row['arm']:<6} {row['stream']:<6} {row['method']:<32} {errors}   {row['max_step_rad']:.4f} of {row['cap_rad']:.4f}"
            f"{row['frames_per_s']:9,.0f}"
        )
    lines += [
        f"hand pose, {row['arm']}: {100 * row['share_within_1e-6_m']:.1f} % within 1e-6 m, largest "
        f"{row['position_error_m_max']:.1e} m, elbow plane {row['elbow_plane_error_deg_mean']:.2f} deg"
        for row in figures["mode_c"]
    ]
    paths = figures["human_paths"]
    lines += [
        f"human hand paths, mode {mode}: hand {paths[mode]['position_error_mm_mean']:.3f} mm off on average, "
        f"{paths[mode]['position_error_mm_max']:.3f} at most"
        for mode in ("A", "C")
        if mode in paths
    ] or [f"human hand paths: {paths['why']}"]
    lines += [
        f"bimanual, {row['method']:<24} penetrating {100 * row['penetrating_share']:5.1f} %, "
        f"held {100 * row['held_share']:5.1f} %, largest step {row['largest_step_rad']:.3f} rad, "
        f"limb error {row['mean_limb_error_deg']:.2f} deg"
        for row in figures["bimanual"].get("rows", ())
    ]
    bad = [name for name, row in figures["faults"].items() if not row["holds"]]
    lines.append(f"faults: {len(figures['faults']) - len(bad)} of {len(figures['faults'])} hold {' '.join(bad)}".rstrip())
    return "\n".join(lines)
