"""The comparison's table: each method's CorLoc, and what may be said of it beside the paper's."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from sensloc.config import Evaluate
from sensloc.methods import catalogue
from sensloc.scoring import corloc, paired
from sensloc.scoring.accuracy import ACCURACY, accuracy

METHODS = pa.schema(
    [
        *ACCURACY,
        ("title", pa.string()),
        ("headroom", pa.float64()),  # percent of the way from the tuned constant box to 100
        ("n_train", pa.int64()),  # boxed images that it learned from; null: none
        ("reference", pa.string()),  # what it is compared with, on the same images
        ("difference", pa.float64()),  # percentage points, method - reference
        ("difference_low", pa.float64()),  # 2.5 % of the paired bootstrap
        ("difference_high", pa.float64()),
        ("p", pa.float64()),  # McNemar's exact test of this pair alone
        ("verdict", pa.string()),  # better or worse where p < 0.05, else not separable
        ("max_box_acc_v2", pa.float64()),  # of heat maps: best thresholds on these images
        ("ms_per_image", pa.float64()),  # file to box; null: reads the truth, or not timed
        ("paper", pa.float64()),  # Ebrahimpour & Noelle, Table 1: their images, their protocol
    ]
)
"""One row per method."""


def methods_table(
    judged: paired.Judged,
    chosen: Mapping[str, Mapping[str, Any]],
    max_box_acc: Mapping[str, float],
    ms: Mapping[str, float],
    config: Evaluate,
) -> pa.Table:
    """Return one row of ``METHODS`` per method.

    Args:
        judged: the test images.
        chosen: what each method learned; ``n_train`` is read.
        max_box_acc: MaxBoxAccV2 in percent, of the methods that have one.
        ms: milliseconds per image, of the methods that were timed.
        config: the threshold of IoU, and the bootstrap.
    """
    resampling = (config.bootstrap, config.seed, config.iou)
    reference = catalogue.MAIN
    if reference not in judged.methods:
        reference = judged.methods[0]
    difference = {
        row["method"]: row | {"difference_low": row["low"], "difference_high": row["high"]}
        for row in paired.differences(judged, reference, *resampling).to_pylist()
    }
    judged_rows = accuracy(judged, *resampling).to_pylist()
    constant = {row["method"]: row["corloc"] for row in judged_rows}.get(catalogue.TUNED_BOX)
    rows = [
        row
        | difference.get(row["method"], {})
        | {
            "title": catalogue.title(row["method"]),
            "headroom": corloc.headroom(row["corloc"], constant),
            "n_train": chosen[row["method"]].get("n_train"),
            "max_box_acc_v2": max_box_acc.get(row["method"]),
            "ms_per_image": None if _told_truth(row["method"]) else ms.get(row["method"]),
            "paper": catalogue.PAPER.get(row["method"]),
        }
        for row in judged_rows
    ]
    return pa.Table.from_pylist(rows, METHODS)


def _told_truth(method: str) -> bool:
    return catalogue.entry(method).told == "truth"
