"""Takes the pictures of docs/data_view.md: python -m tests.apps.view_pictures PUSHT.zarr ROBOSUITE.zarr docs/img

Not a test: it shows what a person would see, for a person to look at. ROBOSUITE.zarr is recorded where it does not exist: four
episodes of stack by its expert through the recorder, four cameras. In the first the wrist's camera stalls for a second, the third
is cut off.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from robolearn.core import Obs, Step
from robolearn.data.recorder import EpisodeWriter
from robolearn.rollout import rollout
from sim_envs import _base

FLAGS = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
WHOLE = (
    "document.documentElement.dataset.whole === 'true' && !document.getElementById('check').textContent.startsWith('checking')"
)


class Stalling:
    """A body whose wrist camera shows one picture from tick 24 to 45 of the first episode."""

    def __init__(self, body: Any) -> None:
        self.body, self.spec, self.close = body, body.spec, body.close
        self.episode, self.tick, self.held = -1, 0, np.zeros(0)

    def reset(self, seed: int | None = None) -> Obs:
        """Begins an episode."""
        self.episode, self.tick = self.episode + 1, 0
        return self.body.reset(seed)

    def step(self, action: np.ndarray) -> Step:
        """Acts; what comes back may hold an old picture."""
        step, self.tick = self.body.step(action), self.tick + 1
        if self.episode or not 24 <= self.tick <= 45:
            self.held = step.obs["wrist_image"]
        return replace(step, obs={**step.obs, "wrist_image": self.held})


def record(path: Path) -> None:
    """Records the robosuite set, as a robot's would be."""
    config = {"cameras": ["agentview", "frontview", "sideview", "wrist"], "image_size": 160}
    env: Any = _base.make("stack", config)
    body = Stalling(env)
    facts = {"task": "stack", "env": config, "robot": "Panda", "operator": "expert"}
    with EpisodeWriter(path, facts, state=env.state) as recorder:
        for seed in range(4):
            rollout(body, _base.expert(env, seed), max_steps=40 if seed == 2 else 120, seed=seed, sinks=[recorder])
    env.close()


@contextmanager
def served(path: Path) -> Iterator[str]:
    """Gives the address of a viewer on one set."""
    command = [sys.executable, "-m", "robolearn", "data", "view", str(path), "--port", "0", "--no-open"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        yield server.stdout.readline().split("  ")[0].rsplit(" ", 1)[-1]
    finally:
        server.terminate()
        server.wait()


def take(page: Page, address: str, file: Path, *keys: str) -> None:
    """Opens an address, presses keys, waits until all is drawn, writes the picture."""
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_function(WHOLE)
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_timeout(2500)
    page.screenshot(path=file)
    Image.open(file).convert("RGB").save(file, optimize=True)


def main(pusht: Path, robosuite: Path, out: Path) -> None:
    """Writes view_*.png."""
    if not robosuite.exists():
        record(robosuite)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        for path, name, rest in ((pusht, "pusht", "#episode=3&row=40"), (robosuite, "robosuite", "#episode=0&row=36")):
            with served(path) as address:
                for width, height, scheme in ((1280, 900, "light"), (1280, 900, "dark"), (800, 1000, "light")):
                    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
                    page.set_default_timeout(120_000)
                    take(page, address + rest, out / f"view_{name}_{width}_{scheme}.png")
                    if name == "robosuite" and scheme == "dark":
                        take(page, address + rest, out / "view_keys.png", "?")
                    page.close()
        browser.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
