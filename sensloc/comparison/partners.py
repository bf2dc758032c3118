"""A control: the sensitivity map of another image, drawn within the same set."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.comparison.draw import Draw
from sensloc.datasets.split import NAMES
from sensloc.dice import keys
from sensloc.engine import cluster
from sensloc.heatmaps.controls import next_in_order
from sensloc.rows import vectors
from sensloc.store.files import load_unit
from sensloc.store.run import RunDir

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Partners:
    """Where the map of another image is, for each of the m images of a unit that take part.

    Attributes:
        seed: Of the hashes.
        hashes: Of the images' ids, uint64 [m], ascending.
        names: The units of ``sensitivity`` that hold the other images' rows.
        units: For each image an index of ``names``, int [m].
        rows: For each image the row of its partner in that unit, int [m].
    """

    seed: int
    hashes: Hashes
    names: Sequence[str]
    units: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int32]

    def maps(self, run: RunDir, image_ids: Sequence[str]) -> npt.NDArray[np.float32]:
        """Read the partners' maps of n of the images: float32 [n, G * G]."""
        at = np.searchsorted(self.hashes, keys(image_ids, self.seed))
        maps = np.empty((len(at), run.config.sensitivity.grid**2), np.float32)
        for unit in np.unique(self.units[at]):
            members = np.flatnonzero(self.units[at] == unit)
            rows = load_unit(run, "sensitivity", self.names[unit], ["map"])
            maps[members] = vectors(rows.take(pa.array(self.rows[at[members]])), "map")
        return maps


def partners_of(run: RunDir, taken: Draw) -> dict[str, Partners]:
    """Draw another image of the same split for each image that takes part, by unit.

    The driver holds some 20 bytes of an image, and no map: its hash, split and place.
    """
    columns = ["image_id", "split", "error"]
    placed = cluster.by_file(run, "sensitivity", columns, _places, taken)
    names = [PurePosixPath(file).stem for file in placed]
    hashes, splits, rows = (np.concatenate(part) for part in zip(*placed.values(), strict=True))
    ends = np.cumsum([len(part) for part, *_ in placed.values()])
    partner = np.empty(len(hashes), np.int64)
    for split in np.unique(splits):
        members = np.flatnonzero(splits == split)
        partner[members] = members[next_in_order(hashes[members])]
    drawn = {}
    for name, start, end in zip(names, [0, *ends], ends, strict=False):
        order = start + np.argsort(hashes[start:end])
        others = partner[order]
        apart, units = np.unique(np.searchsorted(ends, others, side="right"), return_inverse=True)
        held = [names[i] for i in apart]
        drawn[name] = Partners(taken.seed, hashes[order], held, units, rows[others])
    return drawn


def _places(rows: pa.Table, taken: Draw) -> tuple[Any, Any, Any]:
    """Return the hash, the split's number and the place of each row of a file that takes part."""
    places = pa.array(np.arange(len(rows), dtype=np.int32))
    good = taken(rows.append_column("place", places).filter(pc.is_null(rows["error"])))
    splits = np.array([NAMES.index(name) for name in good["split"].to_pylist()], np.int8)
    return keys(good["image_id"].to_pylist(), taken.seed), splits, np.asarray(good["place"])
