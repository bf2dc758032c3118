"""Predictions counted: what CorLoc, its breakdowns and the charts need of millions of rows.

One definition for every table: *an image whose objects are known counts* (its row has an ``area``;
an image that cannot be read has none and is left out, whatever the method), *and where a method
gave it no box, the method is wrong*. The counts are integers of one table, so ``merge`` is
associative and commutative, and no order of rows, files or workers matters.

The table has one row per method, way of grouping (``by``) and group:

=============  ================================================================================
by             group
=============  ================================================================================
all            one group of all images
class          the wnid
source         layout and part
area           the size of the largest object, one of ``AREA_GROUPS``
recognised     whether the classifier's prediction is the annotated class
boxes          "single" or "several" ground-truth boxes
threshold      one of ``THRESHOLDS``: right is an IoU of at least that, as float32 has it
largest        one group: right is that IoU with the image's largest box alone
iou            the IoU in bins of 1 / ``STEPS``, "none" where there is no box
left out       one group of the images that do not count
=============  ================================================================================

Right is what the predictions' column ``correct`` says, except where it says otherwise above.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

COLUMNS = (
    *("method", "wnid", "class_name", "source", "n_boxes", "area", "recognised"),
    *("iou", "iou_largest", "correct"),
)
"""The columns of the predictions that are counted."""

AREAS = (0, 0.1, 0.25, 0.5, 1)
"""Edges of the area groups, as shares of the image; a lower edge belongs to its group."""

AREA_GROUPS = ("under 10 %", "10 to 25 %", "25 to 50 %", "over 50 %")

RECOGNISED = ("recognised", "not recognised")

THRESHOLDS = (0.3, 0.5, 0.7)
"""The IoUs at which every method is counted, whatever the run's own threshold is."""

STEPS = 100
"""The number of bins of IoU from 0 to 1."""

PART = 10_000
"""Rows that are counted at once: each of them is copied for every way of grouping."""

KEYS = ("method", "by", "group", "class_name")
NUMBERS = ("n_images", "n_errors", "n_correct")

COUNTS = pa.schema(
    [
        ("method", pa.string()),
        ("by", pa.string()),
        ("group", pa.string()),
        ("class_name", pa.string()),  # null unless by is class
        ("n_images", pa.int64()),
        ("n_errors", pa.int64()),  # of them without a box: wrong
        ("n_correct", pa.int64()),
    ]
)
"""One row per method, way of grouping and group that has an image."""


def tally(batches: Iterable[pa.Table], threshold: float = 0.5) -> pa.Table:
    """Count predictions, a part at a time: the table ``COUNTS``.

    Args:
        batches: Rows of the predictions, ``COLUMNS`` at least.
        threshold: The run's IoU, for the group ``largest``.
    """
    slices = (rows.slice(i, PART) for rows in batches for i in range(0, len(rows), PART))
    return merge(count(rows, threshold) for rows in slices)


def merge(parts: Iterable[pa.Table]) -> pa.Table:
    """Return the counts of all parts together, in the order of their keys; of none, no rows."""
    whole = pa.concat_tables([COUNTS.empty_table(), *parts])
    summed = whole.group_by(list(KEYS)).aggregate([(name, "sum") for name in NUMBERS])
    return summed.rename_columns(COUNTS.names).sort_by([(key, "ascending") for key in KEYS])


def count(rows: pa.Table, threshold: float = 0.5) -> pa.Table:
    """Count some rows of the predictions: the table ``COUNTS``, see ``tally``."""
    known = pc.is_valid(rows["area"])
    left_out = rows.filter(pc.invert(known))
    rows = rows.filter(known)
    iou, largest = (_floats(rows, name).astype(np.float32) for name in ("iou", "iou_largest"))
    area, n_boxes = _floats(rows, "area"), np.asarray(rows["n_boxes"])
    right = np.asarray(pc.fill_null(rows["correct"], False))
    recognised = np.asarray(pc.fill_null(rows["recognised"], False))
    no_box = np.isnan(iou)
    bins = np.floor(np.nan_to_num(iou.astype(np.float64)) * STEPS).astype(np.int64)
    sizes = np.array(AREA_GROUPS)[np.digitize(area, AREAS[1:-1])]

    def by(name: str, group: Any, right: Any = right) -> pa.Table:
        return _grouped(rows, name, group, no_box, right)

    return merge(
        [
            by("all", "all"),
            by("class", rows["wnid"]),
            by("source", rows["source"]),
            by("area", sizes),
            by("recognised", np.where(recognised, *RECOGNISED)),
            by("boxes", np.where(n_boxes == 1, "single", "several")),
            *(by("threshold", f"{least:g}", iou >= np.float32(least)) for least in THRESHOLDS),
            by("largest", "all", largest >= np.float32(threshold)),
            by("iou", np.where(no_box, "none", bins.astype(str))),
            _grouped(left_out, "left out", "all", True, False),
        ]
    )


def _grouped(rows: pa.Table, by: str, group: Any, no_box: Any, right: Any) -> pa.Table:
    """Return n rows of the predictions as n rows of ``COUNTS``.

    Args:
        rows: n of them.
        by: The way of grouping.
        group: Its group, of all rows or of each.
        no_box: bool, of all rows or of each.
        right: bool, of all rows or of each.
    """
    n = len(rows)
    if not isinstance(group, pa.ChunkedArray):
        group = pa.array(np.broadcast_to(group, n), pa.string())
    return pa.table(
        {
            "method": rows["method"],
            "by": pa.repeat(by, n),
            "group": group,
            "class_name": rows["class_name"] if by == "class" else pa.nulls(n, pa.string()),
            "n_images": np.ones(n, np.int64),
            "n_errors": np.broadcast_to(no_box, n).astype(np.int64),
            "n_correct": np.broadcast_to(right, n).astype(np.int64),
        },
        COUNTS,
    )


def _floats(rows: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """Return a column as numbers, nan for null: [n]."""
    return np.asarray(pc.cast(rows[name], pa.float64()).to_numpy())


def groups(counts: pa.Table, by: str) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the counts of one way of grouping: rows of ``COUNTS``, by method and group.

    A class whose images disagree about its name is one group.
    """
    by_method: dict[str, dict[str, Mapping[str, Any]]] = {}
    for row in counts.filter(pc.equal(counts["by"], by)).to_pylist():
        mine = by_method.setdefault(row["method"], {})
        before = mine.get(row["group"], dict.fromkeys(NUMBERS, 0))
        mine[row["group"]] = row | {name: row[name] + before[name] for name in NUMBERS}
    return by_method


def curve(counts: pa.Table, method: str) -> npt.NDArray[np.float64]:
    """Return the percentage of a method's images with IoU >= k / STEPS, k = 0 .. STEPS.

    Where a method has no box its IoU counts as below 0.

    Returns:
        [STEPS + 1], falling.
    """
    bins = groups(counts, "iou").get(method, {})
    total = sum(row["n_images"] for row in bins.values())
    per_bin = np.array([bins.get(str(k), {"n_images": 0})["n_images"] for k in range(STEPS + 1)])
    return np.asarray(100 * per_bin[::-1].cumsum()[::-1] / max(total, 1))
