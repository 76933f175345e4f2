"""A filmed clock is read from pictures taken askew, blurred and noisy; what is no whole clock is never a wrong time."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hardware._base import Frame
from robolearn.apps import _filmed
from robolearn.errors import BadInput

T_NS = 123_456_789_000_000


def filmed(picture: np.ndarray, seed: int = 0, blur: float = 1.0, noise: float = 6.0) -> np.ndarray:
    """Returns a photograph (240, 320, 3) uint8 of a code: askew, blurred, grey and noisy."""
    rng = np.random.default_rng(seed)
    height, width = picture.shape
    there = np.array([[60, 70], [262, 58], [270, 168], [52, 160]], np.float32) + rng.uniform(-6, 6, (4, 2)).astype(np.float32)
    cells = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    large = cv2.resize(picture, None, fx=16, fy=16, interpolation=cv2.INTER_NEAREST)
    turn = cv2.getPerspectiveTransform(16 * cells, there)
    scene = cv2.warpPerspective(large, turn, (320, 240), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_CONSTANT, borderValue=90)
    scene = cv2.GaussianBlur(scene.astype(np.float32) * 0.7 + 30, (0, 0), blur)
    return np.clip(scene + rng.normal(0, noise, scene.shape), 0, 255).astype(np.uint8)[:, :, None].repeat(3, axis=2)


@pytest.mark.parametrize("seed", range(5))
def test_a_photographed_clock_gives_its_millisecond_back(seed: int) -> None:
    t_ns = T_NS + seed * 77_777_000_000
    assert _filmed.read_clock(filmed(_filmed.draw(t_ns), seed), t_ns + 40_000_000) == t_ns


def test_the_time_is_put_back_over_the_end_of_its_24_bits() -> None:
    t_ns = (1 << 24) * 1_000_000
    for shown in (t_ns - 1_000_000, t_ns):
        assert _filmed.read_clock(filmed(_filmed.draw(shown)), t_ns + 30_000_000) == shown


def test_a_picture_of_two_times_is_never_a_third() -> None:
    """The screen was drawn down to some row when the picture was taken, or half faded from one time to the next."""
    rng, read = np.random.default_rng(0), 0
    for k in range(30):
        times = [T_NS + shift * 1_000_000 for shift in (1000 * k, 1000 * k + int(rng.integers(1, 40)))]
        both = [_filmed.draw(t_ns).astype(float) for t_ns in times]
        share = (np.arange(16)[:, None] < rng.integers(3, 14)) if k % 2 else rng.uniform(0.2, 0.8)
        found = _filmed.read_clock(filmed((share * both[0] + (1 - share) * both[1]).astype(np.uint8), k), times[1])
        assert found in (None, *times)
        read += found is not None
    assert read < 25


def test_no_clock_and_half_a_clock_are_not_read() -> None:
    assert _filmed.read_clock(np.full((240, 320, 3), 128, np.uint8), T_NS) is None
    covered = filmed(_filmed.draw(T_NS))
    covered[:110, :160] = 128
    assert _filmed.read_clock(covered, T_NS) is None


def test_half_blocks_are_the_picture() -> None:
    picture = _filmed.draw(T_NS)
    lines = _filmed.blocks(picture).split("\n")
    assert len(lines) == 8 and all(len(line) == 28 for line in lines)
    above = np.array([[sign in "\u2580\u2588" for sign in line] for line in lines])
    below = np.array([[sign in "\u2584\u2588" for sign in line] for line in lines])
    np.testing.assert_array_equal(above, picture[::2] > 127)
    np.testing.assert_array_equal(below, picture[1::2] > 127)


def frames(late_s: float, stamped_s: float, count: int = 60) -> tuple[list[Frame], list[int | None]]:
    """Returns frames of a camera, and what each of them shows."""
    image = np.zeros((1, 1, 3), np.uint8)
    shown = [T_NS + k * 33_000_000 for k in range(count)]
    came = [t_ns + round((late_s + 0.002 * (k % 3)) * 1e9) for k, t_ns in enumerate(shown)]
    made = [Frame(image, t - round(stamped_s * 1e9), t, 0, k, domain="monotonic") for k, t in enumerate(came)]
    return made, list(shown)


def test_a_camera_is_as_late_as_what_it_shows_whatever_its_stamps_say() -> None:
    film, shown = frames(0.05, 0.01)
    shown[3] = None
    shown[5] = T_NS - 60_000_000_000  # read wrongly
    found = _filmed.film(film, shown)
    assert found.seconds == pytest.approx(0.052, abs=1e-6) and found.stamped_s == pytest.approx(0.01)
    assert found.interval == (pytest.approx(0.05), pytest.approx(0.054)) and (found.frames, found.read) == (60, 58)


def test_too_few_pictures_are_no_measurement() -> None:
    film, shown = frames(0.05, 0.01, 20)
    with pytest.raises(BadInput, match="20 of 20 pictures show the clock, want 30"):
        _filmed.film(film, shown)
