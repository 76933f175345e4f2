"""The files of a run log, and the process that writes them (`python -m robolearn.runtime._segments`).

A stream is one file, streams/NAME.seg (NAME percent-encoded):

    8 bytes   b"rlseg\\x00\\x01\\n"
    record    header: JSON {name, kind, dtype, shape, attributes}
    record    row, row, row ...

    record =  u32 length, u32 crc32 of the payload, payload        (all numbers little-endian)
    row    =  i64 t_ns, i64 t_recv_ns (monotonic), body
    body   =  rows: one array of dtype and shape, C order · jpeg: a picture · bundle: u32 length, JSON, arrays one after another

Files are only appended to. A crash leaves a last record that is short: it is dropped when the file is read, and so are records
whose checksum is wrong. events.jsonl holds one JSON object a line. black_box/NNN_WHY/ holds segments of the last seconds.
The other program sends messages through a `multiprocessing` pipe as bytes: u8 kind, u16 stream, i64 t_ns, i64 t_recv_ns, body.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import select
import struct
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import numpy as np

from robolearn.errors import DatasetError

FORMAT = 1  # of run.json and the files beside it
MAGIC = b"rlseg\x00\x01\n"
MESSAGE = struct.Struct("<BHqq")
DECLARE, ROW, EVENT, BOX, SYNC, CLOSE = range(6)
_FRAME, _STAMPS, _LENGTH = struct.Struct("<II"), struct.Struct("<qq"), struct.Struct("<I")
_SYNC_S = 5.0  # what a power cut may take

Body = np.ndarray | Sequence[memoryview]


@dataclass(frozen=True)
class Segment:
    """A stream read back. t_ns, t_recv_ns: (n,) monotonic; values: (n, ...) of kind rows, else n bodies; note: what is lost."""

    name: str
    kind: str
    attributes: Mapping[str, Any]
    t_ns: np.ndarray
    t_recv_ns: np.ndarray
    values: Body
    note: str = ""


def to_json(values: Mapping[str, Any]) -> bytes:
    """Returns the values as JSON, arrays as lists and what JSON does not know by its name: a log line never fails."""
    try:
        return json.dumps(values, skipkeys=True, default=_plain).encode()
    except Exception:  # one of them contains itself, or refuses to be shown: the others are told
        return json.dumps({str(name): _shown(value) for name, value in values.items()}).encode()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


def _shown(value: Any) -> Any:
    try:
        return json.loads(json.dumps(value, skipkeys=True, default=_plain))
    except Exception:
        return f"unreadable {type(value).__name__}"


def framed(payload: bytes) -> bytes:
    """Returns the payload as a record."""
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def header(name: str, kind: str, dtype: np.dtype | None, shape: Sequence[int], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the header of a stream as JSON values."""
    described = None if dtype is None else dtype.descr if dtype.names else dtype.str
    return {"name": name, "kind": kind, "dtype": described, "shape": list(shape), "attributes": dict(attributes)}


def read_segment(path: Path) -> Segment:
    """Returns a stream, without a broken last record; DatasetError where not even its header is whole."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size < len(MAGIC):
            raise DatasetError(f"{path}: want a stream, got an empty file: its writer ended before the header")
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    if view[: len(MAGIC)] != MAGIC:
        raise DatasetError(f"{path}: want a stream of a run log, got another kind of file, or a newer one")
    payloads, note = _records(view)
    if not payloads:
        raise DatasetError(f"{path}: want a stream with a header, got {note}")
    about, rows = json.loads(bytes(payloads[0])), payloads[1:]
    stamps = np.array([_STAMPS.unpack_from(row) for row in rows], np.int64).reshape(-1, 2)
    bodies: Body = [row[_STAMPS.size :] for row in rows]
    if about["kind"] == "rows":
        kind = about["dtype"]
        dtype = np.dtype([_field(each) for each in kind] if isinstance(kind, list) else kind)
        bodies = np.frombuffer(b"".join(bodies), dtype).reshape(len(rows), *about["shape"])
    note = note and f"{path.name}: {note}"
    return Segment(about["name"], about["kind"], about["attributes"], stamps[:, 0], stamps[:, 1], bodies, note)


def read_streams(folder: Path) -> tuple[dict[str, Segment], list[str]]:
    """Returns the streams of a folder by name, and what was left out."""
    streams, notes = {}, []
    for path in sorted(folder.glob("*.seg")):
        try:
            segment = read_segment(path)
        except DatasetError as error:
            notes.append(str(error))
            continue
        streams[segment.name] = segment
        notes += [segment.note] if segment.note else []
    return streams, notes


def _field(each: Sequence[Any]) -> tuple[Any, ...]:
    return (*each[:2], *(tuple(shape) for shape in each[2:]))


def _records(view: memoryview) -> tuple[list[memoryview], str]:
    """Returns the whole payloads of a file, the first being the header, and what was left out."""
    payloads, damaged, at = [], 0, len(MAGIC)
    while at + _FRAME.size <= len(view):
        length, crc = _FRAME.unpack_from(view, at)
        start, end = at + _FRAME.size, at + _FRAME.size + length
        if end > len(view) or length == 0:  # a file system may fill what a power cut left with zeros
            break
        payload = view[start:end]
        if zlib.crc32(payload) == crc:
            payloads.append(payload)
        elif not payloads:
            break
        else:
            damaged += 1
        at = end
    left = len(view) - at
    notes = [f"dropped an incomplete record of {left} bytes at the end"] if left else []
    notes += [f"dropped {damaged} damaged records"] if damaged else []
    return payloads, "; ".join(notes)


def pack(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Returns facts (JSON values) and arrays as one body; `unpack` reads them back."""
    described = [[name, array.dtype.str, list(array.shape)] for name, array in arrays.items()]
    head = to_json({"facts": dict(facts), "arrays": described})
    return b"".join([_LENGTH.pack(len(head)), head, *(array.tobytes() for array in arrays.values())])


