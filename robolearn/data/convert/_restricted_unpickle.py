"""The project's only unpickler: numbers, text, plain containers and numpy arrays come out; whatever else is named is refused.

A pickle is a program for a stack machine. It is read twice. First its instructions are listed without running them
(`pickletools`): one that is not needed for data, a size that the file does not hold, or a key too large to be hashed ends
it there. Then it runs, and every name it may use is a stand-in of ours that nothing can change: numpy's own functions are
never called with what the file says, and arrays are made from bytes only where their type, shape and size fit each other.
An array of objects is refused, but for one that only wraps a single object, as `np.save` does with a dict: that comes out bare.
Protocols 0 to 5 of Python 3; text of Python 2 is not read.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.errors import BadInput

MAX_BYTES = 1 << 30  # of a file, and of all that is in it if each mention were a copy
MAX_OPCODES = 200_000  # an episode of 300 plans takes some 40,000
MAX_DEPTH = 100  # containers in each other
MAX_KEY = 1_000  # mentions in what could be a key: hashing 300,000 nested tuples overflows the stack, 40 doubled ones never end

_BUILDING = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE "
    "SHORT_BINUNICODE BINUNICODE BINUNICODE8 SHORT_BINBYTES BINBYTES BINBYTES8 BYTEARRAY8 EMPTY_LIST LIST EMPTY_TUPLE "
    "EMPTY_DICT DICT EMPTY_SET GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL"
)
_GROWING = frozenset(["APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"])
_HASHABLE = frozenset(["TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET", "REDUCE"])
_OPCODES = frozenset(_BUILDING.split()) | _GROWING | _HASHABLE
_DTYPE = re.compile(r"[biufcSU][1-9]\d{0,5}")  # numbers and text of some size; no objects, records or times
_OBJECT = "O8"  # only ever one, in an array without axes: what np.save makes of a dict
_ATOMS = (bool, int, float, complex, str, bytes, bytearray, type(None), np.generic)


def load(source: Path | str | bytes, *, max_bytes: int = MAX_BYTES, max_opcodes: int = MAX_OPCODES) -> object:
    """Returns the data in a pickle: a file, or its bytes; arrays are read-only.

    BadInput in one line where it names anything but numpy's arrays and numbers and the builtin containers, is cut off or no
    pickle, is larger than `max_bytes` or `max_opcodes`, or contains itself. Nothing it says has been done then.
    """
    where = "pickle" if isinstance(source, bytes) else str(source)
    try:
        raw = source if isinstance(source, bytes) else _bytes_of(Path(source), max_bytes)
        if len(raw) > max_bytes:
            raise BadInput(f"want at most {max_bytes} bytes, got more")
        _check(raw, max_opcodes)
        return _plain(_Unpickler(io.BytesIO(raw)).load(), {}, max_bytes)[0]
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from error
    except Exception as error:  # of any kind: what a broken program does to the machine that runs it
        what = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
        raise BadInput(f"{where}: want a whole pickle, got one that is cut off or none ({what})") from error


def _bytes_of(path: Path, max_bytes: int) -> bytes:
    if not path.is_file():  # a pipe or a device would never end
        raise BadInput(f"want a file with a pickle, got {'another thing' if path.exists() else 'nothing'} there")
    with path.open("rb") as file:
        return file.read(max_bytes + 1)


def _check(raw: bytes, max_opcodes: int) -> None:
    """Raises BadInput where the instructions do more than build data, without running one."""
    stack: list[list[int] | None] = []
    memo: dict[int, list[int] | None] = {}
    end = 0
    for count, (opcode, arg, position) in enumerate(pickletools.genops(raw)):
        name, at, number = opcode.name, position or 0, arg if isinstance(arg, int) else 0
        if name not in _OPCODES:
            told = "" if arg is None else f" {str(arg)[:80]!r}"
            raise BadInput(f"byte {at}: refused {name}{told}; want instructions that only build data")
        if count >= max_opcodes:
            raise BadInput(f"want at most {max_opcodes} instructions, got more")
        if name == "FRAME" and number > len(raw) - at - 9:
            raise BadInput(f"byte {at}: want {number} more bytes, got {len(raw) - at - 9}; the file is cut off")
        if "PUT" in name and not 0 <= number <= count:  # the unpickler would make room for so many
            raise BadInput(f"byte {at}: refused {name} {number}; want no more than the file holds")
        if _weigh(opcode, number, stack, memo) > MAX_KEY and name in _HASHABLE:
            raise BadInput(f"byte {at}: want at most {MAX_KEY} mentions in a tuple or a call, got more")
        end = at + 1
    if end != len(raw):
        raise BadInput(f"want one pickle, got {len(raw) - end} bytes behind its end")


def _weigh(opcode: pickletools.OpcodeInfo, number: int, stack: list[list[int] | None], memo: dict[int, list[int] | None]) -> int:
    """Does to weights what an instruction does to objects, and returns the one on top.

    A weight is a list of one number, how many objects the object mentions, so that what is mentioned twice grows in both
    places; a mark is None.
    """
    name, before, mark = opcode.name, opcode.stack_before, pickletools.markobject
    if "PUT" in name or name == "MEMOIZE":
        memo[len(memo) if name == "MEMOIZE" else number] = stack[-1]
        return 0
    if "GET" in name:
        stack.append(memo[number])
        return 0
    inner: list[Any] = []
    if mark in before:
        while (weight := stack.pop()) is not None:
            inner.append(weight)
        before = before[: before.index(mark)]
    taken: list[Any] = [stack.pop() for _ in before][::-1]
    top = taken.pop(0) if name in _GROWING else [1]
    top[0] += sum(weight[0] for weight in inner + taken)
    stack.extend([None if result is mark else top for result in opcode.stack_after])
    return int(top[0])


def _plain(value: Any, seen: dict[int, tuple[Any, int] | None], max_bytes: int, depth: int = 0) -> tuple[Any, int]:
    """Returns `value` with arrays in the place of stand-ins, and how many bytes that is if each mention were a copy.

    seen: what came of each container, by its id; None while it is at work.
    """
    if isinstance(value, _ATOMS):
        return value, 8 + (len(value) if isinstance(value, (str, bytes, bytearray)) else 0)
    if isinstance(value, _Array) and value.value is not None:
        return value.value, value.value.nbytes
    if isinstance(value, _Array) and value.box:
        held, size = _plain(value.box, seen, max_bytes, depth)
        return held[0], size
    if not isinstance(value, (list, tuple, dict, set, frozenset)):
        raise BadInput(f"refused a bare {type(value).__name__.strip('_').lower()}; want data")
    if id(value) in seen or depth > MAX_DEPTH:
        made = seen.get(id(value))
        if made is None:
            raise BadInput("refused a container that holds itself, or one too deep in others; want plain data")
        return made
    seen[id(value)] = None
    parts = [*value, *value.values()] if isinstance(value, dict) else [*value]
    done = [_plain(part, seen, max_bytes, depth + 1) for part in parts]
    size = 8 + sum(held for _, held in done)
    if size > max_bytes:
        raise BadInput(f"want at most {max_bytes} bytes of data, got more: what is in it is repeated many times")
    fresh = [part for part, _ in done]
    half = len(value)
    whole = dict(zip(fresh[:half], fresh[half:], strict=True)) if isinstance(value, dict) else type(value)(fresh)
    seen[id(value)] = made = whole, size
    return made


class _Unpickler(pickle.Unpickler):
    """Runs the instructions; a name is one of ours or refused, however it is spelt."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in for a name; BadInput tells the one that has none."""
        if (module, name) not in _NAMES:
            raise BadInput(f"refused {module}.{name}; want numpy arrays, numbers, text and plain containers")
        return _Name(_NAMES[module, name])


