"""The gamepad driver, on events of its own fake and on events posted to SDL without a display; never on a real pad."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from hardware.devices import gamepad
from hardware.devices.gamepad import LAYOUTS, Config, Gamepad, Pad
from robolearn.errors import ConfigError, HardwareError

GOLDEN = (  # which stick axis, shoulder left held, where it is pushed -> the sample's axis and sign
    (1, False, -1.0, 0, 1.0),  # left stick away: forward
    (0, False, -1.0, 1, 1.0),  # left stick left: left
    (3, False, -1.0, 2, 1.0),  # right stick away: up
    (2, False, -1.0, 5, 1.0),  # right stick left: turn left
    (2, True, 1.0, 3, 1.0),  # right stick right: roll to the right
    (3, True, -1.0, 4, 1.0),  # right stick away: nose down
)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("stick, shoulder, pushed, axis, sign", GOLDEN)
def test_each_stick_is_one_axis_of_the_sample(
    layout: str, stick: int, shoulder: bool, pushed: float, axis: int, sign: float
) -> None:
    device, feed = gamepad.fake(Config(layout=layout))
    device.connect()
    if shoulder:
        feed.queue.append(("down", LAYOUTS[layout].shoulder_left, 1.0))
    feed.queue.append(("axis", LAYOUTS[layout].axes[stick], pushed))
    (sample,) = device.read()
    np.testing.assert_array_equal(sample.delta, sign * np.eye(6)[axis])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_buttons_say_success_failure_redo_and_start_once_a_press(layout: str) -> None:
    device, feed = gamepad.fake(Config(layout=layout))
    device.connect()
    said = []
    for button, _ in LAYOUTS[layout].events:
        feed.queue += [("down", button, 1.0)]
        said += [event for sample in device.read() for event in sample.events]
        said += [event for sample in device.read() for event in sample.events]
        feed.queue += [("up", button, 0.0)]
        device.read()
    assert said == ["success", "failure", "redo", "start"]


def test_the_shoulder_button_is_the_deadman_and_its_release_is_said_once() -> None:
    device, feed = gamepad.fake(Config())
    device.connect()
    feed.queue.append(("down", LAYOUTS["xbox"].shoulder_right, 1.0))
    assert [sample.deadman for _ in range(3) for sample in device.read()] == [True] * 3
    feed.queue.append(("up", LAYOUTS["xbox"].shoulder_right, 0.0))
    assert [sample.deadman for _ in range(3) for sample in device.read()] == [False]


def test_a_trigger_that_was_never_touched_says_nothing_of_the_gripper() -> None:
    device, feed = gamepad.fake(Config())
    device.connect()
    feed.queue.append(("axis", 0, 0.5))
    assert device.read()[0].grip is None
    feed.queue.append(("axis", LAYOUTS["xbox"].axes[4], -1.0))
    assert device.read()[0].grip == 0.0
    feed.queue.append(("axis", LAYOUTS["xbox"].axes[4], 1.0))
    assert device.read()[0].grip == 1.0


def test_a_pad_without_deadman_has_none_in_its_samples() -> None:
    device, feed = gamepad.fake(Config(deadman=False))
    device.connect()
    feed.queue.append(("axis", 0, 0.5))
    assert not device.deadman and device.read()[0].deadman is None


def test_a_stick_that_stays_where_it_is_is_said_at_every_read() -> None:
    device, feed = gamepad.fake(Config())
    device.connect()
    feed.queue.append(("axis", 1, -0.5))
    assert [sample.delta[0] for _ in range(3) for sample in device.read()] == [0.5] * 3
    feed.queue.append(("axis", 1, 0.0))
    assert [sample.delta[0] for _ in range(3) for sample in device.read()] == [0.0]


def test_unplugging_is_one_line_and_nothing_stays_held() -> None:
    device, feed = gamepad.fake(Config())
    device.connect()
    feed.queue += [("down", 5, 1.0), ("axis", 1, -1.0), ("gone", 0, 0.0)]
    with pytest.raises(HardwareError, match="gamepad: it is gone"):
        device.read()
    assert device.read() == ()
    device.connect()
    feed.queue.append(("axis", 0, -1.0))
    (sample,) = device.read()
    assert sample.deadman is False
    np.testing.assert_array_equal(sample.delta, np.eye(6)[1])


def test_an_unknown_layout_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'xbox'"):
        Config(layout="xbx")


@pytest.fixture
def sdl(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Pad, Any]]:
    pytest.importorskip("pygame")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.delenv("DISPLAY", raising=False)
    pad = Pad(0)
    pygame = pad.start()
    yield pad, pygame
    pad.close()


class Posted:
    """SDL's queue without a joystick: what a test posts is what the driver reads."""

    def __init__(self, pad: Pad) -> None:
        self.events = pad.events

    def open(self) -> None: ...

    def close(self) -> None: ...


def test_events_of_sdl_arrive_without_a_display(sdl: tuple[Pad, Any]) -> None:
    pad, pygame = sdl
    device = Gamepad(Config(), Posted(pad), clock=lambda: 1.0)
    device.connect()
    pygame.event.post(pygame.event.Event(pygame.JOYBUTTONDOWN, button=5, instance_id=0))
    pygame.event.post(pygame.event.Event(pygame.JOYAXISMOTION, axis=1, value=-0.75, instance_id=0))
    pygame.event.post(pygame.event.Event(pygame.JOYBUTTONDOWN, button=3, instance_id=0))
    (sample,) = device.read()
    assert sample.deadman is True and sample.events == ("success",) and sample.delta is not None
    np.testing.assert_array_equal(sample.delta, (0.75, 0, 0, 0, 0, 0))
    pygame.event.post(pygame.event.Event(pygame.JOYBUTTONUP, button=5, instance_id=0))
    assert device.read()[0].deadman is False
    pygame.event.post(pygame.event.Event(pygame.JOYDEVICEREMOVED, instance_id=0))
    with pytest.raises(HardwareError, match="gone"):
        device.read()


def test_a_pad_that_is_not_there_is_said_in_one_line(sdl: tuple[Pad, Any]) -> None:
    with pytest.raises(HardwareError, match="want number 99"):
        gamepad.make(Config(index=99)).connect()
