"""What a server says to each peer, from its hello to its end; the sockets are somebody else's.

The event loop reads envelopes, refuses and answers pings; what is inside them, and the policy, are another thread's work.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from robolearn.core import Policy, Spec
from robolearn.runtime.serve.features import spec_text
from robolearn.runtime.serve.metrics import Metrics
from robolearn.runtime.serve.reader import ProtocolError
from robolearn.runtime.serve.sessions import CONTROL, OBSERVE, Leases, Refusal, Session, answer, check_hello
from robolearn.runtime.serve.shared import Window
from robolearn.runtime.serve.wire import Envelope, Message, contents, encode, open_envelope

T = TypeVar("T")
_LOG = logging.getLogger("robolearn.serve")
_REFUSED = 1008  # websocket close code: policy violation


@dataclass(frozen=True)
class Limits:
    """What one server gives: robots at a time, connections, messages a second of each, seconds of patience."""

    robots: int = 8
    connections: int = 32
    messages_per_s: float = 500.0  # as many at once, too
    hello_s: float = 5.0
    idle_s: float = 60.0  # a controller that asks nothing for so long is put out
    ping_s: float = 2.0
    pong_s: float = 6.0  # a peer that answers no ping for so long is gone, and its lease free
    draws: int = 256  # of one plan
    waiting: int = 4  # messages of one session; the peer's next ones wait in its socket
    stuck_s: float = 30.0  # /healthz says so where one answer takes longer


@dataclass(frozen=True)
class Served:
    """What a server serves: what makes a policy for each session, its name and spec, and who is told of one that is done with."""

    make_policy: Callable[[], Policy]
    name: str
    spec: Spec
    free: Callable[[Policy], object]


class Connection(Protocol):
    """One peer's websocket. `receive` and `send` raise EOFError once it is closed."""

    async def receive(self) -> bytes | str: ...
    async def send(self, data: bytes) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...


