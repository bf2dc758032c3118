"""What tests send to a Ray's processes, which import this module and not a whole test file."""

import os
import signal
from typing import Any

import numpy as np
import pyarrow as pa

from sensloc.engine.chain import Chain, Images, Worker
from sensloc.errors import ClassifierError
from sensloc.images.pixels import Pixels


class Sums(Worker):
    """Each row's sum of pixels, and how large its batch was."""

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        sums = pa.array(pixels.sum((1, 2, 3), dtype=np.int64))
        batch = pa.array([len(rows)] * len(rows), pa.int64())
        mixed = pa.array([len(set(self.kinds(rows).tolist())) > 1] * len(rows), pa.bool_())
        columns = {"sum": sums, "batch": batch, "mixed": mixed}
        for name, column in columns.items():
            rows = rows.append_column(name, column)
        return rows

    def kinds(self, rows: pa.Table) -> np.ndarray:
        return np.array([int(image_id) % 3 for image_id in rows["image_id"].to_pylist()], np.int64)

    def whole(self, table: pa.Table) -> pa.Table:
        return table.append_column("n", pa.array([len(table)] * len(table), pa.int64()))


def sums(device: str) -> Sums:
    return Sums()


def broken(device: str) -> Worker:
    raise ClassifierError("classifier.source: no such network")


class Fragile(Chain):
    """A chain whose decoding kills its process, but for that in a child's."""

    def images(self, what: Any, isolated: bool) -> Images:
        if not isolated:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().images(what, isolated)
