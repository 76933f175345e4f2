"""A served policy is the policy: same actions, memories apart, one session a robot, and every failure is told."""

from __future__ import annotations

import errno
import logging
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_sums import PATIENT, Place, Sums, drive, hello, seen, spoken, until

from robolearn.core import Ask, Chunk, Policy
from robolearn.errors import ArrayMismatch, BadInput, HardwareError
from robolearn.runtime.serve import client as client_module
from robolearn.runtime.serve import shared
from robolearn.runtime.serve.auth import Bind
from robolearn.runtime.serve.link import Disconnected, Late, dial
from robolearn.runtime.serve.replies import Fault, LeaseLost, Refused, Stale
from robolearn.runtime.serve.wire import Message, decode, encode

pytest.importorskip("msgpack")
pytest.importorskip("websockets")


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


def _full(*args: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("call", ["pwrite", "ftruncate"])
def test_where_the_shared_memory_is_full_arrays_travel_in_the_message(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("robolearn.runtime.serve.client.Slots", lambda: shared.Slots(tmp_path))
    monkeypatch.setattr("robolearn.runtime.serve.peers.Window", lambda name: shared.Window(name, tmp_path))
    monkeypatch.setattr(shared, "SMALL", 16)
    monkeypatch.setattr(shared.os, call, _full)
    place = Place(Bind(unix=str(tmp_path / "serve.sock")))
    with place.server, place.client() as client:
        assert (client._slots is None) is (call == "ftruncate")
        assert np.array_equal(drive(client, 3), drive(Sums(), 3))
    assert not list(tmp_path.iterdir())


def test_a_message_that_was_not_sent_gives_its_memory_back(tmp_path: Path) -> None:
    place = Place(Bind(unix=str(tmp_path / "serve.sock")))
    with place.server, place.client() as client:
        client.reset(0)
        client.observe(seen(), None)
        slots, box = client._slots, client._box
        assert slots is not None and box is not None
        box._link.close()
        with pytest.raises(Disconnected):
            client.plan()
        assert not slots._used and not client._ready


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
