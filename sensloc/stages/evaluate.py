"""The fitted methods on the test set: predictions, CorLoc and the table."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import Boxes, area, iou, largest
from sensloc.config import Evaluate
from sensloc.engine import cluster, units
from sensloc.methods import Method, catalogue
from sensloc.report.text import corloc_markdown, taken_from
from sensloc.rows import true_boxes
from sensloc.scoring import corloc, counts
from sensloc.scoring.accuracy import by_groups
from sensloc.stages.fit import fitted_methods
from sensloc.store import tables
from sensloc.store.files import load, parquet, stamp
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

OUTPUTS = ("predictions", "corloc", "breakdown.parquet", "table.md")
"""What the stage writes."""

CARRIED = ("image_id", "wnid", "class_name", "split", "source")


def evaluate(run: RunDir) -> None:
    """``sensitivity/`` (test) and ``methods/`` -> ``predictions/``, and what is counted of it.

    Raises:
        RunError: No test image is left.
    """
    methods = fitted_methods(run)
    with run.stage("evaluate", *OUTPUTS) as facts:
        files = {unit: unit for unit in units.names(run, "sensitivity")}
        units.each(run, "predictions", files, judge, methods)
        facts |= write_corloc(run, list(methods))


def write_corloc(run: RunDir, methods: Sequence[str]) -> dict[str, int]:
    """``predictions/`` -> ``corloc/``, ``breakdown.parquet``, ``table.md``.

    Args:
        run: The run directory.
        methods: In the order of the tables; the first needs no class.

    Returns:
        How many test images there are, and how many have an error.

    Raises:
        RunError: No test image is left, of all methods or of one.
    """
    config, columns = run.config, list(counts.COLUMNS)
    table = counts.merge(
        cluster.over_files(
            run, "predictions", columns, counts.count, config.evaluate.iou, errors=True
        )
    )
    corlocs = corloc_table(table, methods, config.evaluate)
    if set(methods) - set(corlocs["method"].to_pylist()):
        raise RunError(f"{run.at('sensitivity')}: no test image without an error")
    left_out = counts.groups(table, "left out").get(methods[0], {})
    facts = {
        "test_images": corlocs["n_images"][0].as_py(),
        "test_errors": sum(row["n_images"] for row in left_out.values()),
    }
    draws = (config.evaluate.bootstrap, config.evaluate.seed)
    groups = by_groups(table, methods, *draws)
    run.write("corloc/corloc.parquet", parquet(corlocs, stamp(run)))
    run.write("breakdown.parquet", parquet(groups, stamp(run)))
    other = taken_from(run.stages())
    run.write("table.md", corloc_markdown(corlocs, config, facts["test_errors"], other))
    log.info("evaluate: %(test_images)d test images, and %(test_errors)d with errors", facts)
    return facts


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
    constant = by_method.get(catalogue.TUNED_BOX, {})
    rows: list[dict[str, Any]] = []
    for method in methods:
        wnids = sorted(classes := by_method.get(method, {}))
        compared = [constant[wnid] for wnid in wnids if wnid in constant]
        floors = [corloc.mean(*shares) for _, *shares in _scopes(compared)]
        same_images = floors if len(compared) == len(wnids) else [None] * (2 + len(wnids))
        scopes = _scopes([classes[wnid] for wnid in wnids])
        for (columns, correct, images), floor in zip(scopes, same_images, strict=True):
            value = corloc.class_mean(correct, images, config.bootstrap, config.seed)
            percent = {"corloc": value.value, "ci_low": value.low, "ci_high": value.high}
            headroom = corloc.headroom(value.value, floor)
            rows.append({**columns, "method": method, **percent, "headroom": headroom})
    return pa.Table.from_pylist(rows, tables.CORLOC)


Shares = tuple[dict[str, Any], list[int], list[int]]
"""Columns of a row of ``tables.CORLOC``, and the right images [c] among images [c] of it."""


def _scopes(classes: Sequence[Mapping[str, Any]]) -> Iterator[Shares]:
    """Yield the shares of a method's counts by class: of all images, of all classes, of each."""
    images, correct = ([row[k] for row in classes] for k in ("n_images", "n_correct"))
    if not classes:
        return
    total = {"n_images": sum(images), "n_correct": sum(correct)}
    yield total | {"scope": "overall"}, [sum(correct)], [sum(images)]
    yield total | {"scope": "class mean"}, correct, images
    for row in classes:
        columns = {**row, "scope": "class", "wnid": row["group"]}
        yield columns, [row["n_correct"]], [row["n_images"]]
