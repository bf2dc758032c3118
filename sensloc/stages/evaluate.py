"""The fitted methods on the test set: predictions, CorLoc and the table."""

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import area, iou, largest
from sensloc.config import Evaluate
from sensloc.engine import cluster, units
from sensloc.methods import Method
from sensloc.report.text import markdown
from sensloc.rows import true_boxes
from sensloc.scoring import corloc
from sensloc.stages.fit import fitted_methods
from sensloc.store import tables
from sensloc.store.files import load, parquet, stamp
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)


def evaluate(run: RunDir) -> None:
    """``sensitivity/`` (test) -> ``predictions/``, ``corloc/``, ``table.md``."""
    methods, config = fitted_methods(run), run.config
    with run.stage("evaluate", "predictions", "corloc", "table.md") as facts:
        judged = {unit: unit for unit in units.names(run, "sensitivity")}
        units.each_quick(run, "predictions", judged, judge, methods)
        counts = count(run)
        table = corloc_table(counts, list(methods), config.evaluate)
        run.write("corloc/corloc.parquet", parquet(table, stamp(run)))
        errors = pc.sum(counts["n_errors"]).as_py() // len(methods)
        run.write("table.md", markdown(table, config, errors))
        facts |= {"test_images": table["n_images"][0].as_py(), "test_errors": errors}
    log.info("evaluate: %(test_images)d test images, and %(test_errors)d with errors", facts)


def judge(run: RunDir, unit: str, methods: Mapping[str, Method]) -> pa.Table:
    """A file of the sensitivity table -> the predictions for its test images."""
    rows = load(run, [run.file("sensitivity", unit)], None, "test", errors=True)
    return predict(rows, methods, run.config.evaluate.iou)


def predict(
    rows: pa.Table,
    methods: Mapping[str, Method],
    threshold: float,
    reads: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> pa.Table:
    """Rows of the sensitivity table -> one row per test image and method.

    Args:
        rows: without an error, or with one, which is then each method's.
        methods: by name.
        threshold: of IoU.
        reads: the columns in which a method needs a value; without one its row has an error.
    """
    test = rows.filter(pc.equal(rows["split"], "test"))
    made = [tables.PREDICTIONS.empty_table()]
    for name, method in methods.items():
        good = np.asarray(pc.is_null(test["error"]))
        for column in reads.get(name, ()):
            good &= np.asarray(pc.is_valid(test[column]))
        made.append(_judged(test.filter(pa.array(good)), name, method, threshold))
        made.append(_failed(test.filter(pa.array(~good)), name, reads.get(name, ())))
    return pa.concat_tables(made)


def _failed(rows: pa.Table, name: str, reads: Sequence[str]) -> pa.Table:
    """Error rows: the image's own error, or what the method lacked."""
    made = []
    for row in rows.to_pylist():
        reasons = dict(row.get("failures") or [])
        lacked = next((c for c in reads if row[c] is None), None)
        error = row["error"] or reasons.get(lacked) or f"no {lacked}"
        made.append({**_attributes(row), "method": name, "error": error})
    return pa.Table.from_pylist(made, tables.PREDICTIONS)


def _attributes(row: dict[str, Any]) -> dict[str, Any]:
    """What is true of an image, whatever the method."""
    kept = {k: row[k] for k in ("image_id", "wnid", "class_name", "split", "source")}
    if row["error"] is not None:
        return kept
    boxes = np.array(row["boxes"])
    recognised = row["class_index"] == row["predicted_index"]
    return kept | {
        "n_boxes": len(boxes),
        "area": float(area(largest(boxes))),
        "recognised": recognised,
    }


def _judged(rows: pa.Table, name: str, method: Method, threshold: float) -> pa.Table:
    """One method's predictions for rows without errors."""
    if len(rows) == 0:
        return tables.PREDICTIONS.empty_table()
    truth = true_boxes(rows)
    biggest = np.array([largest(boxes) for boxes in truth])
    boxes = np.asarray(method.predict(rows), np.float64)
    best = corloc.best_iou(boxes, truth)
    columns = {
        **{field: rows[field] for field in rows.column_names},
        "method": pa.array([name] * len(rows)),
        "box": tables.fixed(boxes.astype(np.float32), pa.float32()),
        "iou": best.astype(np.float32),
        "iou_largest": iou(boxes, biggest).astype(np.float32),
        "n_boxes": pc.list_value_length(rows["boxes"]),
        "area": area(biggest).astype(np.float32),
        "correct": best >= threshold,
        "recognised": pc.equal(rows["class_index"], rows["predicted_index"]),
    }
    return pa.table(
        {field: columns[field] for field in tables.PREDICTIONS.names}, tables.PREDICTIONS
    )


def count(run: RunDir) -> pa.Table:
    """Images and right ones, per method and class: integers, so no order matters.

    Returns:
        method, wnid, class_name, n_images (without an error), n_correct, n_errors.

    Raises:
        RunError: no test image is left.
    """
    columns = ["method", "wnid", "class_name", "correct", "error"]
    parts = list(cluster.over_files(run, "predictions", columns, count_classes, errors=True))
    if not any(pc.sum(part["n_images"]).as_py() for part in parts):
        raise RunError(f"{run.at('sensitivity')}: no test image without an error")
    sums = [("n_images", "sum"), ("n_correct", "sum"), ("n_errors", "sum")]
    return _by_class(pa.concat_tables(parts), sums)


def count_classes(rows: pa.Table) -> pa.Table:
    """The same of some rows of the predictions."""
    rows = rows.append_column("right", pc.cast(rows["correct"], pa.int64()))
    return _by_class(rows, [("right", "count"), ("right", "sum"), ("error", "count")])


def _by_class(rows: pa.Table, sums: list[tuple[str, str]]) -> pa.Table:
    groups = ["method", "wnid", "class_name"]
    grouped = rows.group_by(groups).aggregate(sums)
    return grouped.rename_columns([*groups, "n_images", "n_correct", "n_errors"])


def corloc_table(counts: pa.Table, methods: list[str], config: Evaluate) -> pa.Table:
    """Per method: the mean over images, the mean over classes, then each class."""
    rows: list[dict[str, Any]] = []
    counts = counts.filter(pc.greater(counts["n_images"], 0))
    for method in methods:
        mine = counts.filter(pc.equal(counts["method"], method)).sort_by("wnid").to_pylist()
        images, correct = ([row[k] for row in mine] for k in ("n_images", "n_correct"))
        over = {"n_images": sum(images), "n_correct": sum(correct), "method": method}
        rows.append(
            over
            | {"scope": "overall"}
            | _interval(corloc.share(sum(correct), sum(images), config.bootstrap, config.seed))
        )
        rows.append(
            over
            | {"scope": "class mean"}
            | _interval(corloc.class_mean(correct, images, config.bootstrap, config.seed))
        )
        for row in mine:
            one = corloc.share(row["n_correct"], row["n_images"], config.bootstrap, config.seed)
            rows.append(row | {"scope": "class"} | _interval(one))
    return pa.Table.from_pylist(rows, tables.CORLOC)


def _interval(interval: corloc.Interval) -> dict[str, float]:
    return {"corloc": interval.value, "ci_low": interval.low, "ci_high": interval.high}
