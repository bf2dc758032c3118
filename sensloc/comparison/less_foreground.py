"""The foreground learned from less: a read-out of each subset, and a box chosen by it.

A subset's read-out is learned as the run's own is, from sums that are deleted when it is solved.
One more pass of each validation and test image gives the foregrounds by all read-outs.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.comparison.foregrounds import blocks_of, learn_once
from sensloc.comparison.subsets import Few, Learned, Subset
from sensloc.engine import units
from sensloc.engine.batches import Worker
from sensloc.engine.chain import Chain, write_units
from sensloc.engine.cluster import over_files
from sensloc.heatmaps import FOREGROUND
from sensloc.heatmaps.foreground import Cells, Placed
from sensloc.heatmaps.passes import Options
from sensloc.images.pixels import Pixels
from sensloc.methods import catalogue
from sensloc.methods.soft_iou import SoftIoUBox
from sensloc.rows import true_boxes
from sensloc.scoring import corloc
from sensloc.stages.fit_foreground import fit_soft_iou
from sensloc.stages.foreground import drawn
from sensloc.stages.network import map_maker
from sensloc.stages.readout_file import folder_of, place, readouts_of, saved_readouts
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

MAPS = "compare/less"
CARRIED = ("image_id", "uri", "content", "wnid", "class_index", "predicted_index", "split", "boxes")


def foregrounds(run: RunDir, curve: Sequence[Few], groups: Sequence[Subset]) -> Learned:
    """Return what each subset teaches the foreground.

    Args:
        run: The run, compared so far.
        curve: The subsets of few boxes per class; the run's own read-out is the last one's.
        groups: Of classes.
    """
    names = [
        *(f"{subset.per_class}_boxes_{subset.draw}" for subset in curve[:-1]),
        FOREGROUND,
        *(f"group_{i}" for i in range(len(groups))),
    ]
    subsets = dict(zip(names, [*curve, *groups], strict=True))
    _learn(run, subsets)
    there = [name for name in names if run.exists(place(folder_of(name)))]
    write_units(_chain(run, there), {unit: unit for unit in units.names(run, "sensitivity")})
    methods = {
        name: fit_soft_iou(run, MAPS, f"map_{name}", subset=subsets[name]).method for name in there
    }
    read, iou = ["wnid", "boxes", *(f"map_{name}" for name in there)], run.config.evaluate.iou
    parts = over_files(run, MAPS, read, _judge, list(methods.values()), iou, split="test")
    rights, wnids = zip(*parts, strict=True)
    wnid, judged = np.concatenate(wnids), dict(zip(there, np.concatenate(rights, 1), strict=True))
    right = [judged.get(name, np.zeros(len(wnid), bool)) for name in names]
    sizes = [_size(run, name) if name in judged else None for name in names]
    return Learned((catalogue.FOREGROUND,), sizes, np.array(right)[:, None], wnid)


def _learn(run: RunDir, subsets: Mapping[str, Subset]) -> None:
    """Learn the read-outs that are missing, and say which subsets are left out."""
    missing = {
        name: subset
        for name, subset in subsets.items()
        if not (run.exists(place(folder_of(name))) or _too_many(run, name, subset))
    }
    if missing:
        blocks = blocks_of(run, FOREGROUND)
        for name, images in zip(missing, drawn(run, list(missing.values())), strict=True):
            if images.lacks:
                log.warning("compare: %s: left out: no %s image", name, images.lacks)
            else:
                learn_once(run, name, images, blocks)


def _too_many(run: RunDir, name: str, subset: Subset) -> bool:
    """Return whether a point of the curve may have more images than a run learns from, and say so.

    Such a point would be of fewer images per class than it says.
    """
    per_class = subset.per_class if isinstance(subset, Few) else None
    over = (per_class or 0) * len(subset.limits["train"]) > run.config.foreground.images
    if over:
        log.info("compare: %s: more than foreground.images: left out", name)
    return over


def _size(run: RunDir, name: str) -> tuple[int, int]:
    _, facts = saved_readouts(run, folder_of(name))
    return facts["n_train"], facts["n_validation"]


# --------------------------------------------------------------------------- maps by many read-outs


def _chain(run: RunDir, names: Sequence[str]) -> Chain:
    """Return how the validation and test images of a unit get a map by each read-out."""
    return Chain(
        run,
        MAPS,
        rows=_rows,
        worker=partial(Reader, run=run, names=tuple(names)),
    )


def _rows(run: RunDir, unit: str) -> pa.Table:
    rows = load_unit(run, "sensitivity", unit, [*CARRIED, "error"])
    held_out = pc.is_in(rows["split"], pa.array(["validation", "test"]))
    return rows.filter(held_out).combine_chunks()


class Reader(Worker):
    """The run's network and many read-outs: rows and their images in, rows with maps out."""

    def __init__(self, device: str, run: RunDir, names: Sequence[str]) -> None:
        self.config = run.config.sensitivity
        readouts = {name: readouts_of(run, name)[0] for name in names}
        self.placed = {name: Placed(readout) for name, readout in readouts.items()}
        blocks, grid = readouts[names[0]].blocks, self.config.grid
        self.cells = Cells.of(blocks, grid, Options())
        self.make = map_maker(run, (), device, self.cells.taps, backward=self.cells.backward)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return the rows with the map of shares by each read-out; null where there is an error."""
        label = "class_index" if self.config.label == "truth" else "predicted_index"
        passed = self.make(pixels, np.asarray(pc.fill_null(rows[label], 0), np.int64)).passed
        values, good = self.cells(passed), np.asarray(pc.is_null(rows["error"]))
        for name, shares_of in self.placed.items():
            shares = shares_of(values, passed.labels)[: len(rows)].clamp(0, 1)
            maps = shares.half().float().cpu().numpy()
            there = good & np.isfinite(maps).all(1)
            column = tables.nullable(maps, there, pa.float32())
            rows = rows.append_column(f"map_{name}", column)
        return rows


def _judge(
    rows: pa.Table, methods: Sequence[SoftIoUBox], iou: float
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.str_]]:
    """Return which of n images each method gets right, bool [s, n], and their classes."""
    right = np.zeros((len(methods), len(rows)), bool)
    truth = true_boxes(rows)
    for i, method in enumerate(methods):
        there = np.flatnonzero(np.asarray(pc.is_valid(rows[method.column])))
        if len(there):
            boxes = method.predict(rows.take(pa.array(there)))
            right[i, there] = corloc.best_iou(boxes, [truth[j] for j in there]) >= iou
    return right, np.array(rows["wnid"].to_pylist(), dtype=np.str_)
