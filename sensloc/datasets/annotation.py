"""The one row that every layout is read into."""

from dataclasses import dataclass, field
from typing import Any

from sensloc.boxes import Convention
from sensloc.errors import one_line

Unit = dict[str, Any]
"""One piece of reading work: a small dict of plain values (str, int, list of them)."""

NO_BOX = "no box"
"""Why an image without a box is left out."""

EMPTY_CLASS = "empty class"
"""Why a class without images, which is a row of its own, is left out."""


@dataclass(frozen=True)
class Annotation:
    """One image as its layout describes it, before anyone has opened the image.

    Any table can hold it: a name that is not UTF-8 (Python has its bytes as lone surrogates) is
    escaped here, and the image is an error. An error is one line.

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

    def __post_init__(self) -> None:
        """Escape what is not UTF-8."""
        error = self.error
        for name in ("image_id", "uri", "wnid", "class_name"):
            text = getattr(self, name)
            clean = text.encode(errors="backslashreplace").decode()
            if clean != text:
                object.__setattr__(self, name, clean)
                if name != "class_name" and not self.left_out:  # it is for people, not a name
                    error = error or f"the {name} {text!r} is not UTF-8"
        object.__setattr__(self, "error", error and one_line(error))
