"""From a URI to an image file's bytes, and what its header says. Pillow only, no torch."""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
from PIL import Image

MAX_PIXELS = 100_000_000
"""A larger image is refused before it is decoded."""


class ImageError(ValueError):
    """An image that cannot be fetched or decoded: says why in one line."""


def fetch(uris: Sequence[str], connections: int = 8) -> list[bytes | ImageError]:
    """Read files or URLs side by side: one entry per URI, in order, never a raise."""

    def one(uri: str) -> bytes | ImageError:
        try:
            with fsspec.open(uri, "rb") as file:
                data: bytes = file.read()
            return data
        except Exception as error:  # every file system raises kinds of its own
            return ImageError(f"cannot read {uri}: {type(error).__name__}: {error}")

    with ThreadPoolExecutor(connections) as pool:
        return list(pool.map(one, uris))


@dataclass(frozen=True)
class Inspection:
    """What is known of an image without decoding it: its size, and a hash of its bytes."""

    width: int
    height: int
    content: str


def inspect(data: bytes) -> Inspection:
    """Read the header and hash the content.

    Raises:
        ImageError: not an image that Pillow knows, or larger than ``MAX_PIXELS``.
    """
    with open_image(data) as image:
        width, height = image.size
    return Inspection(width, height, hashlib.blake2b(data, digest_size=16).hexdigest())


def open_image(data: bytes) -> Image.Image:
    """Read the header only.

    Raises:
        ImageError: not an image that Pillow knows, or larger than ``MAX_PIXELS``.
    """
    try:
        image = Image.open(io.BytesIO(data))
    except Exception as error:  # Pillow's readers raise many kinds for a hostile header
        reason = str(error) if data else "the file is empty"
        raise ImageError(f"not an image: {reason.replace(_address(error), '')}") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width} x {image.height} is over {MAX_PIXELS:,} pixels")
    return image


def _address(error: Any) -> str:
    """Pillow names the buffer by its memory address, which differs from run to run."""
    text = str(error)
    return text[text.find(" <_io.") :] if " <_io." in text else "\0"
