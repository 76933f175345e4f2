"""A served policy is the policy: same actions, memories apart; strangers of either side get a sentence and do no harm."""

from __future__ import annotations

import http.client
import logging
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn import cli
from robolearn.apps import serve as verb
from robolearn.core import ArraySpec, Ask, Chunk, Obs, Policy, Spec, Step
from robolearn.errors import ArrayMismatch, BadInput, HardwareError, MissingDependency, SpecMismatch
from robolearn.policies._streams import Streams
from robolearn.rollout import rollout
from robolearn.runtime.serve import client as client_module
from robolearn.runtime.serve.auth import Bind
from robolearn.runtime.serve.client import Client
from robolearn.runtime.serve.features import spec_text
from robolearn.runtime.serve.fuzz import messages, mutated
from robolearn.runtime.serve.link import Disconnected, Late, Settings, dial
from robolearn.runtime.serve.metrics import Metrics
from robolearn.runtime.serve.peers import Limits
from robolearn.runtime.serve.reader import ProtocolError
from robolearn.runtime.serve.replies import Fault, LeaseLost, Refused, Stale
from robolearn.runtime.serve.round_trip import Still, round_trip, still_spec
from robolearn.runtime.serve.server import Server
from robolearn.runtime.serve.wire import Message, decode, encode

pytest.importorskip("msgpack")
pytest.importorskip("websockets")
SPEC = Spec(
    {"state": ArraySpec((2,), names=("x", "y")), "image": ArraySpec((4, 6, 3), "uint8")},
    ArraySpec((2,), names=("x", "y"), unit="m"),
    10.0,
    goal={"place": ArraySpec((2,))},
    execute=3,
)
PATIENT = Settings(timeout_s=20.0, connect_s=20.0)


class Sums:
    """A policy whose plan tells everything it ever saw: the sum of states, pictures, applied actions and the seed, by tick."""

    def __init__(self) -> None:
        self.spec, self.gate, self.fails = SPEC, threading.Event(), ""
        self.gate.set()
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        self.seed, self.tick, self.seen, self.applied = seed or 0, -1, np.zeros(2), 0.0
        self.log: list[tuple[float, float | None]] = []

    def observe(self, obs: Obs, applied: np.ndarray | None) -> None:
        if self.fails == "observe":
            raise RuntimeError("secret of observe")
        obs["state"] += 0  # a policy may write into what it is given
        self.tick += 1
        self.seen = self.seen * 0.9 + obs["state"] + float(obs["image"].mean())
        self.applied += 0.0 if applied is None else float(applied.sum())
        self.log.append((float(obs["state"][0]), None if applied is None else float(applied[0])))

    def plan(self, ask: Ask = Ask()) -> Chunk:
        self.gate.wait(20.0)
        if self.fails:
            raise {"bad": BadInput("prefix: takes none"), "plan": RuntimeError("secret of plan")}[self.fails]
        goal = float(ask.goal["place"].sum()) if ask.goal else 0.0
        first = self.seen + self.applied + self.seed + goal
        actions = np.stack([first * 0.01 + k for k in range(4)]).astype(np.float32)
        samples = np.stack([actions] * ask.draws) if ask.draws > 1 else None
        return Chunk(actions, self.tick, past=actions[:2], samples=samples, features=np.ones(3, np.float32), events=("success",))


class Body:
    """A point that goes where it is told, and shows itself as a picture too."""

    spec = replace(SPEC, obs={**SPEC.obs, "more": ArraySpec((1,))}, execute=1)

    def reset(self, seed: int | None = None) -> Obs:
        self.state = np.full(2, seed or 0, np.float32)
        return self.obs()

    def obs(self) -> Obs:
        picture = np.full((4, 6, 3), int(abs(self.state[0]) * 7) % 256, np.uint8)
        return {"state": self.state, "image": picture, "more": np.zeros(1, np.float32)}

    def step(self, action: np.ndarray) -> Step:
        self.state = (self.state + 0.1 * action).astype(np.float32)
        return Step(self.obs(), action, action)

    def close(self) -> None: ...


class Actions:
    """A sink that keeps what was asked."""

    def __init__(self) -> None:
        self.kept: list[np.ndarray] = []

    def begin(self, spec: Any, meta: Any) -> None: ...
    def record(self, tick: Any) -> None:
        self.kept.append(tick.asked)

    def stream(self, name: str, t_ns: int, array: np.ndarray) -> None: ...
    def end(self, outcome: Any) -> None: ...


class Place:
    """A running server with every policy it made."""

    def __init__(self, bind: Bind, limits: Limits = Limits()) -> None:
        self.made: list[Sums] = []
        self.freed: list[Policy] = []
        self.server = Server(self.make, "sums", bind, limits, self.freed.append)
        self.server.open()
        self.made.clear()

    def make(self) -> Policy:
        self.made.append(Sums())
        return self.made[-1]

    def client(self, robot: str = "robot", settings: Settings = PATIENT, **how: Any) -> Client:
        return Client(self.server.address, Body.spec, "sums", robot, settings, **how)

    def quiet(self) -> None:
        until(lambda: self.server.metrics.value("robolearn_connections") == 0)


