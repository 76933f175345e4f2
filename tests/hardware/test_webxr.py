"""The WebXR device without a browser: what is refused, whose clock counts, what control gets, and the server through TLS."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import json
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hardware.devices import _tls, webxr
from hardware.devices._webxr_server import BUSY, PUT_OUT
from hardware.devices._webxr_wire import MAX_BYTES, Hand, Inbox, Pong, parse, pose_of
from robolearn.core import TeleopSample
from robolearn.errors import BadInput, ConfigError, HardwareError

GOOD: dict[str, Any] = {
    "v": 1, "seq": 0, "t": 1000.0, "arm": 0, "p": [0.1, 0.2, 0.3], "q": [0, 0, 0, 1], "btn": [0.5, 1],
    "axes": [0, 0], "deadman": True,
}  # fmt: skip
HOSTILE = [
    ("seq", -1), ("seq", 1.5), ("seq", True), ("seq", 10**400), ("t", float("nan")), ("t", float("inf")), ("t", "now"),
    ("arm", 2), ("arm", "0"), ("p", [0, 0]), ("p", [float("nan"), 0, 0]), ("p", [1e9, 0, 0]), ("p", [True, 0, 0]),
    ("p", "abc"), ("p", None),
    ("q", [0, 0, 0, 0]), ("q", [1, 1, 1, 1]), ("q", [0, 0, 0, 10**300]), ("btn", [0] * 17), ("btn", [2]), ("axes", [[0]]),
    ("axes", {}), ("deadman", 1), ("deadman", None), ("ev", ["engage"]), ("ev", ["rm"]), ("ev", "success"), ("ev", ["undo"] * 9),
    ("v", 2), ("v", None), ("other", 1),
]  # fmt: skip


def inbox(now_ms: list[float], **how: Any) -> Inbox:
    return Inbox(how.pop("arms", 1), lambda: round(now_ms[0] * 1e6), **how)


def message(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


def synced(now_ms: list[float], offset_ms: float, **how: Any) -> Inbox:
    """An inbox whose page's clock is `offset_ms` ahead of ours."""
    box = inbox(now_ms, **how)
    number = box.ping()
    box.take(json.dumps({"v": 1, "pong": number, "t": now_ms[0] + offset_ms}))
    return box


@pytest.mark.parametrize(("name", "value"), HOSTILE)
def test_a_message_with_a_bad_field_is_refused_by_name_and_moves_nothing(name: str, value: Any) -> None:
    box = inbox([0.0])
    with pytest.raises(BadInput, match=f"webxr message.*{name}"):
        box.take(json.dumps({**GOOD, name: value}))
    assert box.read() == [] and box.counts.refused == 1 and len(box.counts.why) < 250


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", '"x"', b"{}", "[" * 2000, "x" * (MAX_BYTES + 1), '{"v":1,"pong":-1,"t":0}']
)
def test_what_is_no_message_is_refused(text: str | bytes) -> None:
    with pytest.raises(BadInput, match="webxr message"):
        parse(text, 2)


_LEAVES = st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5)
_NAMES = st.sampled_from(sorted(GOOD))
_JSON = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_NAMES, inner, max_size=9), max_leaves=12
)


@given(_JSON, st.dictionaries(_NAMES, _JSON, max_size=3))
def test_any_json_is_a_message_or_is_refused(value: Any, changes: dict[str, Any]) -> None:
    for values in (value, {**GOOD, **changes}):
        with contextlib.suppress(BadInput):
            assert isinstance(parse(json.dumps(values), 2), (Hand, Pong))


def test_webxr_axes_become_the_robots() -> None:
    hand = parse(message(p=[1, 2, 3]), 1)
    assert isinstance(hand, Hand)
    np.testing.assert_allclose(pose_of(hand)[:3, 3], [-3, -1, 2])  # x = -z, y = -x, z = y
    half = np.sqrt(0.5)
    turns = {(half, 0, 0): (0, -1, 0), (0, half, 0): (0, 0, 1), (0, 0, half): (-1, 0, 0)}
    for imaginary, axis in turns.items():
        hand = parse(message(q=[*imaginary, half]), 1)
        assert isinstance(hand, Hand)
        np.testing.assert_allclose(
            Rotation.from_matrix(pose_of(hand)[:3, :3]).as_rotvec(), np.pi / 2 * np.array(axis), atol=1e-12
        )


