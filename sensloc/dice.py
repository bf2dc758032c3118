"""The one deterministic hash behind every draw: no draw depends on an order or on a process."""

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


def key(text: str, seed: int) -> int:
    """Return a uniform 64-bit number, a pure function of text and seed: the house's only dice."""
    digest = hashlib.blake2b(f"{seed}:{text}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def keys(texts: Iterable[str], seed: int) -> npt.NDArray[np.uint64]:
    """Return the ``key`` of each text: [n] uint64."""
    return np.array([key(text, seed) for text in texts], dtype=np.uint64)


def lowest(values: npt.NDArray[np.uint64], n: int) -> int:
    """Return the value such that exactly n of the (distinct) values are at most it.

    Raises:
        ValueError: there are fewer than n values.
    """
    if n > len(values):
        raise ValueError(f"the lowest {n} of {len(values)} values")
    return int(np.partition(values, n - 1)[n - 1])
