"""A box among an image's proposals: the first, a random one, a chosen one, or the best."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sensloc.boxes import Boxes
from sensloc.dice import keys
from sensloc.rows import box_lists, true_boxes
from sensloc.scoring.corloc import best_iou


def proposed(rows: pa.Table) -> list[Boxes]:
    """Return each row's proposals, best first: n arrays [k_i, 4], k_i >= 1."""
    return box_lists(rows, "proposals")


def _take(boxes: Sequence[Boxes], index: Sequence[Any]) -> Boxes:
    """Return one box of each image: n arrays [k_i, 4] and n indices -> [n, 4]."""
    return np.array([mine[i] for mine, i in zip(boxes, index, strict=True)]).reshape(-1, 4)


class _AmongProposals:
    """What reads the proposals and no other column."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The column of the proposals."""
        return ("proposals",)


@dataclass(frozen=True)
class FirstProposal(_AmongProposals):
    """The proposal of the highest objectness."""

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        return _take(proposed(rows), [0] * len(rows))


@dataclass(frozen=True)
class RandomProposal(_AmongProposals):
    """A random proposal, drawn by the image's id: the floor of who chooses among them.

    Attributes:
        seed: The seed of the draw.
    """

    seed: int

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        boxes, dice = proposed(rows), keys(rows["image_id"].to_pylist(), self.seed)
        return _take(boxes, [int(d) % len(b) for d, b in zip(dice, boxes, strict=True)])


@dataclass(frozen=True)
class BestProposal(_AmongProposals):
    """The proposal of the best IoU, read from the true boxes: the ceiling of who chooses."""

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        boxes = proposed(rows)
        pairs = zip(boxes, true_boxes(rows), strict=True)
        return _take(boxes, [best_iou(b[:, None], [t]).argmax() for b, t in pairs])


@dataclass(frozen=True)
class ChosenProposal:
    """The proposal whose index a column holds.

    Attributes:
        column: The column, of integers.
    """

    column: str

    @property
    def reads(self) -> tuple[str, ...]:
        """The column, and that of the proposals."""
        return (self.column, "proposals")

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        return _take(proposed(rows), rows[self.column].to_pylist())
