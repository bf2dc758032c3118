"""The whole run: every stage in its order."""

import io
import logging
from collections.abc import Mapping
from importlib import import_module
from itertools import pairwise
from threading import Thread

import pyarrow.parquet as pq

from sensloc.report.text import summary
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

STAGES: Mapping[str, str] = {
    "manifest": "sensloc.stages.manifest",
    "classifier": "sensloc.stages.classifier",
    "foreground": "sensloc.stages.foreground",
    "sensitivity": "sensloc.stages.sensitivity",
    "fit": "sensloc.stages.fit",
    "evaluate": "sensloc.stages.evaluate",
    "figure": "sensloc.stages.views.figure",
    "localizer": "sensloc.stages.localizer",
    "report": "sensloc.stages.views.report",
}
"""The stages in their order, and the module of each, which has a function of the stage's name. Each
is imported when it is needed: the first one needs no torch, the last one alone needs Altair."""


def run_stage(run: RunDir, name: str) -> None:
    """Run one stage.

    Raises:
        SenslocError: It cannot be completed; what is written stays.
    """
    getattr(import_module(STAGES[name]), name)(run)


def run_all(run: RunDir) -> str:
    """Run every stage that is not complete yet, in order.

    Args:
        run: the run directory, new or begun.

    Returns:
        The CorLoc table and where everything is, for a terminal.

    Raises:
        SenslocError: a stage cannot be completed; what is written stays.
    """
    for name, following in pairwise([*STAGES, None]):
        if name and not run.finished(name):
            log.info("%s: %s begins", run.config.name, name)
            if following:  # it is imported while this one's work is waited for
                Thread(target=import_module, args=(STAGES[following],)).start()
            run_stage(run, name)
    corloc = pq.read_table(io.BytesIO(run.read("corloc/corloc.parquet")))
    return summary(corloc, run.config, run.facts(), run.url)
