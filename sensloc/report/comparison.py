"""What people read of a comparison: its tables, and the notes below them."""

from collections.abc import Mapping, Sequence
from operator import itemgetter
from statistics import mean
from typing import Any

import pyarrow as pa

from sensloc.config import Config
from sensloc.methods import catalogue
from sensloc.report.text import (
    SHARES,
    Cell,
    Columns,
    Row,
    aligned,
    grid,
    interval,
    number,
    protocol_sentence,
    table_lines,
)
from sensloc.scoring.counts import AREA_GROUPS

# --------------------------------------------------------------------------- columns


def _ms(row: Row) -> str:
    return number("ms_per_image", 1 if (row["ms_per_image"] or 0) >= 1 else 2)(row)


MAIN_COLUMNS: Columns = {
    "method": itemgetter("title"),
    **SHARES,
    "against sensitivity": interval("difference", "difference_low", "difference_high", "+"),
    "verdict": lambda row: row["verdict"] or "",
    "train images": number("n_train", 0),
    "ms/image": _ms,
    "paper": number("paper", 2),
}
"""The main table, of rows of ``comparison.table.METHODS``."""

PROTOCOL_COLUMNS: Columns = {
    "method": itemgetter("title"),
    "IoU 0.3": number("corloc_30"),
    "0.5": number("corloc"),
    "0.7": number("corloc_70"),
    "mean of these": number("corloc_mean"),
    "largest box": number("largest"),
    "single-box images": number("single"),
    "Top-1": number("top1"),
    "MaxBoxAccV2": number("max_box_acc_v2"),
    "errors": number("n_errors", 0),
}
"""The same methods under other protocols, of rows of ``comparison.table.METHODS``."""

TESTED_ON = {"both": "both groups", "first": "the first group", "second": "the second group"}
"""Of classes, by what stands in ``less.UNSEEN``."""

UNSEEN_COLUMNS: Columns = {
    "method": lambda row: catalogue.title(row["method"]),
    "tested on": lambda row: f"{TESTED_ON[row['tested_on']]} ({row['n_images']:,})",
    "seen %": number("seen"),
    "unseen %": number("unseen"),
    "unseen - seen": interval("difference", "low", "high", "+"),
    "verdict": itemgetter("verdict"),
}
"""Classes that a method was not learned on, of rows of ``less.UNSEEN``."""


# --------------------------------------------------------------------------- notes


def notes(config: Config) -> str:
    """Return what stands below the main table."""
    rounds = config.compare.speed_rounds
    timed = (
        "ms/image: from the file to the box, one process with one thread, medians of "
        f"{rounds} interleaved rounds. "
    )
    return (
        f"{protocol_sentence(config)} Differences are paired over the images, in percentage "
        "points; better and worse: p < 0.05 in McNemar's exact test. Train images: boxed images "
        "that the method learned from; thresholds, ridges, weights and size factors are chosen on "
        f"validation. {timed if rounds else ''}Paper: Ebrahimpour & Noelle, Table 1, "
        "their images and protocol. The class is known to the class's mean box and to "
        "co-localization whatever the maps are of. Ceilings read the test image's own box."
    )


def protocol_notes(single: int) -> str:
    """Return what stands below the table of other protocols.

    Args:
        single: images with a single box.
    """
    return (
        f"CorLoc in percent. {single:,} images have a single box. Top-1: the box is right and the "
        "classifier too. MaxBoxAccV2 (Choe et al. 2020) is of the heat map, with the best "
        "thresholds on these very images, all regions allowed. Errors: images without a box, "
        "counted as wrong."
    )


# --------------------------------------------------------------------------- documents


def text(methods: pa.Table) -> str:
    """Return the main table for a terminal.

    Args:
        methods: rows of ``comparison.table.METHODS``.
    """
    return aligned(table_lines(MAIN_COLUMNS, methods.to_pylist()))


