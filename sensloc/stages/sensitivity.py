"""The manifest -> the heat maps of each image, from one pass: first of all its sensitivity map."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.datasets.split import NAMES
from sensloc.engine import cluster, units
from sensloc.engine.batches import Worker
from sensloc.engine.chain import FILE, Chain, write_units
from sensloc.heatmaps import PREDICTED, SECOND, column, region
from sensloc.images.pixels import Pixels
from sensloc.stages.accuracy import checked
from sensloc.stages.learner import part_of
from sensloc.stages.network import looker, makes_its_maps, network_and_machine
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.passes import passes_of
from sensloc.store.run import RunDir, RunError

if TYPE_CHECKING:  # for which torch is imported
    from sensloc.heatmaps.maker import Maps, Seen
    from sensloc.prediction.looks import Source

log = logging.getLogger(__name__)


def sensitivity(run: RunDir) -> None:
    """``manifest/`` -> ``sensitivity/``: the heat maps of each image, from one pass.

    Raises:
        RunError: The table does not hold every row of the manifest exactly once, or the weights
            or the device are not those of the attempt that was cut off, or the arithmetic is too
            far from float32.
    """
    run.require("manifest", *(["foreground"] if run.config.foreground.looks else []))
    arithmetic = checked(run)
    digest, machine, _ = network_and_machine(run, makes_its_maps)
    of = {"weights": digest, "device": machine.device} | passes_of(run)
    with run.stage("sensitivity", "sensitivity", of=of, seen={"cpu": machine.cpu}) as facts:
        began = time.monotonic()
        made = write_units(chain(run), {unit: unit for unit in units.names(run, "manifest")})
        facts |= arithmetic | _account(run, made, time.monotonic() - began)
    log.info("sensitivity: %(rows)d rows, %(errors)d errors, top-1 %% %(top1)s", facts)


def chain(run: RunDir) -> Chain:
    """Return how a unit of the manifest becomes one of the table."""
    return Chain(
        run,
        "sensitivity",
        rows=_rows,
        worker=partial(Mapper, run=run),
        keep=SECOND in run.config.maps,
    )


def _rows(run: RunDir, unit: str) -> pa.Table:
    return load_unit(run, "manifest", unit)


# --------------------------------------------------------------------------- rows


class Mapper(Worker):
    """The run's network: rows of the manifest and their images in, rows of the table out."""

    def __init__(self, device: str, run: RunDir) -> None:
        self.config, self.seed = run.config.sensitivity, run.config.foreground.seed
        self.look = looker(run, run.config.maps, device)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return rows of ``tables.sensitivity`` for n rows of the manifest."""
        return self.begin(rows, pixels)()

    def begin(self, rows: pa.Table, pixels: Pixels) -> Callable[[], pa.Table]:
        """Begin with a batch: see ``Worker``."""
        index = np.asarray(pc.fill_null(rows["class_index"], PREDICTED))
        labels = index if self.config.label == "truth" else np.full_like(index, PREDICTED)
        seen = self.look.start(pixels, labels, self._sources(rows), part_of(rows, self.seed))
        return lambda: self._table(rows, index, seen())

    def _table(self, rows: pa.Table, index: npt.NDArray[np.int64], seen: "Seen") -> pa.Table:
        """Return the rows of a batch, given its classes [n] and what is seen of it."""
        truth = self.config.label == "truth"
        errors = rows["error"].to_pylist()
        for i, wnid in enumerate(rows["wnid"].to_pylist()):
            if errors[i] is None and truth and index[i] == PREDICTED:
                errors[i] = f"class {wnid} is not one of the classifier's"
            elif errors[i] is None and not seen.finite[i]:
                errors[i] = "the derivative is not finite"
        good = np.array([error is None for error in errors])
        new = {
            "predicted_index": tables.nullable(seen.predicted, good, pa.int64()),
            "score": tables.nullable(seen.score, good, pa.float32()),
            "probability": tables.nullable(seen.probability, good, pa.float32()),
            **self._map_columns(rows, seen, good),
            "error": pa.array(errors, pa.string()),
        }
        manifest = {name: rows[name] for name in rows.column_names if name != FILE}
        widths = {column(name): maps.values.shape[1] for name, maps in seen.maps.items()}
        return pa.table(
            manifest | new, tables.sensitivity(widths, [column(name) for name in seen.regions])
        )

    def kinds(self, rows: pa.Table) -> npt.NDArray[np.int64]:
        """Return which rows are looked at twice: the train images are not."""
        return np.array([split == "train" for split in rows["split"].to_pylist()], np.int64)

    def _sources(self, rows: pa.Table) -> "list[Source]":
        """Return the files of the images that are looked at twice: all but the train images."""
        if not self.look.twice:
            return [None] * len(rows)
        files, splits = rows[FILE].to_pylist(), rows["split"].to_pylist()
        pairs = zip(files, splits, strict=True)
        return [None if split == "train" else file for file, split in pairs]

    def _map_columns(
        self, rows: pa.Table, seen: "Seen", good: npt.NDArray[np.bool_]
    ) -> dict[str, pa.Array]:
        """Return the columns of all heat maps; a second look's are null for train images."""
        train = np.array([split == "train" for split in rows["split"].to_pylist()], bool)
        columns: dict[str, pa.Array] = {}
        for name, maps in seen.maps.items():
            there = good & ~train if name in seen.regions else good
            columns |= map_columns({name: maps}, there)
            if name in seen.regions:
                at = region(column(name))
                columns[at] = tables.nullable(seen.regions[name], there, pa.float32())
        return columns


