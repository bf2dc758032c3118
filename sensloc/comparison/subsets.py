"""Which images are fewer, a few of each class or those of other classes, and what they teach."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.dice import key, keys
from sensloc.engine.cluster import over_files
from sensloc.store.run import RunDir, RunError

NONE, ALL = -1, 2**64 - 1
"""Limits of a hash that no image and that every image is within."""


@dataclass(frozen=True)
class Subset:
    """Some of the train and of the validation images: a ``sensloc.stages.subset.Subset``.

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


@dataclass(frozen=True)
class Few(Subset):
    """A point of the label-efficiency curve.

    Attributes:
        per_class: Images of a class at most; None: all there are.
        draw: The number of the draw.
    """

    per_class: int | None = None
    draw: int = 0


@dataclass(frozen=True)
class Learned:
    """What s subsets have taught, judged on the n test images.

    Attributes:
        methods: k of them.
        sizes: Of each subset, the train and the validation images behind it; None: it was left out.
        right: bool [s, k, n] The images that each method gets right.
        wnid: [n] Their classes.
    """

    methods: tuple[str, ...]
    sizes: Sequence[tuple[int, int] | None]
    right: npt.NDArray[np.bool_]
    wnid: npt.NDArray[np.str_]


def subsets_of(run: RunDir) -> tuple[list[Few], list[Subset]]:
    """Return the subsets of the label-efficiency curve, and the two groups of the classes.

    Returns:
        The curve's, the last of which is all there is; and the groups, which a single class does
        not have.

    Raises:
        RunError: The config's first group of classes has none of the run's, or all.
    """
    config = run.config.compare
    split_ids = {split: _ids(run, split) for split in ("train", "validation")}
    curve: list[Few] = []
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
            curve.append(Few(seed, limits, k, draw))
    classes = set(split_ids["train"])

    def whole(some: set[str]) -> dict[str, dict[str, int]]:
        return dict.fromkeys(split_ids, dict.fromkeys(some, ALL))

    first = _first_group(config.unseen, classes, config.seed)
    groups = [first, classes - first] if len(classes) > 1 else []
    curve.append(Few(config.seed, whole(classes | set(split_ids["validation"]))))
    return curve, [Subset(config.seed, whole(group)) for group in groups]


def _first_group(wanted: Sequence[str] | None, classes: set[str], seed: int) -> set[str]:
    """Return the classes of the first group: those that are wanted, or a half, drawn."""
    if wanted is None:
        return set(sorted(classes, key=lambda wnid: key(wnid, seed))[::2])
    first = classes & set(wanted)
    if first in (set(), classes):
        raise RunError(
            f"compare.unseen names {'all' if first else 'none'} of the run's classes: there is no "
            "other group"
        )
    return first


def _ids(run: RunDir, split: str) -> dict[str, list[str]]:
    """Return the image ids of each class of a split."""
    by_class: dict[str, list[str]] = {}
    columns = ["image_id", "wnid"]
    for part in over_files(run, "sensitivity", columns, pa.Table.to_pylist, split=split):
        for row in part:
            by_class.setdefault(row["wnid"], []).append(row["image_id"])
    return by_class
