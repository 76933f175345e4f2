"""The restricted unpickler: data comes out as it went in, and no hostile program has an effect, a crash or an end too late."""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from robolearn.data.convert._restricted_unpickle import load
from robolearn.errors import BadInput

HERE = __name__.encode()
CODE = 0xF0  # of the extension registry


def touch(path: str) -> str:
    """The effect: a file that was not there."""
    Path(path).touch()
    return path


class Made:
    """Has its effect when it is made, or when its state is set."""

    def __new__(cls, path: str = "", *, other: str = "") -> Made:
        if path or other:
            touch(path or other)
        return super().__new__(cls)

    def __setstate__(self, state: str) -> None:
        touch(state)


class Reduced:
    """Has its effect wherever it is pickled: in a list, in an array of objects."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return touch, (self.path,)


def text(value: str) -> bytes:
    """Pushes text, in protocols 1 and up."""
    raw = value.encode()
    return b"X" + len(raw).to_bytes(4, "little") + raw


def stacked(module: str, name: str) -> bytes:
    """Pushes module.name with STACK_GLOBAL of protocol 4, which follows dots."""
    return text(module) + text(name) + b"\x93"


def named(module: str, name: str) -> bytes:
    """Pushes module.name with GLOBAL."""
    return f"c{module}\n{name}\n".encode()


def command(path: str) -> str:
    return f"{sys.executable} -c \"open(r'{path}', 'w')\""


HOSTILE: dict[str, Callable[[str], bytes]] = {
    "GLOBAL and REDUCE": lambda p: named("os", "system") + text(command(p)) + b"\x85R.",
    "GLOBAL and REDUCE of protocol 0": lambda p: b"cos\nsystem\n(V" + command(p).encode() + b"\ntR.",
    "STACK_GLOBAL": lambda p: b"\x80\x04" + stacked("os", "system") + text(command(p)) + b"\x85R.",
    "dots through a module": lambda p: b"\x80\x04" + stacked("shutil", "os.system") + text(command(p)) + b"\x85R.",
    "INST": lambda p: b"(V" + command(p).encode() + b"\nios\nsystem\n.",
    "OBJ": lambda p: b"(" + named("os", "system") + text(command(p)) + b"o.",
    "NEWOBJ": lambda p: b"\x80\x02c" + HERE + b"\nMade\n" + text(p) + b"\x85\x81.",
    "NEWOBJ_EX": lambda p: b"\x80\x04c" + HERE + b"\nMade\n)}" + text("other") + text(p) + b"s\x92.",
    "BUILD": lambda p: b"\x80\x02c" + HERE + b"\nMade\n)R" + text(p) + b"b.",
    "EXT1": lambda p: b"\x80\x02\x82" + bytes([CODE]) + text(p) + b"\x85R.",
    "EXT2": lambda p: b"\x80\x02\x83" + bytes([CODE, 0]) + text(p) + b"\x85R.",
    "EXT4": lambda p: b"\x80\x02\x84" + bytes([CODE, 0, 0, 0]) + text(p) + b"\x85R.",
    "eval": lambda p: named("builtins", "eval") + text(f"open(r'{p}', 'w').close()") + b"\x85R.",
    "exec of Python 2's name": lambda p: b"\x80\x02" + named("__builtin__", "exec") + text(f"open(r'{p}', 'w')") + b"\x85R.",
    "open": lambda p: named("io", "open") + text(p) + text("w") + b"\x86R.",
    "numpy.save": lambda p: named("numpy", "save") + text(p) + b"K\x01\x86R.",
    "numpy.lib._npyio_impl.savez": lambda p: named("numpy.lib._npyio_impl", "savez") + text(p) + b"K\x01\x86R.",
    "numpy.memmap": lambda p: named("numpy", "memmap") + b"(" + text(p) + text("u1") + text("w+") + b"K\x00K\x03tR.",
    "numpy.ndarray.tofile": lambda p: (
        b"\x80\x04" + stacked("numpy", "ndarray.tofile") + named("numpy", "array") + b"K\x07\x85R" + text(p) + b"\x86R."
    ),
    "an array of objects": lambda p: pickle.dumps(np.array([Reduced(p), 1], dtype=object)),
    "a record with an object": lambda p: pickle.dumps(np.array([(1, Reduced(p))], dtype=[("a", "i4"), ("b", "O")])),
    "the last of many": lambda p: pickle.dumps({"metadata": {"task": "x"}, "rollout": [np.zeros(3), {"deep": (Reduced(p),)}]}),
    "a key": lambda p: pickle.dumps({"good": 1, Reduced(p): 2}),
    "another pickle behind the first": lambda p: pickle.dumps(1) + pickle.dumps(Reduced(p)),
}


@pytest.fixture
def extension() -> Iterator[None]:
    """Registers `touch` for EXT and puts it into the cache, which asks no find_class."""
    copyreg.add_extension(__name__, "touch", CODE)
    pickle.loads(b"\x80\x02\x82" + bytes([CODE]) + b".")
    yield
    copyreg.remove_extension(__name__, "touch", CODE)
    copyreg._extension_cache.pop(CODE, None)  # type: ignore[attr-defined]


def marker(folder: Path) -> bool:
    """Whether anything was written."""
    return bool(list(folder.iterdir()))


@pytest.mark.usefixtures("extension")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_program_is_refused_and_has_no_effect(name: str, tmp_path: Path) -> None:
    raw = HOSTILE[name](str(tmp_path / "marker"))
    with pytest.raises(BadInput):
        load(raw)
    assert not marker(tmp_path)
    file = io.BytesIO(raw)
    while file.tell() < len(raw):  # the proof that the program is one: Python's own unpickler runs it
        pickle.load(file)
    assert marker(tmp_path)


@pytest.mark.parametrize("raw", [b"P%s\n.", b"\x80\x02" + text("%s") + b"Q."], ids=["PERSID", "BINPERSID"])
def test_a_persistent_id_is_refused(raw: bytes, tmp_path: Path) -> None:
    class Asks(pickle.Unpickler):
        def persistent_load(self, pid: str) -> str:
            return touch(str(tmp_path / "marker"))

    with pytest.raises(BadInput, match=r"refused (BIN)?PERSID"):
        load(raw)
    assert not marker(tmp_path)
    Asks(io.BytesIO(raw)).load()
    assert marker(tmp_path)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "getattr"),
        ("builtins", "bytearray"),
        ("numpy", "load"),
        ("numpy.lib.npyio", "load"),
        ("numpy.lib._npyio_impl", "load"),
        ("numpy", "ndarray.tofile"),
        ("numpy._core.multiarray", "_reconstruct.__call__"),
        ("numpy._core.multiarray", "fromfile"),
        ("numpy.dtype", "__init__"),
        ("functools", "partial"),
        ("robolearn.data.convert._restricted_unpickle", "load"),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_a_name_that_is_refused_is_told(module: str, name: str, protocol: int) -> None:
    raw = b"\x80\x02" + named(module, name) + b"." if protocol == 2 else b"\x80\x04" + stacked(module, name) + b"."
    with pytest.raises(BadInput, match=f"^pickle: refused {module}.{name}; want numpy arrays"):
        load(raw)


def test_an_instruction_that_is_refused_is_told_with_its_place() -> None:
    with pytest.raises(BadInput, match="byte 4: refused INST 'os system'; want instructions that only build data"):
        load(b"(Vx\nios\nsystem\n.")
    with pytest.raises(BadInput, match="byte 2: refused EXT1 '240'"):
        load(b"\x80\x02\x82\xf0.")


@pytest.mark.parametrize(
    "raw",
    [
        named("numpy", "dtype") + b"}" + text("x") + b"K\x01sb.",
        named("numpy._core.multiarray", "_reconstruct") + b"N}" + text("__defaults__") + b"Ns\x86b.",
        named("builtins", "set") + b"}" + text("_make") + b"Nsb.",
    ],
)
def test_no_program_changes_what_the_next_one_may_use(raw: bytes) -> None:
    good = {"a": np.arange(3), "b": {1, 2}}
    with pytest.raises(BadInput, match="refused to change a function"):
        load(raw)
    again = load(pickle.dumps(good))
    assert isinstance(again, dict) and again["b"] == {1, 2} and again["a"].tolist() == [0, 1, 2]


def dtype_of(code: str, state: bytes = b"") -> bytes:
    return named("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state


def array_of(dtype: bytes, shape: bytes, raw: bytes = b"C\x03abc") -> bytes:
    """An array with a state of choice, protocol 3."""
    begun = named("numpy.core.multiarray", "_reconstruct") + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"
    return b"\x80\x03" + begun + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb."


U1 = dtype_of("u1", b"(K\x03" + text("|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")


def test_an_array_built_by_hand_is_read() -> None:
    assert load(array_of(U1, b"K\x03\x85")).tolist() == [97, 98, 99]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (array_of(dtype_of("O8"), b"K\x03\x85"), "refused an array of type 'O8'; want numbers or text"),
        (array_of(dtype_of("V8"), b"K\x03\x85"), "refused an array of type 'V8'"),
        (array_of(dtype_of("f8,O"), b"K\x03\x85"), "refused an array of type 'f8,O'"),
        (array_of(dtype_of("S1000000000"), b"K\x03\x85"), "refused an array of type 'S1000000000'"),
        (array_of(dtype_of("U0"), b"K\x03\x85"), "refused an array of type 'U0'"),
        (array_of(dtype_of("u1", b"(K\x03" + text("|") + b"NU\x01ab" + b"Ntb"), b"K\x03\x85"), "refused SHORT_BINSTRING"),
        (
            array_of(dtype_of("u1", b"(K\x03" + text("|") + b"N]NK\x01K\x01K\x00tb"), b"K\x03\x85"),
            "refused an array type with fields",
        ),
        (array_of(dtype_of("u1", b"(K\x03" + text("?") + b"NNNtb"), b"K\x03\x85"), "the byte order '[?]'"),
        (array_of(U1, b"K\x04\x85"), r"want 4 bytes for uint8\(4,\), got 3"),
        (array_of(U1, b"J\xff\xff\xff\xff\x85"), "refused an array whose shape is no tuple of sizes"),
        (array_of(U1, b"K\x03"), "refused an array whose shape is no tuple of sizes"),
        (array_of(U1, b"\x8a\x10" + b"\x7f" * 16 + b"\x85"), "refused an array whose shape is no tuple of sizes"),
        (array_of(text("u1"), b"K\x03\x85"), "refused an array made of bytes and str"),
        (array_of(U1, b"K\x03\x85", b"]"), "refused an array made of list and _Dtype"),
        (b"\x80\x03" + U1 + b".", "refused a bare dtype"),
        (b"\x80\x03" + named("numpy", "ndarray") + b".", "refused a bare name"),
        (b"\x80\x03" + named("numpy", "ndarray") + b"J\x00\x00\x00\x7f\x85\x85R.", "refused numpy.ndarray of 1 arguments"),
        (b"\x80\x03" + named("_codecs", "encode") + text("a") + text("rot13") + b"\x86R.", "encode of str as 'rot13'"),
    ],
)
def test_an_array_that_is_not_what_it_says_is_refused(raw: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(raw)


def laughs(levels: int) -> bytes:
    """A list of two mentions of a list of two mentions of ..."""
    steps = (b"](h" + bytes([i]) + b"h" + bytes([i]) + b"e\x94" for i in range(levels))
    return b"\x80\x04](" + b"K\x01e\x94" + b"".join(steps) + b"."


def doubled_key(levels: int) -> bytes:
    """A key that is a pair of mentions of a pair of mentions of ..."""
    steps = (b"h" + bytes([i]) + b"h" + bytes([i]) + b"\x86\x94" for i in range(levels))
    return b"\x80\x04})\x94" + b"".join(steps) + b"K\x01s."


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "refused LONG_BINPUT 2147483647; want no more than the file holds"),
        (b"Np99999999999\n.", "refused PUT 99999999999"),
        (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7fN.", "want 9223372036854775807 more bytes, got 2; the file is cut off"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fN.", "cut off or none"),
        (b"\x80\x04})" + b"\x85" * 400_000 + b"K\x01s.", "want at most 1000 mentions in a tuple or a call"),
        (doubled_key(60), "want at most 1000 mentions in a tuple or a call"),
        (b"\x80\x04" + b"]" * 300 + b"a" * 299 + b".", "holds itself, or one too deep"),
        (b"\x80\x04]\x94h\x00a.", "holds itself"),
        (b"\x80\x03" + named("builtins", "bytes") + b"\x8a\x06" + b"\xff" * 5 + b"\x00\x85R.", "none .TypeError"),
        (b"I" + b"9" * 10_000 + b"\n.", "cut off or none"),
        (b"\x80\x04](" + b"N" * 200_000 + b"e.", "want at most 200000 instructions"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{len(value)} bytes",
)
def test_a_small_file_does_not_take_much_memory_or_time_or_the_process(raw: bytes, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load(raw)


def test_what_is_repeated_counts_as_often_as_it_is_mentioned() -> None:
    assert load(laughs(10)) is not None
    with pytest.raises(BadInput, match="what is in it is repeated many times"):
        load(laughs(80))
    once = np.zeros(1000)
    many = pickle.dumps([once] * 100)
    assert len(many) < 10_000 and len(load(many)) == 100  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="want at most 100000 bytes of data, got more"):
        load(many, max_bytes=100_000)


def test_a_file_may_be_only_so_large(tmp_path: Path) -> None:
    path = tmp_path / "episode.pkl"
    path.write_bytes(pickle.dumps(b"x" * 1000))
    assert load(path) == b"x" * 1000 and load(str(path)) == b"x" * 1000
    with pytest.raises(BadInput, match=r"episode\.pkl: want at most 999 bytes, got more"):
        load(path, max_bytes=999)
    with pytest.raises(BadInput, match="want at most 2 instructions"):
        load(path, max_opcodes=2)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="want a file with a pickle, got nothing there"):
        load(tmp_path / "none.pkl")
    with pytest.raises(BadInput, match="got another thing there"):
        load(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(BadInput, match="got another thing there"):
            load(tmp_path / "pipe")


DATA = {
    "metadata": {"task": "push_t", "successful": np.bool_(True), "action_mappings": {"pos": [0, 1, 2], "rpy": None}, "n": 3},
    "rollout": [{"rgb": np.arange(12, dtype=np.uint8).reshape(2, 2, 3), "timestamp": 0.5, "step": np.int64(1)}],
    ("a", 1): {"set": {1, 2}, "frozen": frozenset(["x"]), "complex": 1 + 2j, "bytes": b"\xff", "none": b"", "big": -(10**30)},
    "ü": [True, False, None, 1.5, (), [], {}, "text", np.array(3.0), np.array(["ab", "c"]), np.zeros((0, 4), np.float32)],
}


def same(a: object, b: object) -> bool:
    """Whether two objects are equal to the type, order and byte of an array."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return a.dtype.str == b.dtype.str and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_out_as_it_went_in(protocol: int) -> None:
    assert same(load(pickle.dumps(DATA, protocol)), DATA)


