"""The WebXR page in headless Chromium: emulated input and a small fake of navigator.xr move the samples; it is accessible."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the WebXR page is not tested")
CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
if not CHROMIUM:
    pytest.skip("no Chromium found: the WebXR page is not tested; apt install chromium", allow_module_level=True)

from hardware.devices import webxr  # noqa: E402
from robolearn.core import TeleopSample  # noqa: E402

_AUDIT = (Path(__file__).parents[1] / "apps" / "view_audit.js").read_text()
_FAKE_XR = (Path(__file__).parent / "fake_xr.js").read_text()
_ON = "#link[data-state=on]"


class Hands:
    """Every sample the device gave so far."""

    def __init__(self, device: webxr.WebXR) -> None:
        self.device, self.samples = device, list[TeleopSample]()

    def until(self, claim: Callable[[TeleopSample], Any], arm: int = 0) -> TeleopSample:
        """Returns the first new sample of an arm that the claim is true of; fails after ten seconds."""
        pause = threading.Event()
        for _ in range(1000):
            for sample in self.device.read():
                self.samples.append(sample)
                if sample.arm == arm and claim(sample):
                    return sample
            pause.wait(0.01)
        raise AssertionError(f"never came; the last of {len(self.samples)} samples: {self.samples[-1:]}")


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webxr.WebXR]:
    pytest.importorskip("websockets")
    cache = str(tmp_path_factory.mktemp("tls"))
    served = webxr.make(webxr.Config(host="127.0.0.1", port=0, cache=cache, arms=2, full=True))
    served.connect()
    yield served
    served.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--ignore-certificate-errors"])
        yield opened
        opened.close()


def open_page(browser: Any, device: webxr.WebXR, script: str = "", **how: Any) -> Iterator[Any]:
    """The page, connected; afterwards: no error was in its console."""
    context = browser.new_context(ignore_https_errors=True, **how)
    page = context.new_page()
    page.set_default_timeout(20_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    if script:
        page.add_init_script(script)
    page.goto(device.address)
    page.locator(_ON).wait_for()
    try:
        yield page
    finally:  # a page that a failed test leaves open would keep control
        context.close()
    pause = threading.Event()
    while device.connected:
        pause.wait(0.02)
    device.read()
    assert not said, said


@pytest.fixture
def page(browser: Any, device: webxr.WebXR) -> Iterator[Any]:
    yield from open_page(browser, device, viewport={"width": 1280, "height": 800})


@pytest.fixture
def headset(browser: Any, device: webxr.WebXR) -> Iterator[Any]:
    yield from open_page(browser, device, _FAKE_XR)


def at(sample: TeleopSample) -> np.ndarray:
    assert sample.pose is not None
    return np.asarray(sample.pose)[:3, 3]


def test_a_drag_forward_moves_the_hand_forward_while_the_button_is_down(page: Any, device: webxr.WebXR) -> None:
    hands = Hands(device)
    hands.until(lambda sample: sample.deadman is False)
    box = page.locator("#pad").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x - 40, y - 80, steps=8)
    moved = hands.until(lambda sample: sample.deadman and at(sample)[0] > 0.079)
    np.testing.assert_allclose(at(moved), [0.08, 0.04, 0.0], atol=1e-9)
    page.mouse.up()
    released = hands.until(lambda sample: sample.deadman is False)
    page.mouse.move(x, y)
    np.testing.assert_allclose(at(hands.until(lambda sample: sample.t_dev_ns > released.t_dev_ns)), at(moved), atol=1e-9)


def test_keys_move_only_while_space_is_held(page: Any, device: webxr.WebXR) -> None:
    hands = Hands(device)
    page.keyboard.down("e")
    still = [hands.until(lambda sample: True) for _ in range(5)]
    assert all(not sample.deadman and not at(sample).any() for sample in still)
    page.keyboard.down(" ")
    hands.until(lambda sample: sample.deadman and at(sample)[2] > 0.02)
    page.keyboard.down("z")
    turned = hands.until(lambda sample: sample.pose[1, 0] > 0.05)
    assert turned.pose is not None and turned.pose[2, 2] == pytest.approx(1.0)
    page.keyboard.up(" ")
    hands.until(lambda sample: sample.deadman is False)
    page.keyboard.press("g")
    hands.until(lambda sample: sample.grip == 1.0)


@pytest.mark.parametrize("event", ["blur", "pagehide", "visibilitychange"])
def test_a_page_that_loses_focus_lets_go(page: Any, device: webxr.WebXR, event: str) -> None:
    hands = Hands(device)
    page.keyboard.down(" ")
    hands.until(lambda sample: sample.deadman)
    page.evaluate(f"({'document' if event == 'visibilitychange' else 'window'}).dispatchEvent(new Event('{event}'))")
    hands.until(lambda sample: sample.deadman is False)
    assert page.locator("#hold").get_attribute("aria-pressed") == "false"


def test_buttons_say_what_became_of_the_episode_once(page: Any, device: webxr.WebXR) -> None:
    hands = Hands(device)
    for name in ("Start", "Success", "Failure", "Redo", "Undo", "Stop"):
        page.get_by_role("button", name=name, exact=True).click()
        hands.until(lambda sample, event=name.lower(): event in sample.events)
    said = [event for sample in hands.samples for event in sample.events]
    assert said == ["start", "success", "failure", "redo", "undo", "stop"]


def test_latency_is_on_the_page_and_a_closed_page_lets_go(browser: Any, device: webxr.WebXR) -> None:
    opened = open_page(browser, device)
    page, hands = next(opened), Hands(device)
    for name in ("trip", "age"):
        page.locator(f"#{name}", has_text=re.compile(r"^[0-9.]+ ms$")).wait_for()
    page.keyboard.down(" ")
    hands.until(lambda sample: sample.deadman)
    page.close()
    hands.until(lambda sample: sample.deadman is False)
    assert next(opened, None) is None


def test_controllers_of_a_headset_drive_both_hands(headset: Any, device: webxr.WebXR) -> None:
    hands = Hands(device)
    headset.get_by_role("button", name="Start VR").click()
    headset.get_by_role("button", name="End session").first.wait_for()
    headset.evaluate("fakeXr.right.move(0.1, 1.2, -0.5); fakeXr.left.move(-0.1, 1.0, -0.4)")
    right = hands.until(lambda sample: at(sample)[2] == 1.2)
    left = hands.until(lambda sample: at(sample)[2] == 1.0, arm=1)
    np.testing.assert_allclose(at(right), [0.5, -0.1, 1.2])
    np.testing.assert_allclose(at(left), [0.4, 0.1, 1.0])
    assert not right.deadman and not left.deadman
    headset.evaluate("fakeXr.right.press(1, 1); fakeXr.right.press(0, 0.7)")
    held = hands.until(lambda sample: sample.deadman)
    assert held.arm == 0 and hands.until(lambda sample: sample.grip == pytest.approx(0.7)).deadman
    assert not hands.until(lambda sample: True, arm=1).deadman
    headset.evaluate("fakeXr.right.press(4, 1)")
    assert hands.until(lambda sample: sample.events).events == ("success",)
    headset.evaluate("fakeXr.session.visibilityState = 'visible-blurred'")
    hands.until(lambda sample: sample.deadman is False)
    headset.evaluate("fakeXr.session.visibilityState = 'visible'")
    hands.until(lambda sample: sample.deadman)
    headset.evaluate("fakeXr.sources = [fakeXr.left]")  # the right hand is out of the cameras' sight
    hands.until(lambda sample: sample.deadman is False)
    headset.evaluate("fakeXr.sources = [fakeXr.left, fakeXr.right]")
    hands.until(lambda sample: sample.deadman)
    headset.evaluate("fakeXr.session.end()")
    hands.until(lambda sample: sample.deadman is False)
    headset.get_by_role("button", name="Start VR").wait_for()


def test_a_phone_is_its_own_hand_and_the_screen_its_dead_man(headset: Any, device: webxr.WebXR) -> None:
    hands = Hands(device)
    headset.evaluate("fakeXr.sources = []")
    headset.get_by_role("button", name="Start AR").click()
    headset.get_by_role("button", name="End session").first.wait_for()
    headset.evaluate("fakeXr.viewer.move(0.3, 1.5, 0.2)")
    assert not hands.until(lambda sample: at(sample)[2] == 1.5).deadman
    box = headset.get_by_role("button", name="Hold to move").bounding_box()
    headset.mouse.move(box["x"] + 20, box["y"] + 20)
    headset.mouse.down()
    np.testing.assert_allclose(at(hands.until(lambda sample: sample.deadman)), [-0.2, -0.3, 1.5])
    headset.mouse.up()
    hands.until(lambda sample: sample.deadman is False)


def test_a_second_page_is_told_that_another_is_in_control(page: Any, browser: Any, device: webxr.WebXR) -> None:
    context = browser.new_context(ignore_https_errors=True)
    second = context.new_page()
    second.goto(device.address)
    second.get_by_text("another page is in control", exact=True).wait_for()
    context.close()
    assert page.locator(_ON).count() == 1


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(1280, 800, "light"), (1280, 800, "dark"), (390, 844, "light"), (390, 844, "dark")]
)
def test_text_is_legible_and_every_control_has_a_name(page: Any, width: int, height: int, scheme: str, tmp_path: Path) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})
    page.wait_for_timeout(100)
    page.screenshot(path=str(Path(os.environ.get("SHOTS", tmp_path)) / f"webxr_{width}_{scheme}.png"))
    found = page.evaluate(_AUDIT)
    assert found["texts"] > 15 and not found["faint"], found["faint"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than its window"
    small = "[...document.querySelectorAll('button')].filter((b) => b.checkVisibility() && b.getBoundingClientRect().height < 43)"
    assert page.evaluate(f"{small}.map((b) => b.textContent)") == []
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "application", "status", "region", "heading")
    bare = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    named = [node for node in bare if node["role"]["value"] != "status"]
    assert len(bare) > 10 and not [node["role"]["value"] for node in named if not node.get("name", {}).get("value", "").strip()]


def test_tab_reaches_every_control_and_shows_where_it_is(page: Any) -> None:
    wanted = page.evaluate("[...document.querySelectorAll('button, [tabindex]')].filter((n) => n.checkVisibility()).length")
    seen = set()
    for _ in range(wanted + 1):
        page.keyboard.press("Tab")
        said = "[document.activeElement.outerHTML, getComputedStyle(document.activeElement).outlineStyle]"
        html, outline = page.evaluate(said)
        seen.add(html)
        assert outline != "none" or html.startswith("<body"), html
    assert len([html for html in seen if not html.startswith("<body")]) == wanted
