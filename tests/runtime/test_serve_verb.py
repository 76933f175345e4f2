"""Who runs a server sees how it does, and is told what it needs: health, metrics, the command, its seats."""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served_sums import PATIENT, SPEC, Place, Sums, get, seen, until

from robolearn import cli
from robolearn.apps import serve as verb
from robolearn.core import ArraySpec, Ask, Chunk, Obs, Policy, Spec
from robolearn.errors import BadInput, HardwareError, MissingDependency
from robolearn.policies._streams import Streams
from robolearn.runtime.serve.auth import Bind
from robolearn.runtime.serve.client import Client
from robolearn.runtime.serve.link import dial
from robolearn.runtime.serve.metrics import Metrics
from robolearn.runtime.serve.peers import Limits
from robolearn.runtime.serve.round_trip import Still, round_trip, still_spec
from robolearn.runtime.serve.server import Server

pytest.importorskip("msgpack")
pytest.importorskip("websockets")


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


def test_health_says_where_a_policy_takes_too_long_to_be_made() -> None:
    now, gate, made = [0.0], threading.Event(), list[Policy]()

    def slow() -> Policy:
        if made:  # the server's own, for its spec, was at once
            gate.wait(20.0)
        made.append(Sums())
        return made[-1]

    place = Place.__new__(Place)
    place.server = Server(slow, "sums", Bind(port=0), Limits(stuck_s=5.0), clock=lambda: now[0])
    with place.server:
        connecting = threading.Thread(target=lambda: place.client().close())
        connecting.start()
        until(lambda: place.server._peers._busy_since is not None)
        now[0] = 6.0
        assert get(place, "/healthz")[0] == 503
        gate.set()
        connecting.join()
        until(lambda: get(place, "/healthz")[0] == 200)


@pytest.mark.parametrize("error", [OSError("no port is left"), RuntimeError("a mistake of ours")])
def test_why_a_server_does_not_start_is_told_to_who_opens_it(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    async def failing(server: Server, listening: Any) -> None:
        raise error

    monkeypatch.setattr(Server, "_serve", failing)
    with pytest.raises(HardwareError, match=str(error)):
        Server(Sums, "sums", Bind(port=0)).open()


class Failing(asyncio.Event):
    async def wait(self) -> Any:
        await super().wait()
        raise RuntimeError("a mistake of ours")


def test_a_server_that_ends_by_itself_tells_who_waits_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("robolearn.runtime.serve.server.asyncio.Event", Failing)
    with Server(Sums, "sums", Bind(port=0)) as server:
        assert server._loop is not None
        server._loop.call_soon_threadsafe(server._stop.set)
        with pytest.raises(HardwareError, match=r"the server at ws://127\.0\.0\.1:\d+ has ended: a mistake of ours"):
            server.wait()


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

    def interrupted(server: Server) -> None:
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
    monkeypatch.setattr(Server, "wait", interrupted)
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
