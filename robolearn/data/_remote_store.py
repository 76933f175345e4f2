"""The read-only zarr store over the files of an address, each fetched once."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype

from robolearn.data._remote import Address, Mirror, refuse_writing
from robolearn.errors import DatasetError

_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


def open_remote(address: Address) -> zarr.Group | Path:
    """Returns the group at an address, read through the local cache; for a .zip, the path of its local copy."""
    mirror = Mirror(address)
    if address.suffix == ".zip":
        return mirror.fetch("")
    try:
        return zarr.open_group(RemoteStore(mirror), mode="r")
    except DatasetError:
        raise
    except Exception as error:
        names = sorted({key.split("/")[0] for key in mirror.objects})
        raise DatasetError(
            f"{address}: want a zarr group with data/ and meta/episode_ends, got {', '.join(names[:5])} ({type(error).__name__})"
        ) from error


class RemoteStore(Store):
    """A read-only zarr store over the files of an address."""

    supports_writes = supports_deletes = supports_partial_writes = False
    supports_listing = True

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(read_only=True)
        self.mirror = mirror

    def stamp(self, key: str) -> tuple[int, int]:
        """Returns (number made of the tag, size) of the file of a key: another one after every change."""
        size, tag = self.mirror.objects.get(key, (-1, ""))
        return int(hashlib.sha256(tag.encode()).hexdigest()[:15], 16), size

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Returns a file or a part of it, None where the address holds none; DatasetError where a chunk of ours is lost."""
        if key not in self.mirror.objects:
            if self.mirror.complete and key.startswith("data/") and not key.endswith(_METADATA):
                raise DatasetError(f"{self.mirror.address}: {key} is missing; restore it from a copy")
            return None
        raw = await asyncio.to_thread(_read, self.mirror.fetch, key, byte_range)
        return (prototype or default_buffer_prototype()).buffer.from_bytes(raw)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """Returns several parts."""
        return list(await asyncio.gather(*(self.get(key, prototype, part) for key, part in key_ranges)))

    async def exists(self, key: str) -> bool:
        """Returns whether the address holds a file."""
        return key in self.mirror.objects

    async def list(self) -> AsyncIterator[str]:
        """Yields every key."""
        for key in self.mirror.objects:
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """Yields every key below a prefix."""
        for key in self.mirror.objects:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """Yields the names of what lies directly below a prefix."""
        prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        for name in {key[len(prefix) :].split("/")[0] for key in self.mirror.objects if key.startswith(prefix)}:
            yield name

    async def set(self, key: str, value: Buffer) -> None:
        """Refuses."""
        refuse_writing(self.mirror.address)

    async def delete(self, key: str) -> None:
        """Refuses."""
        refuse_writing(self.mirror.address)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteStore) and self.mirror.address == other.mirror.address

    __hash__ = None  # type: ignore[assignment]


def _read(fetch: Callable[[str], Path], key: str, part: ByteRequest | None) -> bytes:
    with fetch(key).open("rb") as file:
        if isinstance(part, RangeByteRequest):
            file.seek(part.start)
            return file.read(part.end - part.start)
        if isinstance(part, OffsetByteRequest):
            file.seek(part.offset)
        elif isinstance(part, SuffixByteRequest):
            file.seek(-min(part.suffix, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read()
