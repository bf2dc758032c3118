"""A user's own table, CSV or Parquet: the names of its columns, and its rows."""

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sensloc.datasets.files import Tree
from sensloc.errors import DatasetError

UNREADABLE = (pa.ArrowException, csv.Error, UnicodeDecodeError, OSError)
"""What Arrow and the csv module raise for a file that is not a table."""


@dataclass(frozen=True)
class TabularFile:
    """A table below a root: Parquet if its name ends in ".parquet", CSV otherwise.

    Attributes:
        tree: the files below the root.
        path: the table's, relative to the root.
        columns: those that are read, as far as the table has them.
    """

    tree: Tree
    path: str
    columns: tuple[str, ...]

    @property
    def url(self) -> str:
        """Where the file is."""
        return self.tree.url(self.path)

    def names(self) -> list[str]:
        """Return the names of all columns, in order.

        Raises:
            DatasetError: the file is missing or not of its format, or a column is not plain.
        """
        self.tree.size(self.path)
        with self._opened() as file:
            if self._is_parquet:
                return list(self._parquet(file).schema_arrow.names)
            return next(csv.reader(_lines(file), strict=True), [])

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows in order, each by column.

        A CSV file's rows hold all its columns as text, and under None the cells that are too many.

        Raises:
            DatasetError: the file is not of its format or breaks off in the middle, or a column is
                not plain.
        """
        with self._opened() as file:
            if not self._is_parquet:
                yield from csv.DictReader(_lines(file), strict=True)
                return
            for batch in self._parquet(file).iter_batches(columns=list(self.columns)):
                yield from batch.to_pylist()

    def _parquet(self, file: Any) -> pq.ParquetFile:
        """Open a Parquet file whose columns are plain.

        Raises:
            DatasetError: one is not: Ray's own type of Arrow would run code that its values hold.
        """
        parquet = pq.ParquetFile(file)
        for column in parquet.schema_arrow:
            if column.name in self.columns and not _is_plain(column.type):
                raise DatasetError(
                    f"{self.url}: the column {column.name} is of type {column.type}, not of texts "
                    "or numbers"
                )
        return parquet

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        """Open the file; what cannot be read as its format is an error that names it."""
        with self.tree.open(self.path) as file:
            try:
                yield file
            except UNREADABLE as error:
                kind = "Parquet" if self._is_parquet else "CSV"
                raise DatasetError(f"{self.url}: not a {kind} file: {error}") from error

    @property
    def _is_parquet(self) -> bool:
        return self.path.lower().endswith(".parquet")


def _is_plain(kind: pa.DataType) -> bool:
    """Tell whether a type is one of texts, numbers or times."""
    if pa.types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    plain = (pa.string(), pa.large_string(), pa.string_view(), pa.null())
    return bool(kind in plain or pa.types.is_primitive(kind) or pa.types.is_decimal(kind))


def _lines(file: Any) -> io.TextIOWrapper:
    """Return a text file's lines. What is not UTF-8 becomes lone surrogates."""
    return io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