def markdown(
    methods: pa.Table,
    groups: pa.Table,
    labels: pa.Table,
    unseen: pa.Table,
    recall: Mapping[str, float],
    config: Config,
) -> str:
    """Return ``compare/table.md``: the table, other protocols, groups of images, few labels.

    Args:
        methods: rows of ``comparison.table.METHODS``.
        groups: rows of ``accuracy.BREAKDOWN``.
        labels: rows of ``less.LABELS``.
        unseen: rows of ``less.UNSEEN``; may be empty.
        recall: percent of the objects that so many proposals hold; may be empty.
        config: the run's.
    """
    rows = methods.to_pylist()
    plain = [row for row in rows if _stands_in_smaller_tables(row["method"])]
    sections = [
        f"# {config.name}: every method on the same {rows[0]['n_images']:,} test images",
        grid(table_lines(MAIN_COLUMNS, rows)),
        notes(config),
        "## The same under other protocols",
        grid(table_lines(PROTOCOL_COLUMNS, plain)),
        protocol_notes(rows[0]["n_single"]),
        *_breakdowns({row["method"]: row["title"] for row in plain}, groups.to_pylist()),
        *_few_labels(label_spans(labels.to_pylist())),
    ]
    if len(unseen):
        sections += [
            "## Unseen classes",
            grid(table_lines(UNSEEN_COLUMNS, unseen.to_pylist())),
            "Learned on one group of the classes and tested on the same group (seen) or on the "
            "other (unseen): the test images of both groups, of the first and of the second.",
        ]
    if recall:
        shares = ", ".join(f"{value:.1f} % of the objects at {k}" for k, value in recall.items())
        sections += [
            "## Recall of the objectness measure's proposals",
            f"{shares} proposals (IoU >= 0.5).",
        ]
    return "\n\n".join(sections) + "\n"


def _stands_in_smaller_tables(method: str) -> bool:
    """Return whether it does: of the calibrated methods, only the reference's twin."""
    return method in (catalogue.base(method), catalogue.CALIBRATED_MAIN)


def _breakdowns(titles: Mapping[str, str], groups: Sequence[Row]) -> list[str]:
    """Return the sections of CorLoc by groups of images, of rows of ``accuracy.BREAKDOWN``."""

    def section(by: str, names: Sequence[str]) -> str:
        rows = [row for row in groups if row["by"] == by]
        images = {row["group"]: row["n_images"] for row in rows}
        headings = {name: f"{name} ({images.get(name, 0):,})" for name in names}
        return _pivot(titles, rows, headings, number("corloc"))

    return [
        "## By the size of the largest object",
        section("area", AREA_GROUPS),
        "## By what the classifier says, and by source",
        section("recognised", ("recognised", "not recognised")),
        section("source", sorted({row["group"] for row in groups if row["by"] == "source"})),
    ]


def _few_labels(spans: Sequence[Row]) -> list[str]:
    """Return the section on label efficiency, of rows that ``label_spans`` returns."""
    titles = {row["method"]: row["method"] for row in spans}
    headings = {row["group"]: f"{row['group']:,}" if row["group"] else "all" for row in spans}
    return [
        "## Label efficiency",
        _pivot(titles, spans, headings, interval("corloc", "low", "high")),
        "At most so many boxed images per class to learn from, and as many again to choose by; "
        "mean over draws, lowest and highest in brackets.",
    ]


def _pivot(
    titles: Mapping[str, str], rows: Sequence[Row], headings: Mapping[Any, str], cell: Cell
) -> str:
    """Return a Markdown table: a line per method, a column per group of images.

    Args:
        titles: of the methods, by name.
        rows: method, group, and what ``cell`` writes; where there is no row, the cell is empty.
        headings: of the columns, by group.
        cell: writes a cell.
    """
    by_place = {(row["method"], row["group"]): row for row in rows}
    lines = [["method", *headings.values()]]
    for method, title in titles.items():
        placed = (by_place.get((method, group)) for group in headings)
        lines.append([title, *("" if row is None else cell(row) for row in placed)])
    return grid(lines)


def label_spans(labels: Sequence[Row]) -> list[dict[str, Any]]:
    """Return the spread over the draws of label efficiency, per method and images per class.

    Args:
        labels: rows of ``less.LABELS``, one per draw.

    Returns:
        Rows of method (its title), group (images per class, None: all), n (boxed train images,
        mean), corloc (mean, in percent), low and high (the extremes).
    """
    draws: dict[tuple[str, int | None], list[Row]] = {}
    for row in labels:
        draws.setdefault((row["method"], row["per_class"]), []).append(row)
    return [
        {
            "method": catalogue.title(method),
            "group": per_class,
            "n": round(mean(row["n_train"] for row in rows)),
            "corloc": mean(row["corloc"] for row in rows),
            "low": min(row["corloc"] for row in rows),
            "high": max(row["corloc"] for row in rows),
        }
        for (method, per_class), rows in draws.items()
    ]
