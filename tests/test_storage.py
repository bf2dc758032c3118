"""Laws of fetching: ranges are slices, a file's fault is its own, outages are waited for and said.

A local disk and a real S3 API are the storages.
"""

import contextlib
import hashlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import fsspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from sensloc.datasets.webdataset import WebDataset
from sensloc.errors import SenslocError, StorageError, one_line
from sensloc.images import fetch as fetching
from sensloc.images.decode import read
from sensloc.images.fetch import MAX_BLOCK, MAX_GAP, TRIES, ImageError, fetch, read_range
from sensloc.images.inspection import content_hash

SHARD = np.random.default_rng(0).bytes(3 * MAX_GAP)


# --------------------------------------------------------------------------- ranges are slices


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("shards") / "a.tar"
    file.write_bytes(SHARD)
    return str(file)


RANGES = st.lists(
    st.tuples(st.integers(0, len(SHARD) + 10), st.integers(0, MAX_GAP * 2) | st.integers(0, 9)),
    max_size=12,
)


def slices(shard: str, ranges: list[tuple[int, int]]) -> None:
    """The law: the bytes of a range are Python's slice, or an error where the file ends before."""
    uris = [f"{shard}#{start}+{length}" for start, length in ranges]
    for uri, (start, length), fetched in zip(uris, ranges, fetch(uris), strict=True):
        part = SHARD[start : start + length]
        if len(part) == length:
            assert fetched == part
        else:
            assert isinstance(fetched, ImageError)
            assert str(fetched) == f"cannot read {uri}: the file ends before the range does"


@settings(deadline=None)
@given(RANGES, st.sampled_from([1, 100, 10_000, MAX_BLOCK]))
def test_ranges_are_slices_however_they_are_merged(
    shard: str, ranges: list[tuple[int, int]], block: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "MAX_BLOCK", block)
        slices(shard, ranges)


@pytest.mark.parametrize("length", [0, 1, 10**9, 10**17])
@pytest.mark.parametrize("start", [len(SHARD) - 1, len(SHARD), 10**9, 10**17])
def test_a_range_past_the_end_is_an_error_and_its_neighbours_are_read(
    shard: str, start: int, length: int
) -> None:
    first, fetched, last = fetch([f"{shard}#0+4", f"{shard}#{start}+{length}", f"{shard}#4+4"])
    assert (first, last) == (SHARD[:4], SHARD[4:8])
    if length > len(SHARD) - start and length > 0:
        assert isinstance(fetched, ImageError)
    else:
        assert fetched == SHARD[start : start + length]


@pytest.mark.parametrize("name", ["a#1+2", "b.tar#x", "c.tar#1", "d.tar#1+2+3", "e.tar #1+2"])
def test_only_a_range_of_a_tar_is_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"whole")
    assert fetch([str(tmp_path / name)]) == [b"whole"]


def test_read_range_is_short_where_the_file_ends(shard: str) -> None:
    assert read_range(shard, 10, 20) == SHARD[10:20]
    assert read_range(shard, len(SHARD) - 5, len(SHARD) + 5) == SHARD[-5:]
    assert read_range(shard, len(SHARD) + 5, len(SHARD) + 9) == b""
    with pytest.raises(ImageError, match=r"nothing\.tar"):
        read_range(f"{shard}/nothing.tar", 0, 1)


# --------------------------------------------------------------------------- files


@pytest.mark.parametrize("connections", [1, 3, 64])
def test_files_are_fetched_in_order(tmp_path: Path, connections: int) -> None:
    contents = [bytes([i]) * (50_000 if i % 7 == 0 else i) for i in range(40)]
    uris = [f"{root}/{i}.jpg" for root in (tmp_path, f"memory:/{tmp_path}") for i in range(40)]
    for uri, data in zip(uris, contents * 2, strict=True):
        with fsspec.open(uri, "wb") as file:
            file.write(data)
    assert fetch(uris, connections) == contents * 2
    assert fetch(uris[::-1] + uris, connections) == contents[::-1] * 2 + contents * 2
    assert fetch([], connections) == []


