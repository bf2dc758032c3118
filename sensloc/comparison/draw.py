"""Which images a comparison takes: all of the test set, and some of the others."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.dice import keys, lowest
from sensloc.engine import cluster
from sensloc.store.run import RunDir


@dataclass(frozen=True)
class Draw:
    """A pure function from rows to those that take part.

    Attributes:
        seed: Of the hash of an image's id.
        limits: By split the largest hash that takes part; a split that is absent is whole.
    """

    seed: int
    limits: Mapping[str, int]

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the rows that take part, of any that have an image_id and a split."""
        if len(rows) == 0:
            return rows
        hashes = keys(rows["image_id"].to_pylist(), self.seed)
        splits = rows["split"].to_pylist()
        limits = [self.limits.get(split, 2**64 - 1) if split else -1 for split in splits]
        return rows.filter(pa.array([h <= limit for h, limit in zip(hashes, limits, strict=True)]))


def draw(run: RunDir, **wanted: int) -> Draw:
    """Draw so many images of each of the splits named, or all of a split that has fewer.

    Args:
        run: The run directory, with its maps.
        wanted: Images by split.
    """
    seed, limits = run.config.compare.seed, {}
    for split, n in wanted.items():
        parts = cluster.over_files(run, "sensitivity", ["image_id"], _keys, seed, split=split)
        hashes = np.concatenate([*parts, np.empty(0, np.uint64)])
        limits[split] = lowest(hashes, min(n, len(hashes))) if len(hashes) else -1
    return Draw(seed, limits)


def _keys(rows: pa.Table, seed: int) -> npt.NDArray[np.uint64]:
    return keys(rows["image_id"].to_pylist(), seed)
