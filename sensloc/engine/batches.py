"""A unit's rows and images, in batches through a worker. No Ray."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.images.pixels import Pixels


class Worker:
    """Makes a table from rows and their images; an actor holds one.

    Attributes:
        by_row: Whether it makes one row of each, which the unit's file has in the order of rows.
    """

    by_row = True

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return a row for each row of a batch, or, not ``by_row``, any rows.

        Args:
            rows: n rows of a unit, those with an error among them.
            pixels: Their images, uint8 [n, S, S, 3]; zeros where none was decoded.
        """
        raise NotImplementedError

    def begin(self, rows: pa.Table, pixels: Pixels) -> Callable[[], pa.Table]:
        """Begin with a batch, and return what ends it: it gives what a call would.

        A worker on a device begins there; the batch before is ended meanwhile.
        """
        return partial(self, rows, pixels)

    def kinds(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """Return a number for each of n rows, int64 [n]: rows of one number are batched together.

        So a batch has no row of a kind that costs more than the others, or has these alone.
        """
        return np.zeros(len(rows), np.int64)

    def whole(self, table: pa.Table) -> pa.Table:
        """Return a unit's file, given what was returned for its batches, in the order of rows."""
        return table


@dataclass(frozen=True)
class Images:
    """A unit's rows and the images that could be decoded.

    Attributes:
        rows: [n], errors of decoding among them.
        at: Which rows have an image, int64 [k], ascending.
        pixels: Those images, uint8 [k, S, S, 3].
    """

    rows: pa.Table
    at: Any
    pixels: Pixels

    def through(self, worker: Worker, batch_size: int) -> pa.Table:
        """Return what a worker makes of the rows, in batches; those with an image come first.

        Two batches are begun at a time.
        """
        without = np.setdiff1d(np.arange(len(self.rows)), self.at)
        alike = np.argsort(worker.kinds(self.rows)[self.at], kind="stable")
        order, tables = np.concatenate([self.at[alike], without]), []
        begun = deque[Callable[[], pa.Table]]()
        for start in range(0, max(len(order), 1), batch_size):
            index, some = order[start : start + batch_size], alike[start : start + batch_size]
            pixels = np.zeros((len(index), *self.pixels.shape[1:]), np.uint8)
            pixels[: len(some)] = self.pixels[some]
            begun.append(worker.begin(self.rows.take(pa.array(index)), pixels))
            if len(begun) == 2:
                tables.append(begun.popleft()())
        tables += [end() for end in begun]
        made = pa.concat_tables(tables)
        if worker.by_row and (np.diff(order) < 0).any():
            made = made.take(pa.array(np.argsort(order)))
        return worker.whole(made)
