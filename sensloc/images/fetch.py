"""From a URI to an image file's bytes, and what its header says. Pillow only, no torch.

A URI is a local path, any fsspec URL, or a range of bytes of a tar shard:
``<path or URL of a .tar>#<offset>+<length>``.
"""

import errno
import hashlib
import io
import json
import os
import random
import re
import stat
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import fsspec.config
import fsspec.core
import fsspec.utils
from fsspec.implementations.local import LocalFileSystem
from PIL import Image, UnidentifiedImageError

from sensloc.errors import StorageError, one_line

MAX_PIXELS = 100_000_000
"""A larger image is refused before it is decoded, unless another limit is given."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
"""What is opened. Pillow knows more, among it EPS, for which it runs Ghostscript, and readers of
rare formats that believe what a hostile header says."""

RANGE = re.compile(r"(.+\.tar)#([0-9]{1,18})\+([0-9]{1,18})")

MAX_GAP = 2**16
"""Bytes that may lie between two ranges of a shard that are read by one request."""

MAX_BLOCK = 2**24
"""Bytes of such a request, unless one range alone is longer."""

TRIES = 5
WAIT_S = 1.0
"""Seconds before the second try of a request, at most; doubled before each of the others."""
PATIENCE_S = 30.0
"""Seconds after which no other try begins."""

GONE = frozenset(
    {errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH}
    | {errno.EMFILE, errno.ENFILE}
)
"""Errors of a local path that are no file's own: a network mount that is gone, no handles left."""


class ImageError(ValueError):
    """An image that cannot be fetched or decoded: says why in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


# --------------------------------------------------------------------------- bytes


class _Span(NamedTuple):
    """Bytes of a file, from ``start`` up to ``stop``; the whole file where they are -1."""

    file: str
    start: int = -1
    stop: int = -1


def fetch(uris: Sequence[str], connections: int = 8) -> list[bytes | ImageError]:
    """Read files or URLs side by side: one entry per URI, in order.

    Ranges of one shard that lie near each other are read by one request. What is a file's own
    fault (missing, a folder, a name that cannot be, a range past the end) is an ``ImageError``.
    What is the storage's fault is tried again for half a minute.

    Args:
        uris: of the images, see above.
        connections: requests at a time.

    Raises:
        StorageError: the storage does not answer, or refuses.
    """
    spans = [_span(uri) for uri in uris]
    blocks = _blocks(spans)
    with ThreadPoolExecutor(connections) as pool:
        found = list(pool.map(partial(_read, connections=connections), blocks))
    parts = []
    for uri, span in zip(uris, spans, strict=True):
        at = bisect_right(blocks, span._replace(stop=1 << 63)) - 1  # it covers the span
        parts.append(_part(uri, span, blocks[at].start, found[at]))
    return parts


def read_range(url: str, start: int, stop: int) -> bytes:
    """Bytes of a file from ``start`` up to ``stop``; fewer where the file ends.

    Raises:
        ImageError: the file cannot be read, and it is its own fault.
        StorageError: the storage does not answer, or refuses.
    """
    found = _read(_Span(url, start, stop), connections=1)
    if isinstance(found, Exception):
        raise ImageError(f"cannot read {one_line(url, 400)}: {_reason(found)}")
    return found


def _span(uri: str) -> _Span:
    found = RANGE.fullmatch(uri)
    if found is None:
        return _Span(uri)
    shard, start, length = found.groups()
    return _Span(shard, int(start), int(start) + int(length))


def _blocks(spans: Sequence[_Span]) -> list[_Span]:
    """What to ask for: sorted, distinct, each of the spans within one of them."""
    whole = {span for span in spans if span.start < 0}
    ranges = [span for span in spans if span.start >= 0]
    columns = [list(column) for column in zip(*ranges, strict=True)] or [[], [], []]
    merged = fsspec.utils.merge_offset_ranges(*columns, max_gap=MAX_GAP, max_block=MAX_BLOCK)
    return sorted(whole.union(map(_Span, *merged)))


def _part(uri: str, span: _Span, start: int, found: bytes | Exception) -> bytes | ImageError:
    """One URI's bytes out of those that were read from ``start`` on."""
    if isinstance(found, Exception):
        return ImageError(f"cannot read {one_line(uri, 400)}: {_reason(found)}")
    if span.start < 0:
        return found
    data = found[span.start - start : span.stop - start]
    if len(data) < span.stop - span.start:
        return ImageError(f"cannot read {uri}: the file ends before the range does")
    return data


def _read(span: _Span, connections: int) -> bytes | Exception:
    """A file or a block of it; what ends before the block does is short.

    Returns:
        the bytes, or what is wrong with the file.

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

    found = _patiently(read, span.file)
    if limits and isinstance(found, bytes) and len(found) > span.stop - span.start:
        raise StorageError(f"{span.file}: the server sends whole files, not ranges of bytes")
    return found


def _locate(url: str, connections: int) -> tuple[Any, str]:
    """The file system of a URL and the path on it.

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


def _patiently(read: Callable[[], bytes | Exception], where: str) -> bytes | Exception:
    """Call ``read`` until it does not raise.

    Raises:
        StorageError: it still does after ``TRIES``, or after ``PATIENCE_S``.
    """
    begun, tries = time.monotonic(), 0
    while True:
        try:
            return read()
        except Exception as error:
            tries, cause = tries + 1, error
        if tries == TRIES or time.monotonic() - begun > PATIENCE_S:
            raise StorageError(
                f"{where}: {_reason(cause)}. The storage fails or refuses, after {tries} tries: "
                "run the same command again to go on"
            ) from cause
        time.sleep(WAIT_S * 2 ** (tries - 1) * random.uniform(0.5, 1))  # not all at once


def _is_own_fault(error: Exception, files: Any) -> bool:
    """Is an error the fault of the file that was asked for, and not of the place where it is?

    Args:
        error: that reading raised.
        files: the fsspec file system that it was read from; None: the URL names none.
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
    """The HTTP status of an error of s3fs, or of aiohttp."""
    response = getattr(error.__cause__, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    status: int | None = metadata.get("HTTPStatusCode", getattr(error, "status", None))
    return status


def _reason(error: Exception) -> str:
    """An error in one line, which may name a file of thousands of characters."""
    return f"{type(error).__name__}: {one_line(' '.join(str(error).split()), 300)}"


# --------------------------------------------------------------------------- headers


@dataclass(frozen=True)
class Inspection:
    """What is known of an image without decoding it: its size, and a hash of its bytes."""

    width: int
    height: int
    content: str


def inspect(data: bytes, max_pixels: int = MAX_PIXELS) -> Inspection:
    """Read the header and hash the content.

    Raises:
        ImageError: not one of ``FORMATS``, or larger than ``max_pixels``.
    """
    with open_image(data, max_pixels) as image:
        width, height = image.size
    return Inspection(width, height, content_hash(data))


def content_hash(data: bytes) -> str:
    """Hex BLAKE2b-128 of a file's bytes, as in the manifest."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read the header only.

    Raises:
        ImageError: not one of ``FORMATS``, or larger than ``max_pixels``.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception as error:  # Pillow's readers raise many kinds for a hostile header
        reason = str(error)
        if isinstance(error, UnidentifiedImageError):
            reason = f"none of {', '.join(FORMATS)}" if data else "the file is empty"
        raise ImageError(f"not an image: {reason}") from error
    if image.width * image.height > max_pixels:
        raise ImageError(f"{image.width} x {image.height} is over {max_pixels:,} pixels")
    return image
