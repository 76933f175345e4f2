"""A camera in a process of its own: whole frames, numbers that go on, and what is left when somebody dies."""

from __future__ import annotations

import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from hardware._base import CAMERAS, Frame, Identity, make
from hardware._camera_host import HostedCamera, _raised, ring_figures
from hardware._camera_watch import DOMAINS, CameraHosting, Watch, frame_of, layouts
from hardware._errors import ConfigMismatch, TransportCorrupt, TransportLost
from hardware._ring import Ring, new_run, sweep
from hardware.cameras import synthetic
from robolearn.errors import HardwareError

PATIENCE_S = 20.0  # shared cores stall
ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = (8, 2)
SECOND = 1_000_000_000


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000 * SECOND

    def __call__(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += round(seconds * 1e9)


class Scripted:
    """A source at 10 Hz that gives what is in its lists: a number is a frame, None waits, an error is raised."""

    size, hz = SIZE, 10.0

    def __init__(self, clock: Clock, reads: list, opens: list | None = None) -> None:
        self.clock, self.reads, self.opens = clock, reads, opens or []
        self.opened_s: list[float] = []
        self.closed = 0

    def connect(self) -> Identity:
        self.opened_s.append(self.clock.now / 1e9 - 1000)
        error = self.opens.pop(0) if self.opens else None
        if error is not None:
            raise error
        return Identity("scripted", "17")

    def read(self, timeout_s: float) -> Frame | None:
        item = self.reads.pop(0) if self.reads else None
        self.clock.sleep(timeout_s)
        if isinstance(item, Exception):
            raise item
        return item if isinstance(item, Frame) or item is None else frame(item, self.clock.now)

    def close(self) -> None:
        self.closed += 1


def frame(seq: int, t_ns: int, value: int | None = None) -> Frame:
    return Frame(np.full((2, 8, 3), seq % 256 if value is None else value, np.uint8), t_ns, t_ns + 5, 3, seq, domain="sim")


LOST = TransportLost("scripted", "the plug was pulled")


@pytest.fixture
def run() -> Iterator[str]:
    name = new_run()
    yield name
    sweep(name)


def watched(run: str, source: Scripted, create: bool = True) -> tuple[Watch, Ring]:
    rings = [Ring(layout, create=create) for layout in layouts(run, "cam", SIZE, 8)]
    return Watch("cam", source, (rings[0], rings[1]), CameraHosting(), source.clock, source.clock.sleep), rings[0]


def turns(watch: Watch, count: int) -> None:
    for _ in range(count):
        watch.turn()


def numbers(ring: Ring) -> list[int]:
    return [frame_of(record.array, SIZE)[0].seq for record in ring.last(8)]


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_frame_comes_out_of_the_ring_as_it_went_in(run: str, domain: str) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (2, 8, 3), dtype=np.uint8)
    given = Frame(image, 11, 12, 13, 14, 0, exposure_s=0.0125, domain=domain)
    watch, ring = watched(run, Scripted(Clock(), [given]))
    turns(watch, 2)
    record = ring.newest()
    assert record is not None
    got, lost = frame_of(record.array, SIZE)
    np.testing.assert_array_equal(got.image, image)
    assert replace(got, image=image) == given and lost == 0 and record.t_ns == 11


def test_a_camera_that_is_not_there_is_tried_at_growing_intervals(run: str) -> None:
    source = Scripted(Clock(), [], [LOST] * 8)
    watch, _ = watched(run, source)
    while len(source.opened_s) < 8:
        watch.turn()
    np.testing.assert_allclose(np.diff(source.opened_s), [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0], atol=1e-6)


def test_a_lost_camera_is_closed_and_opened_again_and_the_interval_begins_anew_with_a_frame(run: str) -> None:
    source = Scripted(Clock(), [1, LOST, 1, LOST, 1])
    watch, ring = watched(run, source)
    while ring.count < 3:
        watch.turn()
    assert source.closed == 2 and watch.counters == {"opened": 3, "TransportLost": 2}
    np.testing.assert_allclose(np.diff(source.opened_s), [0.2 + 0.25] * 2, atol=1e-6)  # two reads, then the first wait


