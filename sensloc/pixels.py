"""From an image file's bytes to the pixels that a network sees: decode, squash."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import resize

from sensloc.images import ImageError, fetch, open_image

Pixels = npt.NDArray[np.uint8]
"""uint8 [S, S, 3], RGB."""


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
    with open_image(data) as image:
        try:
            if image.format == "JPEG":
                buffer = torch.frombuffer(bytearray(data), dtype=torch.uint8)
                pixels = decode_jpeg(buffer, mode=ImageReadMode.RGB)
            else:
                pixels = torch.from_numpy(_rgb(image, data)).permute(2, 0, 1)
        except Exception as error:  # decoders raise many kinds for a broken file
            reason = str(error).rsplit(", ", 1)[-1]
            raise ImageError(f"cannot decode {image.format}: {reason}") from error
    return np.asarray(resize(pixels, [size, size], antialias=True).permute(1, 2, 0).numpy())


def _rgb(image: Image.Image, data: bytes) -> Pixels:
    """uint8 [h, w, 3] by Pillow, of a file whose checksums hold, if it has any."""
    with open_image(data) as again:
        again.verify()
    if image.mode.startswith("I"):  # 16 bits of grey, which Pillow would clip at 255
        grey = np.clip(np.asarray(image), 0, 65535) // 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    return np.array(image.convert("RGB"))


def read(uris: Sequence[str], size: int, connections: int = 8) -> list[Pixels | ImageError]:
    """Fetch and decode: one entry per URI, in order, never a raise."""
    found: list[Pixels | ImageError] = []
    for uri, data in zip(uris, fetch(uris, connections), strict=True):
        try:
            if isinstance(data, ImageError):
                raise data
            found.append(decode(data, size))
        except ImageError as error:
            found.append(ImageError(f"{uri}: {error}"))
    return found
