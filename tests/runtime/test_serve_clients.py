"""A client that breaks the rules, floods, or says nothing gets a sentence and does no harm."""

from __future__ import annotations

import re
import socket
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from served_sums import PATIENT, SPEC, Body, Place, Sums, drive, hello, request, rest, spoken, until

from robolearn.runtime.serve.auth import Bind
from robolearn.runtime.serve.client import Client
from robolearn.runtime.serve.features import spec_text
from robolearn.runtime.serve.fuzz import messages, mutated
from robolearn.runtime.serve.link import Disconnected, dial
from robolearn.runtime.serve.peers import Limits
from robolearn.runtime.serve.replies import Refused
from robolearn.runtime.serve.wire import decode, encode

pytest.importorskip("msgpack")
pytest.importorskip("websockets")


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


PLAN = {"draws": 1, "guidance": 1.0, "prefix_beta": 5.0, "prefix_jacobian": "full", "prefix_fixed": 0}
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


def test_a_client_that_dies_while_its_plans_wait_gives_its_robot_back(place: Place) -> None:
    link = dial(place.server.address, PATIENT)
    link.send(hello())
    welcome = decode(link.receive(20.0))  # type: ignore[arg-type]
    link.send(request(2, welcome))
    link.send(request(3, welcome, kind="plan", values={"count": 2} | PLAN, arrays=ROWS))
    policy = place.made[0]
    policy.gate.clear()
    until(lambda: policy.tick == 1)
    for k in range(4, 4 + 2 * place.server.limits.waiting):  # more than may wait
        link.send(request(k, welcome, kind="plan", values={"count": 0} | PLAN))
    until(lambda: place.server.metrics.value("robolearn_received_total", 'kind="plan"') >= place.server.limits.waiting + 2)
    link._connection.socket.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
    policy.gate.set()
    until(lambda: place.server.metrics.value("robolearn_leases") == 0)
    link.close()
    next_one = spoken(place, hello())
    assert [message.kind for message in next_one] == ["welcome"]  # the same robot may come again at once
    assert place.server.metrics.value("robolearn_departed_total") >= 1


def test_a_flood_silence_and_too_many_robots_are_put_out() -> None:
    place = Place(Bind(port=0), Limits(robots=1, messages_per_s=5, idle_s=0.3))
    with place.server:
        link = dial(place.server.address, PATIENT)
        link.send(hello())
        welcome = decode(link.receive(20.0))  # type: ignore[arg-type]
        other = spoken(place, hello(robot="another"))
        assert other[0].values["code"] == "full"
        with suppress(Disconnected):
            for k in range(2, 9):
                link.send(request(k, welcome, kind="ping", values={}))
        assert [m.values["code"] for m in rest(link) if m.kind == "error"] == ["rate"]
        place.quiet()
        link = dial(place.server.address, PATIENT)
        link.send(hello())  # and nothing after it
        assert [m.values["code"] for m in rest(link) if m.kind == "error"] == ["idle"]


def test_who_says_no_hello_is_put_out() -> None:
    with Place(Bind(port=0), Limits(hello_s=0.3)).server as server:
        for _ in range(5):
            with suppress(Disconnected):  # the handshake has no more time either, and cores stall
                assert [m.values["code"] for m in rest(dial(server.address, PATIENT))] == ["idle"]
                return
        pytest.fail("no connection came to be")


def test_more_connections_than_were_meant_are_declined() -> None:
    place = Place(Bind(port=0), Limits(connections=1))
    with place.server, place.client(), pytest.raises(Disconnected, match="declined with status 503: too many connections"):
        dial(place.server.address, PATIENT)


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
            assert all(m.kind in ("error", "done", "pong") for m in rest(link))
        link.close()
    place.quiet()
    with place.client() as client:
        assert np.array_equal(drive(client, 3), drive(Sums(), 3))
