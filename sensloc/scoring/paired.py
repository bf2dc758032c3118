"""The protocol: every method judged on the same images, and what may be said of their differences.

All results are percentages over images. An image for which a method gave no box counts as wrong.
"""

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import binomtest

from sensloc.scoring.corloc import Floats, class_mean, share

Bools = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]
Verdict = Literal["better", "worse", "not separable"]

AREAS = (0, 0.1, 0.25, 0.5, 1)
"""Edges of the area groups, as shares of the image; a lower edge belongs to its group."""

AREA_GROUPS = ("under 10 %", "10 to 25 %", "25 to 50 %", "over 50 %")

THRESHOLDS = (0.3, 0.5, 0.7)
"""What ``corloc_mean`` is the mean over."""

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

DIFFERENCES = pa.schema(
    [
        ("method", pa.string()),
        ("reference", pa.string()),
        ("difference", pa.float64()),  # CorLoc of method - of reference, percentage points
        ("low", pa.float64()),  # 2.5 % of the paired bootstrap over images
        ("high", pa.float64()),  # 97.5 %
        ("only_method", pa.int64()),  # images that only the method gets right
        ("only_reference", pa.int64()),  # images that only the reference gets right
        ("p", pa.float64()),  # McNemar's exact test, of this pair alone
        ("verdict", pa.string()),  # better or worse where p < 0.05, else not separable
    ]
)
"""One row per pair of methods."""

