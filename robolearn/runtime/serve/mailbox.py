"""Replies to those who wait for them: several threads ask over one link, and whoever waits reads for all."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from robolearn.errors import HardwareError
from robolearn.runtime.serve import replies
from robolearn.runtime.serve.link import Disconnected, Late, Link
from robolearn.runtime.serve.reader import ProtocolError
from robolearn.runtime.serve.wire import Message, decode

_SHOWN = 16  # chunks an observer has not looked at yet; the oldest go first


class Mailbox:
    """One session's requests and replies. `broken` is why nothing more comes, None while all is well.

    A reply to a request that nobody waits for, of another session or another epoch, is dropped and counted.
    """

    def __init__(self, link: Link, replied: Callable[[int], object], clock: Callable[[], float] = time.monotonic) -> None:
        """replied: told the seq of every request that was answered, late or not. clock: monotonic [s]."""
        self._link, self._replied, self._clock = link, replied, clock
        self.broken: HardwareError | None = None
        self.dropped = 0
        self._seq = 0
        self._who: tuple[str, int] | None = None  # session and epoch, once the welcome said so
        self._turn = threading.Condition()
        self._reading = False
        self._awaited: set[int] = set()
        self._unwaited: set[int] = set()  # nobody waits, but a refusal of these must not go unnoticed
        self._replies: dict[int, Message] = {}
        self._chunks: deque[Message] = deque(maxlen=_SHOWN)

    def next_seq(self) -> int:
        """Returns the number of the next request; the caller sends in this order."""
        self._seq += 1
        return self._seq

    def belong(self, session: str, epoch: int) -> None:
        """Only messages of this session and epoch count from here on."""
        self._who = session, epoch

    def check(self) -> None:
        """Raises why nothing more comes, where that is so."""
        if self.broken is not None:
            raise _again(self.broken)

    def send(self, seq: int, data: bytes, waited: bool = True) -> None:
        """Sends request `seq`; a refusal of one that is not `waited` for breaks the mailbox."""
        with self._turn:
            self.check()
            (self._awaited if waited else self._unwaited).add(seq)
        try:
            self._link.send(data)
        except HardwareError as error:
            self._last_words()
            raise _again(self._break(error)) from None

    def wait(self, seq: int, timeout_s: float) -> Message:
        """Returns the reply to request `seq`. Late where it does not come in time: it is dropped when it does."""
        return self._until(lambda: self._replies.pop(seq, None), timeout_s, seq)

    def next_chunk(self, timeout_s: float) -> Message:
        """Returns the next chunk that nobody asked for, which is what an observer gets."""
        return self._until(lambda: self._chunks.popleft() if self._chunks else None, timeout_s, None)

    def close(self) -> None:
        """Closes the link; whoever waits is told."""
        self._break(Disconnected("client: the connection was closed on this side"))

    def _until(self, found: Callable[[], Message | None], timeout_s: float, seq: int | None) -> Message:
        ends = self._clock() + timeout_s
        while True:
            with self._turn:
                while (message := found()) is None:
                    left = ends - self._clock()
                    self.check()
                    if left <= 0:
                        self._awaited.discard(seq if seq is not None else -1)
                        raise Late(f"client: no answer came within {timeout_s:g} s")
                    if not self._reading:
                        self._reading = True
                        break
                    self._turn.wait(left)
                else:
                    return message
            try:
                self._read(left)
            finally:
                with self._turn:
                    self._reading = False
                    self._turn.notify_all()

    def _read(self, timeout_s: float) -> bool:
        """Delivers the next message; false where none came in time, or none comes any more."""
        try:
            data = self._link.receive(timeout_s)
            if isinstance(data, str):
                raise ProtocolError("client: the server sent text, want binary messages")
            message = decode(data)
        except Late:
            return False
        except HardwareError as error:
            self._break(error)
            return False
        with self._turn:
            self._deliver(message)
        return True

    def _last_words(self) -> None:
        """Reads what came before the link was closed: there may be a reason in it."""
        with self._turn:
            if self._reading:  # then that thread reads it
                self._turn.wait_for(lambda: self.broken is not None, 1.0)
                return
            self._reading = True
        try:
            while self.broken is None and self._read(0.0):
                pass
        finally:
            with self._turn:
                self._reading = False
                self._turn.notify_all()

    def _deliver(self, message: Message) -> None:
        if self._who not in (None, (message.session, message.epoch)):
            self.dropped += 1
            return
        self._replied(message.seq)
        if message.seq in self._awaited:
            self._awaited.discard(message.seq)
            self._replies[message.seq] = message
        elif message.kind == "error" and message.seq in (0, *self._unwaited):  # 0: of the whole session
            self.broken = self.broken or replies.refused(message)
        elif message.seq in self._unwaited:
            self._unwaited.discard(message.seq)
        elif message.kind == "chunk" and message.seq == 0:
            self._chunks.append(message)
        else:
            self.dropped += 1

    def _break(self, error: HardwareError) -> HardwareError:
        """Keeps the first reason why the link is of no more use, and closes it."""
        with self._turn:
            self.broken = self.broken or error
            self._turn.notify_all()
        self._link.close()
        return self.broken


def _again(error: HardwareError) -> HardwareError:
    """Returns a copy: one exception raised in several threads would gather all their tracebacks."""
    return type(error)(str(error))
