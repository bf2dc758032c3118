"""How often each method is right, in all and by groups of images: percentages with intervals.

Which images count, and what is right, ``counts`` says.
"""

from collections.abc import Iterable, Mapping
from dataclasses import astuple
from typing import Any

import numpy as np
import pyarrow as pa

from sensloc.scoring import counts
from sensloc.scoring.corloc import class_mean, share
from sensloc.scoring.paired import Judged, table_of

ACCURACY = pa.schema(
    [
        ("method", pa.string()),
        ("n_images", pa.int64()),
        ("n_errors", pa.int64()),  # of them without a box: wrong
        ("n_correct", pa.int64()),  # iou >= threshold with any box of the image
        ("corloc", pa.float64()),  # percent, as all below
        ("ci_low", pa.float64()),  # 2.5 % of the bootstrap over images
        ("ci_high", pa.float64()),  # 97.5 %
        ("class_mean", pa.float64()),  # the mean over classes of their CorLoc
        ("class_mean_low", pa.float64()),
        ("class_mean_high", pa.float64()),
        ("corloc_30", pa.float64()),  # at IoU 0.3
        ("corloc_70", pa.float64()),  # at IoU 0.7
        ("corloc_mean", pa.float64()),  # of IoU 0.3, 0.5 and 0.7
        ("largest", pa.float64()),  # against the image's largest box alone
        ("n_single", pa.int64()),  # images with one box
        ("single", pa.float64()),  # over these; null where there are none
        ("top1", pa.float64()),  # right box, and the classifier is right too
    ]
)
"""One row per method."""

BREAKDOWN = pa.schema(
    [
        ("method", pa.string()),
        ("by", pa.string()),  # area, recognised, source, class: see counts
        ("group", pa.string()),  # the wnid where by is class
        ("class_name", pa.string()),  # null unless by is class
        ("n_images", pa.int64()),
        ("n_correct", pa.int64()),
        ("corloc", pa.float64()),  # percent
        ("ci_low", pa.float64()),
        ("ci_high", pa.float64()),
    ]
)
"""One row per method and group; a group without images has none."""


def accuracy(judged: Judged, resamplings: int, seed: int, threshold: float = 0.5) -> pa.Table:
    """Return the table ``ACCURACY``, methods in order; ``corloc_*`` have IoUs of their own."""
    table = judged.counts(threshold)
    names = ("all", "class", "boxes", "threshold", "largest", "recognised")
    by = {name: counts.groups(table, name) for name in names}

    def row(method: str) -> tuple[Any, ...]:
        over, classes = by["all"][method]["all"], by["class"][method]
        n, correct = over["n_images"], over["n_correct"]
        per_class = [classes[wnid]["n_correct"] for wnid in sorted(classes)]
        images = [classes[wnid]["n_images"] for wnid in sorted(classes)]
        at = [_percent(by["threshold"][method][f"{t:g}"]) for t in counts.THRESHOLDS]
        single = by["boxes"][method].get("single")
        both = by["recognised"][method].get("recognised", {"n_correct": 0})["n_correct"]
        return (
            *(method, n, over["n_errors"], correct),
            *astuple(share(correct, n, resamplings, seed)),
            *astuple(class_mean(per_class, images, resamplings, seed)),
            *(at[0], at[-1], float(np.mean(at)), _percent(by["largest"][method]["all"])),
            *((single["n_images"], _percent(single)) if single else (0, None)),
            100 * (both / n),
        )

    return table_of(map(row, judged.methods), ACCURACY)


def _percent(group: Mapping[str, Any]) -> float:
    """Return the CorLoc of a group of the counts, in percent."""
    return 100 * float(group["n_correct"] / group["n_images"])


def breakdown(judged: Judged, resamplings: int, seed: int, threshold: float = 0.5) -> pa.Table:
    """Return the table ``BREAKDOWN``: by object area, classifier right or wrong, source, class."""
    return by_groups(judged.counts(threshold), judged.methods, resamplings, seed)


def by_groups(table: pa.Table, methods: Iterable[str], resamplings: int, seed: int) -> pa.Table:
    """Return ``BREAKDOWN`` of methods that need not be judged on the same images.

    Args:
        table: The counts, see ``counts``.
        methods: In the order of the rows.
        resamplings: Those of the bootstrap.
        seed: That of the bootstrap.
    """
    rows = []
    orders = {"area": counts.AREA_GROUPS, "recognised": counts.RECOGNISED}
    by_kind = {by: counts.groups(table, by) for by in ("area", "recognised", "source", "class")}
    for method in methods:
        for by, kinds in by_kind.items():
            there = kinds[method]
            for name in orders.get(by, sorted(there)):
                if name in there:
                    n, k = there[name]["n_images"], there[name]["n_correct"]
                    interval = astuple(share(k, n, resamplings, seed))
                    rows.append((method, by, name, there[name]["class_name"], n, k, *interval))
    return table_of(rows, BREAKDOWN)
