"""Images without annotations: a folder of any depth, or a table that names them."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from sensloc.datasets.annotation import NO_BOX, Annotation, Unit
from sensloc.datasets.dataset import Dataset
from sensloc.datasets.files import IMAGE_SUFFIXES, Tree, chunks
from sensloc.datasets.tabular import TabularFile
from sensloc.errors import DatasetError

COLUMNS = ("uri", "image_id")


class Images(Dataset):
    """Images without annotations, for ``sensloc predict``: a run cannot learn from them.

    Every image is left out ("no box"), unless it is read through ``Unboxed``. Its id is its path
    below the root; of a table, its image_id or, without one, its uri.
    """

    layout: Literal["images"]
    pattern: str = "**"
    """Of the files' paths below ``root``; those that do not end like images are left alone."""
    file: str | None = None
    """A CSV or Parquet file below ``root``, instead: its column uri (and image_id) names them."""

    names_per_unit: ClassVar[int] = 10_000
    """Images of one unit of a listing."""

    @property
    def tree(self) -> Tree:
        """The files below the root."""
        return Tree(self.root, "let the command name")

    def units(self) -> list[Unit]:
        """Return runs of paths from one listing; or the table.

        Raises:
            DatasetError: the root or the table is missing, or there is no image.
        """
        if self.file is not None:
            self.tree.size(self.file)
            return [{"file": self.file}]
        paths = self.tree.find(self.pattern, IMAGE_SUFFIXES)
        return [{"paths": list(run)} for run in chunks(paths, self.names_per_unit)]

    def read(self, unit: Unit) -> Iterator[Annotation]:
        """Yield the unit's images.

        Raises:
            DatasetError: the table cannot be read, or has no column uri.
        """
        if "paths" in unit:
            for path in unit["paths"]:
                yield self._row(path, path)
            return
        table = TabularFile(self.tree, unit["file"], COLUMNS)
        columns = table.names()
        if "uri" not in columns:
            raise DatasetError(f"{table.url}: no column uri; its columns are {', '.join(columns)}")
        for number, row in enumerate(table.rows(), 1):
            uri = str(row.get("uri") or "")
            yield self._row(str(row.get("image_id") or uri or f"row {number}"), uri)

    def _row(self, image_id: str, uri: str) -> Annotation:
        """Return the row of an image, whose ``uri`` may be relative to the root."""
        try:
            place = self.tree.place(uri)
        except ValueError as error:
            return Annotation(image_id, "", "", source="images", error=f"{image_id}: {error}")
        return Annotation(image_id, place, "", source="images", left_out=NO_BOX)
