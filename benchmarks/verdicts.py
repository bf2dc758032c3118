"""What choices are worth: each one's boxes beside the first one's, on the same images."""

from collections.abc import Mapping, Sequence
from typing import Any

from sensloc.boxes import Boxes
from sensloc.report.text import Columns, aligned, interval, number, table_lines
from sensloc.scoring import corloc
from sensloc.scoring.paired import difference
from sensloc.store.run import RunDir

SHOWN: Columns = {
    "choice": lambda row: row["choice"],
    "CorLoc %": number("at_50"),
    "more": interval("more_50", "low_50", "high_50", "+"),
    "IoU >= 0.7": number("at_70"),
    "more ": interval("more_70", "low_70", "high_70", "+"),
}


def judged(run: RunDir, found: Mapping[str, Boxes], truth: Sequence[Boxes]) -> list[dict[str, Any]]:
    """Return each choice's CorLoc and how much more it is than the first one's, by interval."""
    config, rows = run.config.evaluate, []
    ious = {name: corloc.best_iou(boxes, truth) for name, boxes in found.items()}
    first = next(iter(ious.values()))
    for name, iou in ious.items():
        row: dict[str, Any] = {"choice": name}
        for percent in (50, 70):
            right, reference = iou >= percent / 100, first >= percent / 100
            gap = difference(right, reference, config.bootstrap, config.seed)
            row |= {f"at_{percent}": 100 * float(right.mean()), f"more_{percent}": gap.value}
            row |= {f"low_{percent}": gap.low, f"high_{percent}": gap.high}
        rows.append(row)
    return rows


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of ``judged`` for a terminal."""
    return aligned(table_lines(SHOWN, rows))
