"""The arithmetic of a run's passes: the config's, or the fastest where the run was begun."""

import json
from typing import TYPE_CHECKING

from sensloc.store.run import RunDir

if TYPE_CHECKING:  # for which torch is imported
    from sensloc.networks.precision import Precision

CHOSEN = "precision.json"
"""What was measured and chosen, see ``sensloc.stages.accuracy``."""


def precision_of(run: RunDir) -> "Precision":
    """Return the arithmetic that the run's maps are made in, all of them."""
    wanted = run.config.sensitivity.precision
    if wanted != "fastest":
        return wanted
    chosen: Precision = json.loads(run.read(CHOSEN))["chosen"]
    return chosen