def test_what_is_a_local_files_own_fault_is_an_error_at_once(tmp_path: Path) -> None:
    good = tmp_path / "good.jpg"
    good.write_bytes(b"good")
    closed = tmp_path / "closed.jpg"
    closed.symlink_to("/proc/1/mem")  # nobody may read it
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)  # to read it would take for ever
    loop = tmp_path / "loop.jpg"
    loop.symlink_to(loop)
    bad = {
        str(tmp_path / "missing.jpg"): "FileNotFoundError",
        str(tmp_path): "OSError: not a regular file",
        str(good / "x.jpg"): "NotADirectoryError",
        str(pipe): "OSError: not a regular file",
        "/dev/zero": "OSError: not a regular file",
        str(closed): "Error",
        str(loop): "OSError: .*symbolic links",
        f"{tmp_path}/{'x' * 300}.jpg": "OSError: .*too long",
        "nul\0.jpg": "ValueError",
        "nope://x/y.jpg": "ValueError: Protocol not known: nope",
        "memory://nothing/there.jpg": "FileNotFoundError",
        "": "OSError: not a regular file",
    }
    fetched = fetch([str(good), *bad, str(good)])
    assert (fetched[0], fetched[-1]) == (b"good", b"good")
    for (uri, reason), error in zip(bad.items(), fetched[1:-1], strict=True):
        assert isinstance(error, ImageError)
        assert re.match(f"cannot read {re.escape(one_line(uri))}: .*{reason}", str(error)), error
        assert "\n" not in str(error)


def test_an_image_that_has_changed_or_is_too_large_is_an_error(tmp_path: Path) -> None:
    uris = [str(tmp_path / f"{side}.png") for side in (20, 21, 22)]
    for side, uri in zip((20, 21, 22), uris, strict=True):
        Image.new("RGB", (side, side)).save(uri)
    hashes = [hashlib.blake2b(Path(uri).read_bytes(), digest_size=16).hexdigest() for uri in uris]
    assert hashes == [content_hash(Path(uri).read_bytes()) for uri in uris]
    Image.new("RGB", (21, 21), "red").save(uris[1])
    fine, changed, large = read(uris, 8, max_pixels=441, contents=hashes)
    assert not isinstance(fine, ImageError)
    assert str(changed) == f"{uris[1]}: has changed since the manifest was made"
    assert str(large) == f"{uris[2]}: 22 x 22 is over 441 pixels"
    assert not any(isinstance(image, ImageError) for image in read(uris, 8))


# --------------------------------------------------------------------------- an object store


class Proxy:
    """A server before another, which fails its first requests.

    Attributes:
        failures: how many connections are still to fail; -1: all of them.
        bytes: how much of a failing connection's answer comes through; None: not even its request.
        requests: how many HTTP requests came through.
    """

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self.failures, self.bytes, self.requests = 0, None, 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def fail(self, failures: int, bytes: int | None = None) -> None:
        self.failures, self.bytes = failures, bytes

    def close(self) -> None:
        self.listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Pass one request on and close the connection, so that each request can fail."""
        with client, contextlib.suppress(OSError):
            with self.lock:
                fails = self.failures != 0
                self.failures -= self.failures > 0
            if fails and self.bytes is None:
                return
            request = client.recv(1 << 16)
            self.requests += request.startswith((b"GET", b"HEAD"))
            with socket.create_connection(self.server) as server:
                server.sendall(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
                left = self.bytes if fails else 1 << 60
                while left and (data := server.recv(min(left, 1 << 16))):
                    client.sendall(data)
                    left -= len(data)


@pytest.fixture
def proxy(object_store: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A real S3 API behind a proxy; its bucket holds ``a.tar`` and ten images."""
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    client.put_object(Bucket="bucket", Key="a.tar", Body=SHARD)
    client.put_object(Bucket="bucket", Key="empty.jpg", Body=b"")
    for i in range(10):
        client.put_object(Bucket="bucket", Key=f"{i}.jpg", Body=bytes([i]) * 1000)
    proxy = Proxy(*object_store)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setattr(fetching, "WAIT_S", 0.01)
    fsspec.filesystem("s3").clear_instance_cache()
    yield proxy
    proxy.close()
    fsspec.filesystem("s3").clear_instance_cache()


IMAGES = [f"s3://bucket/{i}.jpg" for i in range(10)]
CONTENTS = [bytes([i]) * 1000 for i in range(10)]


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(RANGES)
def test_ranges_of_an_object_are_slices(proxy: Proxy, ranges: list[tuple[int, int]]) -> None:
    slices("s3://bucket/a.tar", ranges)


def test_an_image_is_one_request_and_neighbours_in_a_shard_are_one_together(proxy: Proxy) -> None:
    assert fetch(IMAGES) == CONTENTS
    assert proxy.requests == len(IMAGES)
    proxy.requests = 0
    ranges = [(512 * i, 500) for i in range(256)]
    slices("s3://bucket/a.tar", ranges)
    assert proxy.requests == 1
    proxy.requests = 0
    slices("s3://bucket/a.tar", [(0, 10), (10 + MAX_GAP, 10), (21 + 2 * MAX_GAP, 10)])
    assert proxy.requests == 2, "the last gap is too wide"