@given(
    arrays.arrays(
        st.sampled_from(["<f8", ">f4", "<i8", ">i2", "|u1", "|b1", "<c16", "<U3", "|S2"]),
        arrays.array_shapes(min_dims=0, min_side=0),
    ),
    st.integers(0, 5),
    st.booleans(),
)
def test_every_array_of_numbers_or_text_comes_out_as_it_went_in(array: np.ndarray, protocol: int, fortran: bool) -> None:
    array = np.asfortranarray(array).reshape(array.shape) if fortran else array
    got = load(pickle.dumps(array, protocol))
    assert same(got, array) and isinstance(got, np.ndarray) and not got.flags.writeable


def test_names_of_numpy_before_version_2_are_read() -> None:
    raw = pickle.dumps([np.arange(3.0), np.float32(2)], protocol=2)
    old = raw.replace(b"numpy._core.", b"numpy.core.")
    assert old != raw and same(load(old), [np.arange(3.0), np.float32(2)])


def test_many_arrays_share_their_names_and_types_without_reaching_a_limit() -> None:
    steps = [{"rgb": np.zeros((2, 2), np.uint8), "action": [np.zeros(3, np.float32)], "step": i} for i in range(2000)]
    assert same(load(pickle.dumps(steps)), steps)


def test_every_part_of_a_file_that_was_cut_off_is_refused() -> None:
    raw = pickle.dumps(DATA)
    for length in range(len(raw)):
        with pytest.raises(BadInput):
            load(raw[:length])


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes_are_data_or_bad_input(raw: bytes) -> None:
    try:
        load(raw)
    except BadInput as error:
        assert "\n" not in str(error)


@settings(max_examples=300)
@given(st.integers(0, 5), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_damaged_file_is_data_or_bad_input(protocol: int, changes: list[tuple[float, int]]) -> None:
    raw = bytearray(pickle.dumps(DATA, protocol))
    for place, byte in changes:
        raw[int(place * len(raw))] = byte
    try:
        load(bytes(raw))
    except BadInput as error:
        assert "\n" not in str(error)
