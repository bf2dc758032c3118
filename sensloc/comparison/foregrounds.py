"""Foregrounds of the comparison's own, which are learned from other blocks than the run's."""

import logging
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from sensloc.heatmaps import FOREGROUND, SECOND, is_learned, names_of
from sensloc.methods import catalogue
from sensloc.stages.cell_sums import sums_in
from sensloc.stages.foreground import Drawn, drawn, learn_from
from sensloc.stages.readout_file import folder_of, place, saved_readouts
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)


def learn_foregrounds(run: RunDir) -> None:
    """Learn the read-outs that are missing, from the images that the run's own learned from."""
    names = names_of(catalogue.columns(run.config.compared))
    own = [name for name in names if is_learned(name) and name not in (FOREGROUND, SECOND)]
    missing = [name for name in own if not run.exists(place(folder_of(name)))]
    if missing:
        (images,) = drawn(run)
        for name in missing:
            learn_once(run, name, images, blocks_of(run, name))


def blocks_of(run: RunDir, name: str) -> dict[str, int]:
    """Return what a learned heat map reads, and how many values each block has."""
    of_run = run.stages()["foreground"]["of"]["blocks"]
    if name == FOREGROUND:
        return dict(of_run)
    chosen: Sequence[str] = import_module(f"sensloc.heatmaps.{name}").blocks(tuple(of_run))
    return {block: of_run.get(block, 1) for block in chosen}


def learn_once(run: RunDir, name: str, images: Drawn, blocks: dict[str, int]) -> None:
    """Learn a read-out, whole, and delete the sums that it is learned from."""
    size = run.stages()["foreground"]["rows_per_unit"]
    facts = learn_from(run, folder_of(name), blocks, images, size, cross_fit=False)
    run.remove(sums_in(folder_of(name)))
    log.info("compare: read-out %s, of %d images", name, facts["n_train"])


def learned_from(run: RunDir, column: str) -> dict[str, Any]:
    """Return the facts of what a learned heat map, by its column, was learned from; of a map that
    others made there are none.
    """
    names = names_of([column])
    if not names:
        return {}
    (name,) = names
    _, facts = saved_readouts(run, folder_of(name))
    return {"n_train": facts["n_train"]}