@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1))
def test_every_turn_stays_a_rotation_of_the_same_angle(quat: list[float]) -> None:
    unit = np.array(quat) / np.linalg.norm(quat)
    rotation = pose_of(Hand(0, 0.0, 0, np.zeros(3), unit, (), True))[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert Rotation.from_matrix(rotation).magnitude() == pytest.approx(Rotation.from_quat(unit).magnitude(), abs=1e-6)


def test_the_clock_follows_the_shortest_round_trip() -> None:
    now = [0.0]
    box = inbox(now)
    for there, back in ((40.0, 5.0), (2.0, 2.0), (5.0, 60.0)):  # only the second is even, and it is the shortest
        number = box.ping()
        now[0] += there
        stamp = now[0] + 5000.0
        now[0] += back
        box.take(json.dumps({"v": 1, "pong": number, "t": stamp}))
    assert box.clocks.round_trip_ms == pytest.approx(4.0)
    box.take(message(t=now[0] + 5000.0 - 7.0))
    (sample,) = box.read()
    assert (sample.t_recv_ns - sample.t_dev_ns) * 1e-6 == pytest.approx(7.0)


def test_an_answer_nobody_asked_for_or_given_twice_moves_no_clock() -> None:
    now = [100.0]
    box = synced(now, 1000.0)
    for number in (0, 5):
        box.take(json.dumps({"v": 1, "pong": number, "t": 9e9}))
    assert box.clocks.ours_ms(1100.0) == pytest.approx(100.0)


def test_a_page_cannot_date_a_sample_into_our_future_or_turn_time_back() -> None:
    now = [100.0]
    box = synced(now, 0.0, full=True)
    for seq, stamp in enumerate((5000.0, 99.0, 98.0)):
        now[0] += 1.0
        box.take(message(seq=seq, t=stamp))
    samples = box.read()
    assert all(sample.t_dev_ns <= sample.t_recv_ns for sample in samples)
    assert all(a.t_dev_ns < b.t_dev_ns for a, b in itertools.pairwise(samples))


def test_control_gets_the_newest_and_loses_no_button() -> None:
    box = inbox([0.0])
    for seq, events in enumerate((["success"], [], ["undo"], [])):
        box.take(message(seq=seq, p=[seq, 0, 0], ev=events))
    box.take(message(seq=1, p=[9, 0, 0]))  # out of order
    (sample,) = box.read()
    assert sample.pose is not None and sample.pose[1, 3] == -3 and sample.events == ("success", "undo")
    assert box.counts.disordered == 1 and box.read() == []


def test_a_log_gets_every_sample() -> None:
    box = inbox([0.0], full=True)
    for seq in range(20):
        box.take(message(seq=seq))
    assert len(box.read()) == 20


def test_letting_go_between_two_reads_is_seen() -> None:
    box = inbox([0.0])
    for seq, held in enumerate((True, True, False, False, True)):
        box.take(message(seq=seq, deadman=held))
    assert [sample.deadman for sample in box.read()] == [True, False, True]


def test_a_queue_that_nobody_reads_stays_small_and_keeps_the_newest() -> None:
    box = inbox([0.0])
    for seq in range(1000):
        box.take(message(seq=seq, deadman=seq % 2 == 0, p=[seq / 1000, 0, 0]))
    samples = box.read()
    assert len(samples) <= 16 and samples[-1].pose is not None and samples[-1].pose[1, 3] == -0.999


def test_a_message_that_was_too_long_on_its_way_moves_nothing_but_its_button_and_its_release_count() -> None:
    now = [10_000.0]
    box = synced(now, 0.0, max_age_s=0.25)
    box.take(message(t=10_000.0))
    box.read()
    now[0] += 1000.0
    box.take(message(seq=1, t=10_100.0, ev=["failure"]))
    assert box.read() == [] and box.counts.late == 1
    box.take(message(seq=2, t=10_110.0, deadman=False))
    (sample,) = box.read()
    assert sample.deadman is False and sample.events == ("failure",)


def test_a_certificate_names_this_computer_is_kept_and_is_renewed_when_it_no_longer_fits(tmp_path: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    crt, key = _tls.certificate(tmp_path / "new", ["10.1.2.3"], now)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    first = crt.read_bytes()
    assert _tls.certificate(tmp_path / "new", [], now)[0].read_bytes() == first
    assert _tls.certificate(tmp_path / "new", ["10.9.9.9"], now)[0].read_bytes() != first
    second = crt.read_bytes()
    assert _tls.certificate(tmp_path / "new", [], now + datetime.timedelta(days=364))[0].read_bytes() != second
    key.write_text("no key")
    _tls.ssl_context(*_tls.certificate(tmp_path / "new", [], now))


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HardwareError, match="give another cache"):
        _tls.certificate(tmp_path / "file", [], datetime.datetime.now(datetime.UTC))


@pytest.mark.parametrize("values", [{"arms": 3}, {"port": 70000}, {"token": "short"}])
def test_a_setting_out_of_range_is_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"webxr {next(iter(values))}"):
        webxr.Config(**values)


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webxr.WebXR]:
    pytest.importorskip("websockets")
    served = webxr.make(webxr.Config(host="127.0.0.1", port=0, cache=str(tmp_path_factory.mktemp("tls")), arms=2))
    served.connect()
    yield served
    served.close()
    served.close()


@pytest.fixture
def tls(device: webxr.WebXR) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(Path(device.config.cache) / "webxr.crt"))


def page(device: webxr.WebXR, tls: ssl.SSLContext, token: str | None = None) -> Any:
    """Returns an open page; a busy machine may cut a handshake short, so it is tried three times."""
    from websockets.exceptions import InvalidMessage
    from websockets.sync.client import connect

    address = f"wss://localhost:{device.address.split(':')[2].split('/')[0]}/ws?token={token or device.token}"
    for _ in range(2):
        with contextlib.suppress(InvalidMessage, TimeoutError):
            return connect(address, ssl=tls)
    return connect(address, ssl=tls)


