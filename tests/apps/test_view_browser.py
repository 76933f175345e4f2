"""The viewer in headless Chromium: it plays, obeys keys, labels on the disk, shows flags and the arm, and is accessible."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui", reason="robolearn[view] is not installed")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the viewer's page is not tested")
CHROMIUM = (
    os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
if not CHROMIUM:
    pytest.skip("no Chromium found: the viewer's page is not tested; apt install chromium", allow_module_level=True)

from robolearn.data.store import EpisodeSet  # noqa: E402
from tests.apps import view_sets  # noqa: E402

_LINE = json.dumps({"code": "late", "rows": [5, 8], "key": "", "text": "ticks came late"})
_AUDIT = (Path(__file__).parent / "view_audit.js").read_text()
_WAIT_MS = 60_000
_WHOLE = "document.documentElement.dataset.whole === 'true'"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A viewer on a set of lift with a report of a check; ends with Ctrl-C."""
    folder = tmp_path_factory.mktemp("view")
    view_sets.make(folder / "small.zarr")
    marks = [[json.loads(_LINE)], [], [{**json.loads(_LINE), "code": "short", "rows": None, "text": "few steps"}]]
    rows = [{"episode": i, "flags": [], "flag_rows": found} for i, found in enumerate(marks)]
    report = folder / "check.json"
    report.write_text(json.dumps({"episodes": rows, "set_flags": ["constant: sim_state[0] never changes"]}))
    command = [sys.executable, "-m", "robolearn", "data", "view", str(folder / "small.zarr"), "--port", "0", "--no-open"]
    server = subprocess.Popen([*command, "--check", str(report)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        line = server.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+/", line)
        assert address, line + (server.stderr.read() if server.stderr else "")
        yield address[0], folder / "small.zarr"
    finally:
        server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 130 and errors == "robolearn: interrupted\n"


@pytest.fixture(scope="module")
def opened(served: tuple[str, Path]) -> Iterator[Any]:
    """The page, complete; afterwards: no error was in its console, no request went but to this computer."""
    with sync_api.sync_playwright() as play:
        flags = ["--no-sandbox", "--enable-unsafe-swiftshader", "--use-angle=swiftshader"]
        browser = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_context(reduced_motion="reduce").new_page()
        page.set_default_timeout(_WAIT_MS)
        said: list[str] = []
        outside: list[str] = []
        page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        local = (served[0], served[0].replace("http", "ws"), "data:", "blob:")
        page.on("request", lambda request: None if request.url.startswith(local) else outside.append(request.url))
        page.set_viewport_size({"width": 1280, "height": 900})
        page.goto(served[0])
        page.wait_for_function(_WHOLE)
        yield page
        browser.close()
    assert not said, said
    assert not outside, outside


@pytest.fixture
def page(opened: Any) -> Any:
    """The page at 1280 px in light colours, at the first row of the first episode."""
    opened.emulate_media(color_scheme="light")
    opened.set_viewport_size({"width": 1280, "height": 900})
    opened.get_by_label("Show which episodes").select_option("")
    opened.locator('[data-episode="0"]').click()
    opened.get_by_role("slider").focus()
    until(opened, "document.querySelector('[aria-selected=true]').dataset.episode === '0'")
    opened.keyboard.press("Home")
    return opened


def row(page: Any) -> int:
    return int(page.get_by_role("slider").get_attribute("aria-valuenow"))


def until(page: Any, claim: str) -> None:
    page.wait_for_function(claim)


def test_playing_advances_cameras_plots_and_arm_together(page: Any) -> None:
    page.keyboard.press(" ")
    until(page, "document.querySelector('[role=slider]').getAttribute('aria-valuenow') > 3")
    page.keyboard.press(" ")
    rows = page.evaluate("[...document.querySelectorAll('#cameras canvas')].map((canvas) => Number(canvas.dataset.row))")
    assert rows == [row(page)] * 2 and page.get_by_role("button", name="Play", exact=True).is_visible()
    pixel = "[...document.querySelector('#cameras canvas').getContext('2d').getImageData(5, 5, 1, 1).data]"
    assert page.evaluate(pixel) == [60 + row(page), 60, 60, 255]
    until(page, f"document.getElementById('stage').dataset.row == {row(page)}")


def test_the_arm_is_drawn(page: Any) -> None:
    drawn = """() => {
      const canvas = document.querySelector('#stage canvas');
      const copy = Object.assign(document.createElement('canvas'), { width: 60, height: 60 }).getContext('2d');
      copy.drawImage(canvas, 0, 0, 60, 60);
      const data = copy.getImageData(0, 0, 60, 60).data;
      return new Set(Array.from({ length: 3600 }, (_, k) => data[4 * k] >> 4)).size > 4;
    }"""
    until(page, drawn)
    assert page.evaluate(drawn), "more than four shades: something stands before the ground"


def test_keys_move_through_rows_flags_and_episodes(page: Any) -> None:
    for key, want in (("ArrowRight", 1), ("ArrowDown", 11), ("ArrowUp", 1), ("ArrowLeft", 0), ("End", 39), ("Home", 0), ("f", 5)):
        page.keyboard.press(key)
        until(page, f"document.querySelector('[role=slider]').getAttribute('aria-valuenow') == {want}")
    page.keyboard.press("f")  # the next flag is in episode 2
    until(page, "document.querySelector('[aria-selected=true]').dataset.episode === '2'")
    page.keyboard.press("Shift+ArrowLeft")
    until(page, "document.querySelector('[aria-selected=true]').dataset.episode === '1'")
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("Escape")
    assert not page.get_by_role("dialog").is_visible()


def test_flags_and_bands_lie_on_the_time_line(page: Any) -> None:
    page.get_by_role("button", name=re.compile("late ticks came late")).click()
    assert row(page) == 5
    titles = page.eval_on_selector_all(".run", "runs => runs.map((run) => run.title)")
    assert any("late: ticks came late (rows 5 to 8" in title for title in titles)
    assert any(title.startswith("operator (rows 20 to 39") for title in titles)
    assert any(title.startswith("intervention (rows 11 to 14") for title in titles)
    assert "constant: sim_state" in page.locator("#set-flags").inner_text() or page.locator("#set-flags summary").is_visible()
    lane, plot = page.locator(".track.slider").bounding_box(), page.locator(".area canvas").first.bounding_box()
    assert abs(lane["x"] - plot["x"] - 80) <= 1 and abs(lane["x"] + lane["width"] - plot["x"] - plot["width"] + 12) <= 1


def test_plots_seek_and_zoom(page: Any) -> None:
    box = page.locator(".area canvas").first.bounding_box()
    x = lambda share: box["x"] + 80 + share * (box["width"] - 92)  # noqa: E731
    page.mouse.click(x(0.999), box["y"] + 50)
    assert row(page) == 39
    page.mouse.move(x(0.25), box["y"] + 50)
    page.mouse.down()
    page.mouse.move(x(0.5), box["y"] + 50, steps=3)
    page.mouse.up()
    assert page.locator("#lanes.zoomed").count() == 1
    page.keyboard.press("0")
    assert page.locator("#lanes.zoomed").count() == 0


def test_a_label_given_by_key_is_on_the_disk(page: Any, served: tuple[str, Path]) -> None:
    page.get_by_label("as", exact=True).fill("Anna B")
    page.get_by_role("slider").focus()
    page.keyboard.press("2")
    until(page, "document.querySelector('[data-label=failure]').getAttribute('aria-pressed') === 'true'")
    stored = EpisodeSet.open(served[1])
    assert stored.episode_field("label")[0] == "failure" and stored.episode_field("label_by")[0] == "reviewer:Anna B"
    page.get_by_label("Show which episodes").select_option("failure")
    assert page.locator("#count").inner_text() == "1 of 3 episodes"
    page.get_by_role("slider").focus()
    page.keyboard.press("u")
    until(page, "document.querySelector('#count').textContent === '0 of 3 episodes'")
    assert EpisodeSet.open(served[1]).episode_field("label")[0] == ""


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (800, "light")])
def test_text_is_legible_and_every_control_has_a_name(page: Any, width: int, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 900})
    page.evaluate("document.querySelectorAll('details').forEach((fold) => (fold.open = true))")
    found = page.evaluate(_AUDIT)
    assert found["texts"] > 60 and not found["faint"], found["faint"]
    assert found["lines"] >= 3.0 and found["ticks"] >= 4.5
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than its window"
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "slider", "textbox", "searchbox", "combobox", "listbox", "option", "checkbox", "link", "img", "dialog")
    bare = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(bare) > 30 and not [node["role"]["value"] for node in bare if not node.get("name", {}).get("value", "").strip()]


