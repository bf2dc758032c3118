"""Columns of a table's rows as numpy arrays. No Ray."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import Boxes


def vectors(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    """A fixed-size-list column as [n, k]; null lists are not allowed."""
    values = rows[name].combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    if values.null_count:
        raise ValueError(f"column {name} has {values.null_count} nulls")
    return np.asarray(values.flatten()).reshape(len(values), values.type.list_size)


def complete(rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The rows that have a value in every one of the columns."""
    for name in columns:
        rows = rows.filter(pc.is_valid(rows[name]))
    return rows


def true_boxes(rows: pa.Table) -> list[Boxes]:
    """The ground-truth boxes of each row: n arrays [m_i, 4]."""
    return [np.array(boxes, np.float64) for boxes in rows["boxes"].to_pylist()]
