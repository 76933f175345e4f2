"""What goes over the wire comes out the same; what is anything else is refused, cheaply, and with one kind of error."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robolearn.core import ArraySpec, Ask, Camera, Chunk, Spec
from robolearn.errors import HardwareError, MissingDependency
from robolearn.runtime.serve import pictures
from robolearn.runtime.serve.features import describe, read_spec, row_bytes, spec_text
from robolearn.runtime.serve.fuzz import SPEC, fuzz, messages
from robolearn.runtime.serve.reader import MAX_BYTES, MAX_ITEMS, MAX_KEYS, MAX_TEXT, ProtocolError, read
from robolearn.runtime.serve.shared import SLOTS, SMALL, Slots, Window
from robolearn.runtime.serve.wire import DTYPES, KINDS, Message, decode, encode

msgpack = pytest.importorskip("msgpack")
PICKLE = b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94\x8c\x06system\x94\x93\x94."  # of os.system
WORDS = st.text("abc/_é", min_size=1, max_size=8)
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False), WORDS, st.binary(max_size=300)
)


def chunk(**arrays: np.ndarray) -> Message:
    return Message("chunk", "5e55", 3, 7, 11, {"tick": 2, "past_stride": 1}, arrays)


def rows(**arrays: np.ndarray) -> Message:
    return Message("observe", "5e55", 3, 7, 11, {"count": 1}, {f"obs/{key}": array for key, array in arrays.items()})


def changed(message: Message, **changes: Any) -> bytes:
    """Returns the bytes of a valid message after changes of its outer map; `...` removes a key."""
    whole = msgpack.unpackb(encode(message)) | changes
    return bytes(msgpack.packb({key: value for key, value in whole.items() if value is not ...}))


def array_of(**changes: Any) -> bytes:
    """Returns a chunk whose actions, float32 (2, 2), are packed with these changes."""
    packed: dict[str, Any] = {"d": "float32", "s": [2, 2], "b": bytes(16)} | changes
    return changed(chunk(), arrays={"actions": {key: value for key, value in packed.items() if value is not ...}})


@settings(max_examples=30)
@given(st.sampled_from(DTYPES), st.lists(st.integers(1, 5), max_size=4), st.integers(0, 2**32))
def test_arrays_of_every_allowed_dtype_arrive_as_they_were_sent(dtype: str, shape: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 2, shape).astype(dtype)
    arrived = decode(encode(chunk(actions=array, past=array.T)))
    for name, sent in (("actions", array), ("past", array.T)):
        assert arrived.arrays[name].dtype == sent.dtype and np.array_equal(arrived.arrays[name], sent)
    assert dataclasses.replace(arrived, arrays={}) == chunk()


@pytest.mark.parametrize("data", messages(), ids=lambda data: decode(data, SPEC.obs).kind)
def test_a_message_of_every_kind_survives_the_wire(data: bytes) -> None:
    first = decode(data, SPEC.obs)
    again = decode(encode(first), SPEC.obs)
    assert dataclasses.replace(again, arrays={}) == dataclasses.replace(first, arrays={})
    assert all(np.array_equal(again.arrays[name], array) for name, array in first.arrays.items())


@given(
    st.dictionaries(WORDS, st.one_of(PLAIN, st.lists(PLAIN, max_size=4), st.dictionaries(WORDS, PLAIN, max_size=4)), max_size=6)
)
@settings(max_examples=30)
def test_the_reader_understands_what_the_msgpack_library_writes(value: dict[str, Any]) -> None:
    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {key: plain(item) for key, item in x.items()}
        return [plain(item) for item in x] if isinstance(x, list) else bytes(x) if isinstance(x, memoryview) else x

    assert plain(read(msgpack.packb(value))) == value


def test_numbers_and_texts_of_every_length_of_header_are_read() -> None:
    value = {
        "a": 2**16,
        "b": -(2**40),
        "c": "é" * 300,
        "d": "x" * 60_000,
        "e": [1] * 20,
        "f": 0.5,
    }
    assert read(msgpack.packb(value)) == value
    assert read(msgpack.packb({"a": 0.5}, use_single_float=True)) == {"a": 0.5}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (bytes(MAX_BYTES + 1), "at most 8388608 bytes"),
        (b"", "want 1 more bytes"),
        (b"\x93\x01\x02\x03", "want a map"),
        (b"\x80\x00", "end at byte 1"),
        (b"\x81\xa1a", "want 1 more bytes"),
        (b"\xc1", "type 0xc1 is not used"),
        (b"\x81\xa1a\xd4\x01\x00", "type 0xd4 is not used"),  # an extension type
        (b"\x81\xa1a\xc7\x01\x01\x00", "type 0xc7 is not used"),
        (b"\x81\x01\x01", "as key"),
        (b"\x81\x80\x01", "inside each other"),  # a map as key
        (b"\x81\xd9\xff" + b"k" * 255 + b"\x01", "as key"),
        (b"\x82\xa1a\x01\xa1a\x02", "there twice"),
        (b"\x81\xa1a\xa2\xff\xfe", "not UTF-8"),
        (b"\x81\xa1a\xa4\x1b[2J", "cannot be printed"),
        (msgpack.packb({"a": {"b": {"c": [[1]]}}}), "at most 4 maps and lists"),
        (msgpack.packb({str(i): 0 for i in range(MAX_KEYS + 1)}), "at most 64 keys"),
        (msgpack.packb({"a": [0] * (MAX_ITEMS + 1)}), "at most 1024 items"),
        (msgpack.packb({"a": [0] * 1000, "b": [0] * 1000}), "at most 1024 values"),
        (msgpack.packb({"a": "x" * (MAX_TEXT + 1)}), "at most 65536 bytes"),
        (PICKLE, "wire: "),
    ],
)
def test_what_is_not_small_msgpack_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        read(data)


@pytest.mark.parametrize("header", [b"\xdf", b"\xdd", b"\xdb", b"\xc6"], ids=["map", "list", "text", "bytes"])
def test_an_announced_length_is_checked_before_anything_is_allocated(header: bytes) -> None:
    flood = b"\x81\xa1a" + header + b"\x00\x7f\xff\xf0" + b"\x90" * (MAX_BYTES - 16)  # 8 MiB of empty lists, or of one huge thing
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decode(flood)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (changed(chunk(), extra=1), "exactly the keys"),
        (changed(chunk(), seq=...), "exactly the keys"),
        (changed(chunk(), schema="robolearn.serve/2"), "want schema 'robolearn.serve/1'"),
        (changed(chunk(), kind="exec"), "unknown kind 'exec'"),
        (changed(chunk(), kind=3), "a text as kind"),
        (changed(chunk(), session=5), "'session': want str, got int"),
        (changed(chunk(), session="x" * 65), "a length within 0 .. 64"),
        (changed(chunk(), epoch=-1), "'epoch': want within"),
        (changed(chunk(), seq=True), "'seq': want int, got bool"),
        (changed(chunk(), t_obs_ns=2**63), "'t_obs_ns': want within"),
        (changed(chunk(), values={"tick": 2}), "'chunk' has the values tick, past_stride"),
        (changed(chunk(), values={"tick": 2, "past_stride": 0}), "'past_stride': want within"),
        (changed(chunk(), arrays={"weights": {}}), "'chunk' has no array 'weights'"),
        (changed(rows(), arrays={"obs/": {}}), "'observe' has no array 'obs/'"),
        (array_of(d="object"), "want a dtype of bool, uint8"),
        (array_of(d="O"), "want a dtype of bool, uint8"),
        (array_of(d=["float32"]), "want a dtype of bool, uint8"),
        (array_of(s=[2, 3]), "want 24 bytes for float32"),
        (array_of(b=bytes(15)), "want 16 bytes for float32"),
        (array_of(b="text"), "got str"),
        (array_of(b=None), "got NoneType"),
        (array_of(s=[2**31, 2**31]), "want a shape of at most 5 positive"),
        (array_of(s=[4096, 4096]), "at most 8388608 bytes of arrays"),
        (array_of(s=[0], b=b""), "want a shape of at most 5 positive"),
        (array_of(s=[-2, -2]), "want a shape of at most 5 positive"),
        (array_of(s=[1] * 6), "want a shape of at most 5 positive"),
        (array_of(s="22"), "want a shape of at most 5 positive"),
        (array_of(x=1), "want an array as d, s and b"),
        (array_of(d=...), "want an array as d, s and b"),
        (array_of(b=..., at=0), "shared memory was not agreed on"),
        (array_of(d="bool", s=[16], b=b"\x02" * 16), "want 0 or 1 in every byte"),
        (array_of(d="jpeg", s=[1, 2, 2, 3], b=[b""]), "JPEG for observed pictures"),
        (array_of(b=PICKLE), "want 16 bytes"),
    ],
)
def test_what_does_not_fit_the_schema_is_refused_by_name(data: bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        decode(data)


def test_a_pickle_in_an_array_is_only_numbers() -> None:
    data = np.frombuffer(PICKLE, np.uint8)
    assert bytes(decode(encode(chunk(features=data))).arrays["features"]) == PICKLE


@pytest.mark.parametrize(
    "array", [np.array([None]), np.array(["a"]), np.zeros(2, complex), np.zeros(0), np.zeros((1,) * 6)], ids=str
)
def test_an_array_that_would_be_refused_is_not_sent(array: np.ndarray) -> None:
    with pytest.raises(ProtocolError, match="want one of bool, uint8"):
        encode(chunk(actions=array))


def test_more_than_a_message_holds_is_not_sent_and_the_largest_is_named() -> None:
    with pytest.raises(ProtocolError, match=r"'samples' 9000000.* at most 8388608"):
        encode(chunk(actions=np.zeros((2, 2), np.float32), samples=np.zeros(9_000_000, np.uint8)))
    with pytest.raises(ProtocolError, match="no array 'x'"):
        encode(chunk(x=np.zeros(1)))


def test_arrays_that_are_small_each_but_large_together_are_refused() -> None:
    packed = {name: {"d": "uint8", "s": [2**22], "b": bytes(2**22 - 400)} for name in ("actions", "past")}
    with pytest.raises(ProtocolError, match="want 4194304 bytes"):
        decode(changed(chunk(), arrays=packed))
    at = {"d": "uint8", "s": [2**22], "at": 0}
    with pytest.raises(ProtocolError, match="bytes of arrays in a message"):
        decode(changed(chunk(), arrays={name: at for name in ("actions", "past", "samples")}), fetch=lambda at, size: bytes(size))


def picture(height: int, width: int) -> np.ndarray:
    ramp = np.linspace(0, 255, height * width).reshape(height, width)
    return np.stack([ramp, ramp[::-1], np.full((height, width), 90.0)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("shape", [(16, 24, 3), (24, 16, 3), (16, 16, 3)])
def test_a_picture_is_taken_in_the_announced_shape_only(shape: tuple[int, ...]) -> None:
    announced = {"image": ArraySpec((16, 24, 3), "uint8")}
    for jpeg in ({}, {"obs/image": 95}):
        data = encode(rows(image=picture(*shape[:2])[None]), jpeg)
        if shape == (16, 24, 3):
            arrived = decode(data, announced).arrays["obs/image"]
            assert np.abs(arrived[0].astype(int) - picture(16, 24)).mean() < 4.0  # red is red: the order of colours is kept
        else:
            with pytest.raises(ProtocolError, match="announced was"):
                decode(data, announced)
        with pytest.raises(ProtocolError, match="announced was none of that name"):
            decode(data)


def test_a_jpeg_that_claims_another_size_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.setattr(cv2, "imdecode", lambda *args: pytest.fail("decoded"))
    small = pictures.encode_jpeg(picture(16, 24), 90)
    at = small.index(b"\xff\xc0") + 5
    bomb = small[:at] + b"\xff\xff\xff\xff" + small[at + 4 :]  # 65535 x 65535
    for data in (bomb, b"", b"GIF89a" + bytes(40), small[:3], small[:at]):
        with pytest.raises(ProtocolError):
            pictures.decode_jpeg(data, (16, 24, 3))


def test_progressive_grey_and_broken_jpegs_are_refused() -> None:
    import cv2

    _, progressive = cv2.imencode(".jpg", picture(16, 24), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    _, grey = cv2.imencode(".jpg", picture(16, 24)[..., 0])
    for data in (progressive, grey):
        with pytest.raises(ProtocolError, match="want a baseline JPEG picture of three colours"):
            pictures.decode_jpeg(bytes(data), (16, 24, 3))
    packed = {"obs/image": {"d": "jpeg", "s": [2, 16, 24, 3], "b": [pictures.encode_jpeg(picture(16, 24), 90)]}}
    with pytest.raises(ProtocolError, match="want 2 JPEG files"):
        decode(changed(rows(), arrays=packed), {"image": ArraySpec((16, 24, 3), "uint8")})


def test_everything_a_plan_can_ask_and_answer_travels() -> None:
    asks = {*KINDS["plan"][0], *KINDS["plan"][1], "goal"} - {"count", "obs/", "applied", "applied_mask", "goal/"}
    assert asks == {f.name for f in dataclasses.fields(Ask)}, "Ask has grown; the wire must too"
    assert {*KINDS["chunk"][0], *KINDS["chunk"][1]} == {f.name for f in dataclasses.fields(Chunk)} - {"events"}
    assert len(DTYPES) == 8


def test_mutated_messages_are_understood_or_refused_and_nothing_else() -> None:
    done = fuzz(2000, seed=0)
    assert not done.escaped and done.understood and done.refused > 1500
    assert done.rss_growth_mib < 20


def test_the_fuzzer_finds_a_reader_that_lets_something_through() -> None:
    done = fuzz(300, seed=0, read=lambda data: json.loads(data))
    assert done.escaped and not done.understood


@settings(max_examples=40)
@given(st.binary(max_size=200))
def test_bytes_of_any_kind_raise_nothing_but_protocol_error(data: bytes) -> None:
    for attempt in (data, b"\x88" + data, encode(chunk())[: len(data)] + data):
        try:
            decode(attempt)
        except ProtocolError as error:
            assert isinstance(error, HardwareError) and "\n" not in str(error)


def test_a_spec_survives_but_for_its_cameras() -> None:
    array = ArraySpec((2,), names=("x", "y"), unit="m", frame="base")
    camera = Camera((8, 8), ((1.0, 0.0, 0.0),) * 3)
    spec = dataclasses.replace(SPEC, cameras={"image": camera}, goal={"place": array}, codec="delta", execute=8, memory_stride=2)
    assert read_spec(spec_text(spec)) == dataclasses.replace(spec, cameras={})
    assert {f.name for f in dataclasses.fields(Spec)} - {"cameras"} == set(json.loads(spec_text(spec))), "Spec has grown"
    assert describe(spec) == "observes image uint8(8, 8, 3), state float32(3,); acts float32(2,) as 'delta' at 10 Hz"
    assert row_bytes(spec) == 8 * 8 * 3 + 12


SPEC_CHANGES: list[dict[str, Any]] = [
    {"hz": 0}, {"hz": 1e999}, {"hz": float("nan")}, {"hz": True}, {"hz": "10"}, {"hz": 10**400}, {"execute": 0}, {"execute": 1.0},
    {"memory_stride": 10**9}, {"codec": "\x1b[2J"}, {"codec": 3}, {"obs": []}, {"obs": {"": {}}}, {"obs": {"a": {}}}, {"more": 1},
    {"obs": {str(i): {} for i in range(25)}}, {"action": None},
]  # fmt: skip
ARRAY_CHANGES: list[dict[str, Any]] = [
    {"shape": [0]}, {"shape": [1.5]}, {"shape": "2"}, {"shape": [2**13, 2**13]}, {"shape": [2] * 5}, {"shape": [True]},
    {"dtype": "object"}, {"dtype": 5}, {"names": ["x"]}, {"names": ["x", 3]}, {"names": "xy"}, {"unit": "m\n"}, {"frame": None},
    {"more": 1},
]  # fmt: skip


@pytest.mark.parametrize("change", SPEC_CHANGES, ids=str)
def test_a_spec_that_is_none_is_refused_by_field(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError, match=r"^spec: "):
        read_spec(json.dumps(json.loads(spec_text(SPEC)) | change))


@pytest.mark.parametrize("change", ARRAY_CHANGES, ids=str)
def test_an_array_spec_that_is_none_is_refused_by_field(change: dict[str, Any]) -> None:
    values = json.loads(spec_text(SPEC))
    with pytest.raises(ProtocolError, match=r"^spec: action"):
        read_spec(json.dumps(values | {"action": values["action"] | change}))


@pytest.mark.parametrize("text", ["", "[", "[" * 50_000, "7" * 5000, "null", '"spec"'])
def test_text_that_is_no_spec_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match=r"^spec: "):
        read_spec(text)


def test_arrays_in_shared_memory_arrive_and_slots_are_used_again(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    window = Window(slots.name, tmp_path)
    slots.unlink()
    assert not list(tmp_path.iterdir())  # whatever happens now, nothing is left behind
    large = np.arange(SMALL, dtype=np.float32)
    sent = chunk(samples=large, actions=np.ones((2, 2), np.float32))
    for seq in range(3 * SLOTS):
        slots.begin(seq)
        data = encode(sent, place=slots.place)
        assert len(data) < SMALL
        arrived = decode(data, fetch=window.fetch)
        assert all(np.array_equal(arrived.arrays[name], array) for name, array in sent.arrays.items())
        slots.free(seq)
    for seq in range(SLOTS + 1):
        slots.begin(seq)
        data = encode(sent, place=slots.place)
    assert len(data) > large.nbytes  # no slot was free: inside the message
    slots.close()
    window.close()


def test_shared_memory_that_ends_too_soon_or_is_not_ours_is_refused(tmp_path: Path) -> None:
    slots = Slots(tmp_path)
    window = Window(slots.name, tmp_path)
    os.truncate(tmp_path / slots.name, 100)  # what a hostile sender can do
    with pytest.raises(ProtocolError, match="want 200 bytes at 0, got 100"):
        window.fetch(0, 200)
    with pytest.raises(ProtocolError, match="ends at"):
        window.fetch(SLOTS * MAX_BYTES, 1)
    other = "robolearn-" + "0" * 32
    place = tmp_path / other
    for make in (lambda: place.symlink_to(tmp_path / slots.name), lambda: os.mkfifo(place), place.mkdir):
        place.unlink(missing_ok=True)
        make()
        with pytest.raises(ProtocolError, match=r"shared memory: "):
            Window(other, tmp_path)
    (tmp_path / slots.name).chmod(0o666)
    for name in (slots.name, other, "../passwd", f"{slots.name}/../x", ""):
        with pytest.raises(ProtocolError, match="shared memory: "):
            Window(name, tmp_path)
    slots.close()
    slots.close()
    window.close()
    with pytest.raises(ProtocolError):
        window.fetch(0, 1)


def test_without_msgpack_the_line_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    valid = messages()[0]
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(MissingDependency, match=r"pip install 'robolearn\[serve\]'"):
        encode(chunk())
    assert decode(valid).kind == "hello"  # reading needs no library
