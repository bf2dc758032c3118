"""The sums that read-outs are learned from: a file's rows are those of each class and part."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.heatmaps.readout import CellSums
from sensloc.store import tables

VALIDATION, HALVES = 0, (1, 2)
"""The parts of the images: validation, and the halves of the train images."""

Key = tuple[int, int]
"""A class, the network's output or -1, and a part."""


def sums_in(folder: str) -> str:
    """Return the folder of the sums that the read-out in a folder is learned from."""
    return f"{folder}/sums"


def table_of(sums: Mapping[Key, CellSums], failed: Sequence[tuple[str, str]]) -> pa.Table:
    """Return rows of ``tables.FOREGROUND_SUMS``.

    Args:
        sums: Of each class and part.
        failed: Ids of images with an error, and their errors.
    """
    rows = [
        {
            "class_index": label,
            "part": part,
            "n": total.n,
            "x": total.x.ravel(),
            "y": total.y,
            "xx": total.xx[_upper(len(total.xy))],
            "xy": total.xy,
            "yy": total.yy,
        }
        for (label, part), total in sums.items()
    ]
    errors = [{"image_id": image_id, "error": error} for image_id, error in failed]
    return pa.Table.from_pylist([*rows, *errors], tables.FOREGROUND_SUMS)


def sums_of(table: pa.Table) -> Iterator[tuple[Key, CellSums]]:
    """Yield the sums in rows of ``tables.FOREGROUND_SUMS``."""
    good = table.filter(pc.is_null(table["error"]))
    for i in range(len(good)):
        row = {name: good[name][i] for name in good.column_names}
        x, y, xx, xy = (np.asarray(row[name].values) for name in ("x", "y", "xx", "xy"))
        square, upper = np.empty((len(xy), len(xy))), _upper(len(xy))
        square[upper] = square.T[upper] = xx
        key = (row["class_index"].as_py(), row["part"].as_py())
        values = x.reshape(len(y), -1)
        yield key, CellSums(row["n"].as_py(), values, y, square, xy, row["yy"].as_py())


@cache
def _upper(values: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where the upper triangle of a square of so many values is, row by row."""
    return np.triu_indices(values)


def merged(parts: Iterable[tuple[Key, CellSums]]) -> dict[Key, CellSums]:
    """Return the sums of each class and part."""
    total: dict[Key, CellSums] = {}
    for key, sums in parts:
        total[key] = total[key].merge(sums) if key in total else sums
    return total
