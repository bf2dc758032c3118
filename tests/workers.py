"""What tests send to a Ray's processes, which import this module and not a whole test file."""

import errno
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem

from sensloc.engine.batches import Images, Worker
from sensloc.engine.chain import Chain
from sensloc.errors import ClassifierError
from sensloc.images.pixels import Pixels
from sensloc.store.run import RunDir


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


class Begun(Sums):
    """Leaves a file, named like the unit's first row, when its work begins."""

    def __init__(self, device: str, folder: Path) -> None:
        self.folder = folder

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        (self.folder / rows["image_id"][0].as_py()).touch()
        return super().__call__(rows, pixels)


class Slow(LocalFileSystem):
    """Writes no file before the work on two units has begun; without that, not at all."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        begun = Path(path).parents[1] / "begun"
        until = time.monotonic() + 120
        while len(list(begun.iterdir())) < 2:
            if time.monotonic() > until:
                raise OSError("nothing was begun while this was written")
            time.sleep(0.01)
        super().makedirs(path, exist_ok)


class Full(LocalFileSystem):
    """Has no room for a file."""

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


class Elsewhere(RunDir):
    """A run directory on another file system."""

    kind: type[LocalFileSystem]

    @property
    def filesystem(self) -> LocalFileSystem:
        return self.kind()


class OnSlow(Elsewhere):
    kind = Slow


class OnFull(Elsewhere):
    kind = Full
