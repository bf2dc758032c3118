"""A box among an image's proposals: the first, any, the one that another table names, the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sensloc.boxes import Boxes
from sensloc.dice import keys
from sensloc.rows import true_boxes
from sensloc.scoring.corloc import best_iou


def proposed(rows: pa.Table) -> list[Boxes]:
    """Each row's proposals, best first: n arrays [k_i, 4], k_i >= 1."""
    return [np.array(boxes, np.float64) for boxes in rows["proposals"].to_pylist()]


def _take(boxes: Sequence[Boxes], index: Sequence[Any]) -> Boxes:
    return np.array([some[i] for some, i in zip(boxes, index, strict=True)]).reshape(-1, 4)


@dataclass(frozen=True)
class FirstProposal:
    """The top objectness box."""

    def predict(self, rows: pa.Table) -> Boxes:
        """[n, 4]."""
        return _take(proposed(rows), [0] * len(rows))


@dataclass(frozen=True)
class RandomProposal:
    """Any of the proposals, drawn by the image's id: the floor of who chooses among them."""

    seed: int

    def predict(self, rows: pa.Table) -> Boxes:
        """[n, 4]."""
        boxes, dice = proposed(rows), keys(rows["image_id"].to_pylist(), self.seed)
        return _take(boxes, [int(d) % len(b) for d, b in zip(dice, boxes, strict=True)])


@dataclass(frozen=True)
class BestProposal:
    """The one with the best IoU, read from the ground truth: the ceiling of who chooses."""

    def predict(self, rows: pa.Table) -> Boxes:
        """[n, 4]."""
        boxes = proposed(rows)
        pairs = zip(boxes, true_boxes(rows), strict=True)
        return _take(boxes, [best_iou(b[:, None], [t]).argmax() for b, t in pairs])


@dataclass(frozen=True)
class ChosenProposal:
    """The one whose index a column holds.

    Attributes:
        column: int, not null.
    """

    column: str

    def predict(self, rows: pa.Table) -> Boxes:
        """[n, 4]."""
        return _take(proposed(rows), rows[self.column].to_pylist())
