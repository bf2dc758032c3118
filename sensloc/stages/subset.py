"""Some of the images: what a stage may be told to learn from less than all by."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Subset = Callable[[pa.Table, str], npt.NDArray[np.bool_]]
"""From n rows, which have an image_id and a wnid, and the name of their split to those that take
part: bool [n]."""


def everything(rows: pa.Table, split: str) -> npt.NDArray[np.bool_]:
    """Return the subset of all rows."""
    return np.ones(len(rows), bool)
