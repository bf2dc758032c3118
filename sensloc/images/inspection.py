"""What an image file's header says, before anything is decoded. Pillow only, no torch."""

import hashlib
import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from sensloc.images.fetch import ImageError

MAX_PIXELS = 100_000_000
"""A larger image is refused before it is decoded, unless another limit is given."""

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
"""The formats that are opened. Pillow knows more, among them EPS, for which it runs Ghostscript,
and rare formats whose readers believe what a hostile header says."""


@dataclass(frozen=True)
class Inspection:
    """What is known of an image without decoding it.

    Attributes:
        width: in pixels.
        height: in pixels.
        content: the file's ``content_hash``.
    """

    width: int
    height: int
    content: str


def inspect(data: bytes, max_pixels: int = MAX_PIXELS) -> Inspection:
    """Read an image file's header and hash its content.

    Raises:
        ImageError: The file is of none of ``FORMATS``, or has more than ``max_pixels``.
    """
    with open_image(data, max_pixels) as image:
        width, height = image.size
    return Inspection(width, height, content_hash(data))


def content_hash(data: bytes) -> str:
    """Return the BLAKE2b-128 hash of a file's bytes in hex, as the manifest has it."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def open_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Read an image file's header; Pillow decodes the rest when it is asked for pixels.

    Raises:
        ImageError: The file is of none of ``FORMATS``, or has more than ``max_pixels``.
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
