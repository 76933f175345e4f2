"""Work that fans out gives the same in this process, in others and on Ray: in order, a few items ahead, errors passed on."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from small_sets import make

from robolearn.data._fan import Workers, fan_out
from robolearn.data.check import Limits, check
from robolearn.errors import BadInput, MissingDependency


def ray_or_skip() -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'robolearn[ray]'")


@pytest.fixture(params=[0, 2, "ray"])
def workers(request: pytest.FixtureRequest) -> Workers:
    if request.param == "ray":
        ray_or_skip()
    return request.param


def test_results_come_in_the_order_of_the_items_and_errors_are_raised_here(workers: Workers) -> None:
    assert list(fan_out(math.factorial, range(8), workers)) == [math.factorial(n) for n in range(8)]
    assert list(fan_out(partial(pow, 2), [3, 4], workers)) == [8, 16]
    with pytest.raises(ValueError, match=r"^factorial\(\) not defined for negative values$"):
        list(fan_out(math.factorial, [3, -1], workers))


def test_a_check_finds_the_same_whoever_does_the_work(tmp_path: Path, workers: Workers) -> None:
    made = make(tmp_path / "a.zarr")
    alone, shared = check(made, Limits(), 0).to_json(), check(made, Limits(), workers).to_json()
    assert alone == shared


def test_items_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    results = fan_out(abs, items(), 2)
    assert [next(results), next(results)] == [0, 1] and len(taken) <= 8
    results.close()  # type: ignore[attr-defined]


def test_a_negative_number_of_workers_and_a_missing_ray_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match="want 0 or more, or ray, got -1"):
        list(fan_out(abs, [1], -1))
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingDependency, match=r"ray is not installed, and --workers ray needs it"):
        list(fan_out(abs, [1], "ray"))


PARENT = """
import os, pathlib, sys, time
from robolearn.data._fan import fan_out

def say_who_and_wait(folder):
    pathlib.Path(folder, f"{os.getpid()}.worker").touch()
    time.sleep(600)

if __name__ == "__main__":
    list(fan_out(say_who_and_wait, [sys.argv[1]] * 2, 2))
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_workers_leave_when_their_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    parent = subprocess.Popen([sys.executable, tmp_path / "parent.py", tmp_path])
    try:
        assert comes_true(lambda: len(list(tmp_path.glob("*.worker"))) == 2)
    finally:
        parent.kill()
        parent.wait()
    for worker in tmp_path.glob("*.worker"):
        assert comes_true(lambda pid=worker.stem: not Path("/proc", pid).exists())


def comes_true(condition: Callable[[], bool], most: float = 120.0) -> bool:
    """Returns whether the condition holds in time; machines stall, so it waits long before it says that it never will."""
    until = time.monotonic() + most
    while not condition() and time.monotonic() < until:
        time.sleep(0.1)
    return condition()
