"""Columns of a table's rows as numpy arrays. No Ray."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import Boxes


def vectors(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    """Return a column of fixed-size lists as one array: [n, k].

    Raises:
        ValueError: A list is null.
    """
    values = _whole(rows, name)
    if values.null_count:
        raise ValueError(f"column {name} has {values.null_count} nulls")
    return np.asarray(values.flatten()).reshape(len(values), values.type.list_size)


def complete(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return the rows that have a value in every one of the columns."""
    for name in columns:
        rows = rows.filter(pc.is_valid(rows[name]))
    return rows


def true_boxes(rows: pa.Table) -> list[Boxes]:
    """Return the ground-truth boxes of each row: n float64 arrays [m_i, 4], unit xyxy."""
    return box_lists(rows, "boxes")


def box_lists(rows: pa.Table, name: str) -> list[Boxes]:
    """Return a column of lists of boxes: n float64 arrays [k_i, 4].

    Raises:
        ValueError: A list is null.
    """
    if len(rows) == 0:
        return []
    lists = _whole(rows, name)
    if lists.null_count:
        raise ValueError(f"column {name} has {lists.null_count} nulls")
    flat = np.asarray(lists.flatten().flatten(), np.float64).reshape(-1, 4)
    return np.split(flat, np.cumsum(pc.list_value_length(lists))[:-1])


def _whole(rows: pa.Table, name: str) -> pa.Array:
    """Return a column in one piece."""
    values = rows[name].combine_chunks()
    return pa.concat_arrays(values.chunks) if isinstance(values, pa.ChunkedArray) else values
