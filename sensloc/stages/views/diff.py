"""Two runs, on the images that both have judged: what differs of them, and of their results."""

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.report.text import Columns, aligned, interval, number, table_lines
from sensloc.scoring import counts
from sensloc.scoring.paired import Judged, difference
from sensloc.stages.evaluate import predict
from sensloc.stages.fit import fitted_methods
from sensloc.store import provenance
from sensloc.store.files import load
from sensloc.store.run import RunDir, RunError

COLUMNS = ["image_id", "error", *counts.COLUMNS]

SHOWN: Columns = {
    "method": lambda row: row["method"],
    "images": number("n_images", 0),
    "first %": number("first"),
    "second %": number("second"),
    "second - first": interval("difference", "low", "high", "+"),
    "the second is": lambda row: row["verdict"],
}


def diff(
    first: RunDir,
    second: RunDir,
    split: Literal["validation", "test"] = "test",
    threshold: float | None = None,
) -> str:
    """Compare two runs, method by method, on the images that both have in the same set.

    Args:
        first: A run that is evaluated.
        second: Another one.
        split: The images that are taken. By those of validation a run has chosen its methods.
        threshold: The IoU from which a box is right; None for that of the first run.

    Returns:
        What differs in config, code and versions, and a table, for a terminal.

    Raises:
        RunError: A run is not evaluated, or they have no image or no method in common.
    """
    threshold = first.config.evaluate.iou if threshold is None else threshold
    rows = [_judged(run, split) for run in (first, second)]
    table = list(_differences(rows[0], rows[1], threshold, first))
    if not table:
        raise RunError(f"{first.url} and {second.url}: no {split} image is judged in both")
    return "\n".join(
        [
            f"there: {first.url}",
            f"here:  {second.url}",
            *_what_differs(first, second),
            "",
            aligned(table_lines(SHOWN, table)),
            "",
            f"CorLoc on the {split} images of both, IoU >= {threshold:g}; 95 % paired bootstrap "
            "intervals, and verdicts by McNemar's exact test at 5 %.",
        ]
    )


def _judged(run: RunDir, split: str) -> pa.Table:
    """Return a run's predictions for the images of a set.

    Raises:
        RunError: It is not evaluated.
    """
    run.require("evaluate")
    if split == "test":
        return load(run, run.files("predictions"), COLUMNS, errors=True)
    rows = load(run, run.files("sensitivity"), None, split, errors=True)
    return predict(rows, fitted_methods(run), run.config.evaluate.iou).select(COLUMNS)


def _differences(
    first: pa.Table, second: pa.Table, threshold: float, run: RunDir
) -> Iterator[dict[str, Any]]:
    """Yield the row of each method that both have, in the first one's order.

    Raises:
        RunError: An image has more than one row, or none counts.
    """
    config, theirs = run.config.evaluate, set(second["method"].unique().to_pylist())
    for method in filter(theirs.__contains__, first["method"].unique().to_pylist()):
        parts = [part.filter(pc.equal(part["method"], method)) for part in (first, second)]
        common = np.intersect1d(*(part["image_id"].to_numpy() for part in parts))
        if not len(common):
            continue
        pair = [
            part.filter(pc.is_in(part["image_id"], pa.array(common))).set_column(
                part.column_names.index("method"), "method", pa.array([name] * len(common))
            )
            for name, part in zip(("first", "second"), parts, strict=True)
        ]
        try:
            judged = Judged.from_table(pa.concat_tables(pair), ("first", "second"))
        except ValueError as error:
            raise RunError(f"{method}: {error}") from error
        before, after = judged.right(threshold)
        gap = difference(after, before, config.bootstrap, config.seed)
        yield {
            "method": method,
            "n_images": len(before),
            "first": 100 * float(before.mean()),
            "second": 100 * float(after.mean()),
            "difference": gap.value,
            "low": gap.low,
            "high": gap.high,
            "verdict": gap.verdict,
        }


def _what_differs(first: RunDir, second: RunDir) -> list[str]:
    """Return a line for each value of config and versions that differs, and one for the code."""
    identities = [provenance.of(run.facts()) for run in (first, second)]
    lines = provenance.differences(*identities)
    shown = [f"  {line}" for line in lines if not line.startswith("code.")]
    if files := len(lines) - len(shown):
        shown.append(f"  code: {files} files differ")
    return shown
