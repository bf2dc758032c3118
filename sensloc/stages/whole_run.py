"""The whole run: every stage in its order."""

import io
import logging
from collections.abc import Callable

import pyarrow.parquet as pq

from sensloc.report.text import summary
from sensloc.stages.classifier import classifier
from sensloc.stages.evaluate import evaluate
from sensloc.stages.fit import fit
from sensloc.stages.foreground import foreground
from sensloc.stages.localizer import localizer
from sensloc.stages.manifest import manifest
from sensloc.stages.sensitivity import sensitivity
from sensloc.stages.views.figure import figure
from sensloc.stages.views.report import report
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

STAGES: dict[str, Callable[[RunDir], None]] = {
    "manifest": manifest,
    "classifier": classifier,
    "foreground": foreground,
    "sensitivity": sensitivity,
    "fit": fit,
    "evaluate": evaluate,
    "figure": figure,
    "localizer": localizer,
    "report": report,
}
"""The stages by name, in their order."""


def run_all(run: RunDir) -> str:
    """Run every stage that is not complete yet, in order.

    Args:
        run: the run directory, new or begun.

    Returns:
        The CorLoc table and where everything is, for a terminal.

    Raises:
        SenslocError: a stage cannot be completed; what is written stays.
    """
    for name, stage in STAGES.items():
        if not run.finished(name):
            log.info("%s: %s begins", run.config.name, name)
            stage(run)
    corloc = pq.read_table(io.BytesIO(run.read("corloc/corloc.parquet")))
    return summary(corloc, run.config, run.facts(), run.url)
