"""The files of a run log: whatever was cut off or damaged, all whole rows are read and no wrong one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from logged_body import HOW, message

from robolearn.runtime import _segments as seg
from robolearn.runtime.runs import open_run


def writer(folder: Path, clock_s: Callable[[], float] = lambda: 0.0, **how: float) -> seg.Writer:
    (folder / "streams").mkdir(parents=True, exist_ok=True)
    made = seg.Writer(folder, {**HOW, **how}, clock_s)
    about = seg.header("arm", "rows", np.dtype("f8"), (2,), {})
    made.take(message(seg.DECLARE, seg.to_json(about)))
    return made


def row(k: int) -> bytes:
    return message(seg.ROW, np.array([k, -k - 1], "f8").tobytes(), t_ns=k)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Returns the bytes of a stream of 20 rows."""
    folder = tmp_path_factory.mktemp("whole")
    made = writer(folder)
    for k in range(20):
        made.take(row(k))
    made.close()
    return (folder / "streams" / "arm.seg").read_bytes()


_RECORD = 8 + 16 + 16  # frame, stamps, two numbers


@given(cut=st.integers(0, 20 * _RECORD), zeros=st.integers(0, 40))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wherever_a_stream_is_cut_off_all_whole_rows_before_are_read(whole: bytes, tmp_path: Path, cut: int, zeros: int) -> None:
    path = tmp_path / "arm.seg"
    path.write_bytes(whole[: len(whole) - cut] + bytes(zeros))  # a power cut may leave zeros too
    got = seg.read_segment(path)
    want = 20 - -(-cut // _RECORD)
    assert got.t_ns.tolist() == list(range(want)) and np.asarray(got.values)[:, 1].tolist() == [-k - 1 for k in range(want)]
    assert bool(got.note) is (cut % _RECORD > 0 or zeros > 0)


@given(at=st.integers(0, 20 * _RECORD - 1), bit=st.integers(0, 7))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_bit_never_gives_a_wrong_row(whole: bytes, tmp_path: Path, at: int, bit: int) -> None:
    raw = bytearray(whole)
    raw[len(whole) - 1 - at] ^= 1 << bit
    path = tmp_path / "arm.seg"
    path.write_bytes(raw)
    got = seg.read_segment(path)
    assert set(map(tuple, np.asarray(got.values).tolist())) < {(k, -k - 1) for k in range(20)} and "dropped" in got.note


def test_a_stream_whose_header_was_not_written_yet_is_left_out_aloud(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "streams").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"format": 1}))
    (tmp_path / "streams" / "a.seg").touch()
    (tmp_path / "streams" / "b.seg").write_bytes(seg.MAGIC + b"\x10")
    (tmp_path / "events.jsonl").write_text('{"event": "begin"}\n{"eve')
    got = open_run(tmp_path)
    assert not got.streams and len(got.notes) == 3 and [event["event"] for event in got.events] == ["begin"]
    said = capsys.readouterr().err
    assert "got an empty file" in said and "want a stream with a header" in said and "dropped 1 incomplete lines" in said


def test_rows_are_on_the_disk_a_quarter_second_after_they_came(tmp_path: Path) -> None:
    now = [0.0]
    made = writer(tmp_path, lambda: now[0])
    made.take(row(0))
    assert made.flush_if_due() is None
    assert (tmp_path / "streams" / "arm.seg").stat().st_size == 0
    now[0] = 0.26
    assert made.flush_if_due() == {"safe": 2, "why": ""}
    assert len(seg.read_segment(tmp_path / "streams" / "arm.seg").t_ns) == 1


def test_the_black_box_holds_the_last_seconds_and_no_more_than_its_share_of_memory(tmp_path: Path) -> None:
    now = [0.0]
    made = writer(tmp_path, lambda: now[0])
    for k in range(60):
        now[0] = float(k)
        made.take(row(k))
    made.take(message(seg.BOX, b"a/b"))
    assert seg.read_segment(tmp_path / "black_box" / "000_a%2Fb" / "arm.seg").t_ns.tolist() == list(range(29, 60))
    small = writer(tmp_path / "small", lambda: now[0], box_mib=0)
    small.take(row(0))
    small.take(message(seg.BOX, b"full"))
    assert len(seg.read_segment(tmp_path / "small" / "black_box" / "000_full" / "arm.seg").t_ns) == 0


def test_pictures_never_push_joints_out_of_the_black_box(tmp_path: Path) -> None:
    made = writer(tmp_path, box_mib=1)
    made.take(row(0))
    made.take(message(seg.DECLARE, seg.to_json(seg.header("cam", "jpeg", np.dtype("u1"), (256, 256, 3), {})), stream=1))
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8).tobytes()
    for k in range(20):  # 0.1 MiB each
        made.take(message(seg.ROW, noise, stream=1, t_ns=k))
    made.take(message(seg.BOX, b"full"))
    streams, _ = seg.read_streams(tmp_path / "black_box" / "000_full")
    assert streams["arm"].t_ns.tolist() == [0] and streams["cam"].t_ns.tolist() == list(range(20))[-len(streams["cam"].t_ns) :]
    assert 0 < sum(map(len, streams["cam"].values)) < 2**20


class Shy:
    def __str__(self) -> str:
        raise RuntimeError("refuses to be shown")


def test_a_line_tells_all_that_can_be_told_whatever_else_is_in_it() -> None:
    ring: dict[str, object] = {}
    ring["itself"] = ring
    told = json.loads(seg.to_json({"event": "odd", "t_ns": 5, "ring": ring, "shy": Shy(), "array": np.arange(2), 7: "seven"}))
    assert told == {"event": "odd", "t_ns": 5, "ring": "unreadable dict", "shy": "unreadable Shy", "array": [0, 1], "7": "seven"}


def test_a_line_that_is_no_object_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_bytes(b'{"event": "begin"}\n17\n\0\0\n{"event"')
    assert seg.read_lines(tmp_path / "events.jsonl") == ([{"event": "begin"}], "events.jsonl: dropped 2 incomplete lines")


def test_a_name_of_a_stream_never_leaves_its_folder(tmp_path: Path) -> None:
    made = writer(tmp_path)
    made.take(message(seg.DECLARE, seg.to_json(seg.header("../../arm", "rows", np.dtype("f8"), (2,), {})), stream=1))
    made.close()
    assert {path.parent for path in tmp_path.rglob("*.seg")} == {tmp_path / "streams"}
    assert "../../arm" in seg.read_streams(tmp_path / "streams")[0]


def test_rows_of_a_stream_whose_declaration_was_lost_harm_no_other(tmp_path: Path) -> None:
    made = writer(tmp_path)
    assert made.take(message(seg.ROW, b"12345678", stream=9)) and made.take(row(0))
    made.close()
    assert not made.failed and len(seg.read_segment(tmp_path / "streams" / "arm.seg").t_ns) == 1
