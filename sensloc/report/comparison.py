"""What people read of a comparison: its table and its Markdown page."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sensloc.config import Config
from sensloc.methods import catalogue
from sensloc.report.text import PAPER, aligned, grid
from sensloc.report.text import protocol as sentence
from sensloc.scoring import paired
from sensloc.scoring.accuracy import ACCURACY, accuracy
from sensloc.scoring.counts import AREA_GROUPS

REFERENCE = catalogue.MAIN

TABLE = pa.schema(
    [
        *ACCURACY,
        ("title", pa.string()),
        ("n_train", pa.int64()),  # boxed images that it learned from; null: none
        ("reference", pa.string()),  # what it is compared with, on the same images
        ("difference", pa.float64()),  # percentage points, method - reference
        ("difference_low", pa.float64()),  # 2.5 % of the paired bootstrap
        ("difference_high", pa.float64()),
        ("p", pa.float64()),  # McNemar's exact test of this pair alone
        ("verdict", pa.string()),  # better or worse where p < 0.05, else not separable
        ("max_box_acc_v2", pa.float64()),  # of heat maps: best thresholds on these images
        ("ms_per_image", pa.float64()),  # file to box, one process; null: reads the truth
        ("paper", pa.float64()),  # Ebrahimpour & Noelle, Table 1: their images, their protocol
    ]
)
"""One row per method."""

SHOWN = catalogue.DRAWN
"""The curves of the report: as many as can be told apart."""


def table(
    judged: paired.Judged,
    chosen: Mapping[str, Mapping[str, Any]],
    max_box_acc: Mapping[str, float],
    ms: Mapping[str, float],
    config: Config,
) -> pa.Table:
    """One row of ``TABLE`` per method.

    Args:
        judged: the test images.
        chosen: what was learned, per method; ``n_train`` is read.
        max_box_acc: MaxBoxAccV2 in percent, of some.
        ms: per image, of all.
        config: of the run.
    """
    evaluate = config.evaluate
    reference = REFERENCE if REFERENCE in judged.methods else judged.methods[0]
    draws = (evaluate.bootstrap, evaluate.seed)
    accuracies = accuracy(judged, *draws, evaluate.iou).to_pylist()
    compared = {
        row["method"]: row
        for row in paired.differences(judged, reference, *draws, evaluate.iou).to_pylist()
    }
    rows = []
    for row in accuracies:
        name = row["method"]
        other = compared.get(name, {})
        truth = catalogue.entry(name).told == "truth"
        rows.append(
            row
            | {
                "title": catalogue.title(name),
                "n_train": chosen[name].get("n_train"),
                "reference": reference if other else None,
                "difference": other.get("difference"),
                "difference_low": other.get("low"),
                "difference_high": other.get("high"),
                "p": other.get("p"),
                "verdict": other.get("verdict"),
                "max_box_acc_v2": max_box_acc.get(name),
                "ms_per_image": None if truth else ms[name],
                "paper": PAPER.get(name),
            }
        )
    return pa.Table.from_pylist(rows, TABLE)


# --------------------------------------------------------------------------- cells


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _interval(row: Mapping[str, Any], value: str, low: str, high: str, sign: str = "") -> str:
    if row[value] is None:
        return ""
    return f"{row[value]:{sign}.1f} [{row[low]:{sign}.1f}, {row[high]:{sign}.1f}]"


MAIN = (
    *("method", "CorLoc %", "class mean %", "against sensitivity", "verdict"),
    *("train images", "ms/image", "paper"),
)


def main_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The cells of ``MAIN``, of rows of ``TABLE``."""
    return [
        [
            row["title"],
            _interval(row, "corloc", "ci_low", "ci_high"),
            _interval(row, "class_mean", "class_mean_low", "class_mean_high"),
            _interval(row, "difference", "difference_low", "difference_high", "+"),
            row["verdict"] or "",
            _number(row["n_train"], 0),
            _number(row["ms_per_image"], 1 if (row["ms_per_image"] or 0) >= 1 else 2),
            _number(row["paper"], 2),
        ]
        for row in rows
    ]


def text(made: pa.Table) -> str:
    """The main table for a terminal."""
    return aligned([MAIN, *main_lines(made.to_pylist())])


PROTOCOL = {
    "IoU 0.3": "corloc_30",
    "0.5": "corloc",
    "0.7": "corloc_70",
    "mean of these": "corloc_mean",
    "largest box": "largest",
    "single-box images": "single",
    "Top-1": "top1",
    "MaxBoxAccV2": "max_box_acc_v2",
    "errors": "n_errors",
}


