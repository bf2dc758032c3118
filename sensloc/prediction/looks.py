"""A second look: the part of the image around the first box, at its full resolution.

The network sees an image squashed to a square, in which a small object has few cells. The first
box, made larger, is cut out of the image as it is stored, squashed, and read once more by the same
read-out: two passes, whose backward parts stop half-way.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sensloc.boxes import Boxes, resize
from sensloc.heatmaps import FOREGROUND, SECOND
from sensloc.heatmaps.maker import MapMaker, Maps, Seen
from sensloc.images.decode import Pixels, crop, pixels_of
from sensloc.methods.soft_iou import best_box, evidence_of, fine

ZOOM = 1.3
"""How much wider and higher than the first box the region is: of 1.3, 1.6 and 2 the best on images
of imagenet_mini that are neither learned from nor tested on."""

GAIN, POWER = 8.0, 1.5
"""Of the first box that says where to look. That of the results is chosen on validation."""

ANY = sys.maxsize
"""The limit of pixels of the second decoding: the first one had the config's."""

WHOLE = np.array([0, 0, 1, 1], np.float32)

Source = bytes | Pixels | None
"""An image's file, or its pixels as stored; None where no second look is wanted."""


@dataclass(frozen=True)
class Looker:
    """Makes heat maps, and where it is wanted looks twice.

    Attributes:
        first: Makes the maps of whole images.
        twice: Whether there is a second look; then the foreground is among the first's maps.
    """

    first: MapMaker
    twice: bool

    def __call__(
        self,
        pixels: Pixels,
        labels: npt.NDArray[np.int64],
        sources: Sequence[Source],
        fold: npt.NDArray[np.int64] | None = None,
    ) -> Seen:
        """Make the maps of a batch; that of the second look is zero where there is no source.

        Args:
            pixels: uint8 [n, S, S, 3], the whole images squashed.
            labels: See ``MapMaker``.
            sources: n of them.
            fold: See ``MapMaker``.
        """
        seen = self.first(pixels, labels, fold)
        if not self.twice:
            return seen
        size, n = pixels.shape[1], len(pixels)
        parts, regions = np.zeros_like(pixels), np.tile(WHOLE, (n, 1))
        for i, (source, box) in enumerate(zip(sources, where(seen), strict=True)):
            if source is not None:
                full = pixels_of(source, ANY) if isinstance(source, bytes) else source
                parts[i], regions[i] = crop(full, box, size)
        chosen = seen.passed.labels[:n].cpu().numpy()
        again = self.first.only([FOREGROUND])(parts, chosen).maps[FOREGROUND]
        absent = np.array([source is None for source in sources], bool)
        maps = Maps(
            np.where(absent[:, None], np.float16(0), again.values),
            np.where(absent, np.float32(1), again.scale),
            *(again.height, again.width),
        )
        return replace(
            seen,
            maps={**seen.maps, SECOND: maps},
            regions={**seen.regions, SECOND: regions},
        )


def where(seen: Seen) -> Boxes:
    """Return the region of each image that the second look is at: [n, 4] unit xyxy."""
    shares = np.nan_to_num(seen.maps[FOREGROUND].values.astype(np.float64))
    boxes = [best_box(evidence_of(image, GAIN, POWER)) for image in fine(shares)]
    return np.clip(resize(np.array(boxes).reshape(-1, 4), (ZOOM, ZOOM)), 0, 1)
