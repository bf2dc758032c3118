"""A user's own table: CSV or Parquet, one row per box."""

import csv
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sensloc.config import Table
from sensloc.datasets.annotation import Annotation, Unit
from sensloc.datasets.files import (
    Object,
    Tree,
    class_filter,
    inside,
    keeps,
    main_class,
    number,
    require_known,
    shown,
)
from sensloc.errors import DatasetError

CORNERS = ("x0", "y0", "x1", "y1")
COLUMNS = ("uri", "label", *CORNERS)

UNREADABLE = (pa.ArrowException, csv.Error, UnicodeDecodeError, OSError)

Row = dict[str, Any]


@dataclass
class _Image:
    """What the rows of one image say."""

    uri: str
    objects: list[Object] = field(default_factory=list)
    error: str | None = None


@dataclass(frozen=True)
class TableReader:
    """Reads ``file``: Parquet if its name ends in ".parquet", CSV otherwise.

    Columns: uri, label, x0, y0, x1, y1 in the convention of the config, and perhaps image_id;
    without it the uri is the image id. More columns do no harm. A uri is an absolute path or a
    URL, taken as it is wherever it leads (the table is the user's own), or a path below the root.
    It has no ".." and is no chain of URLs: links of a chain may run what they find. Rows of one
    image need not be adjacent.

    An image has one class here: the label of its largest box. Its boxes are all those of that
    label, and the class filter looks only at the chosen one. One bad row makes its image an
    error. The whole table is held in memory.
    """

    config: Table

    @property
    def _tree(self) -> Tree:
        return Tree(self.config.root)

    def units(self) -> list[Unit]:
        """One: the file.

        Raises:
            DatasetError: the root or the file is missing, or the file lacks columns or has one
                twice.
        """
        file = self.config.file
        self._tree.size(file)
        columns = self._columns()
        if not set(COLUMNS) <= set(columns):
            raise DatasetError(
                f"{self._tree.url(file)}: its columns are {', '.join(columns)}; expected "
                f"{', '.join(COLUMNS)}, and perhaps image_id"
            )
        if twice := sorted({name for name in columns if name and columns.count(name) > 1}):
            raise DatasetError(f"{self._tree.url(self.config.file)}: two columns {twice[0]!r}")
        return [{"only": class_filter(self.config.only_classes)}]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """All images, in the order of their ids.

        Raises:
            DatasetError: no row has a class of the filter, or the file breaks off in the middle:
                a quote of CSV that is not closed, say, would swallow the rows after it.
        """
        images = self._images()
        labels = {label for image in images.values() for label, _ in image.objects}
        require_known(unit["only"], labels, f"the labels of {self._tree.url(self.config.file)}")
        for image_id, image in sorted(images.items()):
            wnid, corners = main_class(image.objects, self.config.convention)
            if keeps(unit["only"], wnid):
                yield Annotation(
                    image_id=image_id,
                    uri=image.uri,
                    wnid=wnid,
                    corners=corners,
                    convention=self.config.convention,
                    source="table",
                    error=image.error,
                )

    def _images(self) -> dict[str, _Image]:
        """The rows of each image, by image id; a row that names no image is one of its own."""
        images: dict[str, _Image] = {}
        for number_of_row, row in enumerate(self._rows(), start=1):
            where = f"{self.config.file}: row {number_of_row}"
            image_id, uri = _text(row.get("image_id", row["uri"])), _text(row["uri"])
            image = images.setdefault(image_id or where, _Image(""))
            try:
                if not image_id:
                    raise ValueError("no image_id, or no uri")
                place = self._place(uri)
                image.uri = image.uri or place
                if place != image.uri:
                    raise ValueError(f"image_id {image_id} has two uris: {image.uri} and {place}")
                image.objects.append(_object(row))
            except ValueError as error:
                image.error = image.error or f"{where}: {error}"
        return images

    def _place(self, uri: str) -> str:
        """A path or URL of the table, with the root before it if it is relative."""
        if not os.path.isabs(uri) and "://" not in uri:
            return self._tree.url(inside(uri))
        if ".." in uri.split("/") or "::" in uri:
            raise ValueError(f"uri {shown(uri)} has '..' or '::' in it")
        return uri

    def _columns(self) -> list[str]:
        """Names of the columns."""
        with self._tree.open(self.config.file) as file:
            try:
                if self._is_parquet:
                    return list(self._parquet(file).schema_arrow.names)
                return next(csv.reader(lines(file), strict=True), [])
            except UNREADABLE as error:
                raise self._refusal(error) from error

    def _rows(self) -> Iterator[Row]:
        """All rows in order, each by column; a CSV file's values are text."""
        with self._tree.open(self.config.file) as file:
            try:
                if self._is_parquet:
                    batches = self._parquet(file).iter_batches(columns=[*COLUMNS, "image_id"])
                    for batch in batches:
                        yield from batch.to_pylist()
                else:
                    yield from csv.DictReader(lines(file), strict=True)
            except UNREADABLE as error:
                raise self._refusal(error) from error

    def _parquet(self, file: Any) -> pq.ParquetFile:
        """A Parquet file whose columns are plain.

        Raises:
            DatasetError: one is not: Ray's own type of Arrow would run code that its values hold.
        """
        opened = pq.ParquetFile(file)
        for column in opened.schema_arrow:
            if column.name in (*COLUMNS, "image_id") and not is_plain(column.type):
                url, kind = self._tree.url(self.config.file), column.type
                raise DatasetError(
                    f"{url}: the column {column.name} is of type {kind}, not of texts or numbers"
                )
        return opened

    @property
    def _is_parquet(self) -> bool:
        return self.config.file.lower().endswith(".parquet")

    def _refusal(self, error: Exception) -> DatasetError:
        kind = "Parquet" if self._is_parquet else "CSV"
        return DatasetError(f"{self._tree.url(self.config.file)}: not a {kind} file: {error}")


def is_plain(kind: pa.DataType) -> bool:
    """Is it a type of texts, numbers or times?"""
    if pa.types.is_dictionary(kind):
        return is_plain(kind.value_type)
    plain = (pa.string(), pa.large_string(), pa.string_view(), pa.null())
    return bool(kind in plain or pa.types.is_primitive(kind) or pa.types.is_decimal(kind))


def lines(file: Any) -> io.TextIOWrapper:
    """A text file's lines. What is not UTF-8 becomes lone surrogates, see ``Annotation``."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


def _text(value: object) -> str:
    """A cell as text; empty for null."""
    return "" if value is None else str(value).strip()


def _object(row: Row) -> Object:
    """The label and corners of one row."""
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
