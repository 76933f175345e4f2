"""Sets at an address such as s3://bucket/demos.zarr: listed once when opened, every file fetched once, then read from here.

    $ROBOLEARN_CACHE (or ~/.cache/robolearn)/NAME.zarr-<hash of the address>/
      listing.json    what the address held when it was last reached: size and tag (etag) of every file
      objects/        the files fetched so far, named by key, size and tag: a changed file is another one
      frames/         decoded images

An open asks for the listing only. Where the address cannot be reached, the last listing and what was fetched are used.
Credentials, region and endpoint are those of the address's own client (S3: the AWS_* variables and ~/.aws).
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from robolearn import config
from robolearn.data._files import write_durably
from robolearn.errors import BadInput, DatasetError, MissingDependency, nearest

_ADDRESS = re.compile(r"^(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?P<rest>.+)$")  # Path makes s3:/b of s3://b
_CLIENTS = {"s3": ("s3fs", "pip install 'robolearn[s3]'"), "gs": ("gcsfs", "pip install gcsfs")}
_CONNECT_S = 10  # after that the network counts as gone (three tries)
_STREAMS = 8  # files that are fetched at a time
_TAGS = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "created")


class Address(type(Path())):  # type: ignore[misc]
    """A path that is no place on this computer: it prints as its address, does not exist here, and nothing is made there."""

    def __str__(self) -> str:
        protocol, _, rest = super().__str__().partition(":/")
        return f"{protocol}://{rest.lstrip('/')}"

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Raises OSError: a remote set is read only."""
        raise OSError(f"{self} is remote and read only")


def locate(path: str | Path) -> Path:
    """Returns an `Address` for protocol://..., however many slashes are left of it, else a path of this computer."""
    found = _ADDRESS.match(str(path))
    if not found:
        return Path(path)
    if found["protocol"] in ("file", "local"):
        return Path("/" + found["rest"].lstrip("/"))
    return Address(f"{found['protocol']}:/{found['rest'].strip('/')}")


def refuse_writing(path: Path) -> None:
    """Raises BadInput where `path` is an address: sets are written on this computer and copied there whole."""
    if isinstance(path, Address):
        raise BadInput(f"{path}: a remote set cannot be written to; write it to a folder here and copy that folder")


def beside(path: Path, suffix: str) -> Path:
    """Returns the folder NAME<suffix> for what is derived of a set: beside it, or in the local cache of a remote one."""
    return local_folder(path) / suffix.lstrip(".") if isinstance(path, Address) else path.with_suffix(suffix)


def local_folder(address: Path) -> Path:
    """Returns where the files of an address are kept on this computer."""
    root = Path(os.environ.get("ROBOLEARN_CACHE") or Path.home() / ".cache" / "robolearn")
    said = f"{_endpoint()}|{address}"
    return root / f"{address.name}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


