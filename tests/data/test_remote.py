"""Sets at an S3 address, served by moto's own server: fetched once, read again without the network, wrong answers in one line."""

from __future__ import annotations

import itertools
import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_sets import SPEC, episode, make

from robolearn.cli import main
from robolearn.data import images
from robolearn.data._remote import Address, local_folder, locate
from robolearn.data.store import EpisodeSet
from robolearn.data.windows import Windows
from robolearn.errors import BadInput, DatasetError, MissingDependency

pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'robolearn[s3]'")
server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[s3]'")
BUCKETS = map("demos{}".format, itertools.count())


class Bucket:
    """A bucket of a local S3 server with one set in it; `asked` lists what was asked of the server."""

    def __init__(self, running: Any, client: Any, name: str) -> None:
        self.running, self.client, self.name = running, client, name
        self.asked: list[str] = running.asked
        self.address = f"s3://{name}/week/a.zarr"

    def put(self, folder: Path) -> None:
        """Copies a folder to the address of the set."""
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            key = f"week/a.zarr/{path.relative_to(folder).as_posix()}"
            self.client.put_object(Bucket=self.name, Key=key, Body=path.read_bytes())
        self.asked.clear()

    def data_requests(self) -> list[str]:
        """Returns the files that were asked for since the last `put`."""
        return [said.partition(" ")[2] for said in self.asked if said.startswith("GET ") and "list-type" not in said]


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    """Returns moto's S3 server in this process, which notes every request."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    made = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    made.start()
    made.asked, made.private, real = [], False, made._server.app

    def noting(environ: dict[str, Any], start_response: Any) -> Any:
        made.asked.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}")
        if made.private and "HTTP_AUTHORIZATION" not in environ:  # moto itself does not know requests without a key
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return real(environ, start_response)

    made._server.app = noting
    yield made
    made.stop()


@pytest.fixture
def bucket(running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """Returns a bucket that holds the three-episode set, and empty folders for cache and home."""
    import boto3

    host, port = running.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    for name, value in (("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "y"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ROBOLEARN_CACHE", str(tmp_path / "kept"))
    client = boto3.client("s3")
    name = next(BUCKETS)
    client.create_bucket(Bucket=name)
    found = Bucket(running, client, name)
    found.put(make(tmp_path / "local.zarr", shard_rows=16).path)
    return found


def test_a_remote_set_reads_as_the_local_one(bucket: Bucket, tmp_path: Path) -> None:
    local, remote = EpisodeSet.open(tmp_path / "local.zarr"), EpisodeSet.open(bucket.address)
    assert remote.keys == local.keys and remote.spec == local.spec and remote.facts() == local.facts()
    for key in local.keys:
        np.testing.assert_array_equal(remote.read(key), local.read(key))
    np.testing.assert_array_equal(remote.episode_field("seed"), local.episode_field("seed"))
    assert str(remote.path) == bucket.address and not remote.path.exists()


def test_every_file_is_fetched_once_and_a_second_open_asks_for_none(bucket: Bucket) -> None:
    first = EpisodeSet.open(bucket.address)
    assert not [key for key in bucket.data_requests() if "/c." in key and "episode_ends" not in key], "chunks wait until read"
    first.read("img"), first.read("img"), first.read("img", 3, 9)
    asked = bucket.data_requests()
    assert len(asked) == len(set(asked)) and any("data/img/c." in key for key in asked)
    bucket.asked.clear()
    again = EpisodeSet.open(bucket.address)
    again.read("img")
    assert bucket.data_requests() == [] and len(bucket.asked) == 1, "one listing, nothing else"


def test_a_changed_chunk_is_noticed_and_the_old_copy_dropped(bucket: Bucket, tmp_path: Path) -> None:
    before = EpisodeSet.open(bucket.address)
    old = images.load_frames(before, "img")
    folder = local_folder(before.path)
    count = len(list((folder / "objects").glob("*/*")))
    local = EpisodeSet.open(tmp_path / "local.zarr", writable=True)
    local.array("img")[20:30] = 255 - local.array("img")[20:30]
    bucket.put(local.path)
    with pytest.raises(DatasetError, match=r"data/img/c.1.0.0.0 has changed since the set was opened; open it again"):
        shutil.rmtree(folder / "objects")
        before.read("img")
    after = EpisodeSet.open(bucket.address)
    np.testing.assert_array_equal(images.load_frames(after, "img"), local.read("img"))
    assert not np.array_equal(old, after.read("img"))
    assert len(list((folder / "objects").glob("*/*"))) <= count and len(list((folder / "cache").iterdir())) == 1


def test_windows_for_training_come_from_the_local_cache(bucket: Bucket, tmp_path: Path) -> None:
    batch = Windows(EpisodeSet.open(bucket.address), ("img", "state"), 2, 4, 0).batch(np.arange(9))
    local = Windows(EpisodeSet.open(tmp_path / "local.zarr"), ("img", "state"), 2, 4, 0).batch(np.arange(9))
    np.testing.assert_array_equal(batch["obs"]["img"], local["obs"]["img"])
    assert [path.parent.name for path in (tmp_path / "kept").rglob("*.npy")] == ["cache"]
    bucket.asked.clear()
    Windows(EpisodeSet.open(bucket.address), ("img",), 2, 4, 0).batch(np.arange(9))
    assert bucket.data_requests() == []


def test_the_commands_take_an_address_and_write_the_same(
    bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "info", bucket.address]) == 0
    assert "3 episodes" in capsys.readouterr().out
    assert main(["data", "info", f"s3://{bucket.name}/week/b.zarr"]) == 2
    assert f"s3://{bucket.name}/week/b.zarr: no such dataset; did you mean 'a.zarr'?" in capsys.readouterr().err


def test_what_was_read_can_be_read_when_the_network_is_gone(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = EpisodeSet.open(bucket.address)
    want = {key: first.read(key) for key in ("img", "state")}
    gone(monkeypatch)
    offline = EpisodeSet.open(bucket.address)
    said = capsys.readouterr().err
    assert "cannot be reached" in said and "reading what was fetched" in said
    for key, rows in want.items():
        np.testing.assert_array_equal(offline.read(key), rows)
    with pytest.raises(DatasetError, match=r"data/action/c.0.0: cannot be reached .* and is not in"):
        offline.read("action")


def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every new connection to a host end as a dead one does, without a wait for its retries."""
    import s3fs

    async def refused(*_: object, **__: object) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", refused)
    monkeypatch.setattr(s3fs.S3FileSystem, "_lsdir", refused)


