"""The box of a foreground map: how sharply shares become evidence, chosen on validation images."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.engine.cluster import over_files
from sensloc.methods import Fitted, soft_iou
from sensloc.rows import complete, true_boxes, vectors
from sensloc.scoring import corloc
from sensloc.stages.subset import Subset, everything
from sensloc.store.files import image_keys
from sensloc.store.run import RunDir, RunError

MOST_IMAGES = 5_000
"""Validation images at most, drawn where there are more: all boxes of each are looked at."""

READS = ("boxes", "image_id", "wnid")

UNIT = 2**20
"""IoUs are added as integers of so many parts: no sum depends on the order of its tasks."""


def fit_soft_iou(
    run: RunDir, stage: str, column: str, part: bool = False, subset: Subset = everything
) -> Fitted:
    """Choose the gain and the power of a ``SoftIoUBox``, by the mean IoU of its boxes.

    Args:
        run: The run.
        stage: The folder of the rows.
        column: The column of the maps, which are shares.
        part: Whether they show parts of the images.
        subset: Which validation images it is chosen by.

    Raises:
        RunError: There is no validation image without an error.
    """
    pairs, threshold = soft_iou.candidates(), run.config.evaluate.iou
    boxes = [soft_iou.SoftIoUBox(column, *pair, part) for pair in pairs]
    sizes = over_files(run, stage, ["image_id", "wnid"], _size, subset, split="validation")
    share = MOST_IMAGES / max(sum(sizes), 1)
    reads, args = [*boxes[0].reads, *READS], (boxes, share, threshold, subset)
    parts = list(over_files(run, stage, reads, _quality, *args, split="validation"))
    total = np.asarray(sum(parts))
    if not parts or total[0, 0] == 0:
        raise RunError(f"{run.at(stage)}: no validation image without an error")
    gain, power = soft_iou.choose(pairs, total[:, 2])
    n, right, overlap = total[pairs.index((gain, power))].tolist()
    facts = {
        "n_validation": n,
        "gain": gain,
        "power": power,
        "validation_correct": right,
        "validation_iou": round(overlap / UNIT / n, 4),
    }
    return Fitted(soft_iou.SoftIoUBox(column, gain, power, part), facts)


def _size(rows: pa.Table, subset: Subset) -> int:
    """Return how many of the rows take part."""
    return int(subset(rows, "validation").sum())


def _quality(
    rows: pa.Table,
    methods: Sequence[soft_iou.SoftIoUBox],
    share: float,
    threshold: float,
    subset: Subset,
) -> npt.NDArray[np.int64]:
    """Return by method the number of images, of those right, and the sum of IoUs: [c, 3]."""
    drawn = (image_keys(rows) <= share * 2.0**64) & subset(rows, "validation")
    rows = complete(rows.filter(pa.array(drawn)), methods[0].reads)
    if len(rows) == 0:
        return np.zeros((len(methods), 3), np.int64)
    truth, first = true_boxes(rows), methods[0]
    maps = {name: vectors(rows, name) for name in first.reads}
    maps[first.column] = soft_iou.fine(maps[first.column]).reshape(len(rows), -1)  # once for all
    overlap = np.array([corloc.best_iou(method.of_maps(maps), truth) for method in methods])
    parts = np.rint(overlap * UNIT).astype(np.int64).sum(1)
    return np.stack([np.full(len(methods), len(rows)), (overlap >= threshold).sum(1), parts], 1)
