"""Histograms of cues over windows on objects and on background, and naive Bayes from them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Self

import numpy as np
import numpy.typing as npt

from sensloc.baselines.objectness.windows import Floats, Integers
from sensloc.sums import Sums

BINS = 100
"""Equal bins of a cue's range, [0, 1]."""
PSEUDO_COUNT = 1.0
"""Added to every bin, so that no window is impossible."""


@dataclass(frozen=True)
class LikelihoodTables(Sums):
    """Histograms of cues over windows on objects and on background.

    Integer sums, so ``merge`` is associative and commutative to the bit, and ``zeros`` is its
    identity.

    Attributes:
        counts: int64 [c, 2, BINS]: of each cue, windows on background and on objects.
    """

    counts: npt.NDArray[np.int64]

    @classmethod
    def zeros(cls, cues: int) -> Self:
        """Return the identity of ``merge``."""
        return cls(np.zeros((cues, 2, BINS), np.int64))

    @classmethod
    def from_batch(cls, cues: Floats, labels: npt.NDArray[np.bool_]) -> Self:
        """Count windows: cues [w, c] in [0, 1], labels [w], true on an object."""
        table = np.arange(cues.shape[1]) * 2 + np.asarray(labels, np.int64)[:, None]
        cells = (table * BINS + _bins(cues)).reshape(-1)
        size = cues.shape[1] * 2 * BINS
        return cls(np.bincount(cells, minlength=size).reshape(-1, 2, BINS).astype(np.int64))

    def likelihoods(self) -> Floats:
        """Return p(cue | background) and p(cue | object): [c, 2, BINS], each row sums to 1."""
        smooth = self.counts + PSEUDO_COUNT
        return np.asarray(smooth / smooth.sum(2, keepdims=True))

    def priors(self) -> Floats:
        """Return p(background) and p(object), the shares of the windows: [2]; even without any."""
        smooth = self.counts[0].sum(1) + PSEUDO_COUNT
        return np.asarray(smooth / smooth.sum())

    def posterior(self, cues: Floats) -> Floats:
        """Return p(object | cues) by naive Bayes: [w, c] -> [w]."""
        logs = np.log(self.likelihoods())
        log_odds = (logs[:, 1] - logs[:, 0])[np.arange(cues.shape[1]), _bins(cues)].sum(1)
        background, target = self.priors()
        return np.asarray(1 / (1 + np.exp(-log_odds) * background / target))

    def evidence(self) -> Floats:
        """Return how well each cue *alone* labels the windows counted: [c], larger is better.

        It is the log posterior of the windows' true labels, summed: what the paper maximises to
        choose a theta. Windows in one bin have one posterior, so the histogram says it all.
        """
        joint = self.likelihoods() * self.priors()[:, None]
        log_posterior = np.log(joint / joint.sum(1, keepdims=True))
        return np.asarray((self.counts * log_posterior).sum((1, 2)))


def merged(tables: Iterable[LikelihoodTables]) -> LikelihoodTables:
    """Return the sum of one table or more."""
    return reduce(LikelihoodTables.merge, tables)


def _bins(cues: Floats) -> Integers:
    """Return the bin of each cue: [...] in [0, 1] -> int [...]."""
    return np.clip((cues * BINS).astype(np.int64), 0, BINS - 1)
