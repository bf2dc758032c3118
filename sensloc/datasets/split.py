"""Three disjoint sets: seeded, stratified per class, decided by the image's content.

An image's place in its class is the rank of a hash of its content, so that copies of one image,
whatever their names and classes, always fall into the same set. (A copy annotated with several
classes is ranked in the alphabetically first.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sensloc.dice import key

NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """A fitted split: a pure function from an image to its set.

    Attributes:
        seed: of the content's hash.
        limits: wnid -> the two hash values that end its train and its validation set.
        owners: hash of a content -> wnid, for the contents that occur under several classes.
    """

    seed: int
    limits: Mapping[str, tuple[int, int]]
    owners: Mapping[int, str]

    @classmethod
    def from_keys(
        cls,
        values: npt.NDArray[np.uint64],
        codes: npt.NDArray[np.int32],
        classes: Sequence[str],
        shares: tuple[float, float, float],
        seed: int,
    ) -> "Split":
        """Cut every class at the ranks nearest to the shares, of twelve bytes per image.

        Args:
            values: [n] ``key(content, seed)`` of each image.
            codes: [n] index of its class.
            classes: the classes, in alphabetical order.
            shares: of train, validation and test; they sum to 1.
            seed: of the contents' hash.
        """
        order = np.lexsort((codes, values))
        values, codes = values[order], codes[order]
        first = np.ones(len(values), bool)
        first[1:] = values[1:] != values[:-1]
        last = np.roll(first, -1)  # a content's copies stand together, its classes in order
        distinct, owner = values[first], codes[first]
        several = codes[last] != owner
        limits = {}
        for i in np.unique(owner):
            ranked = distinct[owner == i]
            cuts = [round(share * len(ranked)) for share in (shares[0], shares[0] + shares[1])]
            limits[classes[i]] = (_limit(ranked, cuts[0]), _limit(ranked, cuts[1]))
        pairs = zip(distinct[several].tolist(), owner[several].tolist(), strict=True)
        return cls(seed, limits, {value: classes[i] for value, i in pairs})

    def __call__(self, content: str, wnid: str) -> str:
        """Return the set of an image that was among those of ``from_keys``."""
        value = key(content, self.seed)
        train, validation = self.limits[self.owners.get(value, wnid)]
        return NAMES[0] if value < train else NAMES[1] if value < validation else NAMES[2]


def _limit(ranked: npt.NDArray[np.uint64], cut: int) -> int:
    """Return a value with exactly ``cut`` of the ranked ones below it."""
    return int(ranked[cut]) if cut < len(ranked) else 1 << 64