class Mirror:
    """The files of one address and those of them that are here. objects: {key: (size, tag)}."""

    def __init__(self, address: Address) -> None:
        self.address, self.folder = address, local_folder(address)
        self.root = str(address).partition("://")[2]
        self.anonymous = False
        self._client: Any = None
        self._locks: dict[str, threading.Lock] = {}
        self.objects = self._listing()
        self.complete = "" not in self.objects and self._is_ours()

    def fetch(self, key: str) -> Path:
        """Returns the local copy of one file, fetched where it is not there yet."""
        size, tag = self.objects[key]
        path = self._path(key, size, tag)
        with self._locks.setdefault(key, threading.Lock()):
            if path.is_file() and path.stat().st_size == size:
                return path
            part = path.with_name(f".{uuid.uuid4().hex}.partial")
            try:
                self._download(key, part, size, tag)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        return path

    @contextlib.contextmanager
    def fetching(self, keys: Iterable[str]) -> Iterator[None]:
        """Fetches files in this order in the background, several at a time; what fails is told to whoever reads it."""
        pool = ThreadPoolExecutor(_STREAMS, thread_name_prefix="fetch")
        for key in keys:
            if key in self.objects:
                pool.submit(self.fetch, key)
        try:
            yield
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _path(self, key: str, size: int, tag: str) -> Path:
        name = hashlib.sha256(f"{key}|{size}|{tag}".encode()).hexdigest()
        return self.folder / "objects" / name[:2] / name[2:40]

    def _download(self, key: str, part: Path, size: int, tag: str) -> None:
        remote = f"{self.root}/{key}" if key else self.root
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            self._connect().get_file(self._full(remote), str(part))
        except BadInput:
            raise
        except OSError as error:
            if error.errno == errno.ENOSPC or str(self.folder) in str(error.filename):
                raise self._no_room(error) from error
            raise self._refused(error, key) from error
        except Exception as error:
            raise self._refused(error, key) from error
        if part.stat().st_size != size or (_is_md5(tag) and _md5(part) != tag and self._tag_now(remote) != tag):
            raise DatasetError(f"{self.address}: {key or 'the file'} has changed since the set was opened; open it again")

    def _tag_now(self, remote: str) -> str:
        client = self._connect()
        client.invalidate_cache()
        return _stamp(client.info(self._full(remote)))[1]

    def _listing(self) -> dict[str, tuple[int, str]]:
        """Returns {key: (size, tag)} of the address now; what it was, where it cannot be reached."""
        stored = self.folder / "listing.json"
        try:
            found = self._find()
        except BadInput:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError | PermissionError) or not stored.is_file():
                raise self._refused(error) from error
            told = json.loads(stored.read_text())
            config.warn(f"robolearn: {self.address} cannot be reached; reading what was fetched of it (listed {told['time']})")
            return {key: (size, tag) for key, (size, tag) in told["objects"].items()}
        text = json.dumps({"address": str(self.address), "time": _now(), "objects": found})
        with contextlib.suppress(OSError, ValueError, KeyError):
            if json.loads(stored.read_text())["objects"] == json.loads(text)["objects"]:
                return found
        try:
            write_durably(stored, text.encode())
        except OSError as error:
            raise self._no_room(error) from error
        self._keep_only(found)
        return found

    def _find(self) -> dict[str, tuple[int, str]]:
        client = self._connect()
        client.invalidate_cache()
        full = self._full(self.root)
        if self.address.suffix == ".zip":
            return {"": _stamp(client.info(full))}
        rows = client.find(full, detail=True)
        found = {name.removeprefix(self.root).lstrip("/"): _stamp(info) for name, info in rows.items() if info["type"] == "file"}
        if not found:
            above = self.root.rpartition("/")[0]
            names = [str(name).rpartition("/")[2] for name in client.ls(above, detail=False)] if above else []
            raise DatasetError(f"{self.address}: no such dataset{nearest(self.address.name, names)}")
        return found

    def _full(self, remote: str) -> str:
        """Returns what the client calls a file: without its protocol, but for http."""
        protocol = str(self.address).partition("://")[0]
        return f"{protocol}://{remote}" if protocol in ("http", "https") else remote

    def _connect(self) -> Any:
        if self._client is None:
            self._client, self.anonymous = _client(str(self.address).partition("://")[0], self.address)
        return self._client

    def _is_ours(self) -> bool:
        """Returns whether robolearn wrote the set, so that every chunk file has to be there."""
        for name in ("zarr.json", ".zattrs"):
            if name in self.objects:
                told = json.loads(self.fetch(name).read_text())
                return "schema" in told.get("attributes", told)
        return False

    def _keep_only(self, objects: dict[str, tuple[int, str]]) -> None:
        """Deletes the local copies of files that the address does not hold any more."""
        kept = {self._path(key, *stamp) for key, stamp in objects.items()}
        for path in (self.folder / "objects").glob("*/*"):
            if path not in kept:
                path.unlink(missing_ok=True)

    def _refused(self, error: Exception, key: str = "") -> DatasetError:
        """Returns what to say where the address does not give a file, or its listing."""
        where = f"{self.address}: {key}" if key else str(self.address)
        said = " ".join(str(error).split())[:160] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            return DatasetError(f"{where}: no such bucket or file ({said})")
        if isinstance(error, PermissionError) and self.anonymous:
            way = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
            return DatasetError(f"{where}: no credentials were found, and without them it is refused ({said}); {way}")
        if isinstance(error, PermissionError):
            return DatasetError(f"{where}: these credentials may not read it ({said})")
        return DatasetError(f"{where}: cannot be reached ({type(error).__name__}: {said}) and is not in {self.folder}")

    def _no_room(self, error: OSError) -> DatasetError:
        why = f"{self.folder} cannot be written ({error.strerror or error})"
        return DatasetError(f"{self.address}: {why}; name another folder with ROBOLEARN_CACHE")


def _client(protocol: str, address: Path) -> tuple[Any, bool]:
    """Returns the fsspec file system of a protocol, and whether it asks without credentials."""
    options: dict[str, Any] = {"skip_instance_cache": True}
    try:
        import fsspec

        kind = fsspec.get_filesystem_class(protocol)
        if protocol == "s3":
            import botocore.session

            options["anon"] = botocore.session.get_session().get_credentials() is None
            options["config_kwargs"] = {"connect_timeout": _CONNECT_S, "retries": {"mode": "standard"}}
        return kind(**options), bool(options.get("anon"))
    except ImportError as error:
        name, install = _CLIENTS.get(protocol, (str(error.name or protocol), f"pip install fsspec {error.name or protocol}"))
        raise MissingDependency(name, f"{protocol}:// addresses", install) from error
    except ValueError as error:
        raise DatasetError(f"{address}: unknown kind of address '{protocol}://'; want s3://, file:// or a folder") from error


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _stamp(info: dict[str, Any]) -> tuple[int, str]:
    tag = next((str(info[name]) for name in _TAGS if info.get(name)), "")
    return int(info["size"] or 0), tag.strip('"')


def _is_md5(tag: str) -> bool:
    return re.fullmatch("[0-9a-f]{32}", tag) is not None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