BREAKDOWN = pa.schema(
    [
        ("method", pa.string()),
        ("by", pa.string()),  # area, recognised, source, class
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


@dataclass(frozen=True)
class Judged:
    """M methods on the same n >= 1 test images, in the order of their image_id."""

    methods: tuple[str, ...]
    image_id: Names  # [n]
    wnid: Names  # [n]
    class_name: Names  # [n]
    source: Names  # [n]: layout and part
    n_boxes: npt.NDArray[np.int64]  # [n]: ground-truth boxes
    area: Floats  # [n]: the share of the image that its largest ground-truth box covers
    recognised: Bools  # [n]: the classifier's prediction is the annotated class
    iou: npt.NDArray[np.float32]  # [M, n]: best over the image's boxes; nan where no box was given
    iou_largest: npt.NDArray[np.float32]  # [M, n]: with its largest box; nan likewise

    @classmethod
    def from_table(cls, rows: pa.Table, methods: Sequence[str]) -> "Judged":
        """Align the methods' rows; leave out the images for which every one has an error.

        Args:
            rows: image_id, wnid, class_name, source, method, iou, iou_largest, n_boxes, area,
                recognised, error: one row per image and method, in any order. Where ``error`` is
                set, the numbers may be null.
            methods: which to take, at least one.

        Raises:
            ValueError: an image twice, or not the same images for every method, or none left.
        """
        parts = [
            rows.filter(pc.equal(rows["method"], method)).sort_by("image_id") for method in methods
        ]
        _refuse_unaligned([_names(part, "image_id") for part in parts], methods)
        failed = np.stack([part["error"].is_valid().to_numpy() for part in parts])
        taken = np.asarray(~failed.all(axis=0))
        if not taken.any():
            raise ValueError("no test image without an error")
        iou, largest = (
            np.where(failed, np.nan, _numbers(parts, name))[:, taken].astype(np.float32)
            for name in ("iou", "iou_largest")
        )
        knows = np.argmin(failed, axis=0), np.arange(len(taken))  # the first without an error
        n_boxes, area, recognised = (
            _numbers(parts, name)[knows][taken] for name in ("n_boxes", "area", "recognised")
        )
        return cls(
            methods=tuple(methods),
            image_id=_names(parts[0], "image_id")[taken],
            wnid=_names(parts[0], "wnid")[taken],
            class_name=_names(parts[0], "class_name")[taken],
            source=_names(parts[0], "source")[taken],
            n_boxes=n_boxes.astype(np.int64),
            area=area,
            recognised=recognised == 1,
            iou=iou,
            iou_largest=largest,
        )

    def right(self, threshold: float = 0.5) -> Bools:
        """[M, n]: IoU at least the threshold, as float32 has it, with any box of the image."""
        return np.asarray(self.iou >= np.float32(threshold))


def _refuse_unaligned(ids: Sequence[Names], methods: Sequence[str]) -> None:
    for method, mine in zip(methods, ids, strict=True):
        for image in mine[1:][mine[1:] == mine[:-1]]:
            raise ValueError(f"{method}: image {image} has more than one row")
        for image in np.setxor1d(ids[0], mine):
            lacks = method if image in ids[0] else methods[0]
            raise ValueError(f"{method} and {methods[0]}: {lacks} has no row of image {image}")


def _names(rows: pa.Table, column: str) -> Names:
    return np.array(pc.fill_null(rows[column], "").to_pylist(), dtype=np.str_)


def _numbers(parts: Sequence[pa.Table], column: str) -> Floats:
    """float64 [M, n], nan for null."""
    return np.stack([pc.cast(part[column], pa.float64()).to_numpy() for part in parts])


def _table(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Rows with their values in the schema's order."""
    return pa.Table.from_pylist([dict(zip(schema.names, r, strict=True)) for r in rows], schema)


def accuracy(j: Judged, resamplings: int, seed: int, threshold: float = 0.5) -> pa.Table:
    """The table ``ACCURACY``, methods in order; ``threshold`` is that of all but ``corloc_*``."""
    classes, owner = np.unique(j.wnid, return_inverse=True)
    images, single = np.bincount(owner).tolist(), j.n_boxes == 1
    at = np.stack([100 * j.right(t).mean(1) for t in THRESHOLDS])
    largest = 100 * (j.iou_largest >= np.float32(threshold)).mean(1)

    def row(m: int, right: Bools) -> tuple[Any, ...]:
        correct = np.bincount(owner[right], minlength=len(classes)).tolist()
        return (
            *(j.methods[m], len(right), int(np.isnan(j.iou[m]).sum()), sum(correct)),
            *astuple(share(sum(correct), len(right), resamplings, seed)),
            *astuple(class_mean(correct, images, resamplings, seed)),
            *(at[0, m], at[-1, m], at[:, m].mean(), largest[m], int(single.sum())),
            100 * right[single].mean() if single.any() else None,
            100 * (right & j.recognised).mean(),
        )

    return _table((row(m, right) for m, right in enumerate(j.right(threshold))), ACCURACY)


@dataclass(frozen=True)
class Difference:
    """A difference in percentage points, its 95 % interval, and the p-value of McNemar's test."""

    value: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> Verdict:
        """Plain words for p < 0.05 (of this pair alone: no correction for many pairs)."""
        if self.p >= 0.05:
            return "not separable"
        return "better" if self.value > 0 else "worse"


def difference(a_right: Bools, b_right: Bools, resamplings: int, seed: int) -> Difference:
    """CorLoc of a - of b, with a paired bootstrap over images; exactly -difference(b, a).

    To resample n images and count those that only a, only b, or both or neither get right is to
    draw from the multinomial distribution of these three counts: no image is touched. With few
    images that differ this interval is too short, so the verdict rests on McNemar's exact test.

    Args:
        a_right: [n], n >= 1.
        b_right: [n], the same images.
        resamplings: of the bootstrap.
        seed: of the bootstrap.
    """
    n = len(a_right)
    only_a, only_b = int((a_right & ~b_right).sum()), int((b_right & ~a_right).sum())
    more, fewer = max(only_a, only_b), min(only_a, only_b)
    shares = np.array([more, fewer, n - more - fewer]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, resamplings)
    low, high = 100 / n * np.percentile(draws[:, 0] - draws[:, 1], [2.5, 97.5])
    if only_a == only_b:  # the distribution is symmetric, and so is its interval
        low, high = (low - high) / 2, (high - low) / 2
    elif only_a < only_b:
        low, high = 0 - high, 0 - low
    p = binomtest(more, more + fewer).pvalue if more else 1.0
    return Difference(100 * (only_a - only_b) / n, float(low), float(high), float(p))


def differences(
    j: Judged, reference: str, resamplings: int, seed: int, threshold: float = 0.5
) -> pa.Table:
    """The table ``DIFFERENCES``: every other method against one of them.

    Raises:
        ValueError: the reference is not among the methods.
    """
    if reference not in j.methods:
        raise ValueError(f"reference {reference} is not one of {', '.join(j.methods)}")
    b = j.methods.index(reference)
    pairs = [(a, b) for a in range(len(j.methods)) if a != b]
    return _compared(j, pairs, resamplings, seed, threshold)


def all_differences(j: Judged, resamplings: int, seed: int, threshold: float = 0.5) -> pa.Table:
    """The table ``DIFFERENCES``: every method against every later one."""
    pairs = [(a, b) for a in range(len(j.methods)) for b in range(a + 1, len(j.methods))]
    return _compared(j, pairs, resamplings, seed, threshold)


def _compared(
    j: Judged, pairs: Iterable[tuple[int, int]], resamplings: int, seed: int, threshold: float
) -> pa.Table:
    right = j.right(threshold)

    def row(a: int, b: int) -> tuple[Any, ...]:
        one = difference(right[a], right[b], resamplings, seed)
        only_a, only_b = (right[a] & ~right[b]).sum(), (right[b] & ~right[a]).sum()
        counts = int(only_a), int(only_b)
        return (
            *(j.methods[a], j.methods[b], one.value, one.low, one.high),
            *(*counts, one.p, one.verdict),
        )

    return _table((row(a, b) for a, b in pairs), DIFFERENCES)


def _groups(j: Judged) -> dict[str, tuple[Sequence[str], npt.NDArray[np.int64]]]:
    """Per ``by``: the names of its groups, and each image's group [n]."""
    sources, source = np.unique(j.source, return_inverse=True)
    wnids, wnid = np.unique(j.wnid, return_inverse=True)
    return {
        "area": (AREA_GROUPS, np.digitize(j.area, AREAS[1:-1])),
        "recognised": (("recognised", "not recognised"), np.where(j.recognised, 0, 1)),
        "source": (sources.tolist(), source),
        "class": (wnids.tolist(), wnid),
    }


def breakdown(j: Judged, resamplings: int, seed: int, threshold: float = 0.5) -> pa.Table:
    """The table ``BREAKDOWN``: by object area, classifier right or wrong, source and class."""
    class_name = dict(zip(j.wnid.tolist(), j.class_name.tolist(), strict=True))
    rows = []
    for method, right in zip(j.methods, j.right(threshold), strict=True):
        for by, (names, owner) in _groups(j).items():
            images = np.bincount(owner, minlength=len(names)).tolist()
            correct = np.bincount(owner[right], minlength=len(names)).tolist()
            for name, n, k in zip(names, images, correct, strict=True):
                if n:
                    one = astuple(share(k, n, resamplings, seed))
                    called = class_name[name] if by == "class" else None
                    rows.append((method, by, name, called, n, k, *one))
    return _table(rows, BREAKDOWN)


def iou_curve(j: Judged, thresholds: Sequence[float]) -> Floats:
    """Percent of images with iou >= each of the t thresholds: [M, t]."""
    return np.stack([100 * j.right(t).mean(1) for t in thresholds], axis=1)
