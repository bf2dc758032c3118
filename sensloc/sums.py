"""Sums over images or rows: the algebra that lets work be cut and put together in any order."""

from dataclasses import fields
from typing import Any, Self

import numpy as np


class Sums:
    """A frozen dataclass of numbers and arrays, with one more of its kind added field by field.

    A commutative monoid: ``merge`` is associative and commutative, and sums of nothing change
    nothing. To the bit, where the numbers are integers or of a grid that float64 adds exactly.
    """

    def merge(self, other: Self) -> Self:
        """Return the sums of what is behind both.

        Raises:
            ValueError: Their shapes differ.
        """
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        pairs: list[tuple[Any, Any]] = [(getattr(self, k), getattr(other, k)) for k in names]
        for mine, others in pairs:
            if np.shape(mine) != np.shape(others):
                raise ValueError(
                    f"cannot merge sums of shapes {np.shape(mine)} and {np.shape(others)}"
                )
        return type(self)(*(mine + others for mine, others in pairs))
