"""The fitted methods on the test set: predictions, CorLoc and the table."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import Boxes, area, iou, largest
from sensloc.config import Evaluate
from sensloc.engine import cluster, units
from sensloc.methods import Method, catalogue
from sensloc.report.text import corloc_markdown
from sensloc.rows import true_boxes
from sensloc.scoring import corloc, counts
from sensloc.stages.fit import fitted_methods
from sensloc.store import tables
from sensloc.store.files import load, parquet, stamp
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

CARRIED = ("image_id", "wnid", "class_name", "split", "source")


def evaluate(run: RunDir) -> None:
    """``sensitivity/`` (test) and ``methods/`` -> ``predictions/``, ``corloc/``, ``table.md``.

    Raises:
        RunError: No test image is left.
    """
    methods, config = fitted_methods(run), run.config
    with run.stage("evaluate", "predictions", "corloc", "table.md") as facts:
        files = {unit: unit for unit in units.names(run, "sensitivity")}
        units.each(run, "predictions", files, judge, methods)
        columns, threshold = list(counts.COLUMNS), config.evaluate.iou
        table = counts.merge(
            cluster.over_files(run, "predictions", columns, counts.count, threshold, errors=True)
        )
        left_out = counts.groups(table, "left out").get(next(iter(methods)), {})
        errors = sum(row["n_images"] for row in left_out.values())
        corlocs = corloc_table(table, list(methods), config.evaluate)
        if len(corlocs) == 0:
            raise RunError(f"{run.at('sensitivity')}: no test image without an error")
        run.write("corloc/corloc.parquet", parquet(corlocs, stamp(run)))
        run.write("table.md", corloc_markdown(corlocs, config, errors))
        facts |= {"test_images": corlocs["n_images"][0].as_py(), "test_errors": errors}
    log.info("evaluate: %(test_images)d test images, and %(test_errors)d with errors", facts)


def judge(run: RunDir, unit: str, methods: Mapping[str, Method]) -> pa.Table:
    """Return the predictions for the test images of a file of the sensitivity table."""
    rows = load(run, [run.file("sensitivity", unit)], None, "test", errors=True)
    return predict(rows, methods, run.config.evaluate.iou)


# --------------------------------------------------------------------------- predictions


def predict(rows: pa.Table, methods: Mapping[str, Method], threshold: float) -> pa.Table:
    """Judge every method on some images.

    Args:
        rows: n rows of the sensitivity table or of ``compare/maps``. A row with an error has it
            under every method; one without a value that a method reads has an error there.
        methods: M of them, by name.
        threshold: The IoU from which a box is right.

    Returns:
        n * M rows of ``tables.PREDICTIONS``.
    """
    readable = np.asarray(pc.is_null(rows["error"]))
    index = np.flatnonzero(readable)
    truth = dict(zip(index.tolist(), true_boxes(rows.take(pa.array(index))), strict=True))
    biggest = np.zeros((len(rows), 4))
    biggest[index] = np.array([largest(boxes) for boxes in truth.values()]).reshape(-1, 4)
    images = _images(rows, readable, biggest)
    predictions = [tables.PREDICTIONS.empty_table()]
    for name, method in methods.items():
        good = readable.copy()
        for column in method.reads:
            good &= np.asarray(pc.is_valid(rows[column]))
        judged, failed = np.flatnonzero(good), np.flatnonzero(~good)
        if len(judged):
            boxes = np.asarray(method.predict(rows.take(pa.array(judged))), np.float64)
            best = corloc.best_iou(boxes, [truth[i] for i in judged.tolist()])
            columns = {
                "box": tables.fixed(boxes.astype(np.float32), pa.float32()),
                "iou": best.astype(np.float32),
                "iou_largest": iou(boxes, biggest[judged]).astype(np.float32),
                "correct": best >= threshold,
            }
            predictions.append(_predictions(images.take(pa.array(judged)), name, columns))
        reasons = {"error": _reasons(rows.take(pa.array(failed)), method.reads)}
        predictions.append(_predictions(images.take(pa.array(failed)), name, reasons))
    return pa.concat_tables(predictions)


def _images(rows: pa.Table, readable: npt.NDArray[np.bool_], biggest: Boxes) -> pa.Table:
    """Return what is true of the images whatever the method; of an unreadable one its names.

    Args:
        rows: n of them.
        readable: [n] The rows without an error.
        biggest: [n, 4] The largest true box of these.
    """
    known = {
        "n_boxes": pc.list_value_length(rows["boxes"]),
        "area": pa.array(area(biggest).astype(np.float32)),
        "recognised": pc.equal(rows["class_index"], rows["predicted_index"]),
    }
    mask = pa.array(readable)
    return pa.table(
        {name: rows[name] for name in CARRIED}
        | {name: pc.if_else(mask, values, None) for name, values in known.items()}
    )


def _predictions(images: pa.Table, name: str, columns: Mapping[str, Any]) -> pa.Table:
    """Put a method's columns beside the images; those of the schema that it lacks are null."""
    n = len(images)
    columns = {"method": pa.array([name] * n, pa.string()), **columns}
    there = {field: images[field] for field in images.column_names} | columns
    return pa.table(
        {
            field.name: there.get(field.name, pa.nulls(n, field.type))
            for field in tables.PREDICTIONS
        },
        tables.PREDICTIONS,
    )


def _reasons(rows: pa.Table, reads: Sequence[str]) -> list[str]:
    """Return why a method has no box: the image's own error, or the first column that it lacks."""
    reasons = []
    for i, error in enumerate(rows["error"].to_pylist()):
        if error is None:
            lacked = next(name for name in reads if not rows[name][i].is_valid)
            failures = rows["failures"][i].as_py() if "failures" in rows.column_names else None
            error = dict(failures or []).get(lacked) or f"no {lacked}"
        reasons.append(error)
    return reasons


# --------------------------------------------------------------------------- CorLoc


def corloc_table(table: pa.Table, methods: Sequence[str], config: Evaluate) -> pa.Table:
    """Return ``tables.CORLOC``: per method the mean over images, that over classes, each class.

    Args:
        table: The counts, see ``sensloc.scoring.counts``.
        methods: In the order of the rows.
        config: The bootstrap's.
    """
    by_method = counts.groups(table, "class")
    draws = (config.bootstrap, config.seed)
    rows: list[dict[str, Any]] = []
    for method in methods:
        classes = [by_method[method][wnid] for wnid in sorted(by_method.get(method, {}))]
        if not classes:
            continue
        images, correct = ([row[k] for row in classes] for k in ("n_images", "n_correct"))
        over = {"method": method, "n_images": sum(images), "n_correct": sum(correct)}
        overall = corloc.share(sum(correct), sum(images), *draws)
        class_mean = corloc.class_mean(correct, images, *draws)
        rows.append(over | {"scope": "overall"} | _interval(overall))
        rows.append(over | {"scope": "class mean"} | _interval(class_mean))
        for row in classes:
            within = corloc.share(row["n_correct"], row["n_images"], *draws)
            rows.append({**row, "scope": "class", "wnid": row["group"], **_interval(within)})
    constant = {
        (row["scope"], row.get("wnid")): row["corloc"]
        for row in rows
        if row["method"] == catalogue.TUNED_BOX
    }
    for row in rows:
        same_images = constant.get((row["scope"], row.get("wnid")))
        row["headroom"] = corloc.headroom(row["corloc"], same_images)
    return pa.Table.from_pylist(rows, tables.CORLOC)


def _interval(interval: corloc.Interval) -> dict[str, float]:
    return {"corloc": interval.value, "ci_low": interval.low, "ci_high": interval.high}
