"""Predictions counted: what the charts need of millions of rows, in a table of thousands."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.scoring.paired import AREA_GROUPS, AREAS

COLUMNS = ("method", "wnid", "class_name", "iou", "area", "correct")
"""Of the predictions."""

STEPS = 100
"""IoU is counted in bins of 1 / STEPS."""

KEYS = ["method", "wnid", "class_name", "group", "bin"]


def tally(batches: Iterable[pa.Table]) -> pa.Table:
    """Count predictions by method, class, size of the largest object, and IoU.

    An image that cannot be read has no size, and is in no count; where a method alone has no box,
    it is wrong.

    Args:
        batches: rows of the predictions, ``COLUMNS`` at least.

    Returns:
        method, wnid, class_name, group (of ``AREA_GROUPS``), bin (floor of IoU * STEPS, -1 where
        there is no box), n, correct.
    """
    parts = [_counted(rows) for rows in batches]
    if not parts:
        parts = [_counted(pa.table({name: pa.array([], pa.string()) for name in COLUMNS}))]
    return _merged(pa.concat_tables(parts), KEYS)


def _counted(rows: pa.Table) -> pa.Table:
    rows = rows.filter(pc.is_valid(rows["area"]))
    area, iou = (
        np.asarray(pc.cast(rows[name], pa.float64()).to_numpy()) for name in ("area", "iou")
    )
    bins = np.where(np.isnan(iou), -1, np.floor(np.nan_to_num(iou) * STEPS)).astype(np.int64)
    groups = np.array(AREA_GROUPS)[np.digitize(area, AREAS[1:-1])]
    right = pc.fill_null(pc.cast(rows["correct"], pa.int64()), 0)
    keyed = pa.table(
        {
            **{name: rows[name] for name in ("method", "wnid", "class_name")},
            "group": pa.array(groups, pa.string()),
            "bin": bins,
            "n": np.ones(len(rows), np.int64),
            "correct": right,
        }
    )
    return _merged(keyed, KEYS)


def _merged(counts: pa.Table, keys: Sequence[str]) -> pa.Table:
    summed = counts.group_by(list(keys)).aggregate([("n", "sum"), ("correct", "sum")])
    return summed.rename_columns([*keys, "n", "correct"])


def by(counts: pa.Table, *keys: str) -> list[dict[str, object]]:
    """The counts over fewer keys: rows of the keys, n and correct."""
    rows: list[dict[str, object]] = _merged(counts, keys).to_pylist()
    return rows


def curve(counts: pa.Table, method: str) -> np.ndarray:
    """Percent of a method's images with IoU >= k / STEPS, k = 0 .. STEPS: [STEPS + 1].

    Where a method has no box its IoU counts as below 0.
    """
    mine = _merged(counts.filter(pc.equal(counts["method"], method)), ["bin"])
    per_bin = np.zeros(STEPS + 1)
    total = sum(mine["n"].to_pylist())
    for row in mine.to_pylist():
        if row["bin"] >= 0:
            per_bin[row["bin"]] += row["n"]
    return np.asarray(100 * per_bin[::-1].cumsum()[::-1] / max(total, 1))
