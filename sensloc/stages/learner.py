"""Annotated images -> sums: how the run's network learns what the foreground is read by.

One pass of each image gives what it says of every cell. Kept are sums alone, a file per unit.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import largest
from sensloc.dice import keys
from sensloc.engine.batches import Worker
from sensloc.engine.chain import Chain
from sensloc.heatmaps import PREDICTED
from sensloc.heatmaps.readout import CellSums, covered, quantise
from sensloc.images.pixels import Pixels
from sensloc.rows import true_boxes
from sensloc.stages.cell_sums import merged, sums_in, sums_of, table_of
from sensloc.stages.network import map_maker
from sensloc.store.files import load_unit
from sensloc.store.run import RunDir

COLUMNS = ("image_id", "uri", "content", "class_index", "split", "boxes", "error")

Places = Mapping[str, Sequence[int]]
"""Rows of the manifest: their positions in each of its units."""


def chain(run: RunDir, folder: str, blocks: Iterable[str]) -> Chain:
    """Return how some rows of the manifest become sums.

    Args:
        run: The run.
        folder: That of the read-out.
        blocks: What is read of a pass.
    """
    return Chain(
        run,
        sums_in(folder),
        rows=_rows,
        worker=partial(Learner, run=run, blocks=tuple(blocks)),
    )


def _rows(run: RunDir, places: Places) -> pa.Table:
    parts = [
        load_unit(run, "manifest", unit, list(COLUMNS)).take(pa.array(positions))
        for unit, positions in places.items()
    ]
    return pa.concat_tables(parts).combine_chunks()


class Learner(Worker):
    """The run's network: rows and their images in, sums of what it says of their cells out."""

    by_row = False

    def __init__(self, device: str, run: RunDir, blocks: Sequence[str]) -> None:
        from sensloc.heatmaps.foreground import Cells
        from sensloc.heatmaps.passes import Options

        self.grid, self.seed = run.config.sensitivity.grid, run.config.foreground.seed
        self.cells = Cells.of(blocks, self.grid, Options())
        self.make = map_maker(run, (), device, self.cells.taps, backward=self.cells.backward)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return rows of ``tables.FOREGROUND_SUMS``."""
        return self.begin(rows, pixels)()

    def begin(self, rows: pa.Table, pixels: Pixels) -> Callable[[], pa.Table]:
        """Begin with a batch: see ``Worker``."""
        from sensloc.heatmaps.transfer import Arriving

        labels = np.asarray(pc.fill_null(rows["class_index"], PREDICTED))
        values = self.cells(self.make.start(pixels, labels).passed)[: len(rows)]
        arriving = Arriving.of({"values": values})
        return lambda: self._sums(rows, labels, arriving.arrays()["values"])

    def _sums(
        self, rows: pa.Table, labels: npt.NDArray[np.int64], values: npt.NDArray[np.float32]
    ) -> pa.Table:
        """Return the sums of a batch of classes [n], given the values of its cells [n, P, d]."""
        errors = np.array(rows["error"].to_pylist(), object)
        finite = np.isfinite(values).all((1, 2))
        errors[(errors == None) & ~finite] = "the derivative is not finite"  # noqa: E711
        good = np.array([error is None for error in errors])
        shares = np.zeros((len(rows), values.shape[1]))
        boxes = [largest(of) for of in true_boxes(rows.filter(pa.array(good)))]
        shares[good] = covered(np.array(boxes).reshape(-1, 4), self.grid)
        parts = part_of(rows, self.seed)
        sums: dict[tuple[int, int], CellSums] = {}
        for which in sorted(set(zip(labels[good].tolist(), parts[good].tolist(), strict=True))):
            at = good & (labels == which[0]) & (parts == which[1])
            sums[which] = CellSums.from_batch(quantise(values[at]), quantise(shares[at]))
        failed = zip(rows["image_id"].to_pylist(), errors.tolist(), strict=True)
        return table_of(sums, [(image_id, error) for image_id, error in failed if error])

    def whole(self, table: pa.Table) -> pa.Table:
        """Return a unit's file: the sums of each class and part, and the rows of its errors."""
        bad = table.filter(pc.is_valid(table["error"]))
        failed = zip(bad["image_id"].to_pylist(), bad["error"].to_pylist(), strict=True)
        return table_of(merged(sums_of(table)), list(failed))


def part_of(rows: pa.Table, seed: int) -> npt.NDArray[np.int64]:
    """Return 0 for a validation or test image; for a train image its half, 1 or 2: [n].

    It is also the fold of the read-outs that reads the image: a train image's was learned without
    its half of the train images.
    """
    halves = 1 + (keys(rows["image_id"].to_pylist(), seed + 1) & np.uint64(1)).astype(np.int64)
    train = np.array([split == "train" for split in rows["split"].to_pylist()], bool)
    return np.where(train, halves, 0)
