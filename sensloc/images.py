"""From a URI to pixels: fetch, hash, measure, decode, squash."""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import resize

Pixels = npt.NDArray[np.uint8]
"""uint8 [S, S, 3], RGB."""

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
    with _open(data) as image:
        width, height = image.size
    return Inspection(width, height, hashlib.blake2b(data, digest_size=16).hexdigest())


def decode(data: bytes, size: int) -> Pixels:
    """Decode to RGB and squash the whole image to a square, antialiased.

    JPEGs (RGB, grayscale, CMYK) are decoded by torchvision, everything else by Pillow. EXIF
    rotation is ignored: ImageNet's boxes are in the unrotated frame.

    Args:
        data: an image file.
        size: S, in pixels.

    Returns:
        uint8 [S, S, 3].

    Raises:
        ImageError: unknown, truncated, broken or too large.
    """
    with _open(data) as image:
        try:
            if image.format == "JPEG":
                buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                pixels = decode_jpeg(buffer, mode=ImageReadMode.RGB)
            else:
                pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        except (OSError, RuntimeError, ValueError, SyntaxError) as error:
            reason = str(error).rsplit(", ", 1)[-1]
            raise ImageError(f"cannot decode {image.format}: {reason}") from error
    return np.asarray(resize(pixels, [size, size], antialias=True).permute(1, 2, 0).numpy())


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error) if data else "the file is empty"
        raise ImageError(f"not an image: {reason.replace(_address(error), '')}") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{image.width} x {image.height} is over {MAX_PIXELS:,} pixels")
    return image


def _address(error: Any) -> str:
    """Pillow names the buffer by its memory address, which differs from run to run."""
    text = str(error)
    return text[text.find(" <_io.") :] if " <_io." in text else "\0"
