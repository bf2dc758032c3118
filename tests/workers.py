"""What tests send to a Ray's processes: a module that they import in no time."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sensloc.engine.chain import Worker
from sensloc.errors import ClassifierError
from sensloc.images.decode import Pixels


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


def dies_once(folder: str) -> Callable[[int], int]:
    def work(n: int) -> int:
        marker = Path(folder, str(n))
        if n % 3 == 0 and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return n * n

    return work


def greets(word: str) -> Any:
    """Make a worker that says its word, and in which process."""
    return lambda: (word, os.getpid())
