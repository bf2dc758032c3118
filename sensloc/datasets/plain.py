"""Images without annotations: a folder of any depth, or a table that names them."""

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sensloc.config import Images
from sensloc.datasets.annotation import Annotation, Reader, Unit
from sensloc.datasets.files import IMAGE_SUFFIXES, Tree, chunks, inside, shown
from sensloc.datasets.table import UNREADABLE, is_plain, lines
from sensloc.errors import DatasetError

NO_BOX = "no box"

COLUMNS = ("uri", "image_id")


@dataclass(frozen=True)
class ImagesReader:
    """Every image is left out ("no box"), unless it is read through ``Unboxed``.

    Its id is its path below the root; of a table, its image_id or, without one, its uri.
    """

    config: Images
    names_per_unit: int = 10_000

    @property
    def _tree(self) -> Tree:
        return Tree(self.config.root, "let the command name")

    def units(self) -> list[Unit]:
        """Runs of paths from one listing; or the table.

        Raises:
            DatasetError: the root or the table is missing, or there is no image.
        """
        if self.config.file is not None:
            self._tree.size(self.config.file)
            return [{"file": self.config.file}]
        paths = self._tree.find(self.config.pattern, IMAGE_SUFFIXES)
        return [{"paths": list(some)} for some in chunks(paths, self.names_per_unit)]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """The unit's images.

        Raises:
            DatasetError: the table cannot be read.
        """
        if "paths" in unit:
            for path in unit["paths"]:
                yield self._row(path, path)
            return
        for number, row in enumerate(self._rows(), 1):
            uri = str(row.get("uri") or "")
            name = str(row.get("image_id") or uri or f"row {number}")
            yield self._row(name, uri)

    def _row(self, name: str, uri: str) -> Annotation:
        try:
            if not os.path.isabs(uri) and "://" not in uri:
                uri = self._tree.url(inside(uri))
            elif ".." in uri.split("/") or "::" in uri:
                raise ValueError(f"uri {shown(uri)} has '..' or '::' in it")
        except ValueError as error:
            return Annotation(name, "", "", source="images", error=f"{name}: {error}")
        return Annotation(name, uri, "", source="images", left_out=NO_BOX)

    def _rows(self) -> Iterator[dict[str, Any]]:
        file = str(self.config.file)
        url = self._tree.url(file)
        with self._tree.open(file) as opened:
            try:
                if file.lower().endswith(".parquet"):
                    table = pq.ParquetFile(opened)
                    names = [name for name in COLUMNS if name in table.schema_arrow.names]
                    _require(url, names, [table.schema_arrow.field(n).type for n in names])
                    for batch in table.iter_batches(columns=names):
                        yield from batch.to_pylist()
                else:
                    rows = csv.DictReader(lines(opened), strict=True)
                    _require(url, list(rows.fieldnames or ()), [])
                    yield from rows
            except UNREADABLE as error:
                raise DatasetError(f"{url}: not a table of images: {error}") from error


def _require(url: str, names: list[str], kinds: list[pa.DataType]) -> None:
    if "uri" not in names:
        raise DatasetError(f"{url}: no column uri; its columns are {', '.join(names)}")
    if not all(map(is_plain, kinds)):
        raise DatasetError(f"{url}: the columns {', '.join(COLUMNS)} must hold texts or numbers")


@dataclass(frozen=True)
class Unboxed:
    """Another reader's images, whether they have boxes or not: what is to be predicted."""

    reader: Reader

    def units(self) -> list[Unit]:
        """The reader's."""
        return self.reader.units()

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """The reader's, none of them left out for want of a box."""
        for row in self.reader.read(unit):
            taken = row.left_out == NO_BOX and row.uri != ""
            yield replace(row, left_out=None) if taken else row
