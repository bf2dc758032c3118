"""From a URI to a file's bytes.

A URI is a local path, any fsspec URL, or a range of bytes of a tar shard:
``<path or URL of a .tar>#<offset>+<length>``.
"""

import errno
import json
import os
import random
import re
import stat
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import fsspec.config
import fsspec.core
import fsspec.utils
from fsspec.implementations.local import LocalFileSystem

from sensloc.errors import StorageError, one_line

RANGE = re.compile(r"(.+\.tar)#([0-9]{1,18})\+([0-9]{1,18})")
"""The URI of a range of a shard: its file, offset and length."""

MAX_GAP = 2**16
"""The most bytes between two ranges of a shard that are read by one request."""

MAX_BLOCK = 2**24
"""The most bytes of a request for several ranges; a longer range is a request of its own."""

TRIES = 5
"""The most tries of a request."""

WAIT_S = 1.0
"""The longest pause in seconds before a request's second try; doubled before each other try."""

PATIENCE_S = 30.0
"""Seconds after which no other try begins."""

GONE = frozenset(
    {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH}
    | {errno.EMFILE, errno.ENFILE}
)
"""Errors of a local path that are no file's own: a network mount that is gone, no handles left."""


class ImageError(ValueError):
    """An image cannot be fetched or decoded; the message says why in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class _Span(NamedTuple):
    """The bytes of a file from ``start`` up to ``stop``, or the whole file where both are -1."""

    file: str
    start: int = -1
    stop: int = -1


def fetch(uris: Sequence[str], connections: int = 8) -> list[bytes | ImageError]:
    """Read files or URLs side by side.

    Ranges of one shard that lie near each other are read by one request. What is a file's own
    fault (missing, a folder, a name that cannot be, a range past the end) is an ``ImageError``.
    What is the storage's fault is tried again for half a minute.

    Args:
        uris: see the module.
        connections: the most requests at a time.

    Returns:
        The bytes of each URI in order, or what is wrong with the file.

    Raises:
        StorageError: The storage does not answer, or refuses.
    """
    spans = [_span(uri) for uri in uris]
    blocks = _blocks(spans)
    with ThreadPoolExecutor(connections) as pool:
        contents = list(pool.map(partial(_read, connections=connections), blocks))
    parts = []
    for uri, span in zip(uris, spans, strict=True):
        index = bisect_right(blocks, span._replace(stop=1 << 63)) - 1  # the block that covers it
        parts.append(_part(uri, span, blocks[index].start, contents[index]))
    return parts


def read_range(url: str, start: int, stop: int) -> bytes:
    """Read the bytes of a file from ``start`` up to ``stop``; fewer where the file ends.

    Raises:
        ImageError: The file cannot be read, and it is its own fault.
        StorageError: The storage does not answer, or refuses.
    """
    content = _read(_Span(url, start, stop), connections=1)
    if isinstance(content, Exception):
        raise _unreadable(url, content) from content
    return content


def _span(uri: str) -> _Span:
    match = RANGE.fullmatch(uri)
    if match is None:
        return _Span(uri)
    shard, start, length = match.groups()
    return _Span(shard, int(start), int(start) + int(length))


def _blocks(spans: Sequence[_Span]) -> list[_Span]:
    """Return what to request: distinct spans, sorted, that together cover the given ones."""
    whole = {span for span in spans if span.start < 0}
    ranges = [span for span in spans if span.start >= 0]
    columns = [list(column) for column in zip(*ranges, strict=True)] or [[], [], []]
    merged = fsspec.utils.merge_offset_ranges(*columns, max_gap=MAX_GAP, max_block=MAX_BLOCK)
    return sorted(whole.union(map(_Span, *merged)))


def _part(uri: str, span: _Span, start: int, block: bytes | Exception) -> bytes | ImageError:
    """Cut a URI's bytes out of its block, which begins at ``start`` of the file."""
    if isinstance(block, Exception):
        return _unreadable(uri, block)
    if span.start < 0:
        return block
    data = block[span.start - start : span.stop - start]
    if len(data) < span.stop - span.start:
        return ImageError(f"cannot read {uri}: the file ends before the range does")
    return data


