"""A user's own table: CSV or Parquet, one row per box."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from sensloc.boxes import Convention
from sensloc.datasets.annotation import Annotation, Unit
from sensloc.datasets.class_filter import class_filter, keeps, require_known
from sensloc.datasets.dataset import Dataset
from sensloc.datasets.tabular import TabularFile
from sensloc.datasets.values import Object, main_class, number
from sensloc.errors import DatasetError

CORNERS = ("x0", "y0", "x1", "y1")
COLUMNS = ("uri", "label", *CORNERS)

Row = dict[str, Any]


@dataclass
class _Image:
    """What the rows of one image say."""

    uri: str
    objects: list[Object] = field(default_factory=list)
    error: str | None = None


class Table(Dataset):
    """A CSV or Parquet file, one row per box: uri, label, x0, y0, x1, y1, and perhaps image_id.

    Without image_id the uri is the image's id. More columns do no harm. A uri is an absolute path
    or a URL, taken as it is wherever it leads (the table is the user's own), or a path below the
    root. It has no ".." and is no chain of URLs: links of a chain may run what they find. Rows of
    one image need not be adjacent.

    An image has one class here: the label of its largest box. Its boxes are all those of that
    label, and the class filter looks only at the chosen one. One bad row makes its image an
    error. The whole table is held in memory.
    """

    layout: Literal["table"]
    file: str = "boxes.csv"
    """Parquet if it ends in ".parquet", CSV otherwise."""
    convention: Convention = "edges"
    """How the four corners are written."""

    @property
    def _table(self) -> TabularFile:
        return TabularFile(self.tree, self.file, (*COLUMNS, "image_id"))

    def units(self) -> list[Unit]:
        """Return one unit, the file.

        Raises:
            DatasetError: the root or the file is missing, or the file lacks columns or has one
                twice.
        """
        table = self._table
        columns = table.names()
        if not set(COLUMNS) <= set(columns):
            raise DatasetError(
                f"{table.url}: its columns are {', '.join(columns)}; expected "
                f"{', '.join(COLUMNS)}, and perhaps image_id"
            )
        if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
            raise DatasetError(f"{table.url}: two columns {twice[0]!r}")
        return [{"only": class_filter(self.only_classes)}]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield all images, in the order of their ids.

        Raises:
            DatasetError: no row has a class of the filter, or the file breaks off in the middle:
                a quote of CSV that is not closed, say, would swallow the rows after it.
        """
        images = self._images()
        labels = {label for image in images.values() for label, _ in image.objects}
        require_known(unit["only"], labels, f"the labels of {self._table.url}")
        for image_id, image in sorted(images.items()):
            wnid, corners = main_class(image.objects, self.convention)
            if keeps(unit["only"], wnid):
                yield Annotation(
                    image_id=image_id,
                    uri=image.uri,
                    wnid=wnid,
                    corners=corners,
                    convention=self.convention,
                    source="table",
                    error=image.error,
                )

    def _images(self) -> dict[str, _Image]:
        """Return what the rows say by image id; a row that names no image is one of its own."""
        images: dict[str, _Image] = {}
        for row_number, row in enumerate(self._table.rows(), start=1):
            where = f"{self.file}: row {row_number}"
            image_id, uri = _text(row.get("image_id", row["uri"])), _text(row["uri"])
            image = images.setdefault(image_id or where, _Image(""))
            try:
                if not image_id:
                    raise ValueError("no image_id, or no uri")
                place = self.tree.place(uri)
                image.uri = image.uri or place
                if place != image.uri:
                    raise ValueError(f"image_id {image_id} has two uris: {image.uri} and {place}")
                image.objects.append(_object(row))
            except ValueError as error:
                image.error = image.error or f"{where}: {error}"
        return images


def _text(value: object) -> str:
    """Return a cell as text; empty for null."""
    return "" if value is None else str(value).strip()


def _object(row: Row) -> Object:
    """Return the label and corners of a row."""
    label = _text(row["label"])
    if not label:
        raise ValueError("no label")
    if None in row:
        raise ValueError("more cells than columns")
    corners = []
    for key in CORNERS:
        try:
            corners.append(number(row[key]))
        except ValueError as error:
            raise ValueError(f"{key}: {error}") from error
    return label, corners