class _Name:
    """What a pickle gets for a name it may use: something to call, which cannot be changed."""

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., object]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> object:
        return self._make(*args)

    def __setstate__(self, state: object) -> None:
        raise BadInput("refused to change a function; want data")


class _Dtype:
    """numpy.dtype('f8', False, True), then its state (version, byte order, None, None, None, ...)."""

    __slots__ = ("real",)

    def __init__(self, code: str, align: object = False, copy: object = False) -> None:
        del align, copy  # Unused: they change nothing about numbers and text.
        if not isinstance(code, str) or not (_DTYPE.fullmatch(code) or code == _OBJECT):
            raise BadInput(f"refused an array of type {_told(code)}; want numbers or text: an array of objects can hold anything")
        self.real = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, order, *record = state
        if order not in ("<", ">", "=", "|") or any(part is not None for part in record[:3]):
            raise BadInput(f"refused an array type with fields or the byte order {_told(order)}; want numbers or text")
        self.real = self.real.newbyteorder(order)


class _Array:
    """An array, whose state (version, shape, type, Fortran order, bytes) may still come."""

    __slots__ = ("box", "value")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, value: np.ndarray | None = None) -> None:
        self.value = value
        self.box: list[Any] = []

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        if isinstance(dtype, _Dtype) and dtype.real.hasobject and shape == () and type(raw) is list and len(raw) == 1:
            self.box = raw
            return
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """Returns the array in `raw` without a copy; BadInput where type, shape and number of bytes do not fit each other."""
    if not isinstance(dtype, _Dtype) or not isinstance(raw, (bytes, bytearray)) or order not in ("C", "F"):
        raise BadInput(f"refused an array made of {type(raw).__name__} and {type(dtype).__name__}; want bytes and a numpy.dtype")
    if dtype.real.hasobject:
        raise BadInput(f"refused an array of type '{_OBJECT}'; want numbers or text: an array of objects can hold anything")
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
        raise BadInput("refused an array whose shape is no tuple of sizes from 0 on; want one")
    wanted = math.prod(shape) * dtype.real.itemsize
    if wanted != len(raw):
        raise BadInput(f"want {wanted} bytes for {dtype.real}{shape}, got {len(raw)}")
    flat = np.frombuffer(raw, dtype.real) if raw else np.zeros(0, dtype.real)
    array = flat.reshape(shape, order=order)
    array.flags.writeable = False
    return array