def map_columns(maps: "Mapping[str, Maps]", good: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
    """Return the columns of heat maps by name: values, scale, height and width of each.

    Args:
        maps: By their names, each of n images.
        good: bool [n], false where values and scale are null.
    """
    columns: dict[str, pa.Array] = {}
    for name, made in maps.items():
        at, n = column(name), len(good)
        columns[at] = tables.nullable(made.values.astype(np.float32), good, pa.float32())
        columns[f"{at}_scale"] = tables.nullable(made.scale, good, pa.float32())
        columns[f"{at}_height"] = pa.array([made.height] * n, pa.int32())
        columns[f"{at}_width"] = pa.array([made.width] * n, pa.int32())
    return columns


def _account(run: RunDir, made: Sequence[str], seconds: float) -> dict[str, Any]:
    """Compare the table with the manifest, and count rows, errors and top-1 in percent.

    Top-1 is of the images of each set whose class is one of the classifier's.

    Args:
        run: The run directory.
        made: The units that this attempt made.
        seconds: The time that it took for them.

    Raises:
        RunError: The table does not hold every row of the manifest exactly once.
    """
    if not cluster.same_rows(run, "sensitivity", "manifest"):
        raise RunError(
            f"{run.at('sensitivity')} does not hold every row of the manifest exactly once: run "
            "`sensloc sensitivity` again"
        )
    columns = ["split", "class_index", "predicted_index", "error"]
    counts = cluster.by_file(run, "sensitivity", columns, _tally)
    total = sum(counts.values(), Counter[str]())
    rows = sum(counts[run.file("sensitivity", unit)]["rows"] for unit in made)
    top1 = {
        split: round(100 * total[f"{split} right"] / total[split], 2)
        for split in NAMES
        if total[split]
    }
    rate = round(rows / seconds, 2) if rows else None
    return {"rows": total["rows"], "errors": total["errors"], "top1": top1, "images_per_s": rate}


def _tally(rows: pa.Table) -> Counter[str]:
    """Count a file's rows, its errors, and each set's images of a known class and those right."""
    good = rows.filter(pc.is_null(rows["error"]))
    total = Counter(rows=len(rows), errors=len(rows) - len(good))
    known = good.filter(pc.is_valid(good["class_index"]))
    for split in NAMES:
        images = known.filter(pc.equal(known["split"], split))
        total[split] = len(images)
        right = pc.equal(images["class_index"], images["predicted_index"])
        total[f"{split} right"] = pc.sum(right).as_py() or 0
    return total
