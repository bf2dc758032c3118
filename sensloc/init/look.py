"""What a reader finds in a folder: images, boxes, classes, and what is wrong or missing."""

import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import fsspec.core
from tqdm import tqdm

from sensloc.boxes import BoxError, unit_boxes
from sensloc.datasets import Annotation, Dataset
from sensloc.datasets.annotation import EMPTY_CLASS
from sensloc.datasets.table import Table
from sensloc.dice import key
from sensloc.images.fetch import RANGE, ImageError, fetch
from sensloc.images.inspection import inspect
from sensloc.init.listing import Listing

MOST_OPENED = 200
"""Images, drawn, that are opened to see whether their boxes fit."""


@dataclass(frozen=True)
class Look:
    """What a reader finds.

    Attributes:
        dataset: the reader, which is the config's section.
        boxed: the images that have boxes, and an annotation without error.
        unboxed: how many images have no box, with those that no annotation names.
        errors: what is wrong with annotations.
        absent: images with boxes that are not where they should be, once each.
        opened: how many of the others were opened.
        misfits: what is wrong with these, or with their boxes.
    """

    dataset: Dataset
    boxed: tuple[Annotation, ...]
    unboxed: int
    errors: tuple[str, ...]
    absent: tuple[str, ...]
    opened: int
    misfits: tuple[str, ...]

    @property
    def boxes(self) -> int:
        """How many boxes there are."""
        return sum(len(row.corners) for row in self.boxed)

    @property
    def usable(self) -> int:
        """How many images with boxes are there; none if all that were opened are misfits."""
        return len(self.boxed) - len(self.absent) if len(self.misfits) < self.opened else 0

    @property
    def kind(self) -> str:
        """The layout, and the file or folder of its annotations."""
        keys = ("annotations", "file", "shards")
        where = [getattr(self.dataset, key) for key in keys if hasattr(self.dataset, key)]
        return " ".join(["layout", self.layout, *where])

    @property
    def layout(self) -> str:
        """The layout's name."""
        return str(self.dataset.model_dump()["layout"])

    @property
    def classes(self) -> Counter[str]:
        """How many images with boxes each class has."""
        return Counter(row.wnid for row in self.boxed)


def look(dataset: Dataset, listing: Listing) -> Look:
    """Read all annotations, and open some of their images.

    A table does not say how its boxes are written. Numbers of at most 1 are fractions; of pixel
    edges and left, top, width, height those are taken that fit more of the opened images.

    Raises:
        DatasetError: the data set as a whole cannot be read.
        StorageError: the storage does not answer, or refuses.
    """
    first = _look(dataset, listing)
    if not isinstance(dataset, Table):
        return first
    numbers = [number for row in first.boxed for corners in row.corners for number in corners]
    if max(numbers, default=2.0) <= 1:
        return _look(dataset.model_copy(update={"convention": "unit"}), listing)
    other = _look(dataset.model_copy(update={"convention": "xywh"}), listing)
    return min(first, other, key=lambda seen: len(seen.misfits))


def _look(dataset: Dataset, listing: Listing) -> Look:
    units = dataset.units()
    bar = tqdm(units, "annotations", unit="unit", disable=not sys.stderr.isatty(), leave=False)
    rows = [row for unit in bar for row in dataset.read(unit)]
    boxed = [row for row in rows if row.error is None and row.left_out is None]
    images = {_place(dataset.tree.url(path)) for path in listing.images}
    absent = {row.uri for row in boxed if _place(row.uri) not in images and not _exists(row.uri)}
    there = (row for row in boxed if row.uri not in absent)
    drawn = sorted(there, key=lambda row: key(row.image_id, 0))[:MOST_OPENED]
    unboxed = sum(row.left_out not in (None, EMPTY_CLASS) for row in rows)
    return Look(
        dataset=dataset,
        boxed=tuple(boxed),
        unboxed=unboxed + len(images - {_place(row.uri) for row in rows}),
        errors=tuple(row.error for row in rows if row.error),
        absent=tuple(sorted(absent)),
        opened=len(drawn),
        misfits=tuple(_misfits(drawn, dataset.max_pixels)),
    )


def _place(uri: str) -> str:
    """Return a path in its shortest form, so that equal places are equal texts."""
    return os.path.normpath(uri)


def _exists(uri: str) -> bool:
    """Tell whether a file is there; a range of a shard is part of what was read."""
    if RANGE.fullmatch(uri):
        return True
    files, path = fsspec.core.url_to_fs(uri)
    return bool(files.exists(path))


def _misfits(rows: Sequence[Annotation], max_pixels: int) -> list[str]:
    """Open images; return what is wrong with each that cannot be used, as the run would say it."""
    misfits = []
    for row, data in zip(rows, fetch([row.uri for row in rows]), strict=True):
        try:
            if isinstance(data, ImageError):
                raise data
            image = inspect(data, max_pixels)
            unit_boxes(row.corners, image.width, image.height, row.convention)
        except (ImageError, BoxError) as error:
            misfits.append(f"{row.uri}: {error}")
    return misfits
