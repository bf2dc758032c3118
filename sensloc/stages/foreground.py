"""Some annotated images -> ``foreground/``: the read-out that the foreground map is made by.

One pass of each drawn image gives what it says of every cell. The stage keeps sums alone, a file
per unit; a unit is of one class or of a few, so whatever a class's own read-out needs lies in few
files, and no process ever holds more than a bundle of classes.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.dice import keys, lowest
from sensloc.engine import cluster
from sensloc.engine.chain import write_units
from sensloc.heatmaps import PREDICTED
from sensloc.stages.accuracy import checked
from sensloc.stages.learner import Places, chain
from sensloc.stages.network import load_network_of, map_maker, network_and_machine
from sensloc.stages.readout import Bundle, learn
from sensloc.stages.readout_file import FOLDER
from sensloc.stages.subset import Subset, everything
from sensloc.store.passes import passes_of
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

VALIDATION_SHARE = 0.25
"""Validation images, as a share of the train images that are drawn."""


@dataclass(frozen=True)
class Drawn:
    """Images to learn from and to choose by.

    Attributes:
        places: Of each class, those of its images in order: a unit of the manifest, a row there. A
            class that the network lacks is ``PREDICTED``.
        lacks: A split that there is no image of, or None.
    """

    places: Mapping[int, Sequence[tuple[str, int]]]
    lacks: str | None


def foreground(run: RunDir) -> None:
    """``manifest/`` (train, validation) -> ``foreground/``: the read-out and how it was chosen.

    Raises:
        RunError: There is nothing to learn from, or nothing to choose by, or the arithmetic is too
            far from float32.
    """
    run.require("manifest", "classifier")
    config = run.config.foreground
    if config.looks == 0:
        with run.stage("foreground", FOLDER):
            log.info("foreground: none is wanted")
        return
    arithmetic = checked(run)
    digest, machine, blocks = network_and_machine(run, _blocks)
    of = {"weights": digest, "device": machine.device, "blocks": blocks} | passes_of(run)
    seen, size = {"cpu": machine.cpu}, run.config.resources.rows_per_block
    with run.stage("foreground", FOLDER, of=of, seen=seen, rows_per_unit=size) as facts:
        (images,) = drawn(run)
        facts |= arithmetic | learn_from(run, FOLDER, blocks, images, facts["rows_per_unit"])
    log.info(
        "foreground: learned from %(n_train)d images, penalty %(penalty)g, shrinkage %(shrinkage)g",
        facts,
    )


def learn_from(
    run: RunDir,
    folder: str,
    blocks: Mapping[str, int],
    images: Drawn,
    rows_per_unit: int,
    cross_fit: bool = True,
) -> dict[str, Any]:
    """Learn a read-out from some images, and write it; return the facts of it.

    Args:
        run: The run.
        folder: Where the sums and the read-out go.
        blocks: What is read, and how many values each block has; those with channels come last.
        images: Of the train and validation sets.
        rows_per_unit: Images of a unit at most.
        cross_fit: Whether there is one without each half of the train images too.

    Raises:
        RunError: There is no image of either set.
    """
    if images.lacks:
        raise RunError(f"{run.at('manifest')}: no {images.lacks} image without an error")
    units, bundles = _units(images.places, rows_per_unit)
    write_units(chain(run, folder, blocks), units)
    return learn(run, folder, blocks, bundles, cross_fit)


def _blocks(run: RunDir) -> dict[str, int]:
    """Return what is read of the run's network, and how many values each block has.

    One pass of noise says how many, and whether the network can be read so at all.
    """
    from sensloc.heatmaps.foreground import Cells, blocks_at
    from sensloc.heatmaps.passes import Options
    from sensloc.networks.prepare import probe_of
    from sensloc.networks.taps import strides

    config = run.config
    names = config.foreground.blocks
    if names is None:
        network = load_network_of(run).eval()
        names = blocks_at(*strides(network, probe_of(config.classifier)))
    cells = Cells.of(names, config.sensitivity.grid, Options())
    make = map_maker(run, (), "cpu", cells.taps, backward=cells.backward)
    size = config.classifier.input_size
    noise = np.random.default_rng(0).integers(0, 255, (1, size, size, 3), np.uint8)
    return cells.widths(make(noise, np.zeros(1, np.int64)).passed)


# --------------------------------------------------------------------------- the draw


def drawn(run: RunDir, subsets: Sequence[Subset] = (everything,)) -> list[Drawn]:
    """Draw train and validation images of each subset, at most as many as the config says."""
    columns = ["image_id", "split", "wnid", "class_index", "error"]
    seed = run.config.foreground.seed
    found = cluster.by_file(run, "manifest", columns, _candidates, seed, subsets)
    return [
        _lowest({file: parts[i] for file, parts in found.items()}, run.config.foreground.images)
        for i in range(len(subsets))
    ]


Candidates = Mapping[str, tuple[Any, npt.NDArray[np.int64]]]
"""By split the hash [n] of each image, and its class and position [n, 2]."""


def _candidates(rows: pa.Table, seed: int, subsets: Sequence[Subset]) -> list[Candidates]:
    """Return those of each subset among the rows of a file of the manifest."""
    good, splits = np.asarray(pc.is_null(rows["error"])), np.array(rows["split"].to_pylist())
    labels = np.asarray(pc.fill_null(rows["class_index"], PREDICTED))
    hashes = keys(rows["image_id"].to_pylist(), seed)
    found: list[dict[str, tuple[Any, npt.NDArray[np.int64]]]] = [{} for _ in subsets]
    for split in ("train", "validation"):
        whole = np.flatnonzero(good & (splits == split))
        some = rows.take(pa.array(whole))
        for subset, candidates in zip(subsets, found, strict=True):
            at = whole[subset(some, split)]
            candidates[split] = (hashes[at], np.stack([labels[at], at], axis=1))
    return list(found)


def _lowest(found: Mapping[str, Candidates], wanted: int) -> Drawn:
    """Draw, given the candidates of each file of the manifest, so many train images at most."""
    by_class: dict[int, list[tuple[str, int]]] = {}
    for split, images in {"train": wanted, "validation": int(wanted * VALIDATION_SHARE)}.items():
        hashes = np.concatenate([part[split][0] for part in found.values()])
        if len(hashes) == 0:
            return Drawn({}, split)
        limit = lowest(hashes, min(images, len(hashes)))
        for file, part in found.items():
            unit = file.rpartition("/")[2].removesuffix(".parquet")
            chosen = part[split][0] <= np.uint64(limit)
            for label, position in part[split][1][chosen].tolist():
                by_class.setdefault(label, []).append((unit, position))
    return Drawn({label: sorted(by_class[label]) for label in sorted(by_class)}, None)


def _units(
    by_class: Mapping[int, Sequence[tuple[str, int]]], size: int
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
        rows, labels = [*rows, *places], [*labels, label]
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
