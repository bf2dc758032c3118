"""Ways to get a box: one file each. A fitted method is a picklable value that predicts."""

from typing import Protocol

import pyarrow as pa

from sensloc.boxes import Boxes


class Method(Protocol):
    """A fitted way to get a box."""

    def predict(self, rows: pa.Table) -> Boxes:
        """One box per row of the sensitivity table: [n, 4] unit xyxy."""
        ...
