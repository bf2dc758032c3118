"""What is learned from less: from a few boxes per class, and from other classes."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.comparison.less_foreground import foregrounds
from sensloc.comparison.subsets import Learned, Subset, subsets_of
from sensloc.config import Evaluate
from sensloc.engine.cluster import over_files
from sensloc.methods import catalogue
from sensloc.methods.constant import ConstantBox
from sensloc.methods.linear import LinearBox, features
from sensloc.rows import true_boxes
from sensloc.scoring import corloc
from sensloc.scoring.paired import difference
from sensloc.stages.fit import fit_linear, fitted_methods
from sensloc.store.run import RunDir

LINEAR = (catalogue.MEAN_BOX, catalogue.MAIN, catalogue.CALIBRATED_MAIN)
"""What each subset teaches: its mean box, and its linear map, plain and calibrated."""

LABELS = pa.schema(
    [
        ("method", pa.string()),
        ("per_class", pa.int64()),  # boxed images of a class at most; null: all there are
        ("draw", pa.int64()),
        ("n_train", pa.int64()),
        ("n_validation", pa.int64()),
        ("n_images", pa.int64()),  # test images
        ("n_correct", pa.int64()),
        ("corloc", pa.float64()),  # percent
    ]
)
"""Label efficiency: the validation set that everything is chosen by is as small."""

UNSEEN = pa.schema(
    [
        ("method", pa.string()),
        ("tested_on", pa.string()),  # "both" groups of the classes, the "first" or the "second"
        ("n_images", pa.int64()),  # their test images
        ("seen", pa.float64()),  # CorLoc in percent, learned on the image's own group
        ("unseen", pa.float64()),  # learned on the other group
        ("difference", pa.float64()),  # unseen - seen, percentage points, with its interval
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("p", pa.float64()),  # McNemar's exact test
        ("verdict", pa.string()),
    ]
)
"""Learned on one group of the classes, tested on the other, and back."""


def label_efficiency_and_unseen(run: RunDir) -> tuple[pa.Table, pa.Table]:
    """Return the tables ``LABELS`` and ``UNSEEN`` of the run's test set."""
    curve, groups = subsets_of(run)
    families = [_linear(run, [*curve, *groups])]
    if catalogue.FOREGROUND in run.config.compared:
        families.append(foregrounds(run, curve, groups))
    labels = [
        {
            "method": method,
            "per_class": subset.per_class,
            "draw": subset.draw,
            "n_train": size[0],
            "n_validation": size[1],
            "n_images": family.right.shape[2],
            "n_correct": int(right.sum()),
            "corloc": 100 * float(right.mean()),
        }
        for family in families
        for subset, size, rights in zip(curve, family.sizes, family.right, strict=False)
        if size is not None
        for method, right in zip(family.methods, rights, strict=True)
    ]
    unseen = [
        row
        for family in families
        if groups and None not in family.sizes[-2:]
        for row in _unseen(family, groups[0], run.config.evaluate)
    ]
    return pa.Table.from_pylist(labels, LABELS), pa.Table.from_pylist(unseen, UNSEEN)


def _unseen(family: Learned, group: Subset, config: Evaluate) -> Iterator[dict[str, Any]]:
    """Yield the rows of ``UNSEEN``, given the first group; the last two subsets are the groups."""
    first = np.isin(family.wnid, list(group.limits["train"]))
    tested = {"both": np.ones_like(first), "first": first, "second": ~first}
    for method, (by_first, by_second) in zip(
        family.methods, family.right[-2:].swapaxes(0, 1), strict=True
    ):
        seen, unseen = np.where(first, by_first, by_second), np.where(first, by_second, by_first)
        for name, at in tested.items():
            if not at.any():
                continue
            gap = difference(unseen[at], seen[at], config.bootstrap, config.seed)
            yield {
                "method": method,
                "tested_on": name,
                "n_images": int(at.sum()),
                "seen": 100 * float(seen[at].mean()),
                "unseen": 100 * float(unseen[at].mean()),
                "difference": gap.value,
                "low": gap.low,
                "high": gap.high,
                "p": gap.p,
                "verdict": gap.verdict,
            }


# --------------------------------------------------------------------------- the linear map


def _linear(run: RunDir, subsets: Sequence[Subset]) -> Learned:
    """Return what each subset teaches the run's linear map."""
    columns = fitted_methods(run)[catalogue.MAIN].reads
    learned = fit_linear(run, "sensitivity", columns, subsets)
    methods = [(fit.mean, fit.plain, fit.calibrated) for fit in learned]
    read, iou = ["wnid", "boxes", *columns], run.config.evaluate.iou
    parts = over_files(run, "sensitivity", read, _judge, methods, iou, split="test")
    rights, wnids = zip(*parts, strict=True)
    sizes = [(fit.sums.n, fit.n_validation) for fit in learned]
    return Learned(LINEAR, sizes, np.concatenate(rights, axis=2), np.concatenate(wnids))


def _judge(
    rows: pa.Table, methods: Sequence[tuple[ConstantBox, LinearBox, LinearBox]], iou: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.str_]]:
    """Return which of n images the methods of s subsets get right, bool [s, 3, n], and classes.

    Args:
        rows: Test rows.
        methods: [s] Those of each subset, ``LINEAR``; the linear ones read the same features.
        iou: The IoU from which a box is right.
    """
    plain = methods[0][1]
    x = features(rows, plain.normalise, plain.columns)
    boxes = np.stack(
        [[mean.predict(rows), *(box.of(x) for box in pair)] for mean, *pair in methods]
    )
    right = np.zeros(boxes.shape[:-1], bool)
    if len(rows):
        right = corloc.best_iou(boxes, true_boxes(rows)) >= iou
    return right, np.array(rows["wnid"].to_pylist(), dtype=np.str_)
