"""What every dataset reader yields, and the two calls that every reader answers."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from sensloc.boxes import Convention
from sensloc.errors import SenslocError

Unit = dict[str, Any]
"""One piece of reading work: a small dict of plain values (str, int, list of them)."""


class DatasetError(SenslocError):
    """The data set as a whole cannot be read: the message names the file and what to do."""


@dataclass(frozen=True)
class Annotation:
    """One image as its layout describes it, before anyone has opened the image.

    Attributes:
        image_id: unique in the data set.
        uri: where the image is: a local path or any fsspec URL.
        wnid: the class, as the layout names it.
        corners: the boxes, [n][4], as the layout writes them.
        convention: how ``corners`` is written, see ``sensloc.boxes.Convention``.
        source: the layout and its part, such as "imagenet/train".
        class_name: for people; empty where the layout has none.
        size: (width, height) that the annotation declares, in pixels, or None.
        left_out: why this image takes no part though nothing is wrong ("no box"), or None.
        error: what is wrong with the annotation, naming its file, or None.
    """

    image_id: str
    uri: str
    wnid: str
    corners: list[list[float]] = field(default_factory=list)
    convention: Convention = "edges"
    source: str = ""
    class_name: str = ""
    size: tuple[int, int] | None = None
    left_out: str | None = None
    error: str | None = None


class Reader(Protocol):
    """One layout. Readers are picklable values: workers receive them whole."""

    def units(self) -> list[Unit]:
        """Cheap pieces of work, from a listing or a file size: thousands, never millions.

        Raises:
            DatasetError: the root or a required file is missing.
        """
        ...

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield the unit's images. A bad annotation is a row with ``error``, never a raise."""
        ...