def test_tab_reaches_every_control_and_shows_where_it_is(page: Any) -> None:
    find = """() => {
      const all = [...document.querySelectorAll('#viewer :is(a[href], button, input, select, summary, [tabindex="0"])')]
        .filter((node) => !node.disabled && node.checkVisibility() && !node.closest('dialog'));
      window.missing = new Set(all);
      document.addEventListener('focusin', (event) => {
        missing.delete(event.target);
        if (getComputedStyle(event.target).outlineStyle === 'none') window.blind = event.target.outerHTML;
      });
      return all.length;
    }"""
    count = page.evaluate(find)
    for _ in range(count + 3):
        page.keyboard.press("Tab")
    assert count > 20 and page.evaluate("[...missing].map((node) => node.outerHTML.slice(0, 120))") == []
    assert page.evaluate("window.blind ?? ''") == ""


def test_a_read_only_viewer_says_why_labels_are_closed(page: Any) -> None:
    closed: Callable[[Any], None] = lambda route: route.fulfill(  # noqa: E731
        json={**route.fetch().json(), "closed": "the viewer was started with --read-only"}
    )
    page.route("**/api/set", closed)
    page.reload()
    until(page, _WHOLE)
    assert page.locator("[data-label]:enabled").count() == 0
    assert "started with --read-only" in page.locator("#said").inner_text()