def protocol_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The title and one cell per entry of ``PROTOCOL``, of rows of ``TABLE``."""
    return [
        [row["title"], *(_number(row[c], 0 if c == "n_errors" else 1) for c in PROTOCOL.values())]
        for row in rows
    ]


def protocol_notes(single: int) -> str:
    """What stands below these."""
    return (
        f"CorLoc in percent. {single:,} images have a single box. Top-1: the box is right and the "
        "classifier too. MaxBoxAccV2 (Choe et al. 2020) is of the heat map, with the best "
        "thresholds on these very images, all regions allowed. Errors: images without a box, "
        "counted as wrong."
    )


def notes(config: Config) -> str:
    """What stands below the main table."""
    return (
        f"{sentence(config)} Differences are paired over the images, in percentage points; better "
        "and worse: p < 0.05 in McNemar's exact test. Train images: boxed images that the method "
        "learned from; thresholds, ridges, weights and size factors are chosen on validation. "
        "ms/image: from the file to the box, one process with one thread, medians of "
        f"{config.compare.speed_rounds} interleaved rounds. Paper: Ebrahimpour & Noelle, Table 1, "
        "their images and protocol. The class is known to the class's mean box and to "
        "co-localization whatever the maps are of. Ceilings read the test image's own box."
    )


def markdown(
    made: pa.Table,
    groups: pa.Table,
    labels: pa.Table,
    unseen: pa.Table,
    recall: Mapping[str, float],
    config: Config,
) -> str:
    """``compare/table.md``: the table, the protocol's columns, the breakdowns."""
    rows = made.to_pylist()
    plain = [row for row in rows if _plain(row["method"])]
    n = rows[0]["n_images"]
    sections = [
        f"# {config.name}: every method on the same {n:,} test images",
        grid([MAIN, *main_lines(rows)]),
        notes(config),
        "## The same under other protocols",
        grid([["method", *PROTOCOL], *protocol_lines(plain)]),
        protocol_notes(rows[0]["n_single"]),
        "## By the size of the largest object",
        _pivot(plain, groups, "area", AREA_GROUPS),
        "## By what the classifier says, and by source",
        _pivot(plain, groups, "recognised", ("recognised", "not recognised")),
        _pivot(plain, groups, "source", sorted(set(_of(groups, "source")["group"].to_pylist()))),
        "## Label efficiency",
        _labels(labels),
        "At most so many boxed images per class to learn from, and as many again to choose the "
        "ridge and the size factors by; mean over draws, lowest and highest in brackets.",
    ]
    if len(unseen):
        sections += [
            "## Unseen classes",
            grid([UNSEEN, *unseen_lines(unseen)]),
            "Learned on one half of the classes and tested on the same half (seen) or on the other "
            "(unseen), both ways.",
        ]
    if recall:
        sections += [
            "## Recall of the objectness measure's proposals",
            ", ".join(f"{value:.1f} % of the objects at {k}" for k, value in recall.items())
            + " proposals (IoU >= 0.5).",
        ]
    return "\n\n".join(sections) + "\n"


def _plain(name: str) -> bool:
    """Does the method stand in the smaller tables? Of the calibrated, only the method itself."""
    return name in (catalogue.base(name), REFERENCE + catalogue.CALIBRATED)


def _of(groups: pa.Table, by: str) -> pa.Table:
    return groups.filter(pc.equal(groups["by"], by))


def _pivot(
    rows: Sequence[Mapping[str, Any]], groups: pa.Table, by: str, names: Sequence[str]
) -> str:
    cells = {(row["method"], row["group"]): row for row in _of(groups, by).to_pylist()}
    some = rows[0]["method"]
    counts = [cells[some, name]["n_images"] if (some, name) in cells else 0 for name in names]
    header = ["method", *(f"{name} ({n:,})" for name, n in zip(names, counts, strict=True))]
    body = [
        [
            row["title"],
            *(
                _number(cells.get((row["method"], name), {"corloc": None})["corloc"])
                for name in names
            ),
        ]
        for row in rows
    ]
    return grid([header, *body])


def label_spans(labels: pa.Table) -> list[dict[str, Any]]:
    """Of the label efficiency's draws, a row per method and images per class.

    Returns:
        method (its title), per_class, n (boxed train images, mean), corloc (mean), low, high.
    """
    drawn: dict[tuple[str, int | None], list[Mapping[str, Any]]] = {}
    for row in labels.to_pylist():
        drawn.setdefault((row["method"], row["per_class"]), []).append(row)
    return [
        {
            "method": catalogue.title(method),
            "per_class": per_class,
            "n": round(mean(row["n_train"] for row in rows)),
            "corloc": mean(row["corloc"] for row in rows),
            "low": min(row["corloc"] for row in rows),
            "high": max(row["corloc"] for row in rows),
        }
        for (method, per_class), rows in drawn.items()
    ]


def _labels(labels: pa.Table) -> str:
    spans = label_spans(labels)
    counts = dict.fromkeys(row["per_class"] for row in spans)
    header = ["method", *(f"{k:,}" if k else "all" for k in counts)]
    body: dict[str, list[str]] = {}
    for row in spans:
        cells = body.setdefault(row["method"], [row["method"]])
        cells.append(_interval(row, "corloc", "low", "high"))
    return grid([header, *body.values()])


UNSEEN = ("method", "seen %", "unseen %", "unseen - seen", "verdict")


def unseen_lines(unseen: pa.Table) -> list[list[str]]:
    """The cells of ``UNSEEN``."""
    return [
        [
            catalogue.title(row["method"]),
            _number(row["seen"]),
            _number(row["unseen"]),
            _interval(row, "difference", "low", "high", "+"),
            row["verdict"],
        ]
        for row in unseen.to_pylist()
    ]
