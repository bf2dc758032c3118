"""Tables and sentences that people read: Markdown for files, plain text for a terminal."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sensloc.config import Config
from sensloc.methods import catalogue

Row = Mapping[str, Any]

Cell = Callable[[Row], str]
"""Writes one cell of a row."""

Columns = Mapping[str, Cell]
"""A table's headings, in their order, and what writes the cells below each."""

# --------------------------------------------------------------------------- cells


def number(name: str, digits: int = 1) -> Cell:
    """Return what writes the number ``row[name]``; the cell is empty where it is null."""

    def write(row: Row) -> str:
        return "" if row[name] is None else f"{row[name]:,.{digits}f}"

    return write


def interval(value: str, low: str, high: str, sign: str = "") -> Cell:
    """Return what writes a number and its bounds, all named; empty where the number is null.

    Args:
        value: the number's name in the row.
        low: name of the lower bound.
        high: name of the upper bound.
        sign: "+" where positive numbers carry their sign.
    """

    def write(row: Row) -> str:
        if row[value] is None:
            return ""
        return f"{row[value]:{sign}.1f} [{row[low]:{sign}.1f}, {row[high]:{sign}.1f}]"

    return write


def table_lines(columns: Columns, rows: Iterable[Row]) -> list[list[str]]:
    """Return the lines of a table, its headings first, one cell per column."""
    return [list(columns), *([write(row) for write in columns.values()] for row in rows)]


def grid(lines: Sequence[Sequence[str]]) -> str:
    """Return lines as a Markdown table: headings first, all columns but the first to the right."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (lines[0], rule, *lines[1:]))


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines as plain text in columns, all but the first to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


# --------------------------------------------------------------------------- a run's CorLoc

SHARES: Columns = {
    "CorLoc %": interval("corloc", "ci_low", "ci_high"),
    "headroom %": number("headroom", 0),
    "class mean %": interval("class_mean", "class_mean_low", "class_mean_high"),
}
"""The columns that the run's table and the comparison's have in common."""

CORLOC_COLUMNS: Columns = {
    "method": itemgetter("method"),
    **SHARES,
    "images right": lambda row: f"{row['n_correct']:,} / {row['n_images']:,}",
    "paper, ImageNet, its protocol": number("paper", 2),
}
"""The run's table, of rows that ``corloc_rows`` returns."""


def corloc_rows(corloc: pa.Table) -> list[dict[str, Any]]:
    """Return one row per method of ``tables.CORLOC``, in the table's order.

    Returns:
        The columns of the scope "overall"; title; class_mean, class_mean_low and class_mean_high,
        in percent; paper, in percent, or None where the paper has no such method.
    """
    overall, class_mean = (
        corloc.filter(pc.equal(corloc["scope"], scope)).to_pylist()
        for scope in ("overall", "class mean")
    )
    mean_of = {row["method"]: row for row in class_mean}
    return [
        row
        | {
            "title": catalogue.title(row["method"]),
            "class_mean": mean_of[row["method"]]["corloc"],
            "class_mean_low": mean_of[row["method"]]["ci_low"],
            "class_mean_high": mean_of[row["method"]]["ci_high"],
            "paper": catalogue.PAPER.get(row["method"]),
        }
        for row in overall
    ]


def taken_from(stages: Mapping[str, Row]) -> Row | None:
    """Return what a run directory says of the fitted run that it judges on other data.

    Args:
        stages: those of ``run.json``.

    Returns:
        run (its name), url, config_hash, label ("truth" or "predicted", of its own maps), constant
        (the tuned box, or None), images_unknown and classes_unknown (to the network); None in a run
        that is fitted itself.
    """
    found: Row | None = stages.get("classifier", {}).get("taken_from")
    return found


def protocol_sentence(config: Config, other: Row | None = None) -> str:
    """Return the sentence that says what CorLoc means in this run.

    Args:
        config: the run's.
        other: the fitted run that it judges, see ``taken_from``.
    """
    truth = (other["label"] if other else config.sensitivity.label) == "truth"
    label = "the true class (GT-known)" if truth else "the predicted class"
    if truth and other:
        label += ", where a row says so of the predicted one"
    images = "All images of the data set" if other else "Test split"
    constant = "the tuned constant box, which looks at no image, to 100 %."
    return (
        f"{images}, IoU >= {config.evaluate.iou:g} with any ground-truth box, continuous "
        f"coordinates; maps of {label}; 95 % bootstrap intervals over images. Headroom: how far of "
        f"the way from {_constant_of(other) if other else constant}"
    )


def _constant_of(other: Row) -> str:
    """Return from which constant box headroom is measured, and on which images."""
    x0, y0, x1, y1 = other["constant"]
    sentences = (
        f"the constant box that was tuned on the train images of {other['run']}, not on these "
        f"({x0:.2f}, {y0:.2f}, {x1:.2f}, {y1:.2f}), to 100 %, on the images that the method counts."
    )
    if other["images_unknown"]:
        sentences += (
            f" {other['images_unknown']:,} images are of classes that the network lacks "
            f"({other['classes_unknown']:,} classes): they count where no true class is needed."
        )
    return sentences


def corloc_markdown(
    corloc: pa.Table, config: Config, errors: int = 0, other: Row | None = None
) -> str:
    """Return ``table.md``: one row per method, and what its numbers mean.

    Args:
        corloc: rows of ``tables.CORLOC``.
        config: the run's.
        errors: test images that have one.
        other: the fitted run that is judged, see ``taken_from``.
    """
    body = grid(table_lines(CORLOC_COLUMNS, corloc_rows(corloc)))
    not_counted = f" {errors:,} test images with errors are not counted." if errors else ""
    sentence = protocol_sentence(config, other)
    return f"# {config.name}: CorLoc\n\n{body}\n\n{sentence}{not_counted}\n"


def corloc_text(corloc: pa.Table, config: Config, other: Row | None = None) -> str:
    """Return the run's table for a terminal, and what its numbers mean."""
    body = aligned(table_lines(CORLOC_COLUMNS, corloc_rows(corloc)))
    return f"{body}\n\n{protocol_sentence(config, other)}"


def pace(sensitivity: Row) -> str:
    """Return how fast the last attempt of the sensitivity stage was, from its facts.

    Its ``images_per_s`` is null where an earlier attempt had made every map.
    """
    rate = sensitivity["images_per_s"]
    return "all made by an earlier attempt" if rate is None else f"{rate:,.1f} images/s"


def summary(corloc: pa.Table, config: Config, facts: Row, url: str) -> str:
    """Return what a finished run says last.

    Args:
        corloc: rows of ``tables.CORLOC``.
        config: the run's.
        facts: the content of ``run.json``.
        url: the run directory.
    """
    stages = facts["stages"]
    manifest, sensitivity = stages["manifest"], stages["sensitivity"]
    seconds = sum(stage["seconds"] for stage in stages.values())
    splits = ", ".join(f"{n:,} {name}" for name, n in manifest["splits"].items())
    top1 = ", ".join(f"{share:.1f} % of {name}" for name, share in sensitivity["top1"].items())
    lines = [
        f"{config.name}: {manifest['images']:,} images of {manifest['classes']:,} classes "
        f"({splits}) in {seconds:.0f} s",
        f"sensitivity maps: {pace(sensitivity)}, {sensitivity['errors']} errors",
        f"classifier top-1: {top1 or 'none of the classes is one of its'}",
        "",
        corloc_text(corloc, config, taken_from(stages)),
        "",
        f"tables, figure and methods: {url}",
        f"  open {url}/report.html; {url}/examples.png and table.md are parts of it",
    ]
    return "\n".join(lines)
