"""What every layout has: its config section, which is its reader at the same time."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Annotated, Protocol

from pydantic import Field

from sensloc.datasets.annotation import NO_BOX, Annotation, Unit
from sensloc.datasets.files import Tree
from sensloc.sections import Positive, Section


class Reader(Protocol):
    """What lists and reads annotations. Readers are picklable values: workers get them whole."""

    def units(self) -> list[Unit]:
        """Return cheap pieces of work, from a listing or a file size: thousands, never millions.

        Raises:
            DatasetError: the root or a required file is missing.
        """
        ...

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield the unit's images. A bad annotation is a row with ``error``, never a raise."""
        ...


class Dataset(Section):
    """A layout: where the data set is, which part of it to take, and how it is read.

    A subclass per layout adds its keys, and the two calls of ``Reader``.
    """

    root: str
    """Folder or fsspec URL of the data set."""
    only_classes: str | None = None
    """A text file (path or URL): the first word of each line is a class to keep."""
    n_images: Positive | None = None
    """Keep exactly this many images, drawn without replacement; None keeps all."""
    seed: int = 0
    """Seed of the draw of ``n_images``."""
    max_pixels: Annotated[int, Field(gt=0, le=178_956_970)] = 100_000_000
    """A larger image is an error, before it is decoded. Pillow itself takes no more than those."""

    @property
    def tree(self) -> Tree:
        """The files below the root."""
        return Tree(self.root)

    @abstractmethod
    def units(self) -> list[Unit]:
        """Return the pieces of reading work: see ``Reader.units``."""

    @abstractmethod
    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield the images of a piece of reading work: see ``Reader.read``."""


@dataclass(frozen=True)
class Unboxed:
    """Another reader's images, whether they have boxes or not: those to be predicted."""

    reader: Reader

    def units(self) -> list[Unit]:
        """Return the other reader's units."""
        return self.reader.units()

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield the other reader's images, none of them left out for want of a box."""
        for row in self.reader.read(unit):
            is_image = row.left_out == NO_BOX and row.uri != ""
            yield replace(row, left_out=None) if is_image else row