def unpack(body: memoryview | bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Returns the facts and arrays of `pack`."""
    (length,) = _LENGTH.unpack_from(body)
    at = _LENGTH.size + length
    head, arrays = json.loads(bytes(body[_LENGTH.size : at])), {}
    for name, kind, shape in head["arrays"]:
        count = int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(body, np.dtype(kind), count, at).reshape(shape)
        at += arrays[name].nbytes
    return head["facts"], arrays


def read_lines(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Returns the JSON objects, one a line, and what was left out: a crash leaves a last line that is short."""
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip(b"\0 ")] if path.is_file() else []
    good = []
    for line in lines:
        with contextlib.suppress(ValueError):
            good.append(json.loads(line))
    good = [value for value in good if isinstance(value, dict)]
    dropped = len(lines) - len(good)
    return good, f"{path.name}: dropped {dropped} incomplete lines" if dropped else ""


class Writer:
    """What the process does with messages. how: flush_s, box_s, box_mib, quality; failed: why it writes no more."""

    def __init__(self, folder: Path, how: Mapping[str, Any], clock_s: Callable[[], float] = time.monotonic) -> None:
        self.folder, self._how, self._clock_s = folder, how, clock_s
        self.failed, self._taken, self._safe, self._boxes = "", 0, 0, 0
        self._headers: dict[int, dict[str, Any]] = {}
        self._files: dict[int, BinaryIO] = {}
        self._flushed_s = self._synced_s = clock_s()
        # Two shares of memory: pictures never push joints out.
        self._recent, self._pictures = (_Last(how["box_s"], how["box_mib"] << 20) for _ in range(2))
        self._events = (folder / "events.jsonl").open("ab")

    def take(self, message: bytes) -> bool:
        """Does what a message asks; False where it asks to close."""
        kind, stream, t_ns, t_recv_ns = MESSAGE.unpack_from(message)
        body = message[MESSAGE.size :]
        self._taken += 1
        try:
            if kind == DECLARE:
                self._declare(stream, json.loads(body))
            elif kind == ROW:
                self._row(stream, t_ns, t_recv_ns, body)
            elif kind == EVENT and not self.failed:
                self._events.write(body + b"\n")
            elif kind == BOX:
                self.box(body.decode())
            elif kind == SYNC:
                self.flush(durable=True)
        except (OSError, ValueError) as error:
            self._fail(error)
        return kind != CLOSE

    def flush_if_due(self) -> dict[str, Any] | None:
        """Flushes now and then, and returns what the other program should know after that: messages that are safe, why not."""
        now = self._clock_s()
        if now - self._flushed_s < self._how["flush_s"]:
            return None
        self._flushed_s = now
        try:
            self.flush(durable=now - self._synced_s > _SYNC_S)
        except (OSError, ValueError) as error:
            self._fail(error)
        return {"safe": self._safe, "why": self.failed}

    def flush(self, durable: bool = False) -> None:
        """Hands everything to the system, pictures first because ticks point at them; durable: to the disk too."""
        if self.failed:
            return
        files = sorted(self._files.items(), key=lambda item: self._headers[item[0]]["kind"] != "jpeg")
        for file in (*(file for _, file in files), self._events):
            file.flush()
            if durable:
                os.fsync(file.fileno())
        self._safe, self._synced_s = self._taken, self._clock_s() if durable else self._synced_s

    def box(self, why: str) -> None:
        """Writes the last seconds of every stream into a folder of their own."""
        self.flush(durable=True)
        folder = self.folder / "black_box" / f"{self._boxes:03d}_{quote(why, safe='')}"
        folder.mkdir(parents=True)
        self._boxes += 1
        for stream, about in self._headers.items():
            rows = [*self._recent.of(stream), *self._pictures.of(stream)]
            with (folder / _file_name(about["name"])).open("wb") as file:
                file.write(b"".join([MAGIC, framed(json.dumps(about).encode()), *rows]))
                file.flush()
                os.fsync(file.fileno())

    def close(self) -> None:
        """Flushes and closes; what fails was told before."""
        for step in (lambda: self.flush(durable=True), *(file.close for file in self._files.values()), self._events.close):
            try:
                step()
            except OSError as error:
                self._fail(error)

    def _declare(self, stream: int, about: dict[str, Any]) -> None:
        self._headers[stream] = about
        self._files[stream] = (self.folder / "streams" / _file_name(about["name"])).open("ab")
        self._files[stream].write(MAGIC + framed(json.dumps(about).encode()))

    def _row(self, stream: int, t_ns: int, t_recv_ns: int, body: bytes) -> None:
        about = self._headers.get(stream)
        if about is None:  # its declaration found no room, which the other program knows
            return
        if about["kind"] == "jpeg":
            body = _jpeg(np.frombuffer(body, np.uint8).reshape(about["shape"]), self._how["quality"])
        record = framed(_STAMPS.pack(t_ns, t_recv_ns) + body)
        now = self._clock_s()
        (self._pictures if about["kind"] == "jpeg" else self._recent).add(now, stream, record)
        if not self.failed:
            self._files[stream].write(record)

    def _fail(self, error: Exception) -> None:
        self.failed = self.failed or f"{getattr(error, 'strerror', None) or error}"


