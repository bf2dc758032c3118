"""The stage that makes a sensitivity map of every image, from one backward pass each."""

import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from torch import nn

from sensloc.config import SceneNet
from sensloc.datasets.split import NAMES
from sensloc.engine import cluster, units
from sensloc.engine.chain import Chain, Worker, write_units
from sensloc.heatmaps import gradient as gradients
from sensloc.heatmaps.gradient import PREDICTED, Gradient, MapMaker, class_score_gradient
from sensloc.images.decode import Pixels
from sensloc.networks.prepare import prepare, weights_hash
from sensloc.networks.sources import load_network
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)


def sensitivity(run: RunDir) -> None:
    """``manifest/`` -> ``sensitivity/``: one map per image, from one backward pass.

    Raises:
        RunError: The table does not hold every row of the manifest exactly once, or the weights
            are not those of the attempt that was cut off.
    """
    run.require("manifest")
    with run.stage("sensitivity", "sensitivity", of={"weights": weights(run)}) as facts:
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


def weights(run: RunDir) -> str:
    """Return a hash of the run's network, loaded and prepared once in a task."""
    return cluster.in_task(_weights, run, cpus=run.config.resources.cpus_per_actor)


def require_same_weights(run: RunDir) -> str:
    """Return the hash of a run's network, which must be the one that made the run's maps.

    Raises:
        RunError: They were made by another network.
    """
    digest = weights(run)
    if digest != run.stages()["sensitivity"]["of"]["weights"]:
        raise RunError(f"{run.url}: the classifier's weights are not those of sensitivity/")
    return digest


def _weights(run: RunDir) -> str:
    network = load_network_of(run)
    digest = weights_hash(network)
    prepare(network, run.config.classifier)
    return digest


def load_network_of(run: RunDir) -> nn.Module:
    """Return the run's network, on the CPU, its number of outputs not yet checked."""
    config = run.config.classifier
    return load_network(config, run.at("classifier.pt") if isinstance(config, SceneNet) else None)


def map_maker(
    run: RunDir, network: nn.Module, device: str, gradient: Gradient = class_score_gradient
) -> MapMaker:
    """Return the run's way to make maps, of a network that is prepared."""
    config = run.config
    return gradients.map_maker(network, config.classifier, config.sensitivity, device, gradient)


class Mapper(Worker):
    """The run's network: rows of the manifest and their images in, rows of the table out."""

    def __init__(self, device: str, run: RunDir) -> None:
        network = prepare(load_network_of(run), run.config.classifier, device)
        self.config, self.make = run.config.sensitivity, map_maker(run, network, device)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return rows of ``tables.sensitivity`` for n rows of the manifest."""
        grid, n = self.config.grid, len(rows)
        index = np.asarray(pc.fill_null(rows["class_index"], PREDICTED))
        truth = self.config.label == "truth"
        maps = self.make(pixels, index if truth else np.full_like(index, PREDICTED))
        errors = rows["error"].to_pylist()
        for i, wnid in enumerate(rows["wnid"].to_pylist()):
            if errors[i] is None and truth and index[i] == PREDICTED:
                errors[i] = f"class {wnid} is not one of the classifier's"
            elif errors[i] is None and not np.isfinite(maps.scale[i]):
                errors[i] = "the derivative is not finite"
        good = pa.array([error is None for error in errors])

        def known(values: Any, kind: pa.DataType) -> pa.Array:
            column = tables.fixed(values, kind) if values.ndim == 2 else pa.array(values, kind)
            return pc.if_else(good, column, pa.scalar(None, column.type))

        new = {
            "predicted_index": known(maps.predicted, pa.int64()),
            "score": known(maps.score, pa.float32()),
            "probability": known(maps.probability, pa.float32()),
            "map": known(maps.map.astype(np.float32), pa.float32()),
            "map_scale": known(maps.scale, pa.float32()),
            "map_height": pa.array([grid] * n, pa.int32()),
            "map_width": pa.array([grid] * n, pa.int32()),
            "error": pa.array(errors, pa.string()),
        }
        manifest = {name: rows[name] for name in rows.column_names}
        return pa.table(manifest | new, tables.sensitivity(grid))


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
            "jobs/sensitivity.py again"
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