def test_a_silent_camera_is_opened_again(run: str) -> None:
    source = Scripted(Clock(), [1])
    watch, _ = watched(run, source)
    while len(source.opened_s) < 2:
        watch.turn()
    assert watch.counters["silent"] == 1 and 2.0 < source.opened_s[1] < 2.6


def test_what_passes_by_itself_is_counted_and_leaves_the_camera_open(run: str) -> None:
    source = Scripted(Clock(), [1, TransportCorrupt("scripted", "half a picture"), 2])
    watch, ring = watched(run, source)
    turns(watch, 4)
    assert numbers(ring) == [1, 2] and source.closed == 0 and watch.counters["TransportCorrupt"] == 1


def test_numbers_go_on_after_an_opening_over_what_was_missed(run: str) -> None:
    clock = Clock()
    source = Scripted(clock, [7, 8, LOST, 0, 1])
    watch, ring = watched(run, source)
    while ring.count < 4:
        watch.turn()
    frames = [frame_of(record.array, SIZE) for record in ring.last(4)]
    missed = frames[2][0].dropped  # read, wait of 0.25 s and read again at 10 Hz: 0.45 s, so 3 or 4
    assert missed in (3, 4) and frames[2][1] == missed
    assert [f.seq for f, _ in frames] == [7, 8, 9 + missed, 10 + missed]


def test_numbers_go_on_where_another_process_wrote_before(run: str) -> None:
    clock = Clock()
    first, ring = watched(run, Scripted(clock, [5, 6]))
    turns(first, 3)
    second, _ = watched(run, Scripted(clock, [0, 1]), create=False)
    turns(second, 3)
    assert numbers(ring) == [5, 6, 7, 8]


def test_a_picture_of_another_size_is_refused(run: str) -> None:
    wrong = replace(frame(1, 0), image=np.zeros((2, 9, 3), np.uint8))
    watch, ring = watched(run, Scripted(Clock(), [wrong]))
    turns(watch, 2)
    assert ring.count == 0 and watch.counters["TransportCorrupt"] == 1


def test_an_identity_of_any_length_fits(run: str) -> None:
    source = Scripted(Clock(), [])
    source.connect = lambda: Identity("long", parts=("part",) * 1000)  # type: ignore[method-assign]
    watch, _ = watched(run, source)
    watch.turn()
    said = Ring(layouts(run, "cam", SIZE, 8)[1]).newest()
    assert said is not None and b'"opened": 1' in said.array.tobytes()


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.005)


def drawing(hz: float = 100.0, size: tuple[int, int] = (64, 48)) -> Callable[[], synthetic.Synthetic]:
    return partial(synthetic.make, synthetic.Config(size, hz))


def test_frames_come_from_another_process_until_it_is_killed_and_again_from_a_new_one(run: str) -> None:
    camera, pattern = HostedCamera("cam", drawing(), run, CameraHosting(longest_s=0.0)), synthetic.Pattern((64, 48))
    assert camera.newest() is None and camera.age_s == float("inf") and "not connected" in camera.why
    assert camera.connect(PATIENCE_S).emulated and camera.pid != os.getpid()
    first = camera.newer(-1, PATIENCE_S)
    assert first is not None and pattern.whole(first.image) and pattern.mark(first.image) == (first.seq, first.t_capture_ns)
    second = camera.newer(first.seq, PATIENCE_S)
    assert second is not None and second.seq > first.seq and not np.shares_memory(first.image, second.image)
    assert camera.why == "" and 0 < camera.age_s < PATIENCE_S and camera.counters == {"opened": 1} and not camera.revive()

    os.kill(camera.pid, signal.SIGKILL)
    until(lambda: not camera.alive, "the process ends")
    last = camera.newest()
    assert last is not None and "its camera process has ended (exit code -9)" in camera.why
    assert camera.newer(last.seq, PATIENCE_S) is None  # at once, for nobody will write
    assert camera.revive() and not camera.revive()
    again = camera.newer(last.seq, PATIENCE_S)
    assert again is not None and again.seq == last.seq + 1 + again.dropped and camera.dropped >= again.dropped > 0

    os.kill(camera.pid, signal.SIGSTOP)  # as a process that never returns from its library
    assert camera.close(timeout_s=0.2) == ["cam: its camera process had to be killed"]
    assert camera.newest() is None and camera.close() == [] and sweep(run) == []