def test_an_address_that_was_never_reached_is_told_in_one_line(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    gone(monkeypatch)
    with pytest.raises(DatasetError, match=r"a\.zarr: cannot be reached \(ConnectionRefusedError: .*\) and is not in"):
        EpisodeSet.open(bucket.address)


def test_a_lost_chunk_is_an_error_not_zeros(bucket: Bucket) -> None:
    bucket.client.delete_object(Bucket=bucket.name, Key="week/a.zarr/data/img/c.1.0.0.0")
    with pytest.raises(DatasetError, match=r"data/img/c.1.0.0.0 is missing; restore it from a copy"):
        EpisodeSet.open(bucket.address).read("img")


def test_no_such_bucket_and_no_such_set_are_told(bucket: Bucket) -> None:
    with pytest.raises(DatasetError, match=r"s3://nothing/a\.zarr: no such bucket or file"):
        EpisodeSet.open("s3://nothing/a.zarr")
    with pytest.raises(DatasetError, match=r"no such dataset; did you mean 'a\.zarr'\?"):
        EpisodeSet.open(f"s3://{bucket.name}/week/aa.zarr")
    with pytest.raises(DatasetError, match=r"want a zarr group with data/ .*, got a\.zarr"):
        EpisodeSet.open(f"s3://{bucket.name}/week")


def test_no_credentials_and_wrong_ones_are_told(bucket: Bucket, running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import urllib.request

    host, port = running.get_host_and_port()

    def checking(calls: bytes) -> None:
        text = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"http://{host}:{port}/moto-api/reset-auth", data=calls, headers=text)
        urllib.request.urlopen(request).read()

    checking(b"0")
    monkeypatch.setattr(running, "private", True)
    try:
        with pytest.raises(DatasetError, match=r"these credentials may not read it"):
            EpisodeSet.open(bucket.address)
        for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
            monkeypatch.delenv(f"AWS_{name}")
        with pytest.raises(DatasetError, match=r"no credentials were found, .*; set AWS_ACCESS_KEY_ID and AWS_SECRET"):
            EpisodeSet.open(bucket.address)
    finally:
        monkeypatch.setattr(running, "private", False)
        checking(b"Infinity")


def test_without_s3fs_the_line_that_installs_it_is_shown(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(MissingDependency, match=r"s3fs is not installed, and s3:// addresses needs it.*robolearn\[s3\]"):
        EpisodeSet.open(bucket.address)


def test_writing_to_an_address_is_refused_by_name(bucket: Bucket) -> None:
    for attempt in (
        lambda: EpisodeSet.open(bucket.address, writable=True),
        lambda: EpisodeSet.create(bucket.address, SPEC, task="", env={}),
        lambda: EpisodeSet.create(Path(bucket.address), SPEC, task="", env={}, overwrite=True),
    ):
        with pytest.raises(BadInput, match=rf"s3://{bucket.name}/week/a\.zarr: a remote set cannot be written to"):
            attempt()
    with pytest.raises((BadInput, OSError)):
        EpisodeSet.open(bucket.address).append(episode(5, 0))
    assert not [said for said in bucket.asked if not said.startswith(("GET", "HEAD"))]


def test_a_zip_at_an_address_is_fetched_whole(bucket: Bucket, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "z.zarr"), "zip", tmp_path / "local.zarr")
    bucket.client.put_object(Bucket=bucket.name, Key="z.zarr.zip", Body=(tmp_path / "z.zarr.zip").read_bytes())
    opened = EpisodeSet.open(f"s3://{bucket.name}/z.zarr.zip")
    np.testing.assert_array_equal(images.load_frames(opened, "img"), EpisodeSet.open(tmp_path / "local.zarr").read("img"))


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("s3://b/x.zarr", "s3://b/x.zarr"),
        (Path("s3://b/x.zarr"), "s3://b/x.zarr"),
        ("s3://b/x.zarr/", "s3://b/x.zarr"),
        ("https://host:8000/x.zarr.zip", "https://host:8000/x.zarr.zip"),
    ],
)
def test_an_address_survives_what_a_path_does_to_it(given: str | Path, shown: str) -> None:
    found = locate(given)
    assert isinstance(found, Address) and str(found) == str(locate(found)) == shown and f"{found}" == shown
    assert str(found / "data") == f"{shown}/data" and not found.exists()
    with pytest.raises(OSError, match="remote and read only"):
        found.mkdir(parents=True, exist_ok=True)


def test_a_file_address_is_the_folder_itself(tmp_path: Path) -> None:
    made = make(tmp_path / "a.zarr")
    for given in (f"file://{made.path}", Path(f"file://{made.path}"), str(made.path)):
        assert EpisodeSet.open(given).path == made.path
    assert not isinstance(locate("a.zarr"), Address)


def test_an_unknown_kind_of_address_says_what_would_work() -> None:
    with pytest.raises(DatasetError, match=r"unknown kind of address 'nfs://'; want s3://, file:// or a folder"):
        EpisodeSet.open("nfs://host/a.zarr")
