"""Some annotated images -> ``foreground/``: the read-out that the foreground map is made by.

One pass of each drawn image gives what it says of every cell. The stage keeps sums alone, a file
per unit; a unit is of one class or of a few, so whatever a class's own read-out needs lies in few
files, and no process ever holds more than a bundle of classes.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import largest
from sensloc.dice import keys, lowest
from sensloc.engine import cluster
from sensloc.engine.chain import Chain, Worker, write_units
from sensloc.heatmaps.foreground import Cells, blocks_at
from sensloc.heatmaps.passes import PREDICTED, Options
from sensloc.heatmaps.readout import CellSums, covered, quantise
from sensloc.images.decode import Pixels
from sensloc.networks.prepare import probe_of, weights_hash
from sensloc.networks.taps import strides
from sensloc.rows import true_boxes
from sensloc.stages.cell_sums import SUMS, merged, sums_of, table_of
from sensloc.stages.network import load_network_of, map_maker
from sensloc.stages.readout import Bundle, learn
from sensloc.store.files import load_unit
from sensloc.store.provenance import Machine
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

VALIDATION_SHARE = 0.25
"""Validation images, as a share of the train images that are drawn."""

COLUMNS = ("image_id", "uri", "content", "class_index", "split", "boxes", "error")

Places = Mapping[str, Sequence[int]]
"""Rows of the manifest: their positions in each of its units."""


def foreground(run: RunDir) -> None:
    """``manifest/`` (train, validation) -> ``foreground/``: the read-out and how it was chosen.

    Raises:
        RunError: There is nothing to learn from, or nothing to choose by.
    """
    run.require("manifest", "classifier")
    config = run.config.foreground
    if config.looks == 0:
        with run.stage("foreground", "foreground"):
            log.info("foreground: none is wanted")
        return
    digest, machine, blocks = cluster.in_task(
        _prepare_once,
        run,
        cpus=run.config.resources.cpus_per_actor,
        gpus=run.config.resources.gpus_per_actor,
    )
    of = {"weights": digest, "device": machine.device, "blocks": blocks}
    seen, size = {"cpu": machine.cpu}, run.config.resources.rows_per_block
    with run.stage("foreground", "foreground", of=of, seen=seen, rows_per_unit=size) as facts:
        units, bundles = _units(_drawn(run), facts["rows_per_unit"])
        write_units(chain(run, blocks), units)
        facts |= learn(run, blocks, bundles)
    log.info(
        "foreground: learned from %(n_train)d images, penalty %(penalty)g, shrinkage %(shrinkage)g",
        facts,
    )


def chain(run: RunDir, blocks: Iterable[str]) -> Chain:
    """Return how some rows of the manifest become sums."""
    return Chain(
        run,
        SUMS,
        rows=_rows,
        size=run.config.classifier.input_size,
        batch_size=run.config.sensitivity.batch_size,
        worker=partial(Learner, run=run, blocks=tuple(blocks)),
    )


def _rows(run: RunDir, places: Places) -> pa.Table:
    parts = [
        load_unit(run, "manifest", unit, list(COLUMNS)).take(pa.array(positions))
        for unit, positions in places.items()
    ]
    return pa.concat_tables(parts).combine_chunks()


def _prepare_once(run: RunDir) -> tuple[str, Machine, dict[str, int]]:
    """Return a hash of the run's network, the machine, and the values of each block that is read.

    One pass of noise says how many they are, and whether the network can be read so at all.
    """
    network, config = load_network_of(run), run.config
    digest = weights_hash(network)
    blocks = config.foreground.blocks
    if blocks is None:
        blocks = blocks_at(*strides(network.eval(), probe_of(config.classifier)))
    cells = Cells.of(blocks, config.sensitivity.grid, Options())
    make = map_maker(run, (), "cpu", cells.taps, backward=cells.backward)
    size = config.classifier.input_size
    noise = np.random.default_rng(0).integers(0, 255, (1, size, size, 3), np.uint8)
    widths = cells.widths(make(noise, np.zeros(1, np.int64)).passed)
    return digest, Machine.here(config.resources.gpus_per_actor), widths


# --------------------------------------------------------------------------- the draw


def _drawn(run: RunDir) -> dict[int, list[tuple[str, int]]]:
    """Draw train and validation images; return the places of each class's, in order.

    A class that the network lacks is ``PREDICTED``.
    """
    wanted = run.config.foreground.images
    columns = ["image_id", "split", "class_index", "error"]
    found = cluster.by_file(run, "manifest", columns, _candidates, run.config.foreground.seed)
    by_class: dict[int, list[tuple[str, int]]] = {}
    for split, images in {"train": wanted, "validation": int(wanted * VALIDATION_SHARE)}.items():
        hashes = np.concatenate([part[split][0] for part in found.values()])
        if len(hashes) == 0:
            raise RunError(f"{run.at('manifest')}: no {split} image without an error")
        limit = lowest(hashes, min(images, len(hashes)))
        for file, part in found.items():
            unit = file.rpartition("/")[2].removesuffix(".parquet")
            chosen = part[split][0] <= np.uint64(limit)
            for label, position in part[split][1][chosen].tolist():
                by_class.setdefault(label, []).append((unit, position))
    return {label: sorted(by_class[label]) for label in sorted(by_class)}


def _candidates(rows: pa.Table, seed: int) -> dict[str, tuple[Any, npt.NDArray[np.int64]]]:
    """Return by split the hash [n] of each image, and its class and position [n, 2]."""
    good, splits = np.asarray(pc.is_null(rows["error"])), np.array(rows["split"].to_pylist())
    labels = np.asarray(pc.fill_null(rows["class_index"], PREDICTED))
    hashes = keys(rows["image_id"].to_pylist(), seed)
    found = {}
    for split in ("train", "validation"):
        at = np.flatnonzero(good & (splits == split))
        found[split] = (hashes[at], np.stack([labels[at], at], axis=1))
    return found


def _units(
    by_class: Mapping[int, list[tuple[str, int]]], size: int
) -> tuple[dict[str, Places], list[Bundle]]:
    """Cut classes into units of at most ``size`` rows, and bundle those that share classes.

    Returns:
        The places of each unit, by its name; and the bundles, no two of which share a class.
    """
    units: dict[str, Places] = {}
    bundles: list[Bundle] = []
    rows: list[tuple[str, int]] = []
    labels: list[int] = []
    for label, places in by_class.items():
        rows, labels = rows + places, [*labels, label]
        if len(rows) >= size or label == max(by_class):
            names = []
            for start in range(0, len(rows), size):
                names.append(f"{len(units):06d}")
                units[names[-1]] = _by_unit(rows[start : start + size])
            bundles.append(Bundle(tuple(labels), tuple(names)))
            rows, labels = [], []
    return units, bundles


def _by_unit(rows: Sequence[tuple[str, int]]) -> Places:
    places: dict[str, list[int]] = {}
    for unit, position in rows:
        places.setdefault(unit, []).append(position)
    return places


# --------------------------------------------------------------------------- sums


class Learner(Worker):
    """The run's network: rows and their images in, sums of what it says of their cells out."""

    by_row = False

    def __init__(self, device: str, run: RunDir, blocks: Sequence[str]) -> None:
        self.grid, self.seed = run.config.sensitivity.grid, run.config.foreground.seed
        self.cells = Cells.of(blocks, self.grid, Options())
        self.make = map_maker(run, (), device, self.cells.taps, backward=self.cells.backward)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return rows of ``tables.FOREGROUND_SUMS``."""
        labels = np.asarray(pc.fill_null(rows["class_index"], PREDICTED))
        values = self.cells(self.make(pixels, labels).passed)[: len(rows)].cpu().numpy()
        errors = np.array(rows["error"].to_pylist(), object)
        finite = np.isfinite(values).all((1, 2))
        errors[(errors == None) & ~finite] = "the derivative is not finite"  # noqa: E711
        good = np.array([error is None for error in errors])
        shares = np.zeros((len(rows), values.shape[1]))
        boxes = [largest(of) for of in true_boxes(rows.filter(pa.array(good)))]
        shares[good] = covered(np.array(boxes).reshape(-1, 4), self.grid)
        parts = part_of(rows, self.seed)
        sums: dict[tuple[int, int], CellSums] = {}
        for which in sorted(set(zip(labels[good].tolist(), parts[good].tolist(), strict=True))):
            at = good & (labels == which[0]) & (parts == which[1])
            sums[which] = CellSums.from_batch(quantise(values[at]), quantise(shares[at]))
        failed = zip(rows["image_id"].to_pylist(), errors.tolist(), strict=True)
        return table_of(sums, [(image_id, error) for image_id, error in failed if error])

    def whole(self, table: pa.Table) -> pa.Table:
        """Return a unit's file: the sums of each class and part, and the rows of its errors."""
        bad = table.filter(pc.is_valid(table["error"]))
        failed = zip(bad["image_id"].to_pylist(), bad["error"].to_pylist(), strict=True)
        return table_of(merged(sums_of(table)), list(failed))


def part_of(rows: pa.Table, seed: int) -> npt.NDArray[np.int64]:
    """Return 0 for a validation or test image; for a train image its half, 1 or 2: [n].

    It is also the fold of the read-outs that reads the image: a train image's was learned without
    its half of the train images.
    """
    halves = 1 + (keys(rows["image_id"].to_pylist(), seed + 1) & np.uint64(1)).astype(np.int64)
    train = np.array([split == "train" for split in rows["split"].to_pylist()], bool)
    return np.where(train, halves, 0)