def test_a_camera_that_cannot_be_opened_raises_its_own_error_and_leaves_nothing(run: str, tmp_path: Path) -> None:
    settings = {"path": str(tmp_path / "none.avi"), "size": SIZE}
    camera = HostedCamera("cam", partial(make, CAMERAS, "replay", settings, "camera"), run)
    with pytest.raises(TransportLost, match=r"^cam: replay: .*none.avi: there is no such file or folder"):
        camera.connect(PATIENCE_S)
    assert not camera.alive and sweep(run) == []


def test_a_mistake_in_a_driver_can_be_read_in_the_parent(run: str) -> None:
    camera = HostedCamera("cam", partial(synthetic.make, synthetic.Config((64, 48)), sleep=operator.index), run)
    camera.connect(PATIENCE_S)
    until(lambda: not camera.alive, "the process ends")
    assert "ended (exit code 1); TypeError: 'float' object cannot be interpreted" in camera.why
    assert camera.close() == []


PARENT = """
import sys, time
from functools import partial
from hardware._camera_host import CameraHosting, HostedCamera
from hardware.cameras import synthetic
if __name__ == "__main__":
    slow = partial(synthetic.make, synthetic.Config((64, 48), 0.01))
    camera = HostedCamera("cam", slow, sys.argv[1], CameraHosting(gone_s=1e3, read_s=60.0))
    camera.connect()
    camera.newer(-1, 20.0)
    time.sleep(0.2)  # until the process is in the read after the first, which lasts a minute
    print(camera.pid, flush=True)
    time.sleep(60)
"""


def test_when_the_parent_is_killed_the_camera_goes_in_the_middle_of_a_read_and_shared_memory_too(
    run: str, tmp_path: Path
) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, str(script), run], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    child = Path(f"/proc/{int(parent.stdout.readline())}")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    until(lambda: not child.exists() or "Z" in (child / "stat").read_text().split()[2], "the camera goes")
    until(lambda: not list(Path("/dev/shm").glob(f"{run}*")) or bool(sweep(run)), "shared memory goes")


def test_no_frame_of_a_camera_that_draws_is_torn() -> None:
    figures = ring_figures(60, 120.0, (320, 240))
    assert figures.frames == 60 and figures.torn == 0 and figures.age_p50_s > 0


def test_a_torn_picture_is_known_as_one() -> None:
    pattern = synthetic.Pattern((64, 48))
    old, new = pattern.draw(7, 100), pattern.draw(15, 200)
    for rows in (1, 20, 47):
        torn = old.copy()
        torn[:rows] = new[:rows]
        assert not pattern.whole(torn)
    within = old.copy()
    within[-1, :32] = new[-1, :32]
    assert pattern.whole(old) and pattern.whole(new) and not pattern.whole(within)


def test_errors_of_the_family_come_back_as_they_were() -> None:
    assert type(_raised("cam", "ConfigMismatch", "want")) is ConfigMismatch
    for other in ("DeviceFault", "MissingDependency", "HardwareError", "annotations", ""):
        assert type(_raised("cam", other, "why")) is HardwareError and str(_raised("cam", other, "why")) == "cam: why"
