"""A user's own table, CSV or Parquet: the names of its columns, and its rows."""

import csv
import io
from collections.abc import Iterator, Sequence
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
    """A table below a root: Parquet if its name ends in ".parquet", CSV otherwise."""

    tree: Tree
    path: str

    @property
    def url(self) -> str:
        """Where the file is."""
        return self.tree.url(self.path)

    def columns(self) -> list[str]:
        """Return the names of the columns, in order.

        Raises:
            DatasetError: the file is missing or not of its format.
        """
        self.tree.size(self.path)
        with self._opened() as file:
            if self._is_parquet:
                return list(pq.ParquetFile(file).schema_arrow.names)
            return next(csv.reader(_lines(file), strict=True), [])

    def rows(self, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield all rows in order, each by column.

        Args:
            columns: to read; those that the file lacks are left out. A CSV file's rows hold all
                its columns, as text, and under None the cells that are too many.

        Raises:
            DatasetError: the file is not of its format, breaks off in the middle, or has a column
                that is not plain: Ray's own type of Arrow would run code that its values hold.
        """
        with self._opened() as file:
            if not self._is_parquet:
                yield from csv.DictReader(_lines(file), strict=True)
                return
            parquet = pq.ParquetFile(file)
            wanted = [column for column in parquet.schema_arrow if column.name in columns]
            for column in wanted:
                if not _is_plain(column.type):
                    raise DatasetError(
                        f"{self.url}: the column {column.name} is of type {column.type}, not of "
                        "texts or numbers"
                    )
            for batch in parquet.iter_batches(columns=[column.name for column in wanted]):
                yield from batch.to_pylist()

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
