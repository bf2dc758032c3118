"""From an image file's bytes to the pixels that a network sees: decode, squash.

JPEGs are decoded by TorchCodec, the other formats by Pillow. TorchCodec is where torchvision's
decoders have gone, with equal pixels. Its decoder of JPEGs needs no FFmpeg, and no process that
only decodes imports torchvision, which takes 1.5 s and 170 MB.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate
from torchcodec.decoders import decode_jpeg

from sensloc.boxes import Boxes
from sensloc.images.fetch import ImageError, fetch
from sensloc.images.inspection import MAX_PIXELS, content_hash, open_image
from sensloc.images.pixels import Decoded, Pixels

JPEGS = ("JPEG", "MPO")
"""Pillow's names of JPEGs. Some cameras write MPO, a JPEG with more pictures behind it."""

MAX_SIDE = 65_535
"""JPEG's own limit. A file of 20 KB, 3 pixels wide and ten million high, costs 7 GB to resize."""

MAX_SCANS = 100
"""The most scans of a progressive JPEG, which has about ten: each passes over the whole image."""

MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
"""The marker of a JPEG's segment. Scans hold others (stuffed zeros, restarts), which begin none."""

SCAN, END, EXIF, COMMENT = b"\xff\xda", b"\xff\xd9", b"\xff\xe1", b"\xff\xfe"


def decode(data: bytes, size: int, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image file to RGB, and squash the whole image to a square of ``size`` pixels.

    See ``pixels_of``.
    """
    pixels = pixels_of(data, max_pixels)
    return Decoded(squash(pixels, size), pixels.shape[1], pixels.shape[0])


def pixels_of(data: bytes, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image file to RGB: uint8 [h, w, 3].

    JPEGs may be RGB, grayscale or CMYK; of several frames the first is taken. EXIF rotation is
    ignored: ImageNet's boxes are in the unrotated frame.

    Args:
        data: the file's bytes.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        ImageError: The file is of no known format, truncated, broken or too large.
    """
    with open_image(data, max_pixels) as image:
        if max(image.size) > MAX_SIDE:
            raise ImageError(
                f"{image.width} x {image.height} has a side of over {MAX_SIDE:,} pixels"
            )
        try:
            return _jpeg(data) if image.format in JPEGS else _other(image, data)
        except ImageError:
            raise
        except Exception as error:  # decoders raise many kinds for a broken file
            reason = str(error).partition("\n")[0].rsplit(", ", 1)[-1].rstrip(".")
            raise ImageError(
                f"cannot decode {image.format}: {reason or type(error).__name__}"
            ) from error


def crop(pixels: Pixels, box: Boxes, size: int) -> tuple[Pixels, Boxes]:
    """Cut a box out of an image at its full resolution, and squash it to a square.

    Args:
        pixels: uint8 [h, w, 3].
        box: [4] unit xyxy; it is widened to whole pixels, at least one.
        size: S, in pixels.

    Returns:
        uint8 [S, S, 3], and the region that it shows: [4] unit xyxy.
    """
    sides = np.array([pixels.shape[1], pixels.shape[0]])
    first = np.clip(np.floor(box[:2] * sides), 0, sides - 1).astype(int)
    last = np.clip(np.ceil(box[2:] * sides), first + 1, sides).astype(int)
    part = pixels[first[1] : last[1], first[0] : last[0]]
    return squash(part, size), np.concatenate([first / sides, last / sides])


def squash(pixels: Pixels, size: int) -> Pixels:
    """Resize an image to a square, antialiased, its sides by factors of their own.

    Args:
        pixels: uint8 [h, w, 3].
        size: S, in pixels.

    Returns:
        uint8 [S, S, 3]; torch computes it in integers, so that CPUs with and without AVX2 agree.
    """
    contiguous = np.require(pixels, requirements=["C", "W"])
    image = torch.from_numpy(contiguous)[None].permute(0, 3, 1, 2)
    resized = interpolate(image, (size, size), mode="bilinear", antialias=True)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def _jpeg(data: bytes) -> Pixels:
    """Decode a JPEG in the frame in which it is stored: uint8 [h, w, 3].

    TorchCodec turns an image as its EXIF segment says, and cannot be told not to: so that segment
    is renamed to a comment.

    Raises:
        ImageError: The file has more than ``MAX_SCANS``.
    """
    stored, scans = bytearray(data), 0
    for marker in _segments(data):
        scans += marker[0] == SCAN
        if marker[0] == EXIF:
            stored[marker.start() : marker.end()] = COMMENT
    if scans > MAX_SCANS:
        raise ImageError(f"a JPEG of over {MAX_SCANS} scans")
    pixels = decode_jpeg(torch.frombuffer(stored, dtype=torch.uint8), mode="RGB")
    assert isinstance(pixels, torch.Tensor)
    return np.asarray(pixels.permute(1, 2, 0).numpy())


def _segments(data: bytes) -> Iterator[re.Match[bytes]]:
    """Yield the marker of each of a JPEG's segments, up to the image's end.

    What the segments hold (a thumbnail is a JPEG too) and what lies behind the image is skipped.
    """
    position = 2
    while (marker := MARKER.search(data, position)) and marker[0] != END:
        yield marker
        length = data[marker.end() : marker.end() + 2]
        position = marker.end() + int.from_bytes(length, "big")


def _other(image: Image.Image, data: bytes) -> Pixels:
    """Decode with Pillow: uint8 [h, w, 3]."""
    if image.format == "PNG":  # checksums are verified on request only, and use the file up
        with open_image(data, image.width * image.height) as verified:
            verified.verify()
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
    keep: bool = False,
) -> list[Decoded | ImageError]:
    """Fetch and decode images: one entry per URI, in order.

    Args:
        uris: Where the images are, see ``sensloc.images.fetch``.
        size: S, in pixels.
        connections: Requests at a time.
        max_pixels: A larger image is refused before it is decoded.
        contents: The hash that each file must have, as in the manifest; None where any will do.
        keep: Whether the files' bytes are kept beside the pixels.

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
            image = decode(data, size, max_pixels)
            images.append(replace(image, data=data) if keep else image)
        except ImageError as error:
            images.append(ImageError(f"{uri}: {error}"))
    return images