def _unreadable(uri: str, error: Exception) -> ImageError:
    return ImageError(f"cannot read {one_line(uri, 400)}: {_reason(error)}")


def _read(span: _Span, connections: int) -> bytes | Exception:
    """Read a file or a span of it.

    Returns:
        The bytes, fewer than the span's where the file ends; or what is wrong with the file.

    Raises:
        StorageError: see ``fetch``.
    """
    if 0 <= span.start == span.stop:
        return b""
    limits = {} if span.start < 0 else {"start": span.start, "end": span.stop}

    def read() -> bytes | Exception:
        files = None
        try:
            files, path = _locate(span.file, connections)
            if isinstance(files, LocalFileSystem) and not stat.S_ISREG(os.stat(path).st_mode):
                raise OSError("not a regular file")
            return bytes(files.cat_file(path, **limits))
        except Exception as error:  # every file system raises kinds of its own
            if limits and _status(error) == 416:  # the range begins after the end
                return b""
            if _is_own_fault(error, files):
                return error
            raise

    content = _patiently(read, span.file)
    if limits and isinstance(content, bytes) and len(content) > span.stop - span.start:
        raise StorageError(f"{span.file}: the server sends whole files, not ranges of bytes")
    return content


def _locate(url: str, connections: int) -> tuple[Any, str]:
    """Return the file system of a URL, and the path on it.

    S3 would try again on three levels, up to 125 times for one file, and ask for each file's size
    before it reads it: here a request is one request.
    """
    if not url.startswith(("s3://", "s3a://")):
        files, path = fsspec.core.url_to_fs(url)
        return files, str(path)
    settings = fsspec.config.conf.get("s3", {}).get("config_kwargs", {}) | {
        "retries": {"total_max_attempts": 1},
        "max_pool_connections": connections,
    }
    files, path = fsspec.core.url_to_fs(url, config_kwargs=settings, max_concurrency=1)
    files.retries = 1
    return files, str(path)


def _patiently(read: Callable[[], bytes | Exception], file: str) -> bytes | Exception:
    """Call ``read`` until it does not raise.

    Raises:
        StorageError: It still raises after ``TRIES``, or after ``PATIENCE_S``.
    """
    begun, tries = time.monotonic(), 0
    while True:
        try:
            return read()
        except Exception as error:
            tries, cause = tries + 1, error
        if tries == TRIES or time.monotonic() - begun > PATIENCE_S:
            raise StorageError(
                f"{file}: {_reason(cause)}. The storage fails or refuses, after {tries} tries: "
                "run the same command again to go on"
            ) from cause
        time.sleep(WAIT_S * 2 ** (tries - 1) * random.uniform(0.5, 1))  # not all at once


def _is_own_fault(error: Exception, files: Any) -> bool:
    """Tell whether an error is the fault of the file itself, not of the storage that holds it.

    Args:
        error: the exception that reading raised.
        files: the fsspec file system that was read from; None where the URL names none.
    """
    if isinstance(files, LocalFileSystem):
        return getattr(error, "errno", None) not in GONE
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENAMETOOLONG
    if type(error).__name__ == "ParamValidationError":  # of botocore: a name that cannot be
        return True
    return isinstance(error, ValueError | ImportError) and not isinstance(
        error, json.JSONDecodeError
    )


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an error of s3fs or aiohttp; None where it has none."""
    response = getattr(error.__cause__, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    status: int | None = metadata.get("HTTPStatusCode", getattr(error, "status", None))
    return status


def _reason(error: Exception) -> str:
    """Return an error in one short line; its message may name a file of thousands of characters."""
    return f"{type(error).__name__}: {one_line(' '.join(str(error).split()), 300)}"
