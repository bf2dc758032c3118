"""The whole run: every stage in its order."""

import io
import logging
from collections.abc import Callable

import pyarrow.parquet as pq

from sensloc.report.text import summary
from sensloc.stages.classifier import classifier
from sensloc.stages.evaluate import evaluate
from sensloc.stages.fit import fit
from sensloc.stages.localizer import localizer
from sensloc.stages.manifest import manifest
from sensloc.stages.sensitivity import sensitivity
from sensloc.stages.views.figure import figure
from sensloc.stages.views.report import report
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

FUNCTIONS: dict[str, Callable[[RunDir], None]] = {
    function.__name__: function
    for function in (
        *(manifest, classifier, sensitivity, fit, evaluate, figure, localizer),
        report,
    )
}
"""Of the stages, by name, in their order."""


def localize(run: RunDir) -> str:
    """Run every stage that is not complete yet, in order; say what came out."""
    for name, function in FUNCTIONS.items():
        if not run.finished(name):
            log.info("%s: %s begins", run.config.name, name)
            function(run)
    corloc = pq.read_table(io.BytesIO(run.read("corloc/corloc.parquet")))
    return summary(corloc, run.config, run.facts(), run.url)
