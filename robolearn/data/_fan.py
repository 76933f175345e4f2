"""One function over many items, in their order: here, in processes, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from typing import Any, Literal, TypeVar

from robolearn.errors import BadInput, MissingDependency

Item = TypeVar("Item")
Result = TypeVar("Result")
Workers = int | Literal["ray"]
_AHEAD = 2  # items in the making per worker


def fan_out(function: Callable[[Item], Result], items: Iterable[Item], workers: Workers = 0) -> Iterator[Result]:
    """Yields function(item) of every item, in order; a few are in the making at a time, so that memory stays bounded.

    workers: 0 or 1 works here; n > 1 in that many processes; "ray" on the Ray cluster that is at hand, or a local one.
    `function` and items must be picklable for the latter two; an exception in `function` is raised here.
    """
    if workers == "ray":
        yield from _ray(function, items)
    elif workers <= 1:
        if workers < 0:
            raise BadInput(f"workers: want 0 or more, or ray, got {workers}")
        yield from map(function, items)
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, initializer=_leave_with, initargs=(os.getpid(),)) as pool:
            yield from _in_order(lambda item: pool.submit(function, item), lambda task: task.result(), items, workers * _AHEAD)


def _leave_with(parent: int) -> None:
    """Lets this worker end when its parent does: a parent that was killed tells nobody, and its workers would work on."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _ray(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise MissingDependency("ray", "--workers ray", "pip install ray") from error
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        call, shared = ray.remote(_call), ray.put(function)  # Ray itself takes no partial and no built-in function

        def result(task: Any) -> Result:
            try:
                return ray.get(task)
            except ray.exceptions.RayTaskError as error:
                raise getattr(error, "cause", error) from error

        ahead = _AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
        yield from _in_order(lambda item: call.remote(shared, item), result, items, ahead)
    finally:
        if started:
            ray.shutdown()


def _call(function: Callable[[Item], Result], item: Item) -> Result:
    return function(item)


def _in_order(
    start: Callable[[Item], Any], finish: Callable[[Any], Result], items: Iterable[Item], ahead: int
) -> Iterator[Result]:
    waiting = iter(items)
    pending = deque(start(item) for item in islice(waiting, ahead))
    while pending:
        yield finish(pending.popleft())
        pending.extend(start(item) for item in islice(waiting, 1))
