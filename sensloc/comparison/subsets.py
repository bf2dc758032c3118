"""The same linear map learned from less: from a few boxes per class, and from other classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.boxes import Boxes, resize, tidy
from sensloc.config import Config
from sensloc.dice import key, keys
from sensloc.engine.cluster import over_files
from sensloc.methods import constant, linear
from sensloc.methods.least_squares import LinearMap, NormalEquations
from sensloc.rows import true_boxes
from sensloc.scoring import corloc
from sensloc.scoring.paired import difference
from sensloc.store.run import RunDir

COLUMNS = ["image_id", "wnid", "map", "boxes"]
KINDS = ("constant_mean", "sensitivity", "sensitivity_calibrated")
NONE, ALL = -1, 2**64 - 1

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
    """Some of the train and of the validation images.

    Attributes:
        seed: of the hash of an image's id.
        limits: split -> wnid -> the largest hash that takes part.
    """

    seed: int
    limits: Mapping[str, Mapping[str, int]]

    def mask(self, ids: Sequence[str], wnids: Sequence[str], split: str) -> npt.NDArray[np.bool_]:
        """Which images take part: [n] and [n] -> bool [n]."""
        limits = self.limits[split]
        hashes = [key(name, self.seed) for name in ids]
        return np.array(
            [h <= limits.get(w, NONE) for h, w in zip(hashes, wnids, strict=True)], bool
        )


@dataclass(frozen=True)
class Learned:
    """What one subset teaches."""

    mean: constant.ConstantBox
    linear: LinearMap
    factors: tuple[float, float]
    n_train: int
    n_validation: int

    def predict(self, rows: pa.Table, inputs: npt.NDArray[np.float64]) -> Boxes:
        """The boxes of KINDS: [3, n, 4]."""
        raw = self.linear.predict(inputs)
        boxes = [self.mean.predict(rows), tidy(raw), tidy(resize(raw, self.factors))]
        return np.stack(boxes)


def subsets_of(run: RunDir) -> tuple[list[tuple[int | None, int, Subset]], list[Subset]]:
    """The subsets of the label-efficiency curve, (per class, draw, subset), and the two halves.

    There are no halves of a single class.
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

    def of(some: set[str]) -> Subset:
        return Subset(config.seed, dict.fromkeys(split_ids, dict.fromkeys(some, ALL)))

    counts.append((None, 0, of(set(wnids) | set(split_ids["validation"]))))
    return counts, [of(half), of(set(wnids) - half)] if len(wnids) > 1 else []


def _ids(run: RunDir, split: str) -> dict[str, list[str]]:
    """The image ids of each class of a split."""
    by_class: dict[str, list[str]] = {}
    for part in over_files(
        run, "sensitivity", ["image_id", "wnid"], pa.Table.to_pylist, split=split
    ):
        for row in part:
            by_class.setdefault(row["wnid"], []).append(row["image_id"])
    return by_class


# --------------------------------------------------------------------------- learning


def learn(run: RunDir, subsets: Sequence[Subset]) -> list[Learned]:
    """One pass over the train rows for all sums, two over the validation rows to choose."""
    config = run.config
    sums = [NormalEquations.zeros(config.sensitivity.grid**2, 4)] * len(subsets)
    for part in over_files(run, "sensitivity", COLUMNS, _sums, subsets, config, split="train"):
        sums = [total.merge(one) for total, one in zip(sums, part, strict=True)]
    paths = [one.path(config.fit.ridges) for one in sums]

    def count(maps: Sequence[Any]) -> npt.NDArray[np.int64]:
        parts = over_files(
            run, "sensitivity", COLUMNS, _count, subsets, maps, config, split="validation"
        )
        return np.asarray(sum(parts))

    by_ridge = count(paths)
    chosen = [
        path[linear.choose_ridge(config.fit.ridges, counts)]
        for path, counts in zip(paths, by_ridge[:, 1:], strict=True)
    ]
    by_size = count(chosen)
    return [
        Learned(
            constant.centre_mean(total.y / total.n),
            one,
            linear.choose_factors(config.fit.size_factors, counts[1:]),
            total.n,
            int(counts[0]),
        )
        for total, one, counts in zip(sums, chosen, by_size, strict=True)
    ]


