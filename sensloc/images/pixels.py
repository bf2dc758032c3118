"""What an image is once it is decoded. No torch, which takes seconds to import: see ``decode``."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
"""uint8 [h, w, 3], RGB; of the square that a network sees, [S, S, 3]."""


@dataclass(frozen=True)
class Decoded:
    """An image as a network sees it, and the size that it is stored with.

    Attributes:
        pixels: uint8 [S, S, 3], RGB, the whole image squashed to a square.
        width: of the stored image, in pixels.
        height: of the stored image, in pixels.
        data: the file's bytes, where they are kept for a second look.
    """

    pixels: Pixels
    width: int
    height: int
    data: bytes | None = None
