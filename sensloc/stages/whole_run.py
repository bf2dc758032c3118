"""The whole run: every stage in its order."""

import io
import logging
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import pairwise
from threading import Thread

import pyarrow.parquet as pq

from sensloc.report.text import summary
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

Stage = str | Callable[[RunDir], None]
"""The module of a stage, which has a function of the stage's name, or the stage itself."""

STAGES: Mapping[str, Stage] = {
    "manifest": "sensloc.stages.manifest",
    "classifier": "sensloc.stages.classifier",
    "foreground": "sensloc.stages.foreground",
    "sensitivity": "sensloc.stages.sensitivity",
    "fit": "sensloc.stages.fit",
    "evaluate": "sensloc.stages.evaluate",
    "localizer": "sensloc.stages.localizer",
    "figure": "sensloc.stages.views.figure",
    "report": "sensloc.stages.views.report",
}
"""The stages in their order. Each is imported when it is needed: the first one needs no torch, the
last one alone needs Altair."""


def run_stage(run: RunDir, name: str, stage: Stage | None = None) -> None:
    """Run one stage.

    Args:
        run: the run directory.
        name: of the stage.
        stage: the stage; None for the one of ``STAGES``.

    Raises:
        SenslocError: it cannot be completed; what is written stays.
    """
    stage = stage or STAGES[name]
    call = getattr(import_module(stage), name) if isinstance(stage, str) else stage
    call(run)


def run_all(run: RunDir, stages: Mapping[str, Stage] = STAGES) -> str:
    """Run every stage that is not complete yet, in order.

    Args:
        run: the run directory, new or begun.
        stages: by name, in their order.

    Returns:
        The CorLoc table and where everything is, for a terminal.

    Raises:
        SenslocError: a stage cannot be completed; what is written stays.
    """
    for (name, stage), (_, following) in pairwise([*stages.items(), ("", None)]):
        if not run.finished(name):
            log.info("%s: %s begins", run.config.name, name)
            if isinstance(following, str):  # it is imported while this one's work is waited for
                Thread(target=import_module, args=(following,)).start()
            run_stage(run, name, stage)
    corloc = pq.read_table(io.BytesIO(run.read("corloc/corloc.parquet")))
    return summary(corloc, run.config, run.facts(), run.url)