def _sums(rows: pa.Table, subsets: Sequence[Subset], config: Config) -> list[NormalEquations]:
    x, y = linear.features(rows, config.fit.normalise), linear.targets(rows)
    masks = [_mask(one, rows, "train") for one in subsets]
    return [NormalEquations.from_batch(x[mask], y[mask]) for mask in masks]


def _mask(subset: Subset, rows: pa.Table, split: str) -> npt.NDArray[np.bool_]:
    return subset.mask(rows["image_id"].to_pylist(), rows["wnid"].to_pylist(), split)


def _count(
    rows: pa.Table, subsets: Sequence[Subset], maps: Sequence[Any], config: Config
) -> npt.NDArray[np.int64]:
    """Of each subset its images, and how many each of its candidates gets right.

    Args:
        rows: of the validation set.
        subsets: s of them.
        maps: [s] ridge paths, or single maps, whose size factors are then the candidates.
        config: of the run.

    Returns:
        int64 [s, 1 + candidates].
    """
    x, truth = linear.features(rows, config.fit.normalise), true_boxes(rows)
    counts = []
    for subset, one in zip(subsets, maps, strict=True):
        mask = np.flatnonzero(_mask(subset, rows, "validation"))
        if isinstance(one, LinearMap):
            boxes = linear.size_candidates(one, config.fit.size_factors, x[mask])
        else:
            boxes = linear.ridge_candidates(one, x[mask])
        right = corloc.count_correct(boxes, [truth[i] for i in mask], config.evaluate.iou)
        counts.append([len(mask), *right])
    return np.array(counts, np.int64)


# --------------------------------------------------------------------------- the two tables


def label_efficiency_and_unseen(run: RunDir) -> tuple[pa.Table, pa.Table]:
    """Both tables, ``LABELS`` and ``UNSEEN``, of the run's test set."""
    counts, halves = subsets_of(run)
    fitted = learn(run, [subset for _, _, subset in counts] + halves)
    parts = over_files(run, "sensitivity", COLUMNS, _judge, fitted, run.config, split="test")
    rights, wnids = zip(*parts, strict=True)
    right, wnid = np.concatenate(rights, axis=2), np.concatenate(wnids)
    labels = [
        {
            "method": kind,
            "per_class": k,
            "draw": draw,
            "n_train": fitted[i].n_train,
            "n_validation": fitted[i].n_validation,
            "n_images": right.shape[2],
            "n_correct": int(right[i, j].sum()),
            "corloc": 100 * float(right[i, j].mean()),
        }
        for i, (k, draw, _) in enumerate(counts)
        for j, kind in enumerate(KINDS)
    ]
    unseen = _unseen(right[-2:], wnid, halves[0], run.config) if halves else []
    return pa.Table.from_pylist(labels, LABELS), pa.Table.from_pylist(unseen, UNSEEN)


def _unseen(
    right: npt.NDArray[np.bool_], wnid: npt.NDArray[np.str_], half: Subset, config: Config
) -> list[dict[str, Any]]:
    """Rows of ``UNSEEN``.

    Args:
        right: [2, 3, n] images that the maps of the two halves get right, for each of KINDS.
        wnid: [n] of the images.
        half: the first one.
        config: of the run.
    """
    first = np.isin(wnid, list(half.limits["train"]))
    rows = []
    for kind, (one, other) in zip(KINDS, right.swapaxes(0, 1), strict=True):
        own, strange = np.where(first, one, other), np.where(first, other, one)
        gap = difference(strange, own, config.evaluate.bootstrap, config.evaluate.seed)
        rows.append(
            {
                "method": kind,
                "n_images": len(own),
                "seen": 100 * float(own.mean()),
                "unseen": 100 * float(strange.mean()),
                "difference": gap.value,
                "low": gap.low,
                "high": gap.high,
                "p": gap.p,
                "verdict": gap.verdict,
            }
        )
    return rows


def _judge(
    rows: pa.Table, fitted: Sequence[Learned], config: Config
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.str_]]:
    """Which images each subset's KINDS get right, bool [s, 3, n], and their classes [n]."""
    x, truth = linear.features(rows, config.fit.normalise), true_boxes(rows)
    boxes = np.stack([one.predict(rows, x) for one in fitted])
    right = np.zeros(boxes.shape[:-1], bool)
    if len(rows):
        right = corloc.best_iou(boxes, truth) >= config.evaluate.iou
    return right, np.array(rows["wnid"].to_pylist(), dtype=np.str_)