@pytest.fixture(scope="module")
def shared_place() -> Iterator[Place]:
    place = Place(Bind(port=0))
    yield place
    place.server.close()
    place.server.close()


@pytest.fixture
def place(shared_place: Place) -> Iterator[Place]:
    """A server that nobody is connected to."""
    shared_place.quiet()
    shared_place.made.clear()
    yield shared_place
    for policy in shared_place.made:
        policy.gate.set()


def until(claim: Callable[[], Any]) -> None:
    waited = threading.Event()
    for _ in range(1000):
        if claim():
            return
        waited.wait(0.01)
    raise AssertionError("never came true")


def seen(k: float = 0.0) -> Obs:
    return {"state": np.array([k, 1], np.float32), "image": np.zeros((4, 6, 3), np.uint8)}


def hello(**changes: Any) -> bytes:
    values = {"policy": "sums", "robot": "robot", "role": "control", "spec": spec_text(Body.spec), "shared": ""}
    return encode(Message("hello", "", 0, 1, 5, values | changes))


def spoken(place: Place, *data: bytes | str, settings: Settings = PATIENT) -> list[Message]:
    """Returns what the server answers to raw messages until it closes the connection, or all that it was asked is answered."""
    link, answers = dial(place.server.address, settings), []
    try:
        for message in data:
            link.send(message)  # type: ignore[arg-type]
        answers.extend(decode(link.receive(20.0)) for _ in data)  # type: ignore[arg-type]
    except Disconnected:
        pass
    finally:
        link.close()
    return answers


