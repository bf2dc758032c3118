"""Heat maps that are there already, made anew where those of another class are wanted."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.engine.chain import DECODE, FILE
from sensloc.heatmaps import names_of
from sensloc.images.pixels import Pixels
from sensloc.rows import vectors
from sensloc.stages.network import looker
from sensloc.store import tables
from sensloc.store.run import RunDir


class OtherClass:
    """The run's network: rows with maps in, the same rows with the maps of another class out."""

    def __init__(self, run: RunDir, columns: Iterable[str], device: str) -> None:
        self.columns = tuple(columns)
        self.look = looker(run, names_of(self.columns), device)

    def __call__(self, rows: pa.Table, pixels: Pixels, labels: npt.NDArray[np.int64]) -> pa.Table:
        """Return the rows, their maps and probability made anew where ``DECODE`` is true.

        Args:
            rows: n of them; those without an error have all the maps.
            pixels: Their images, uint8 [n, S, S, 3].
            labels: [n] The network's outputs that are meant, or ``passes.PREDICTED``.
        """
        wanted = np.flatnonzero(np.asarray(pc.and_(rows[DECODE], pc.is_null(rows["error"]))))
        if len(wanted) == 0:
            return rows
        files = rows[FILE].take(pa.array(wanted)).to_pylist() if self.look.twice else ()
        seen = self.look(pixels[wanted], labels[wanted], files)
        errors = np.array(rows["error"].to_pylist(), object)
        errors[wanted[~seen.finite]] = "the derivative is not finite"
        at = wanted[seen.finite]
        probability = np.array(rows["probability"].to_pylist(), np.float32)
        probability[at] = seen.probability[seen.finite]
        new = {
            "probability": pa.array(probability, pa.float32()),
            "error": pa.array(errors, pa.string()),
        }
        read = seen.columns()
        for name in self.columns:
            values, maps = read[name], vectors(rows, name).copy()
            maps[at] = values[seen.finite]
            new[name] = tables.fixed(maps, pa.float32())
        return pa.table({name: rows[name] for name in rows.column_names} | new, rows.schema)
