"""The run's linear map learned from less: from a few boxes per class, and from other classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.config import Evaluate
from sensloc.dice import key, keys
from sensloc.engine.cluster import over_files
from sensloc.methods import catalogue
from sensloc.methods.constant import ConstantBox
from sensloc.methods.linear import LinearBox, features
from sensloc.rows import true_boxes
from sensloc.scoring import corloc
from sensloc.scoring.paired import difference
from sensloc.stages.fit import fit_linear, fitted_methods
from sensloc.store.run import RunDir

KINDS = (catalogue.MEAN_BOX, catalogue.MAIN, catalogue.CALIBRATED_MAIN)
"""What each subset teaches: its mean box, and its linear map, plain and calibrated."""

NONE, ALL = -1, 2**64 - 1
"""Limits of a hash that no image and that every image is within."""

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
"""Label efficiency: the validation set that chooses the ridge and the factors is as small."""

UNSEEN = pa.schema(
    [
        ("method", pa.string()),
        ("n_images", pa.int64()),  # test images, of both halves of the classes
        ("seen", pa.float64()),  # CorLoc in percent, learned on the image's own half
        ("unseen", pa.float64()),  # learned on the other half
        ("difference", pa.float64()),  # unseen - seen, percentage points, with its interval
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("p", pa.float64()),  # McNemar's exact test
        ("verdict", pa.string()),
    ]
)
"""Learned on one half of the classes, tested on the other, and back."""


@dataclass(frozen=True)
class Subset:
    """Some of the train and of the validation images: a ``sensloc.stages.fit.Subset``.

    Attributes:
        seed: The seed of the hash of an image's id.
        limits: By split and wnid, the largest hash that takes part.
    """

    seed: int
    limits: Mapping[str, Mapping[str, int]]

    def __call__(self, rows: pa.Table, split: str) -> npt.NDArray[np.bool_]:
        """Return which of n rows of a split take part: bool [n]."""
        limits = self.limits[split]
        hashes = [key(name, self.seed) for name in rows["image_id"].to_pylist()]
        wnids = rows["wnid"].to_pylist()
        return np.array(
            [h <= limits.get(wnid, NONE) for h, wnid in zip(hashes, wnids, strict=True)], bool
        )


def subsets_of(run: RunDir) -> tuple[list[tuple[int | None, int, Subset]], list[Subset]]:
    """Return the subsets of the label-efficiency curve, and the two halves of the classes.

    Returns:
        Images per class (None: all there are), number of the draw, and subset; and the halves,
        which a single class does not have.
    """
    config = run.config.compare
    split_ids = {split: _ids(run, split) for split in ("train", "validation")}
    counts: list[tuple[int | None, int, Subset]] = []
    for draw in range(config.label_draws):
        seed = config.seed + draw
        ranked = {
            split: {wnid: np.sort(keys(ids, seed)) for wnid, ids in by_class.items()}
            for split, by_class in split_ids.items()
        }
        for k in config.label_counts:
            limits = {
                split: {wnid: int(hashes[:k][-1]) for wnid, hashes in by_class.items()}
                for split, by_class in ranked.items()
            }
            counts.append((k, draw, Subset(seed, limits)))
    wnids = sorted(split_ids["train"], key=lambda wnid: key(wnid, config.seed))
    half = set(wnids[::2])

    def whole(classes: set[str]) -> Subset:
        return Subset(config.seed, dict.fromkeys(split_ids, dict.fromkeys(classes, ALL)))

    counts.append((None, 0, whole(set(wnids) | set(split_ids["validation"]))))
    return counts, [whole(half), whole(set(wnids) - half)] if len(wnids) > 1 else []


def _ids(run: RunDir, split: str) -> dict[str, list[str]]:
    """Return the image ids of each class of a split."""
    by_class: dict[str, list[str]] = {}
    columns = ["image_id", "wnid"]
    for part in over_files(run, "sensitivity", columns, pa.Table.to_pylist, split=split):
        for row in part:
            by_class.setdefault(row["wnid"], []).append(row["image_id"])
    return by_class


# --------------------------------------------------------------------------- the two tables


def label_efficiency_and_unseen(run: RunDir) -> tuple[pa.Table, pa.Table]:
    """Return the tables ``LABELS`` and ``UNSEEN`` of the run's test set."""
    columns = fitted_methods(run)[catalogue.MAIN].reads
    counts, halves = subsets_of(run)
    learned = fit_linear(run, "sensitivity", columns, [subset for *_, subset in counts] + halves)
    methods = [(fit.mean, fit.plain, fit.calibrated) for fit in learned]
    read, iou = ["wnid", "boxes", *columns], run.config.evaluate.iou
    parts = over_files(run, "sensitivity", read, _judge, methods, iou, split="test")
    rights, wnids = zip(*parts, strict=True)
    right, wnid = np.concatenate(rights, axis=2), np.concatenate(wnids)
    labels = [
        {
            "method": kind,
            "per_class": k,
            "draw": draw,
            "n_train": learned[i].sums.n,
            "n_validation": learned[i].n_validation,
            "n_images": right.shape[2],
            "n_correct": int(right[i, j].sum()),
            "corloc": 100 * float(right[i, j].mean()),
        }
        for i, (k, draw, _) in enumerate(counts)
        for j, kind in enumerate(KINDS)
    ]
    unseen = _unseen(right[-2:], wnid, halves[0], run.config.evaluate) if halves else []
    return pa.Table.from_pylist(labels, LABELS), pa.Table.from_pylist(unseen, UNSEEN)


def _unseen(
    right: npt.NDArray[np.bool_], wnid: npt.NDArray[np.str_], half: Subset, config: Evaluate
) -> list[dict[str, Any]]:
    """Return the rows of ``UNSEEN``.

    Args:
        right: [2, 3, n] The images that the maps of the two halves get right, for each of KINDS.
        wnid: [n] Their classes.
        half: The first half.
        config: The bootstrap's.
    """
    first = np.isin(wnid, list(half.limits["train"]))
    rows = []
    for kind, (by_first, by_second) in zip(KINDS, right.swapaxes(0, 1), strict=True):
        seen, unseen = np.where(first, by_first, by_second), np.where(first, by_second, by_first)
        gap = difference(unseen, seen, config.bootstrap, config.seed)
        rows.append(
            {
                "method": kind,
                "n_images": len(seen),
                "seen": 100 * float(seen.mean()),
                "unseen": 100 * float(unseen.mean()),
                "difference": gap.value,
                "low": gap.low,
                "high": gap.high,
                "p": gap.p,
                "verdict": gap.verdict,
            }
        )
    return rows


def _judge(
    rows: pa.Table, methods: Sequence[tuple[ConstantBox, LinearBox, LinearBox]], iou: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.str_]]:
    """Return which of n images the methods of s subsets get right, bool [s, 3, n], and classes.

    Args:
        rows: Test rows.
        methods: [s] Those of each subset, ``KINDS``; the linear ones read the same features.
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
