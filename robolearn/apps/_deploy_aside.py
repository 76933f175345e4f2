"""`Aside`: a thread that does one thing at a time while the control loop goes on and hears.

A driver's process ends with the thread that made it, so this one lasts until `close`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

Work = Callable[[Callable[[], bool]], None]
"""What may take its time; it is given what says whether it was asked to end, and looks there before every step."""


class Job:
    """Work that was given to the thread (`runtime.parties.Recovering`)."""

    def __init__(self, work: Work) -> None:
        self._work, self._stopped, self._done = work, threading.Event(), threading.Event()
        self._error: Exception | None = None

    def ended(self) -> bool:
        """Returns whether it is done, at once; raises what it raised."""
        if self._done.is_set() and self._error is not None:
            raise self._error
        return self._done.is_set()

    def stop(self) -> None:
        """Asks it to end before its next step."""
        self._stopped.set()

    @property
    def under_way(self) -> bool:
        """True until it is done, however that went."""
        return not self._done.is_set()

    def wait(self) -> None:
        """Returns once it is done, however that went."""
        self._done.wait()

    def do(self) -> None:
        """Does it, in the thread."""
        try:
            self._work(self._stopped.is_set)
        except Exception as error:  # whatever it is, it is raised where `ended` is asked
            self._error = error
        finally:
            self._done.set()


class Aside:
    """The thread; it is started with the first job."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._newest: Job | None = None

    @property
    def busy(self) -> bool:
        """True while a job is not done."""
        return self._newest is not None and self._newest.under_way

    def start(self, work: Work) -> Job:
        """Returns the job, which begins when the one before is done."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True, name="aside")
            self._thread.start()
        self._newest = Job(work)
        self._jobs.put(self._newest)
        return self._newest

    def rest(self) -> None:
        """Asks the newest job to end and waits for that."""
        if self._newest is not None:
            self._newest.stop()
            self._newest.wait()

    def close(self) -> None:
        """Ends the thread after its last job; a later `start` begins another."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.do()