class Peers:
    """Every session of a server. All methods but `busy_s` belong to the event loop."""

    def __init__(self, served: Served, limits: Limits, metrics: Metrics, clock: Callable[[], float], shared: bool) -> None:
        """shared: whether peers may put arrays into shared memory."""
        self.served, self.limits, self.metrics, self.clock, self.shared = served, limits, metrics, clock, shared
        self._leases = Leases(limits.robots)
        self._connections: dict[str, Connection] = {}  # by the id of their session
        self._watching: dict[str, tuple[Session, asyncio.Queue[Message]]] = {}  # observers, by the id of their session
        self._inference = ThreadPoolExecutor(1, "inference")
        self._busy_since: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps no hold on them

    def busy_s(self) -> float:
        """Returns how long [s] the policy has been at what it does now, its making included."""
        since = self._busy_since
        return 0.0 if since is None else self.clock() - since

    def close(self) -> None:
        """Lets the inference thread end after what it does now."""
        self._inference.shutdown(wait=False, cancel_futures=True)

    async def serve(self, connection: Connection) -> None:
        """Serves one peer from its first message to its last; raises nothing that the peer could cause."""
        session: Session | None = None
        self.metrics.add("robolearn_connections")
        try:
            hello = (await self._receive(connection, self.limits.hello_s)).message
            session = self._admit(hello, connection)
            await self._welcome(connection, session, hello)
            await (self._control if session.role == CONTROL else self._show)(connection, session)
        except EOFError:  # how every peer ends, one that was cut off too
            self.metrics.add("robolearn_departed_total")
        except (Refusal, ProtocolError) as refusal:
            await self._refuse(connection, session, refusal)
        except Exception:  # a mistake of ours ends this peer, not the server, and the peer learns a number only
            await self._refuse(connection, session, _fault("a peer could not be served"))
        finally:
            self.metrics.add("robolearn_connections", -1)
            if session is not None:
                self._end(session)

    def _admit(self, hello: Message, connection: Connection) -> Session:
        """Returns the new session of a peer that may have one; Refusal otherwise."""
        check_hello(hello, self.served.name, self.served.spec)
        robot = hello.values["robot"]
        if hello.values["role"] == OBSERVE:
            session = Session(robot, OBSERVE, 0)
            self._watching[session.id] = session, asyncio.Queue(self.limits.waiting)
        else:
            session, old = self._leases.take(robot, hello.session)
            if old is not None:
                text = f"robot '{robot}' has a newer session, which knew the id of this one"
                self._soon(self._refuse(self._connections[old.id], old, Refusal("lease", text)))
            else:
                self.metrics.add("robolearn_leases")
        session.seq = hello.seq
        self._connections[session.id] = connection
        return session

    async def _welcome(self, connection: Connection, session: Session, hello: Message) -> None:
        if session.role == CONTROL:
            if self.shared and hello.values["shared"]:
                with contextlib.suppress(ProtocolError):  # the peer is told that there is none
                    session.window = Window(hello.values["shared"])
            try:
                session.policy = await self._beside(self._made)
            except Exception:
                raise _fault("no policy could be made") from None
        values = {"policy": self.served.name, "spec": spec_text(self.served.spec), "shared": session.window is not None}
        await self._send(connection, encode(_reply("welcome", session, hello, values)))

    async def _control(self, connection: Connection, session: Session) -> None:
        """Reads a controller's messages; a task beside it answers them in order."""
        waiting: asyncio.Queue[tuple[Envelope, float]] = asyncio.Queue(self.limits.waiting)
        worker = asyncio.create_task(self._work(connection, session, waiting))
        try:
            async for envelope in self._envelopes(connection, session, self.limits.idle_s):
                put = asyncio.ensure_future(waiting.put((envelope, self.clock())))
                await asyncio.wait({put, worker}, return_when=asyncio.FIRST_COMPLETED)
                if worker.done():  # nobody takes from the queue any more: the peer was refused, or is gone
                    put.cancel()
                    return
        finally:
            worker.cancel()

    async def _show(self, connection: Connection, session: Session) -> None:
        """Lets an observer ping; a task beside it shows it every chunk of its robot."""
        worker = asyncio.create_task(self._forward(connection, session))
        try:
            async for envelope in self._envelopes(connection, session, None):
                raise Refusal("read_only", f"an observer cannot {envelope.message.kind}")
        finally:
            worker.cancel()

    async def _envelopes(self, connection: Connection, session: Session, idle_s: float | None) -> AsyncIterator[Envelope]:
        """Yields what a peer asks, but answers pings itself. Refusal where it asks too much, nothing, or out of turn."""
        left, then = self.limits.messages_per_s, self.clock()
        while True:
            envelope = await self._receive(connection, idle_s)
            now = self.clock()
            left, then = min(self.limits.messages_per_s, left + (now - then) * self.limits.messages_per_s) - 1.0, now
            if left < 0:
                raise Refusal("rate", f"want at most {self.limits.messages_per_s:g} messages a second")
            message = envelope.message
            if message.session != session.id or message.epoch != session.epoch:
                raise Refusal("lease", "that is not the session of this connection")
            if message.seq <= session.seq:
                raise ProtocolError(f"wire: want a seq above {session.seq}, got {message.seq}")
            session.seq = message.seq
            if message.kind == "ping":
                await self._send(connection, encode(_reply("pong", session, message, {"t_ns": time.monotonic_ns()})))
            elif message.kind in ("reset", "observe", "plan"):
                yield envelope
            else:
                raise ProtocolError(f"wire: want reset, observe, plan or ping, got '{message.kind}'")

    async def _work(self, connection: Connection, session: Session, waiting: asyncio.Queue[tuple[Envelope, float]]) -> None:
        """Answers a controller's messages, one after the other, until it is refused or gone."""
        try:
            while True:
                envelope, came = await waiting.get()
                try:
                    reply, data = await self._beside(self._answer, session, envelope, came)
                except Refusal as refusal:
                    await self._refuse(connection, session, refusal, envelope.message)
                    continue
                await self._send(connection, data)
                if reply.kind == "chunk":
                    self._publish(session, reply)
        except EOFError:
            return
        except ProtocolError as refusal:
            await self._refuse(connection, session, refusal)
        except Exception:  # without this task the peer would wait for ever, and keep its robot
            await self._refuse(connection, session, _fault("a peer could not be served"))

    def _made(self) -> Policy:
        """Returns a new policy, in the inference thread."""
        self._busy_since = self.clock()
        try:
            return self.served.make_policy()
        finally:
            self._busy_since = None

    def _answer(self, session: Session, envelope: Envelope, came: float) -> tuple[Message, bytes]:
        """Returns the reply and its bytes, in the inference thread; Refusal with a number where the policy fails."""
        kind = envelope.message.kind
        began = self._busy_since = self.clock()
        self.metrics.took("robolearn_wait_seconds", began - came)
        try:
            message = contents(envelope, self.served.spec.obs, None if session.window is None else session.window.fetch)
            reply = answer(session, message, self.limits.draws)
            try:
                return reply, encode(reply)
            except ProtocolError as error:
                raise Refusal("ask", f"the plan cannot be sent: {error}", ends=False) from None
        except (Refusal, ProtocolError):
            raise
        except Exception:
            raise _fault(f"the policy failed at a {kind}", ends=False) from None
        finally:
            self._busy_since = None
            if kind == "plan":
                self.metrics.took("robolearn_plan_seconds", self.clock() - began)

    def _publish(self, session: Session, chunk: Message) -> None:
        for observer, queue in self._watching.values():
            if observer.robot == session.robot:
                try:
                    queue.put_nowait(chunk)
                except asyncio.QueueFull:
                    self.metrics.add("robolearn_watch_dropped_total")

    async def _forward(self, connection: Connection, session: Session) -> None:
        queue = self._watching[session.id][1]
        with contextlib.suppress(EOFError):
            while True:
                chunk = await queue.get()  # as one that nobody asked for; the controller's session is its secret
                await self._send(connection, encode(replace(chunk, session=session.id, epoch=session.epoch, seq=0)))

    async def _receive(self, connection: Connection, timeout_s: float | None) -> Envelope:
        try:
            async with asyncio.timeout(timeout_s):
                data = await connection.receive()
        except TimeoutError:
            raise Refusal("idle", f"nothing came for {timeout_s:g} s") from None
        if isinstance(data, str):
            raise ProtocolError("wire: want binary messages, got text")
        envelope = open_envelope(data)
        self.metrics.add("robolearn_received_total", label=f'kind="{envelope.message.kind}"')
        self.metrics.add("robolearn_received_bytes_total", len(data))
        return envelope

    async def _send(self, connection: Connection, data: bytes) -> None:
        self.metrics.add("robolearn_sent_bytes_total", len(data))
        await connection.send(data)

    async def _refuse(
        self, connection: Connection, session: Session | None, refusal: Refusal | ProtocolError, to: Message | None = None
    ) -> None:
        """Says why, in one sentence, and closes where that ends the session."""
        code, text, ends = ("protocol", str(refusal), True)
        if isinstance(refusal, Refusal):
            code, text, ends = refusal.code, refusal.text, refusal.ends
        self.metrics.add("robolearn_refused_total", label=f'code="{code}"')
        _LOG.warning("refused (%s): %r", code, text)
        values = {"code": code, "text": text, "id": refusal.number if isinstance(refusal, Refusal) else ""}
        with contextlib.suppress(EOFError):
            await self._send(connection, encode(_reply("error", session, to, values)))
            if ends:
                await connection.close(_REFUSED, code)

    def _end(self, session: Session) -> None:
        """Forgets a session; its policy is freed after whatever it does now."""
        self._connections.pop(session.id, None)
        self._watching.pop(session.id, None)
        if self._leases.holds(session):
            self._leases.free(session)
            self.metrics.add("robolearn_leases", -1)
        with contextlib.suppress(RuntimeError):  # the server is closing
            self._inference.submit(self._freed, session)

    def _freed(self, session: Session) -> None:
        if session.window is not None:
            session.window.close()
        if session.policy is not None:
            self.served.free(session.policy)

    def _soon(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _beside(self, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._inference, work, *args)


def _reply(kind: str, session: Session | None, to: Message | None, values: dict[str, Any]) -> Message:
    who = ("", 0) if session is None else (session.id, session.epoch)
    return Message(kind, *who, *((0, 0) if to is None else (to.seq, to.t_obs_ns)), values)


def _fault(what: str, ends: bool = True) -> Refusal:
    """Logs the exception that is being handled, and returns what the peer is told of it: a number to find it by."""
    number = secrets.token_hex(4)
    _LOG.exception("%s: error %s", what, number)
    return Refusal("fault", f"{what}: error {number}; the details are in the server's log", ends, number)