def until(claim: Callable[[], Any]) -> Any:
    """Returns what `claim` gives once it is true; fails after ten seconds."""
    waited = threading.Event()
    for _ in range(500):
        if found := claim():
            return found
        waited.wait(0.02)
    raise AssertionError("never came true")


def samples_of(device: webxr.WebXR, count: int = 1) -> list[TeleopSample]:
    taken: list[TeleopSample] = []
    until(lambda: taken.extend(device.read()) or len(taken) >= count)
    return taken


def drained(device: webxr.WebXR) -> None:
    until(lambda: not device.connected)
    device.read()


def test_a_page_moves_both_hands_through_tls_and_lets_go_when_it_is_gone(device: webxr.WebXR, tls: ssl.SSLContext) -> None:
    drained(device)
    with page(device, tls) as socket_:
        asked = json.loads(socket_.recv())
        socket_.send(json.dumps({"v": 1, "pong": asked["ping"], "t": 50.0}))
        socket_.send(message(t=50.0))
        socket_.send(message(t=50.0, seq=1, arm=1, deadman=False))
        both = samples_of(device, 2)
        assert {sample.arm: sample.deadman for sample in both} == {0: True, 1: False}
        assert all(sample.t_dev_ns <= sample.t_recv_ns for sample in both) and device.connected
    assert {sample.arm: sample.deadman for sample in samples_of(device, 2)} == {0: False, 1: False}


def test_a_wrong_token_is_told_so_and_gets_nothing(device: webxr.WebXR, tls: ssl.SSLContext) -> None:
    from websockets.exceptions import InvalidStatus

    for token in ("wrong-token", "%C3%A9", device.token + "x"):
        with pytest.raises(InvalidStatus) as refused, page(device, tls, token):
            pass
        assert refused.value.response.status_code == 403 and b"right token" in refused.value.response.body


def test_one_page_is_in_control_at_a_time(device: webxr.WebXR, tls: ssl.SSLContext) -> None:
    from websockets.exceptions import ConnectionClosed

    drained(device)
    with page(device, tls) as first, page(device, tls) as second:
        with pytest.raises(ConnectionClosed) as closed:
            second.recv(timeout=5)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == BUSY
        first.send(message())
        assert samples_of(device)[-1].deadman is True


@pytest.mark.parametrize("what", ["flood", "nonsense", "huge"])
def test_a_page_that_floods_or_talks_nonsense_is_put_out_and_the_next_one_works(
    device: webxr.WebXR, tls: ssl.SSLContext, what: str
) -> None:
    from websockets.exceptions import ConnectionClosed

    drained(device)
    texts = {"flood": [message(seq=k, deadman=False) for k in range(3000)], "nonsense": ["{"] * 60, "huge": ["x" * 10**6]}[what]
    with page(device, tls) as bad:
        with pytest.raises(ConnectionClosed) as closed:
            for text in texts:
                bad.send(text)
            while True:
                bad.recv(timeout=10)
        said = closed.value.rcvd  # None where the connection was reset while the page was still sending
        assert said is None or said.code == (1009 if what == "huge" else PUT_OUT)
    until(lambda: not device.connected)
    assert not any(sample.deadman for sample in device.read())
    with page(device, tls) as good:
        good.send(message())
        assert samples_of(device)[-1].deadman is True


def test_strangers_on_the_port_do_not_stop_the_server(device: webxr.WebXR, tls: ssl.SSLContext) -> None:
    drained(device)
    port = int(device.address.split(":")[2].split("/")[0])
    for bytes_ in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x00" * 300, b""):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(bytes_)
    with socket.create_connection(("127.0.0.1", port)) as raw, tls.wrap_socket(raw, server_hostname="localhost") as half:
        half.sendall(b"POST /ws HTTP/1.1\r\n\xff\xfe\r\n\r\n")
    with page(device, tls) as good:
        good.send(message())
        assert samples_of(device)[-1].deadman is True


def test_a_port_that_is_taken_is_said_in_one_line(device: webxr.WebXR) -> None:
    port = int(device.address.split(":")[2].split("/")[0])
    second = webxr.make(webxr.Config(host="127.0.0.1", port=port, cache=device.config.cache))
    with pytest.raises(HardwareError, match=f"cannot serve at 127.0.0.1:{port}.*give another port") as refused:
        second.connect()
    assert "\n" not in str(refused.value)
    second.close()


def test_the_invitation_holds_address_and_token(device: webxr.WebXR) -> None:
    assert f"/?token={device.token}" in device.invitation and "accept it" in device.invitation


def test_the_fake_page_drives_the_real_driver() -> None:
    driver, feed = webxr.fake(webxr.Config(arms=2))
    driver.connect()
    poses = []
    for _ in range(4):
        feed.play()
        right, left = driver.read()
        assert (right.arm, left.arm) == (0, 1) and right.deadman is True
        poses.append(right.pose)
    assert len({pose.tobytes() for pose in poses if pose is not None}) == 4
    driver.close()
    assert [sample.deadman for sample in driver.read()] == [False, False]
