"""The WebXR page in headless Chromium drives the simulated arm of Lift: how far it moved, and how late its messages were."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hardware.devices import webxr as device_module
from hardware.devices.webxr import WebXR
from robolearn.apps._live import Paced
from robolearn.core import SimEnv, TeleopSample
from robolearn.teleop.clutch import Clutch
from robolearn.teleop.drives import simple_drives
from robolearn.teleop.pilot import Pilot, Seat
from sim_envs import _base

MOVED_M = 0.02  # less is an arm that did not follow
_WAIT_MS = 20_000
_TICKS = 20_000  # of the body: far more than the page needs; it is stopped when the page is done


@dataclass
class Drive:
    """The body's side: runs in a thread while the page is dragged."""

    body: SimEnv
    device: WebXR
    seed: int
    arrived_ms: list[float] = field(default_factory=list)  # page -> here, of every sample
    read_ms: list[float] = field(default_factory=list)  # page -> the control tick that used it
    hand: list[np.ndarray] = field(default_factory=list)  # (3,) [m] at every tick
    engaged: int = 0  # ticks
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def read(self) -> Sequence[TeleopSample]:
        """Returns the device's samples and books how old they are."""
        samples, now_ns = self.device.read(), time.monotonic_ns()
        self.arrived_ms += [(sample.t_recv_ns - sample.t_dev_ns) * 1e-6 for sample in samples]
        self.read_ms += [(now_ns - sample.t_dev_ns) * 1e-6 for sample in samples]
        return samples

    def run(self) -> None:
        """Drives the body at its own rate until `done`."""
        try:
            paced = Paced(self.body)
            pilot = Pilot(self.body.spec, self.read, [Seat(drive, Clutch()) for drive in simple_drives(self.body.spec)])
            obs = paced.reset(self.seed)
            pilot.reset(self.seed)
            pilot.observe(obs, None)
            for _ in range(_TICKS):
                self.hand.append(np.array(obs["eef_pos"], float))
                if self.done.is_set():
                    break
                step = paced.step(pilot.plan().actions[0])
                obs = step.obs
                self.engaged += any(pilot.panel.engaged)
                pilot.observe(obs, step.filtered)
        except Exception as error:  # a thread's error is raised where it is joined
            self.error = error


def webxr(seed: int) -> dict[str, Any]:
    """Returns how far [m] a drag on the page moved Lift's arm and the latencies [ms] from page to sample (p50, p95)."""
    chromium = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    if not chromium:
        return {"holds": None, "why": "no Chromium found; apt install chromium"}
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return {"holds": None, "why": "playwright is not installed; pip install playwright"}
    with tempfile.TemporaryDirectory() as cache:
        device = device_module.make(device_module.Config(host="127.0.0.1", port=0, cache=cache))
        with closing(_base.make("lift", {"action": "pose_abs"})) as body, closing(device):
            device.connect()
            drive = Drive(body, device, seed)
            thread = threading.Thread(target=drive.run, daemon=True)
            try:
                _drag(chromium, device.address, thread)
            finally:
                drive.done.set()
                if thread.ident is not None:
                    thread.join(30.0)
            if drive.error is not None:
                raise drive.error
            return _figures(drive)


def _drag(chromium: str, address: str, thread: threading.Thread) -> None:
    """Opens the page, lets the body run, and drags the pad forward for two seconds as a person would."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--ignore-certificate-errors"])
        page = browser.new_page(ignore_https_errors=True, viewport={"width": 1280, "height": 800})
        page.set_default_timeout(_WAIT_MS)
        page.goto(address)
        page.locator("#trip", has_text="ms").wait_for()  # connected, and the clocks are compared
        thread.start()
        box = page.locator("#pad").bounding_box()
        assert box is not None
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] - 20
        page.mouse.move(x, y)
        page.wait_for_timeout(500)
        page.mouse.down()
        for k in range(40):
            page.mouse.move(x, y - 2.5 * k)
            page.wait_for_timeout(50)
        page.wait_for_timeout(500)
        page.mouse.up()
        page.wait_for_timeout(300)
        browser.close()


def _figures(drive: Drive) -> dict[str, Any]:
    path = np.stack(drive.hand) - drive.hand[0]
    moved = float(np.linalg.norm(path, axis=-1).max())
    counts, trip = drive.device.inbox.counts, drive.device.inbox.clocks.round_trip_ms
    return {
        "holds": moved >= MOVED_M,
        "moved_m": round(moved, 4),
        "forward_m": round(float(path[:, 0].max()), 4),
        "latency_p50_ms": round(float(np.percentile(drive.arrived_ms, 50)), 2),
        "latency_p95_ms": round(float(np.percentile(drive.arrived_ms, 95)), 2),
        "to_tick_p50_ms": round(float(np.percentile(drive.read_ms, 50)), 2),
        "to_tick_p95_ms": round(float(np.percentile(drive.read_ms, 95)), 2),
        "round_trip_ms": None if trip is None else round(trip, 2),
        "samples": len(drive.arrived_ms),
        "messages": counts.taken,
        "dropped": counts.refused + counts.disordered + counts.late,
        "ticks": len(drive.hand),
        "ticks_engaged": drive.engaged,
    }
