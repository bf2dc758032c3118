"""How a run's network passes over images: in which arithmetic, and how many at a time.

That is the config's, or the fastest where the run was begun, see ``sensloc.stages.accuracy``.
"""

import json
from typing import TYPE_CHECKING, Any

from sensloc.store.run import RunDir

if TYPE_CHECKING:  # for which torch is imported
    from sensloc.networks.precision import Precision

CHOSEN = "passes.json"
"""What was measured, and chosen."""


def passes_of(run: RunDir) -> dict[str, Any]:
    """Return what all the run's maps are made by: other passes round otherwise."""
    return {"precision": precision_of(run), "batch_size": batch_size_of(run)}


def precision_of(run: RunDir) -> "Precision":
    """Return the arithmetic of the run's passes."""
    wanted = run.config.sensitivity.precision
    if wanted != "fastest":
        return wanted
    chosen: Precision = _chosen(run)["precision"]
    return chosen


def batch_size_of(run: RunDir) -> int:
    """Return how many images the run's network passes over at a time."""
    wanted = run.config.sensitivity.batch_size
    return int(_chosen(run)["batch_size"]) if isinstance(wanted, str) else wanted


def _chosen(run: RunDir) -> dict[str, Any]:
    chosen: dict[str, Any] = json.loads(run.read(CHOSEN))
    return chosen
