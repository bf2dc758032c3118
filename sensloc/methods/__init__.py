"""Ways to get a box, one file each, and the catalogue that names them.

A method is a frozen value from rows to boxes. With the facts of how it was learned it is a
``Fitted`` method, which ``saved`` writes whole and reads back.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt
import pyarrow as pa

from sensloc.boxes import Boxes


class Method(Protocol):
    """A way to get a box from a row of the sensitivity table, or of ``compare/maps``."""

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns in which a row must have a value."""
        ...

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        ...


@runtime_checkable
class OfMaps(Method, Protocol):
    """A method that needs nothing but heat maps: a localizer can have it."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the heat maps."""
        ...

    def of_maps(self, maps: Mapping[str, npt.NDArray[Any]]) -> Boxes:
        """Return the boxes of maps in memory, by column: [n, 4] unit xyxy."""
        ...


@dataclass(frozen=True)
class Fitted:
    """A method with all that it needs to predict, and with how it came to be.

    Attributes:
        method: It gets the boxes.
        facts: What it was learned from, what was chosen and by how many images: plain values, for
            JSON.
    """

    method: Method
    facts: Mapping[str, Any]

    @property
    def reads(self) -> tuple[str, ...]:
        """The columns in which a row must have a value."""
        return self.method.reads

    def predict(self, rows: pa.Table) -> Boxes:
        """Return one box per row: [n, 4] unit xyxy."""
        return self.method.predict(rows)
