"""Every method judged on the same images, and what may be said of their differences.

All results are percentages over images; which images count, and what is right, ``counts`` says.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.scoring import counts
from sensloc.scoring.corloc import Floats

Bools = npt.NDArray[np.bool_]
Names = npt.NDArray[np.str_]
Verdict = Literal["better", "worse", "not separable"]

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


@dataclass(frozen=True)
class Judged:
    """M methods on the same n >= 1 test images.

    Attributes:
        methods: Their names, M of them.
        image_id: [n] Ascending.
        wnid: [n]
        class_name: [n]
        source: [n] Layout and part.
        n_boxes: [n] The number of ground-truth boxes.
        area: [n] The share of the image that its largest ground-truth box covers.
        recognised: [n] Whether the classifier's prediction is the annotated class.
        iou: [M, n] The best over the image's boxes; nan where no box was given.
        iou_largest: [M, n] That with its largest box; nan likewise.
    """

    methods: tuple[str, ...]
    image_id: Names
    wnid: Names
    class_name: Names
    source: Names
    n_boxes: npt.NDArray[np.int64]
    area: Floats
    recognised: Bools
    iou: npt.NDArray[np.float32]
    iou_largest: npt.NDArray[np.float32]

    @classmethod
    def from_table(cls, rows: pa.Table, methods: Sequence[str]) -> "Judged":
        """Align the methods' rows; leave out the images that do not count, see ``counts``.

        Args:
            rows: Rows of the predictions, ``counts.COLUMNS``, image_id and error at least, in any
                order. Where ``error`` is set, the numbers may be null.
            methods: Which to take, at least one.

        Raises:
            ValueError: An image is there twice, or not the same images for every method, or none
                that counts.
        """
        parts = [
            rows.filter(pc.equal(rows["method"], method)).sort_by("image_id") for method in methods
        ]
        _refuse_unaligned([_names(part, "image_id") for part in parts], methods)
        failed = np.stack([part["error"].is_valid().to_numpy() for part in parts])
        known = ~np.isnan(_numbers(parts, "area"))
        taken = np.asarray(known.any(axis=0))
        if not taken.any():
            raise ValueError("no test image without an error")
        iou, largest = (
            np.where(failed, np.nan, _numbers(parts, name))[:, taken].astype(np.float32)
            for name in ("iou", "iou_largest")
        )
        first_known = np.argmax(known, axis=0), np.arange(len(taken))
        n_boxes, area, recognised = (
            _numbers(parts, name)[first_known][taken] for name in ("n_boxes", "area", "recognised")
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
        """Return where the IoU is at least the threshold, as float32 has it: [M, n]."""
        return np.asarray(self.iou >= np.float32(threshold))

    def counts(self, threshold: float = 0.5) -> pa.Table:
        """Return the table ``counts.COUNTS`` of all methods."""
        return counts.tally(self._rows(threshold), threshold)

    def _rows(self, threshold: float) -> Iterator[pa.Table]:
        """Yield each method's rows, ``counts.COLUMNS``."""
        image = {
            name: pa.array(getattr(self, name))
            for name in ("wnid", "class_name", "source", "n_boxes", "area", "recognised")
        }
        for m, right in enumerate(self.right(threshold)):
            yield pa.table(
                {
                    "method": pa.array([self.methods[m]] * len(right), pa.string()),
                    **image,
                    "iou": pa.array(self.iou[m], from_pandas=True),
                    "iou_largest": pa.array(self.iou_largest[m], from_pandas=True),
                    "correct": right,
                }
            )


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
    """Return a column of every part: float64 [M, n], nan for null."""
    return np.stack([pc.cast(part[column], pa.float64()).to_numpy() for part in parts])


def table_of(rows: Iterable[tuple[Any, ...]], schema: pa.Schema) -> pa.Table:
    """Return the table of rows whose values stand in the schema's order."""
    return pa.Table.from_pylist([dict(zip(schema.names, r, strict=True)) for r in rows], schema)


@dataclass(frozen=True)
class Difference:
    """A difference of two methods' CorLoc.

    Attributes:
        value: In percentage points.
        low: The lower end of its 95 % interval.
        high: The upper end.
        p: The p-value of McNemar's exact test.
    """

    value: float
    low: float
    high: float
    p: float

    @property
    def verdict(self) -> Verdict:
        """What p < 0.05 says in plain words; it is of this pair alone, uncorrected for many."""
        if self.p >= 0.05:
            return "not separable"
        return "better" if self.value > 0 else "worse"


def difference(a_right: Bools, b_right: Bools, resamplings: int, seed: int) -> Difference:
    """Return CorLoc of a minus that of b, with a paired bootstrap; exactly -difference(b, a).

    To resample n images and count those that only a, only b, or both or neither get right is to
    draw from the multinomial distribution of these three counts: no image is touched. With few
    images that differ this interval is too short, so the verdict rests on McNemar's exact test.

    Args:
        a_right: [n] The images that a gets right, n >= 1.
        b_right: [n] Those that b gets right, in the same order.
        resamplings: The number of resamplings of the bootstrap.
        seed: The seed of the bootstrap.
    """
    from scipy.stats import binomtest  # a second to import, for which no task of a run waits

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
    """Return the table ``DIFFERENCES``: every other method against one of them.

    Raises:
        ValueError: The reference is not among the methods.
    """
    if reference not in j.methods:
        raise ValueError(f"reference {reference} is not one of {', '.join(j.methods)}")
    b = j.methods.index(reference)
    pairs = [(a, b) for a in range(len(j.methods)) if a != b]
    return _compared(j, pairs, resamplings, seed, threshold)


def all_differences(j: Judged, resamplings: int, seed: int, threshold: float = 0.5) -> pa.Table:
    """Return the table ``DIFFERENCES``: every method against every later one."""
    pairs = [(a, b) for a in range(len(j.methods)) for b in range(a + 1, len(j.methods))]
    return _compared(j, pairs, resamplings, seed, threshold)


def _compared(
    j: Judged, pairs: Iterable[tuple[int, int]], resamplings: int, seed: int, threshold: float
) -> pa.Table:
    right = j.right(threshold)

    def row(a: int, b: int) -> tuple[Any, ...]:
        gap = difference(right[a], right[b], resamplings, seed)
        only_a, only_b = (right[a] & ~right[b]).sum(), (right[b] & ~right[a]).sum()
        return (
            *(j.methods[a], j.methods[b], gap.value, gap.low, gap.high),
            *(int(only_a), int(only_b), gap.p, gap.verdict),
        )

    return table_of((row(a, b) for a, b in pairs), DIFFERENCES)
