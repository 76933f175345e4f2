"""The live view in headless Chromium: the picture changes and the status line speaks; the WebXR page moves the simulated arm."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the live view's page is not tested")
CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
if not CHROMIUM:
    pytest.skip("no Chromium found: the live view's page is not tested; apt install chromium", allow_module_level=True)

from robolearn.apps import _teleop_webxr  # noqa: E402
from robolearn.apps._watch import Scene, Watch  # noqa: E402

_AUDIT = (Path(__file__).parent / "view_audit.js").read_text()
_PIXEL = """() => {
  const pen = Object.assign(document.createElement('canvas'), { width: 1, height: 1 }).getContext('2d');
  pen.drawImage(document.querySelector('img'), 0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data[0];
}"""


def test_the_page_shows_the_scene_as_it_changes_and_says_when_it_ends() -> None:
    grey = [200]
    view = Watch(Scene(lambda: grey[0], lambda state: np.full((32, 32, 3), state, np.uint8)))
    pause = threading.Event()
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
        page.goto(view.address)
        for shade in (200, 40):
            grey[0] = shade
            for _ in range(200):  # a browser shows a frame of such a stream when the next one begins
                view.begin(None, {})
                pause.wait(0.03)
                if abs(page.evaluate(_PIXEL) - shade) < 6:
                    break
            else:
                raise AssertionError(f"never saw {shade}")
        page.locator("#line", has_text="the episode begins").wait_for()
        found = page.evaluate(_AUDIT)
        assert found["texts"] >= 2 and not found["faint"], found["faint"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        view.close()
        page.locator("#line.lost", has_text="has ended").wait_for()
        browser.close()


def test_the_webxr_page_moves_the_simulated_arm() -> None:
    pytest.importorskip("websockets")
    figures = _teleop_webxr.webxr(seed=0)
    assert figures["holds"] is True and figures["forward_m"] > 0.8 * figures["moved_m"] > 0.0
    assert figures["ticks_engaged"] > 0 and figures["latency_p95_ms"] >= figures["latency_p50_ms"] >= 0.0


def test_the_webxr_figures_are_null_where_there_is_no_chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert _teleop_webxr.webxr(seed=0) == {"holds": None, "why": "no Chromium found; apt install chromium"}