def test_what_is_an_objects_own_fault_is_an_error_at_once(proxy: Proxy) -> None:
    bad = {
        "s3://bucket/missing.jpg": "FileNotFoundError",
        "s3://nowhere/0.jpg": "FileNotFoundError",
        "s3://bucket": "ParamValidationError",
        "s3://no bucket!/0.jpg": "ParamValidationError",
        "s3://bucket/missing.tar#0+4": "FileNotFoundError",
        "s3://bucket/a.tar#999999999+4": "the file ends before the range does",
    }
    fetched = fetch([*IMAGES, *bad, "s3://bucket/empty.jpg"])
    assert fetched[:10] == CONTENTS
    assert fetched[-1] == b""
    for (uri, reason), error in zip(bad.items(), fetched[10:-1], strict=True):
        assert isinstance(error, ImageError)
        assert f"cannot read {uri}: " in str(error)
        assert reason in str(error)
    assert proxy.requests == len(fetched) - 2, "none was asked for twice"


@pytest.mark.parametrize("cut", [None, 0, 20, 600], ids=["closed", "unheard", "header", "body"])
@pytest.mark.parametrize("what", ["objects", "ranges"])
def test_a_connection_that_is_cut_is_tried_again(
    proxy: Proxy, cut: int | None, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PATIENCE_S", 600)
    proxy.fail(TRIES - 1, cut)
    if what == "objects":
        assert fetch(IMAGES, connections=1) == CONTENTS
    else:
        slices("s3://bucket/a.tar", [(0, 3000), (2000, 3000), (10**9, 1)])
    assert proxy.failures == 0, "all of the cuts were met"


@pytest.mark.parametrize("cut", [None, 600], ids=["closed", "body"])
def test_storage_that_stays_away_is_said_with_the_uri_and_what_to_do(
    proxy: Proxy, cut: int | None
) -> None:
    proxy.fail(-1, cut)
    for uris in (["memory://no/such.jpg", IMAGES[3]], ["s3://bucket/a.tar#0+2000"]):
        with pytest.raises(StorageError) as caught:
            fetch(uris)
        message = str(caught.value)
        assert uris[-1].partition("#")[0] in message
        assert f"after {TRIES} tries: run the same command again to go on" in message
        assert isinstance(caught.value, SenslocError)
    proxy.fail(0)
    assert fetch(IMAGES) == CONTENTS, "and then it goes on"


def test_an_outage_is_no_row_of_a_shard(proxy: Proxy) -> None:
    """It is neither an error row nor a shard that ends early: the job stops, and goes on later."""
    reader = WebDataset(layout="webdataset", root="s3://bucket")
    (unit,) = reader.units()
    (row,) = reader.read(unit)
    assert "not a tar file" in str(row.error)
    proxy.fail(-1)
    with pytest.raises(StorageError, match=r"s3://bucket/a\.tar: .*run the same command again"):
        list(reader.read(unit))


def test_refused_credentials_are_no_files_fault(proxy: Proxy) -> None:
    """A bucket that turns everybody away, as with keys that have run out."""
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with serving(answer) as (port, asked), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        fsspec.filesystem("s3").clear_instance_cache()
        with pytest.raises(StorageError, match=r"0\.jpg: PermissionError"):
            fetch(IMAGES[:1])
        assert asked() == TRIES


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Slow Down"])
def test_a_server_in_trouble_is_asked_no_more_than_so_often(proxy: Proxy, status: str) -> None:
    """s3fs and botocore would ask up to 125 times for each of our tries."""
    answer = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
    with serving(answer) as (port, asked), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        fsspec.filesystem("s3").clear_instance_cache()
        with pytest.raises(StorageError, match=r"0\.jpg: OSError"):
            fetch(IMAGES[:1])
        assert asked() == TRIES


def test_a_server_without_ranges_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sends the first bytes of the file, which may be another image's."""
    monkeypatch.setattr(fetching, "WAIT_S", 0.01)
    body = b"x" * 5000
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nConnection: close\r\n\r\n" + body
    with serving(answer) as (port, _):
        url = f"http://127.0.0.1:{port}/a.tar"
        assert fetch([url]) == [body]
        with pytest.raises(StorageError, match="sends whole files, not ranges of bytes"):
            fetch([f"{url}#1000+1000"])


@contextlib.contextmanager
def serving(answer: bytes) -> Iterator[tuple[int, Callable[[], int]]]:
    """A server that gives everyone the same answer: its port, and how often it was asked."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client, contextlib.suppress(OSError):
                    if request := client.recv(1 << 16):
                        asked.append(request)
                        client.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], lambda: len(asked)
    listener.close()


def test_no_try_begins_after_patience_is_over(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "PATIENCE_S", 0.0)
    proxy.fail(-1)
    with pytest.raises(StorageError, match="after 1 tries"):
        fetch(IMAGES[:1])
