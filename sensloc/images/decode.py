"""From an image file's bytes to the pixels that a network sees: decode, squash.

torchvision is imported by what decodes, not with this module: it takes 1.5 s and 170 MB of every
process, and most actors only handle pixels or maps.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from sensloc.images.fetch import MAX_PIXELS, ImageError, content_hash, fetch, open_image

Pixels = npt.NDArray[np.uint8]
"""uint8 [S, S, 3], RGB."""

JPEGS = ("JPEG", "MPO")  # MPO: what some cameras write, a JPEG with more pictures behind it

MAX_SIDE = 65_535
"""JPEG's own limit. A file of 20 KB, 3 pixels wide and ten million high, costs 7 GB to resize."""

MAX_SCANS = 100
"""Of a progressive JPEG, which has about ten: each passes over the whole image again."""

MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
"""Of a JPEG's segment; what scans hold themselves (stuffed zeros, restarts) is none."""


@dataclass(frozen=True)
class Decoded:
    """An image as the network sees it, and the size that it had.

    Attributes:
        pixels: uint8 [S, S, 3], RGB.
        width: of the image as stored, in pixels.
        height: of the image as stored, in pixels.
    """

    pixels: Pixels
    width: int
    height: int


def decode(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode to RGB and squash the whole image to a square, antialiased.

    JPEGs (RGB, grayscale, CMYK) are decoded by torchvision, the other formats by Pillow, of
    which the first frame is taken. EXIF rotation is ignored: ImageNet's boxes are in the
    unrotated frame.

    Args:
        data: an image file.
        size: S, in pixels.
        max_pixels: a larger image is refused before it is decoded.

    Returns:
        The pixels, with the image's own size.

    Raises:
        ImageError: unknown, truncated, broken or too large.
    """
    from torchvision.io import ImageReadMode, decode_jpeg

    with open_image(data, max_pixels) as image:
        if problem := _hostile(image, data):
            raise ImageError(problem)
        try:
            if image.format in JPEGS:
                buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                pixels = decode_jpeg(buffer, mode=ImageReadMode.RGB)
            else:
                pixels = torch.from_numpy(_rgb(image, data)).permute(2, 0, 1)
            squashed = _squashed(pixels, size)
        except Exception as error:  # decoders raise many kinds for a broken file
            reason = str(error).partition("\n")[0].rsplit(", ", 1)[-1] or type(error).__name__
            raise ImageError(f"cannot decode {image.format}: {reason}") from error
    return Decoded(squashed, image.width, image.height)


def squash(pixels: Pixels, size: int) -> Pixels:
    """Squash a decoded image to a square, as ``decode`` does: uint8 [h, w, 3] -> [S, S, 3]."""
    return _squashed(torch.from_numpy(np.array(pixels)).permute(2, 0, 1), size)


def _squashed(pixels: Tensor, size: int) -> Pixels:
    from torchvision.transforms.v2.functional import resize

    whole = resize(pixels, [size, size], antialias=True)
    return np.asarray(whole.permute(1, 2, 0).numpy())


def _hostile(image: Image.Image, data: bytes) -> str | None:
    """Why a file that may be well formed is not decoded: it would cost too much."""
    if max(image.size) > MAX_SIDE:
        return f"{image.width} x {image.height} has a side of over {MAX_SIDE:,} pixels"
    if image.format in JPEGS and _scans(data) > MAX_SCANS:
        return f"a JPEG of over {MAX_SCANS} scans"
    return None


def _scans(data: bytes) -> int:
    """Scans of a JPEG, to its end; thumbnails in its segments, and what lies behind, are none."""
    scans, at = 0, 2
    while (found := MARKER.search(data, at)) and found[0] != b"\xff\xd9":
        scans += found[0] == b"\xff\xda"
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return scans


def _rgb(image: Image.Image, data: bytes) -> Pixels:
    """uint8 [h, w, 3] by Pillow, of a file whose checksums hold, if it has any."""
    with open_image(data, image.width * image.height) as again:
        again.verify()
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        grey = np.clip(np.asarray(image), 0, 65535) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    return np.array(image.convert("RGB"))


def read(
    uris: Sequence[str],
    size: int,
    connections: int = 8,
    max_pixels: int = MAX_PIXELS,
    contents: Sequence[str | None] | None = None,
) -> list[Decoded | ImageError]:
    """Fetch and decode images: one entry per URI, in order.

    Args:
        uris: Where the images are, see ``sensloc.images.fetch``.
        size: S, in pixels.
        connections: Requests at a time.
        max_pixels: A larger image is refused before it is decoded.
        contents: The hash that each file must have, as in the manifest; None where any will do.

    Returns:
        The image, or the reason why there is none, which begins with the URI.

    Raises:
        StorageError: The storage does not answer, or refuses.
    """
    images: list[Decoded | ImageError] = []
    expected = contents or [None] * len(uris)
    for uri, content, data in zip(uris, expected, fetch(uris, connections), strict=True):
        try:
            if isinstance(data, ImageError):
                raise data
            if content is not None and content_hash(data) != content:
                raise ImageError("has changed since the manifest was made")
            images.append(decode(data, size, max_pixels))
        except ImageError as error:
            images.append(ImageError(f"{uri}: {error}"))
    return images
