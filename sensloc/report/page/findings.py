"""What a run found, as the page needs it: plain values, read by the stage ``report``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.config import Config
from sensloc.prediction.facts import LocalizerFacts
from sensloc.report.page.gallery import Card
from sensloc.report.text import Row


@dataclass(frozen=True)
class RunFindings:
    """What the page is made of.

    Attributes:
        config: the run's.
        record: the content of ``run.json``.
        audit: the content of ``audit.json``.
        corloc: a row per method of the main run, see ``sensloc.report.text.corloc_rows``.
        compared: rows of ``compare/``'s tables "table", "labels" and "unseen" by these names,
            which are empty where there is no comparison.
        counts: of the predictions, see ``sensloc.scoring.counts``.
        charted: names of the methods in the charts and the gallery, in the order of their looks.
        errors: how many images of the sensitivity table take no part, by reason.
        coefficients: [4, G * G] of the linear map.
        localizer: the localizer's facts.
        cards: the photographs of the gallery.
    """

    config: Config
    record: Row
    audit: Row
    corloc: Sequence[Row]
    compared: Mapping[str, Sequence[Row]]
    counts: pa.Table
    charted: Sequence[str]
    errors: Mapping[str, int]
    coefficients: npt.NDArray[np.float64]
    localizer: LocalizerFacts
    cards: Sequence[Card]

    @property
    def stages(self) -> Mapping[str, Row]:
        """Return the facts of the finished stages, by name."""
        stages: Mapping[str, Row] = self.record["stages"]
        return {name: facts for name, facts in stages.items() if "finished" in facts}
