"""Time off-screen pictures and control steps of a robosuite task against robosuite's own way, interleaved."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np

from robolearn.apps import _bench
from robolearn.apps._report import write_json
from robolearn.errors import ConfigError
from sim_envs import _base, _mujoco, _robosuite

CAMERAS = ("agentview", "robot0_eye_in_hand")


@dataclass(frozen=True)
class Config:
    """What to time."""

    task: str = "lift"
    size: int = 84
    """Width and height of the pictures [px]."""
    images: int = 10
    """Pictures of each of two cameras in one repeat."""
    steps: int = 20
    """Control steps, without pictures, in one repeat."""
    repeats: int = 5
    """Interleaved repeats; the figures are medians."""
    picture: Path | None = None
    """Write what both ways draw, side by side, to this PNG."""
    json: Path | None = None
    """Write the figures to this file."""


def run(cfg: Config) -> int:
    """Prints and writes pictures/s and steps/s of ours and of robosuite's default, and how alike the pictures are."""
    ours = _base.make(cfg.task)
    if not isinstance(ours, _robosuite.RobosuiteEnv):
        raise ConfigError(f"task: want a robosuite task, got {cfg.task}")
    with closing(ours), closing(_suite(ours)) as suite:
        obs = ours.reset(0)
        suite.reset()
        suite.sim.set_state(ours.suite.sim.get_state())
        suite.sim.forward()
        still = np.concatenate([np.r_[obs[f"eef_pos{k}"], obs[f"eef_rot6d{k}"], 1.0] for k in ours.suffixes])
        fast = _mujoco.Renderer(ours.model, cfg.size, _mujoco.FAST)
        draw: dict[str, Callable[[str], np.ndarray]] = {
            "ours": lambda camera: fast.draw(ours.data, camera),
            "robosuite_default": lambda camera: _default_picture(suite, camera, cfg.size),
        }
        step: dict[str, Callable[[], Any]] = {
            "ours": lambda: ours.step(still),
            "robosuite_default": lambda: suite.step(np.zeros(suite.action_dim)),
        }
        pairs = {camera: [each(camera) for each in draw.values()] for camera in CAMERAS}
        figures: dict[str, Any] = {"task": cfg.task, "size": cfg.size, "reference_per_s": _bench.reference_per_s(cfg.repeats)}
        figures |= _rates(draw, cfg) | _step_rates(step, cfg)
        figures["psnr_db"] = {camera: psnr(*pair) for camera, pair in pairs.items()}
        fast.close()
    if cfg.picture is not None:
        cfg.picture.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(cfg.picture), np.vstack([np.hstack(pair) for pair in pairs.values()])[..., ::-1])
    for what in ("images", "steps"):
        mine, theirs = figures[f"ours_{what}_per_s"], figures[f"robosuite_default_{what}_per_s"]
        print(f"{what:<6} {mine:8.1f} /s   robosuite's default {theirs:8.1f} /s   {mine / theirs:.1f} times as many")
    write_json(cfg.json, figures, seed=0)
    return 0


def _suite(env: _robosuite.RobosuiteEnv) -> Any:
    return _robosuite.make_suite(env.task_facts, replace(env.config, action="osc_delta"), pictures=True)


def _default_picture(suite: Any, camera: str, size: int) -> np.ndarray:
    suite.sim._render_context_offscreen.gl_ctx.make_current()  # beside ours; alone it need not
    return suite.sim.render(size, size, camera_name=camera)[::-1]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio [dB] between two uint8 pictures."""
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def _rates(draw: dict[str, Callable[[str], np.ndarray]], cfg: Config) -> dict[str, float]:
    def pictures(each: Callable[[str], np.ndarray]) -> Callable[[], object]:
        return lambda: [each(camera) for _ in range(cfg.images) for camera in CAMERAS]

    seconds = _bench.interleaved({name: pictures(each) for name, each in draw.items()}, max(5, cfg.repeats))
    return {f"{name}_images_per_s": len(CAMERAS) * cfg.images / median(each) for name, each in seconds.items()}


def _step_rates(step: dict[str, Callable[[], Any]], cfg: Config) -> dict[str, float]:
    def steps(each: Callable[[], Any]) -> Callable[[], object]:
        return lambda: [each() for _ in range(cfg.steps)]

    seconds = _bench.interleaved({name: steps(each) for name, each in step.items()}, max(5, cfg.repeats))
    return {f"{name}_steps_per_s": cfg.steps / median(each) for name, each in seconds.items()}