class _Last:
    """The records of the last `seconds`, but of the newest `most` bytes at the most."""

    def __init__(self, seconds: float, most: int) -> None:
        self._seconds, self._most, self._bytes = seconds, most, 0
        self._records: deque[tuple[float, int, bytes]] = deque()  # when it came [s], stream, record

    def add(self, now_s: float, stream: int, record: bytes) -> None:
        self._records.append((now_s, stream, record))
        self._bytes += len(record)
        while self._records and (now_s - self._records[0][0] > self._seconds or self._bytes > self._most):
            self._bytes -= len(self._records.popleft()[2])

    def of(self, stream: int) -> list[bytes]:
        return [record for _, number, record in self._records if number == stream]


def _file_name(stream: str) -> str:
    return f"{quote(stream, safe='')}.seg"


def _jpeg(image: np.ndarray, quality: int) -> bytes:
    import cv2

    done, encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(f"no JPEG can be made of a picture {image.shape}")
    return encoded.tobytes()


def _tell(pipe: Connection, said: Mapping[str, Any]) -> None:
    """Answers, and never waits for one who does not listen, or is gone."""
    with contextlib.suppress(OSError):
        if select.select([], [pipe], [], 0)[1]:
            pipe.send_bytes(json.dumps(said).encode())


def main(argv: Sequence[str]) -> int:
    """Serves one `RunLog` until it closes or is gone; argv: the pipe, the folder, the settings as JSON."""
    pipe, how = Connection(int(argv[1])), json.loads(argv[3])
    writer = Writer(Path(argv[2]), how)
    _tell(pipe, {"safe": 0, "why": ""})
    try:
        while not pipe.poll(how["flush_s"] / 4) or writer.take(pipe.recv_bytes()):
            said = writer.flush_if_due()
            if said is not None:
                _tell(pipe, said)
    except (EOFError, OSError):  # what it sent before its end was read first
        stamp = {"t_ns": time.monotonic_ns(), "t_wall_ns": time.time_ns()}
        writer.take(MESSAGE.pack(EVENT, 0, 0, 0) + json.dumps({**stamp, "event": "parent_gone"}).encode())
        writer.take(MESSAGE.pack(BOX, 0, 0, 0) + b"parent_gone")
    writer.close()
    return 1 if writer.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
