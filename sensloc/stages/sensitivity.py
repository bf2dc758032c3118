"""The manifest -> the heat maps of each image, from one pass: first of all its sensitivity map."""

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from torch import nn

from sensloc.datasets.split import NAMES
from sensloc.engine import cluster, units
from sensloc.engine.chain import Chain, Worker, write_units
from sensloc.heatmaps import column, maker
from sensloc.heatmaps.maker import MapMaker, Maps
from sensloc.heatmaps.passes import PREDICTED, Options
from sensloc.images.decode import Pixels
from sensloc.networks.prepare import prepare, weights_hash
from sensloc.networks.taps import Tap
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.provenance import Machine, differences
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)


def sensitivity(run: RunDir) -> None:
    """``manifest/`` -> ``sensitivity/``: the heat maps of each image, from one pass.

    Raises:
        RunError: The table does not hold every row of the manifest exactly once, or the weights
            or the device are not those of the attempt that was cut off.
    """
    run.require("manifest")
    digest, machine = _network_and_machine(run)
    of = {"weights": digest, "device": machine.device}
    with run.stage("sensitivity", "sensitivity", of=of, seen={"cpu": machine.cpu}) as facts:
        began = time.monotonic()
        made = write_units(chain(run), {unit: unit for unit in units.names(run, "manifest")})
        facts |= _account(run, made, time.monotonic() - began)
    log.info("sensitivity: %(rows)d rows, %(errors)d errors, top-1 %% %(top1)s", facts)


def chain(run: RunDir) -> Chain:
    """Return how a unit of the manifest becomes one of the table."""
    return Chain(
        run,
        "sensitivity",
        rows=_rows,
        size=run.config.classifier.input_size,
        batch_size=run.config.sensitivity.batch_size,
        worker=partial(Mapper, run=run),
    )


def _rows(run: RunDir, unit: str) -> pa.Table:
    return load_unit(run, "manifest", unit)


# --------------------------------------------------------------------------- the network


def require_same_weights(run: RunDir) -> str:
    """Return the hash of the run's network, which made its maps on such a device.

    Raises:
        RunError: Another network made them, or another kind of device; which is named.
    """
    digest, machine = _network_and_machine(run)
    here = {"weights": digest, "device": machine.device}
    if differs := differences(run.stages()["sensitivity"]["of"], here):
        raise RunError(f"{run.url}: sensitivity/ was made otherwise ({'; '.join(differs)})")
    return digest


def _network_and_machine(run: RunDir) -> tuple[str, Machine]:
    """Return a hash of the run's network, and the machine it runs on, both found by a task.

    The network is loaded and prepared there once: an actor that cannot start is tried again and
    again, this says why.
    """
    resources = run.config.resources
    answer: tuple[str, Machine] = cluster.in_task(
        _prepare_once, run, cpus=resources.cpus_per_actor, gpus=resources.gpus_per_actor
    )
    return answer


def _prepare_once(run: RunDir) -> tuple[str, Machine]:
    digest = weights_hash(load_network_of(run))
    map_maker(run, run.config.sensitivity.maps, "cpu")
    return digest, Machine.here(run.config.resources.gpus_per_actor)


def load_network_of(run: RunDir) -> nn.Module:
    """Return the run's network, on the CPU, its number of outputs not yet checked."""
    return run.config.classifier.load(run.at("classifier.pt"))


def map_maker(run: RunDir, names: Sequence[str], device: str, taps: Iterable[Tap] = ()) -> MapMaker:
    """Return the maker of some heat maps by the run's network.

    Args:
        run: The run directory.
        names: Names of heat maps, see ``sensloc.heatmaps``.
        device: Where the network goes.
        taps: What is kept of the pass beside.

    Raises:
        ClassifierError: The network cannot be loaded, or has no place for a heat map.
    """
    config, compare = run.config, run.config.compare
    classifier, maps = config.classifier, config.sensitivity
    options = Options(
        channels=maps.channels,
        samples=compare.smoothgrad_samples,
        level=compare.smoothgrad_level,
        seed=compare.seed,
        steps=compare.integrated_steps,
        gradcam_layer=compare.gradcam_layer,
    )
    return maker.map_maker(
        lambda: load_network_of(run),
        lambda network, at: prepare(network, classifier, device, at, maps.precision),
        names,
        options,
        taps,
        mean=classifier.mean,
        std=classifier.std,
        batch_size=maps.batch_size,
        grid=maps.grid,
        device=device,
    )


# --------------------------------------------------------------------------- rows


class Mapper(Worker):
    """The run's network: rows of the manifest and their images in, rows of the table out."""

    def __init__(self, device: str, run: RunDir) -> None:
        self.config = run.config.sensitivity
        self.make = map_maker(run, self.config.maps, device)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return rows of ``tables.sensitivity`` for n rows of the manifest."""
        index = np.asarray(pc.fill_null(rows["class_index"], PREDICTED))
        truth = self.config.label == "truth"
        seen = self.make(pixels, index if truth else np.full_like(index, PREDICTED))
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
            **map_columns(seen.maps, good),
            "error": pa.array(errors, pa.string()),
        }
        manifest = {name: rows[name] for name in rows.column_names}
        widths = {column(name): maps.values.shape[1] for name, maps in seen.maps.items()}
        return pa.table(manifest | new, tables.sensitivity(widths))


def map_columns(maps: Mapping[str, Maps], good: npt.NDArray[np.bool_]) -> dict[str, pa.Array]:
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
    """Count a file's rows, its errors, and each set's images and right predictions."""
    good = rows.filter(pc.is_null(rows["error"]))
    total = Counter(rows=len(rows), errors=len(rows) - len(good))
    for split in NAMES:
        images = good.filter(pc.equal(good["split"], split))
        total[split] = len(images)
        right = pc.equal(images["class_index"], images["predicted_index"])
        total[f"{split} right"] = pc.sum(right).as_py() or 0
    return total