def _told(value: object) -> str:
    """Returns a short text for a message; of what holds other things its type only, for it may hold them 2**40 times."""
    return repr(value)[:40] if isinstance(value, (str, bool, float, type(None))) else type(value).__name__


def _encoded(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise BadInput(f"refused _codecs.encode of {type(text).__name__} as {_told(encoding)}; want text as 'latin1'")
    return text.encode("latin1")


def _ndarray(*args: object) -> object:
    raise BadInput(f"refused numpy.ndarray of {len(args)} arguments; want an array with its bytes")


_NAMES: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): _ndarray,  # only ever handed to _reconstruct
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encoded,  # how protocols 0 to 2 write bytes
}
for _core in ("numpy.core", "numpy._core"):  # before and since numpy 2
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = lambda kind, shape, code: _Array()
    _NAMES[f"{_core}.multiarray", "scalar"] = lambda dtype, raw: _array(raw, dtype, (), "C")[()]
    _NAMES[f"{_core}.numeric", "_frombuffer"] = lambda raw, dtype, shape, order: _Array(_array(raw, dtype, shape, order))
for _module in ("builtins", "__builtin__"):  # protocols 0 to 2 say the latter
    _NAMES |= {(_module, kind.__name__): kind for kind in (set, frozenset, complex)}
    _NAMES[_module, "bytes"] = lambda: b""  # of no argument: bytes(10**12) would take a terabyte