def get(place: Place, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", place.server.port, timeout=20)
    connection.request("GET", path, headers=headers or {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def drive(mind: Policy, seed: int, steps: int = 11) -> list[np.ndarray]:
    sink = Actions()
    rollout(Body(), mind, max_steps=steps, seed=seed, sinks=[sink])
    return sink.kept


@pytest.mark.parametrize("rows", [64, 2])
def test_a_served_policy_does_what_the_policy_does(place: Place, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_BATCH_ROWS", rows)  # 2: three observations a plan need two messages
    with place.client() as client:
        assert isinstance(client, Policy) and client.spec.execute == 3 and set(client.spec.obs) == {"state", "image"}
        for seed in (3, 4):
            assert np.array_equal(drive(client, seed), drive(Sums(), seed))
        assert client.dropped == 0


def test_a_unix_socket_with_shared_memory_does_the_same_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "memory"
    memory.mkdir()
    for name in ("client.FOLDER", "shared.FOLDER"):
        monkeypatch.setattr(f"robolearn.runtime.serve.{name}", memory)
    for kind in ("Slots", "Window"):
        made = getattr(__import__("robolearn.runtime.serve.shared", fromlist=[kind]), kind)
        monkeypatch.setattr(f"robolearn.runtime.serve.{'client' if kind == 'Slots' else 'peers'}.{kind}", _in(made, memory))
    monkeypatch.setattr("robolearn.runtime.serve.shared.SMALL", 16)
    place = Place(Bind(unix=str(tmp_path / "serve.sock")))
    with place.client() as client:
        assert client._slots is not None and not list(memory.iterdir())
        assert np.array_equal(drive(client, 3), drive(Sums(), 3))
        assert not client._slots._used
    with place.client(settings=replace(PATIENT, shared=False)) as client:
        assert client._slots is None and np.array_equal(drive(client, 3), drive(Sums(), 3))
    place.server.close()
    assert not (tmp_path / "serve.sock").exists()


def _in(kind: Any, folder: Path) -> Any:
    return lambda *args: kind(*args, folder)


def test_eight_robots_at_once_do_not_mix_their_memories(place: Place) -> None:
    driven: dict[int, list[np.ndarray]] = {}

    def one(robot: int) -> None:
        with place.client(f"robot {robot}") as client:
            driven[robot] = drive(client, robot, steps=7)

    threads = [threading.Thread(target=one, args=(robot,)) for robot in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(driven[robot], drive(Sums(), robot, steps=7)) for robot in range(8))
    place.quiet()
    until(lambda: set(map(id, place.made)) <= set(map(id, place.freed)))  # every policy is given back
    assert place.server.metrics.value("robolearn_leases") == 0


def test_every_part_of_an_ask_and_of_a_plan_travels_but_events_do_not(place: Place) -> None:
    with place.client() as client:
        client.reset(1)
        client.observe(seen(), None)
        asked = Ask(
            3, np.zeros((4, 2), np.float32), np.ones(4, np.float32), {"place": np.ones(2, np.float32)}, 2.0, 7.0, "identity", 1
        )
        got: list[Ask] = []
        policy, plain = place.made[0], place.made[0].plan
        policy.plan = lambda ask: got.append(ask) or plain(ask)  # type: ignore[method-assign,func-returns-value]
        chunk, want = client.plan(asked), plain(asked)
        for name in ("actions", "past", "samples", "features"):
            assert np.array_equal(getattr(chunk, name), getattr(want, name))
        assert (chunk.tick, chunk.events, want.events) == (0, (), ("success",))
        assert np.array_equal(got[0].prefix_mask, asked.prefix_mask) and np.array_equal(got[0].goal["place"], [1, 1])  # type: ignore[arg-type]
        assert replace(got[0], prefix=None, prefix_mask=None, goal={}) == replace(asked, prefix=None, prefix_mask=None, goal={})
        assert np.array_equal(client.plan().actions, plain().actions)  # plan is pure: twice, without an observation between


def test_flush_sends_what_was_observed_and_order_is_kept(place: Place) -> None:
    with place.client() as client:
        client.reset(0)
        for k in range(5):
            client.observe(seen(k), None if k == 0 else np.array([k, 0], np.float32))
            if k in (1, 2):
                client.flush()
        client.plan()
        assert place.made[0].log == [(0, None), (1, 1), (2, 2), (3, 3), (4, 4)]


def test_observing_goes_on_in_another_thread_while_a_plan_is_made(place: Place) -> None:
    with place.client() as client:
        client.reset(0)
        client.observe(seen(0), None)
        policy = place.made[0]
        policy.gate.clear()
        chunks: list[Chunk] = []
        planner = threading.Thread(target=lambda: chunks.append(client.plan()))
        planner.start()
        until(lambda: policy.tick == 0)
        for k in range(1, 4):
            client.observe(seen(k), None)
        assert client.ping().round_trip_s >= 0  # answered beside the inference thread
        client.flush()
        policy.gate.set()
        planner.join()
        assert chunks[0].tick == 0 and client.plan().tick == 3
        assert [state for state, _ in policy.log] == [0, 1, 2, 3]


def test_a_plan_that_is_late_says_so_and_its_chunk_is_dropped_when_it_comes(place: Place) -> None:
    with place.client(settings=replace(PATIENT, timeout_s=0.2)) as client:
        client.settings = PATIENT
        client.reset(0)
        client.observe(seen(), None)
        policy = place.made[0]
        policy.gate.clear()
        client.settings = replace(PATIENT, timeout_s=0.05)
        with pytest.raises(Late, match=r"within 0\.05 s"):
            client.plan()
        policy.gate.set()
        client.settings = PATIENT
        client.observe(seen(5), None)
        assert client.plan().tick == 1 and client.dropped == 1


def test_a_plan_of_an_episode_that_was_reset_meanwhile_is_stale(place: Place) -> None:
    with place.client() as client:
        client.reset(0)
        client.observe(seen(), None)
        policy = place.made[0]
        policy.gate.clear()
        errors: list[BaseException] = []

        def plan() -> None:
            try:
                client.plan()
            except HardwareError as error:
                errors.append(error)

        planner = threading.Thread(target=plan)
        planner.start()
        until(lambda: policy.tick == 0)
        resetting = threading.Thread(target=client.reset, args=(1,))
        resetting.start()
        until(lambda: client._episode == 2)
        policy.gate.set()
        planner.join()
        resetting.join()
        assert isinstance(errors[0], Stale) and "reset" in str(errors[0])


def test_a_plan_that_waits_while_another_thread_connects_again_is_told_that_its_session_is_over(place: Place) -> None:
    with place.client() as client:
        client.reset(0)
        client.observe(seen(), None)
        policy = place.made[0]
        policy.gate.clear()
        errors: list[BaseException] = []

        def plan() -> None:
            try:
                client.plan()
            except HardwareError as error:
                errors.append(error)

        planner = threading.Thread(target=plan)
        planner.start()
        until(lambda: policy.tick == 0)
        client._box._link.close()  # type: ignore[union-attr]
        policy.gate.set()
        client.connect()
        planner.join()
        assert isinstance(errors[0], Disconnected)
        client.reset(0)
        client.observe(seen(), None)
        assert client.plan().tick == 0


def test_a_policy_that_cannot_be_made_is_a_fault_and_frees_the_robot(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    served = place.server._peers.served
    monkeypatch.setattr(place.server._peers, "served", replace(served, make_policy=lambda: 1 / 0))
    with pytest.raises(Fault, match="no policy could be made: error"):
        place.client()
    monkeypatch.setattr(place.server._peers, "served", served)
    place.quiet()
    with place.client() as client:
        client.reset(0)


def test_a_mistake_of_the_servers_own_ends_one_peer_and_not_the_server(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with place.client() as client:
        client.reset(0)
        client.observe(seen(), None)
        with monkeypatch.context() as broken:
            broken.setattr(place.server._peers, "_publish", lambda session, chunk: 1 / 0)
            client.plan()
            until(lambda: place.server.metrics.value("robolearn_leases") == 0)
        with pytest.raises((Fault, Disconnected)):
            client.plan()
        client.reset(1)  # a new session


@pytest.mark.parametrize(
    ("changes", "code", "why"),
    [
        ({"policy": "other"}, "name", "serves policy 'sums', not 'other'"),
        ({"policy": "../../etc/passwd"}, "name", "serves policy 'sums'"),
        ({"role": "root"}, "role", "control, observe"),
        ({"spec": "{}"}, "protocol", "spec"),
        (
            {"spec": spec_text(replace(SPEC, hz=20.0))},
            "spec",
            "10 Hz.*The policy observes state.*10 Hz. The body observes state.*20 Hz",
        ),
        ({"spec": spec_text(SPEC.select(("state",)))}, "spec", "reads observation 'image'.*The body observes state"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(place: Place, changes: dict[str, str], code: str, why: str) -> None:
    (said,) = spoken(place, hello(**changes))
    assert said.kind == "error" and said.values["code"] == code and re.search(why, said.values["text"])
    assert not place.made  # no policy was made for it


def test_the_client_raises_a_refusal_with_both_specs_in_one_line(place: Place) -> None:
    slow = replace(Body.spec, hz=20.0)
    with pytest.raises(Refused, match=r"The policy observes .* 10 Hz\. The body observes .* 20 Hz") as refused:
        Client(place.server.address, slow, "sums", settings=PATIENT)
    assert "\n" not in str(refused.value)
    with pytest.raises(Refused, match="serves policy 'sums', not 'flow'"):
        Client(place.server.address, Body.spec, "flow", settings=PATIENT)


def test_one_session_controls_a_robot_and_only_it_can_take_over_from_itself(place: Place) -> None:
    with place.client("left") as first, place.client("right"):
        first.reset(0)
        with pytest.raises(Refused, match="'left' is controlled by another session"):
            place.client("left")
        guess = Message("hello", "0" * 32, 0, 1, 5, decode(hello(robot="left")).values)
        assert spoken(place, encode(guess))[0].values["code"] == "busy"
        second = dial(place.server.address, PATIENT)
        second.send(encode(replace(guess, session=first.session[0])))
        welcome = decode(second.receive(20.0))  # type: ignore[arg-type]
        assert welcome.kind == "welcome" and welcome.epoch > first.session[1]
        with pytest.raises(LeaseLost, match="newer session") as lost:
            for k in range(10_000):
                first.observe(seen(k), None)
                first.plan()
        assert "\n" not in str(lost.value)
        second.close()
    place.quiet()
    with place.client("left") as again:  # free again
        again.reset(0)


def test_reset_connects_again_after_the_connection_was_lost(place: Place) -> None:
    with place.client() as client:
        client.reset(0)
        session, epoch = client.session
        client._box._link.close()  # type: ignore[union-attr]
        with pytest.raises(Disconnected):
            for k in range(1000):
                client.observe(seen(k), None)
                client.plan()
        client.reset(1)
        client.observe(seen(), None)
        assert client.plan().tick == 0
        assert client.session[0] != session and client.session[1] > epoch
        client.close()
        with pytest.raises(Disconnected, match="not connected"):
            client.observe(seen(), None)


def test_an_observer_sees_the_robots_plans_and_can_do_nothing(place: Place) -> None:
    with place.client("left") as client, place.client("left", role="observe") as watcher:
        assert watcher.ping().round_trip_s >= 0
        client.reset(0)
        client.observe(seen(2), None)
        chunk, shown = client.plan(), watcher.watch(20.0)
        assert np.array_equal(shown.actions, chunk.actions) and shown.tick == 0
        assert watcher.session[0] != client.session[0]
        for act in (lambda: watcher.reset(0), watcher.plan, watcher.flush, lambda: watcher.observe(seen(), None)):
            with pytest.raises(BadInput, match="an observer cannot"):
                act()
        with pytest.raises(BadInput, match="want role 'observe'"):
            client.watch(1.0)
        with pytest.raises(Late):
            watcher.watch(0.05)
        watcher._box.send(99, encode(Message("reset", *watcher.session, 99, 0, {"seed": 0})))  # type: ignore[union-attr]
        with pytest.raises((Refused, Disconnected)):
            watcher.watch(20.0)
        client.observe(seen(3), None)
        assert client.plan().tick == 1  # and the controller did not notice
    with pytest.raises(BadInput, match="role of control, observe"):
        place.client(role="root")


def test_a_policy_that_fails_gives_the_peer_a_number_and_the_log_the_details(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    with place.client() as client:
        client.reset(0)
        client.observe(seen(0), None)
        policy = place.made[0]
        policy.fails = "plan"
        with caplog.at_level(logging.WARNING, "robolearn.serve"), pytest.raises(Fault, match="failed at a plan: error") as fault:
            client.plan()
        number = re.search(r"error (\w{8});", str(fault.value)).group(1)  # type: ignore[union-attr]
        assert "secret" not in str(fault.value) and "Traceback" not in str(fault.value)
        assert number in caplog.text and "secret of plan" in caplog.text
        policy.fails = "bad"
        with pytest.raises(Refused, match="prefix: takes none"):
            client.plan()
        policy.fails = ""
        assert client.plan().tick == 0
        policy.fails = "observe"
        client.observe(seen(1), None)
        with pytest.raises(Fault, match="failed at a plan"):
            client.plan()
        policy.fails = ""
        with pytest.raises(Refused, match="want a reset first"):
            client.plan()
        client.reset(0)
        client.observe(seen(0), None)
        assert client.plan().tick == 0


def test_what_the_client_cannot_send_is_refused_before_it_is_noted(place: Place) -> None:
    with place.client() as client:
        with pytest.raises(BadInput, match="want a reset first"):
            client.observe(seen(), None)
        client.reset(0)
        with pytest.raises(BadInput, match="want an observation before the first plan"):
            client.plan()
        with pytest.raises(ArrayMismatch, match="observation 'state': want finite"):
            client.observe(seen(np.nan), None)
        with pytest.raises(ArrayMismatch, match="observation 'image'"):
            client.observe({**seen(), "image": np.zeros((4, 7, 3), np.uint8)}, None)
        for applied in (np.zeros(3, np.float32), np.array([np.inf, 0]), np.zeros(2, int)):
            with pytest.raises(ArrayMismatch, match="applied: want finite floats"):
                client.observe(seen(), applied)
        client.observe(seen(), None)
        with pytest.raises(ArrayMismatch, match="goal 'colour': this policy takes place"):
            client.plan(Ask(goal={"colour": np.zeros(2, np.float32)}))
        with pytest.raises(Refused, match="at most 256 draws"):
            client.plan(Ask(draws=257))
        with pytest.raises(Refused, match="want a prefix of at most"):
            client.plan(Ask(prefix=np.zeros((4, 3), np.float32)))
        assert client.plan().tick == 0


def test_observations_that_nobody_asks_a_plan_for_are_not_kept_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_PENDING", 400)
    with place.client() as client:
        client.reset(0)
        with pytest.raises(HardwareError, match="call plan or flush more often"):
            for k in range(10):
                client.observe(seen(k), None)


def test_pictures_can_travel_as_jpeg(place: Place) -> None:
    with place.client(settings=replace(PATIENT, jpeg_quality=95)) as client:
        client.reset(0)
        client.observe({**seen(), "image": np.full((4, 6, 3), 200, np.uint8)}, None)
        client.plan()
        assert abs(place.made[0].seen[0] - 200) < 3


def request(k: int, welcome: Message, **changes: Any) -> bytes:
    return encode(replace(Message("reset", welcome.session, welcome.epoch, k, 0, {"seed": 0}), **changes))


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (b"garbage", "protocol"),
        ("text", "protocol"),
        (lambda w: encode(replace(w, seq=2, kind="done", values={})), "protocol"),
        (lambda w: request(1, w), "protocol"),  # a seq that was used
        (lambda w: request(2, w, session="0" * 32), "lease"),
        (lambda w: request(2, w, epoch=w.epoch + 1), "lease"),
        (lambda w: request(2, w, kind="observe", values={"count": 2}), "reset"),
    ],
)
def test_a_client_that_breaks_the_rules_is_told_which_and_the_next_one_is_served(place: Place, what: Any, code: str) -> None:
    link = dial(place.server.address, PATIENT)
    link.send(hello())
    welcome = decode(link.receive(20.0))  # type: ignore[arg-type]
    link.send(what(welcome) if callable(what) else what)
    said = decode(link.receive(20.0))  # type: ignore[arg-type]
    assert (said.kind, said.values["code"]) == ("error", code)
    link.close()
    place.quiet()
    with place.client() as client:
        client.reset(0)


ROWS = {
    "obs/state": np.ones((2, 2), np.float32),
    "obs/image": np.zeros((2, 4, 6, 3), np.uint8),
    "applied_mask": np.zeros(2, bool),
}


@pytest.mark.parametrize(
    "rows",
    [
        {"obs/image": np.zeros((1, 4, 6, 3), np.uint8)},
        {"obs/state": np.full((2, 2), np.nan, np.float32)},
        {"obs/state": np.ones((2, 2), np.float64)},
        {"obs/more": np.ones((2, 1), np.float32)},
        {"applied_mask": np.ones(2, bool)},
        {"applied_mask": np.zeros(2, np.float32)},
        {"applied_mask": np.ones(2, bool), "applied": np.full((2, 2), np.nan)},
        {"applied_mask": np.ones(2, bool), "applied": np.ones((2, 3))},
    ],
    ids=lambda rows: " ".join(rows),
)
def test_observations_that_do_not_fit_end_the_session_and_never_reach_the_policy(
    place: Place, rows: dict[str, np.ndarray]
) -> None:
    link = dial(place.server.address, PATIENT)
    link.send(hello())
    welcome = decode(link.receive(20.0))  # type: ignore[arg-type]
    link.send(request(2, welcome))
    link.send(request(3, welcome, kind="observe", values={"count": 2}, arrays=ROWS | rows))
    answers = [decode(link.receive(20.0)) for _ in range(2)]  # type: ignore[arg-type]
    assert [m.kind for m in answers] == ["done", "error"] and answers[1].values["code"] == "protocol"
    assert place.made[0].tick == -1
    link.close()


def test_a_flood_silence_and_too_many_robots_are_put_out() -> None:
    place = Place(Bind(port=0), Limits(robots=1, messages_per_s=5, idle_s=0.3, hello_s=0.3))
    try:
        link = dial(place.server.address, PATIENT)
        link.send(hello())
        welcome = decode(link.receive(20.0))  # type: ignore[arg-type]
        other = spoken(place, hello(robot="another"))
        assert other[0].values["code"] == "full"
        with suppress(Disconnected):
            for k in range(2, 30):
                link.send(request(k, welcome, kind="ping", values={}))
        said = [m.values["code"] for m in _rest(link) if m.kind == "error"]
        assert said == ["rate"]
        place.quiet()
        for first in ((hello(),), ()):  # a controller that asks nothing; one that does not even say hello
            link = dial(place.server.address, PATIENT)
            for data in first:
                link.send(data)
            assert [m.values["code"] for m in _rest(link) if m.kind == "error"] == ["idle"]
            link.close()
    finally:
        place.server.close()


def test_more_connections_than_were_meant_are_declined() -> None:
    place = Place(Bind(port=0), Limits(connections=1))
    with place.server, place.client(), pytest.raises(Disconnected, match="declined with status 503: too many connections"):
        dial(place.server.address, PATIENT)


def _rest(link: Any) -> list[Message]:
    got = []
    with suppress(Disconnected):
        while True:
            got.append(decode(link.receive(20.0)))
    return got


def test_mutated_messages_do_the_server_no_harm(place: Place) -> None:
    import random

    rng = random.Random(1)
    for _ in range(25):
        link = dial(place.server.address, PATIENT)
        with suppress(Disconnected):
            link.send(hello())
            welcome = decode(link.receive(20.0))  # type: ignore[arg-type]
            link.send(mutated(rng, [request(2, welcome), *messages()]))
            link.send(b"\xc1")
            assert all(m.kind in ("error", "done", "pong") for m in _rest(link))
        link.close()
    place.quiet()
    with place.client() as client:
        assert np.array_equal(drive(client, 3), drive(Sums(), 3))


def test_health_and_metrics_are_on_the_same_port_and_browsers_are_not_let_in(place: Place) -> None:
    with place.client() as client:
        client.reset(0)
        client.observe(seen(), None)
        client.plan()
        assert get(place, "/healthz") == (200, "ok\n")
        status, text = get(place, "/metrics")
        assert status == 200 and re.search(r'^robolearn_received_total{kind="plan"} [1-9]', text, re.MULTILINE)
        assert "robolearn_leases 1\n" in text and re.search(r"^robolearn_plan_seconds_count [1-9]", text, re.MULTILINE)
    assert get(place, "/secret")[0] == 404
    websocket = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "A" * 22 + "==",
        "Sec-WebSocket-Version": "13",
    }
    assert get(place, "/", websocket | {"Origin": "http://127.0.0.1"})[0] == 403


def test_health_says_where_the_policy_hangs_while_the_server_still_answers() -> None:
    now = [0.0]
    place = Place.__new__(Place)
    place.made, place.freed = [], []
    place.server = Server(place.make, "sums", Bind(port=0), Limits(stuck_s=5.0), clock=lambda: now[0])
    with place.server, place.client() as client:
        client.reset(0)
        client.observe(seen(), None)
        policy = place.made[-1]
        policy.gate.clear()
        planner = threading.Thread(target=client.plan)
        planner.start()
        until(lambda: policy.tick == 0)
        assert get(place, "/healthz")[0] == 200
        now[0] = 6.0
        assert get(place, "/healthz")[0] == 503
        policy.gate.set()
        planner.join()
        until(lambda: get(place, "/healthz")[0] == 200)


def test_metrics_are_text_that_prometheus_reads() -> None:
    metrics = Metrics()
    metrics.add("robolearn_received_total", 2, 'kind="plan"')
    for seconds in (0.0005, 0.004, 100.0):
        metrics.took("robolearn_plan_seconds", seconds)
    lines = metrics.text().splitlines()
    sample = re.compile(r'^[a-z_]+({[a-z]+="[^"]*"})? [0-9.e+-]+$')
    assert all(line.startswith("# ") or sample.match(line) for line in lines)
    assert 'robolearn_received_total{kind="plan"} 2' in lines and "robolearn_connections 0" in lines
    for bound, count in (("0.001", 1), ("0.002", 1), ("0.005", 2), ("5.0", 2), ("+Inf", 3)):
        assert f'robolearn_plan_seconds_bucket{{le="{bound}"}} {count}' in lines


class Liar:
    """A hostile server, as a link: answers each message with what `answer` makes of it."""

    def __init__(self, answer: Callable[[Message], list[bytes | str]]) -> None:
        self.answer, self.answers = answer, list[bytes | str]()

    def send(self, data: bytes) -> None:
        self.answers += self.answer(decode(data, SPEC.obs))

    def receive(self, timeout_s: float) -> bytes | str:
        if not self.answers:
            raise Late("client: no answer came in time")
        return self.answers.pop(0)

    def close(self) -> None: ...


def lied_to(plan: Callable[[Message], list[bytes | str]] | None = None, **welcome: Any) -> Client:
    """Returns a client whose server is honest but for its welcome and its plans."""

    def answer(m: Message) -> list[bytes | str]:
        kind = {"hello": "welcome", "plan": "chunk", "ping": "pong"}.get(m.kind, "done")
        session = ("5e55", 4)
        if kind == "chunk" and plan is not None:
            return plan(replace(m, kind="chunk", arrays={}, values={}))
        values: dict[str, Any] = {
            "welcome": {"policy": "sums", "spec": spec_text(SPEC), "shared": False} | welcome,
            "pong": {"t_ns": 5},
        }.get(kind, {})
        return [encode(Message(kind, *session, m.seq, 0, values))]

    settings = Settings(timeout_s=0.05, connect_s=0.05)
    return Client("ws://[::1]:1", Body.spec, "sums", settings=settings, dial=lambda address, settings: Liar(answer))


def planned(m: Message, tick: int = 0, **changes: Any) -> bytes:
    head = {key: changes.pop(key) for key in ("session", "epoch", "seq") if key in changes}
    arrays = {"actions": np.zeros((4, 2), np.float32)} | changes
    return encode(replace(m, values={"tick": tick, "past_stride": 1}, arrays=arrays, **head))


@pytest.mark.parametrize(
    ("plan", "error", "why"),
    [
        (lambda m: [b"\x80\x04N."], ProtocolError, "wire: "),
        (lambda m: ["text"], ProtocolError, "sent text"),
        (lambda m: [planned(m, tick=1)], ProtocolError, "plan for tick 0, the server planned for 1"),
        (lambda m: [planned(m, actions=np.full((4, 2), np.nan, np.float32))], ProtocolError, "'actions': want finite"),
        (lambda m: [planned(m, actions=np.zeros((4, 3), np.float32))], ProtocolError, "'actions': want finite float32"),
        (lambda m: [planned(m, actions=np.zeros((4, 2), np.int32))], ProtocolError, "'actions': want finite float32"),
        (lambda m: [planned(m, actions=np.zeros((4, 2), np.float64))], ProtocolError, "'actions': want finite float32"),
        (lambda m: [planned(m, actions=np.zeros((5000, 2), np.float32))], ProtocolError, "1 .. 4096 actions"),
        (lambda m: [planned(m, samples=np.zeros((2, 4, 2), np.float32))], ProtocolError, "no more draws than asked for"),
        (lambda m: [planned(m, past=np.full((1, 2), np.inf, np.float32))], ProtocolError, "'past': want finite"),
        (lambda m: [planned(m, features=np.zeros((2, 2), np.float32))], ProtocolError, "'features': want finite numbers"),
        (lambda m: [encode(replace(m, values={"tick": 0, "past_stride": 1}))], ProtocolError, "1 .. 4096 actions"),
        (lambda m: [encode(replace(m, kind="done", values={}))], ProtocolError, "want a chunk"),
        (lambda m: [planned(m, seq=m.seq - 1)], Late, "no answer"),
        (lambda m: [planned(m, epoch=m.epoch - 1)], Late, "no answer"),
        (lambda m: [planned(m, session="0" * 32)], Late, "no answer"),
        (lambda m: [], Late, "no answer"),
    ],
)  # fmt: skip
def test_a_hostile_server_gets_no_action_through(plan: Any, error: type[Exception], why: str) -> None:
    client = lied_to(plan)
    client.reset(0)
    client.observe(seen(), None)
    with pytest.raises(error, match=why) as raised:
        client.plan()
    assert "\n" not in str(raised.value)
    assert client.dropped == (error is Late and bool(plan(Message("chunk", "5e55", 4, 9)) if why == "no answer" else []))


@pytest.mark.parametrize(
    ("welcome", "error", "why"),
    [
        ({"policy": "other"}, ProtocolError, "want policy 'sums'"),
        ({"spec": "{x"}, ProtocolError, "spec: "),
        ({"spec": spec_text(replace(SPEC, action=ArraySpec((3,))))}, SpecMismatch, "actions of shape"),
        ({"spec": spec_text(replace(SPEC, hz=50.0))}, SpecMismatch, "50 Hz"),
        ({"spec": spec_text(replace(SPEC, action=ArraySpec((2,), "int64")))}, ProtocolError, "want actions as floats"),
    ],
)
def test_a_hostile_welcome_is_refused(welcome: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        lied_to(**welcome)


def test_what_a_server_calls_things_counts_for_nothing() -> None:
    odd = replace(SPEC, action=ArraySpec((2,), names=("dx", "dy"), unit="km"), execute=2)
    client = lied_to(spec=spec_text(odd))
    assert client.spec.action == Body.spec.action and client.spec.execute == 2  # displacements would be another body's
    assert client.offset.offset_s < 0  # its clock is reported, and used for nothing


@pytest.mark.parametrize(
    "address",
    [
        "ws://192.0.2.1:80",
        "ws://localhost:80",
        "http://127.0.0.1",
        "127.0.0.1:80",
        "wss://",
        "ws://127.0.0.1/x",
        "ws://127.0.0.1:99999",
        "unix:",
    ],
)
def test_an_address_that_leaves_this_computer_in_clear_or_is_none_is_refused(address: str) -> None:
    with pytest.raises((BadInput, Disconnected), match="client: "):
        dial(address, PATIENT)


def test_nobody_at_an_address_and_settings_out_of_range_are_named(tmp_path: Path) -> None:
    with pytest.raises(Disconnected, match="nobody serves at unix:"):
        dial(f"unix:{tmp_path}/none", PATIENT)
    for values in ({"timeout_s": 0.0}, {"connect_s": float("nan")}, {"jpeg_quality": 101}):
        with pytest.raises(BadInput, match=f"client: {next(iter(values))}"):
            Settings(**values)  # type: ignore[arg-type]


def test_a_server_that_takes_nothing_any_more_does_not_hold_the_robot_for_ever() -> None:
    from websockets.sync.server import serve

    gone = threading.Event()
    with serve(lambda connection: gone.wait(20.0), "127.0.0.1", 0, max_queue=1, max_size=None, close_timeout=0.1) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        link = dial(f"ws://127.0.0.1:{server.socket.getsockname()[1]}", Settings(timeout_s=0.1))
        waits = link._connection.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16)  # type: ignore[attr-defined]
        assert 0 < struct.unpack("@ll", waits)[1] < 200_000  # [us]: a send gives up long before pings do
        with pytest.raises(Disconnected, match="client: "):
            for _ in range(100):
                link.send(bytes(2**20))
        gone.set()
        link.close()
        server.shutdown()
        thread.join()


def test_a_policy_that_the_wire_cannot_carry_and_a_port_in_use_are_refused(place: Place) -> None:
    def served(obs: dict[str, ArraySpec]) -> Server:
        policy = Sums()
        policy.spec = replace(SPEC, obs=obs)
        return Server(lambda: policy, "odd", Bind(port=0))

    with pytest.raises(BadInput, match="'odd' cannot be served: spec: obs count: want a dtype"):
        served({"count": ArraySpec((1,), "uint32")})
    with pytest.raises(BadInput, match="bytes a tick, want at most 4194304"):
        served({"image": ArraySpec((2000, 1000, 3), "uint8")})
    with pytest.raises(HardwareError, match=r"cannot listen at .*; give another port"):
        Server(Sums, "sums", Bind(port=place.server.port)).open()


def test_without_websockets_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "websockets"]:
        monkeypatch.setitem(sys.modules, name, None)
    for act in (lambda: Server(Sums, "sums", Bind(port=0)).open(), lambda: dial("ws://127.0.0.1:1", PATIENT)):
        with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[serve\]'"):
            act()


def test_the_round_trip_bench_measures_every_call_of_every_client() -> None:
    done = round_trip(bytes=2000, calls=3, clients=2, way="shared")
    assert 0 < done.p50_ms <= done.p99_ms <= done.max_ms
    assert sum(array.shape[0] * np.dtype(array.dtype).itemsize for array in Still(2000).spec.obs.values()) == 2000
    for wrong in ({"way": "pigeon"}, {"calls": 0}, {"clients": 0}):
        with pytest.raises(BadInput, match="round_trip: want a way of tcp, unix, shared"):
            round_trip(**wrong)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="more than 56 bytes"):
        still_spec(56)


def test_the_command_serves_a_run_and_ends_with_ctrl_c(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import json

    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "apps")
    from runs import untrained

    told: dict[str, Any] = {}

    def interrupted() -> None:
        told.update(json.loads((tmp_path / "facts.json").read_text()))
        spec = Spec({"state": ArraySpec((5,))}, ArraySpec((2,)), 10.0)
        spec = Spec.from_json(told["spec"])
        robots = [Client(told["address"], spec, "mine", robot, PATIENT) for robot in ("a", "b")]
        plans = []
        for seed, robot in enumerate(robots):
            robot.reset(seed)
            robot.observe({key: np.full(array.shape, 100, array.dtype) for key, array in spec.obs.items()}, None)
            plans.append(robot.plan().actions)
        told["plans"] = plans
        raise KeyboardInterrupt

    run = untrained(tmp_path / "mine")
    monkeypatch.setattr(verb, "wait", interrupted)
    monkeypatch.setattr("signal.signal", lambda *args: None)
    assert cli.main(["serve", str(run), "--port", "0", "--device", "cpu", "--json", str(tmp_path / "facts.json")]) == 130
    first = capsys.readouterr().out.splitlines()
    assert len(first) == 1 and first[0].startswith(f"policy 'mine' at {told['address']}  observes state")
    assert not np.array_equal(*told["plans"])  # another seed, another plan: two streams of one network


def test_seats_are_given_again_after_they_were_given_back() -> None:
    class Two(Streams):
        def __init__(self) -> None:
            self.spec, self.asked = SPEC, list[tuple[str, int]]()

        def reset_stream(self, i: int, seed: int | None) -> None:
            self.asked.append(("reset", i))

        def observe_stream(self, i: int, obs: Obs, applied: np.ndarray | None) -> None:
            self.asked.append(("observe", i))

        def plan_streams(self, indices: Any, ask: Ask = Ask()) -> list[Chunk]:
            return [Chunk(np.full((1, 2), i), 0) for i in indices]

    policy = Two()
    seats = verb.Seats(policy, 2)
    first, second = seats.take(), seats.take()
    first.reset(0)
    first.observe({}, None)
    assert isinstance(first, Policy) and first.plan().actions[0, 0] != second.plan().actions[0, 0]
    assert len({i for _, i in policy.asked}) == 2 and policy.asked[-1] == ("observe", policy.asked[0][1])
    with pytest.raises(BadInput, match="every seat is taken"):
        seats.take()
    seats.give_back(first)
    assert seats.take().plan().actions[0, 0] == first.plan().actions[0, 0]


def test_the_command_refuses_an_expert_and_a_bad_number(tmp_path: Path, capsys: Any) -> None:
    assert cli.main(["serve", "expert:pusht"]) == 2 and "want a run folder" in capsys.readouterr().err
    assert cli.main(["serve", str(tmp_path), "--host", "0.0.0.0"]) == 2 and "needs TLS and a token" in capsys.readouterr().err
    assert cli.main(["serve", str(tmp_path), "--robots", "0"]) == 2 and "robots >= 1" in capsys.readouterr().err
