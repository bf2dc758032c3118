"""A second look: the part of the image around the first box, at its full resolution.

The network sees an image squashed to a square, in which a small object has few cells. The first
box, made larger, is cut out of the image as it is stored, squashed, and read once more by the same
read-out: two passes, whose backward parts stop half-way.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from sensloc.boxes import Boxes, resize
from sensloc.heatmaps import FOREGROUND, SECOND
from sensloc.heatmaps.maker import MapMaker, Maps, Seen, Started
from sensloc.images.decode import crop, pixels_of
from sensloc.images.pixels import Pixels
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

    @classmethod
    def of(cls, names: Collection[str], make: Callable[[Sequence[str]], MapMaker]) -> "Looker":
        """Return the maker of heat maps by their names, a second look's among them.

        Args:
            names: Of the heat maps.
            make: Makes the maker of those of whole images.
        """
        wanted = dict.fromkeys(FOREGROUND if name == SECOND else name for name in names)
        return cls(make(tuple(wanted)), SECOND in names)

    def sized(self, images: int) -> "Looker":
        """Return the same maker for batches of so many images."""
        return replace(self, first=replace(self.first, batch_size=images))

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
        return self.start(pixels, labels, sources, fold)()

    def start(
        self,
        pixels: Pixels,
        labels: npt.NDArray[np.int64],
        sources: Sequence[Source],
        fold: npt.NDArray[np.int64] | None = None,
    ) -> Callable[[], Seen]:
        """Begin to make the maps of a batch, see ``__call__``, and return what ends it."""
        started = self.first.start(pixels, labels, fold)
        return partial(self._again, started, pixels, sources) if self.twice else started.seen

    def _again(self, started: Started, pixels: Pixels, sources: Sequence[Source]) -> Seen:
        seen = started.seen()
        n, wanted = len(pixels), [i for i, source in enumerate(sources) if source is not None]
        first, regions = seen.maps[FOREGROUND], np.tile(WHOLE, (n, 1))
        values, scale = np.zeros_like(first.values), np.ones_like(first.scale)
        if wanted:
            parts = np.zeros_like(pixels)
            for i, box in zip(wanted, where(first.values[wanted]), strict=True):
                parts[i], regions[i] = crop(_full(sources[i]), box, pixels.shape[1])
            chosen = seen.passed.labels[:n].cpu().numpy()
            again = self.first.only([FOREGROUND])(parts, chosen).maps[FOREGROUND]
            values[wanted], scale[wanted] = again.values[wanted], again.scale[wanted]
        return replace(
            seen,
            maps={**seen.maps, SECOND: Maps(values, scale, first.height, first.width)},
            regions={**seen.regions, SECOND: regions},
        )


def _full(source: Source) -> Pixels:
    """Return the pixels of an image as stored."""
    return pixels_of(source, ANY) if isinstance(source, bytes) else np.asarray(source)


def where(shares: npt.NDArray[np.float16]) -> Boxes:
    """Return the region of each image that the second look is at.

    Args:
        shares: [n, P] The foregrounds of the first look.

    Returns:
        [n, 4] unit xyxy.
    """
    maps = fine(np.nan_to_num(shares.astype(np.float64)))
    boxes = [best_box(evidence_of(image, GAIN, POWER)) for image in maps]
    return np.clip(resize(np.array(boxes).reshape(-1, 4), (ZOOM, ZOOM)), 0, 1)
