"""The read-outs of a run, each a file of its own: where they are, and how they are read back."""

from typing import Any

from sensloc.heatmaps import FOREGROUND
from sensloc.heatmaps.readout import Readout
from sensloc.methods import saved
from sensloc.store.run import RunDir

FOLDER = "foreground"
"""That of the run's own; the comparison's are its own."""


def folder_of(name: str) -> str:
    """Return the folder of a run directory that holds the read-out of a learned heat map."""
    return FOLDER if name == FOREGROUND else f"compare/readouts/{name}"


def place(folder: str) -> str:
    """Return the file of the read-outs in a folder of a run directory."""
    return f"{folder}/readout.npz"


def readouts_of(run: RunDir, name: str = FOREGROUND) -> tuple[Readout, ...]:
    """Return the read-outs of a learned heat map: the whole one, and those of its folds.

    Raises:
        MethodError: The file holds none.
    """
    return saved_readouts(run, folder_of(name))[0]


def saved_readouts(run: RunDir, folder: str) -> tuple[tuple[Readout, ...], dict[str, Any]]:
    """Return the read-outs in a folder, and the facts of them.

    Raises:
        MethodError: The file holds none.
    """
    file = place(folder)
    readouts, facts = saved.unpack(run.read(file), run.at(file))
    return tuple(readouts), facts
