"""The manifest -> one sensitivity map per image, from one backward pass each."""

import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from torch import nn

from sensloc.config import Config
from sensloc.datasets.split import NAMES
from sensloc.engine import cluster, units
from sensloc.heatmaps import gradient as gradients
from sensloc.heatmaps.gradient import PREDICTED, Gradient, MapMaker, class_score_gradient
from sensloc.images import isolation
from sensloc.images.decode import Pixels, read
from sensloc.images.fetch import ImageError
from sensloc.networks.prepare import prepare, weights_hash
from sensloc.store import tables
from sensloc.store.provenance import Machine, differences
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)


def sensitivity(run: RunDir) -> None:
    """``manifest/`` -> ``sensitivity/``: one map per image, from one backward pass.

    Raises:
        RunError: the table does not hold every row of the manifest exactly once, or the weights
            or the device are not those of the attempt that was cut off.
    """
    run.require("manifest")
    digest, machine = _looked_at(run)
    of = {"weights": digest, "device": machine.device}
    with run.stage("sensitivity", "sensitivity", of=of, seen={"cpu": machine.cpu}) as facts:
        wanted, began = units.names(run, "manifest"), time.monotonic()
        made = units.despite_crashes(run, "sensitivity", wanted, partial(_make, run))
        facts |= _account(run, made, time.monotonic() - began)
    log.info("sensitivity: %(rows)d rows, %(errors)d errors, top-1 %% %(top1)s", facts)


def _make(run: RunDir, todo: Sequence[str], isolated: bool) -> None:
    """The chain: a unit's images are decoded in a task, and mapped and written by an actor."""
    resources = run.config.resources
    made = (
        units.dataset(todo)
        .map(
            partial(decode_unit, run=run, isolated=isolated),
            num_cpus=resources.cpus_per_task,
            ray_remote_args_fn=cluster.for_tasks,
        )
        .map(
            SensitivityActor,  # type: ignore[arg-type]
            fn_constructor_args=(run,),
            **units.pool(
                min(resources.actors, len(todo)),
                resources.cpus_per_actor,
                resources.gpus_per_actor,
                spare=2 * resources.cpus_per_task,
            ),
        )
    )
    units.finish(made, run, "sensitivity", len(todo))


def _looked_at(run: RunDir) -> tuple[str, Machine]:
    """Return a hash of the run's network, and the machine it runs on, both of a task.

    The network is loaded and prepared there once: an actor that cannot start is tried again and
    again, this says why.
    """
    resources = run.config.resources
    look: Any = ray.remote(num_cpus=resources.cpus_per_actor, num_gpus=resources.gpus_per_actor)(
        _look
    )
    digest, machine = ray.get(look.remote(run))
    return digest, machine


def require_same_weights(run: RunDir) -> str:
    """Return the hash of the run's network, which made its maps on such a device.

    Raises:
        RunError: another network made them, or another kind of device; which is named.
    """
    digest, machine = _looked_at(run)
    here = {"weights": digest, "device": machine.device}
    if differs := differences(run.stages()["sensitivity"]["of"], here):
        raise RunError(f"{run.url}: sensitivity/ was made otherwise ({'; '.join(differs)})")
    return digest


def _look(run: RunDir) -> tuple[str, Machine]:
    network = load_network_of(run)
    digest = weights_hash(network)
    prepare(network, run.config.classifier)
    return digest, Machine.here(run.config.resources.gpus_per_actor)


def decode_unit(row: dict[str, Any], run: RunDir, isolated: bool = False) -> dict[str, Any]:
    """A file of the manifest -> its images' pixels, as plain bytes: one row, however long.

    Args:
        row: with the unit's name.
        run: the run.
        isolated: each image in a child process, so that one that kills it is an error.

    Returns:
        unit; pixels, uint8 [n * S * S * 3] (zeros where there is an error); errors, JSON [n].
    """
    size = run.config.classifier.input_size
    rows = _manifest_rows(run, row["unit"])
    errors = rows["error"].to_pylist()
    wanted = [i for i, error in enumerate(errors) if error is None]
    some = rows.take(pa.array(wanted, pa.int64()))
    pairs = list(zip(some["uri"].to_pylist(), some["content"].to_pylist(), strict=True))
    reading = partial(_read, config=run.config)
    found = (
        isolation.images(reading, pairs, some["uri"].to_pylist()) if isolated else reading(pairs)
    )
    pixels = np.zeros((len(rows), size, size, 3), np.uint8)
    for i, one in zip(wanted, found, strict=True):
        if isinstance(one, ImageError):
            errors[i] = str(one)
        else:
            pixels[i] = one
    return {"unit": row["unit"], "pixels": pixels.tobytes(), "errors": json.dumps(errors)}


def _read(pairs: Sequence[tuple[str, str]], config: Config) -> list[Pixels | ImageError]:
    """The pixels of images, given as uri and content."""
    uris, contents = zip(*pairs, strict=True) if pairs else ((), ())
    return read(
        uris,
        config.classifier.input_size,
        config.resources.connections,
        config.dataset.max_pixels,
        contents,
    )


def _manifest_rows(run: RunDir, unit: str) -> pa.Table:
    file = f"{run.path('manifest')}/{unit}.parquet"
    return cluster.load(run, [file], None, errors=True).combine_chunks()


def load_network_of(run: RunDir) -> nn.Module:
    """The run's network, on the CPU, its number of outputs not yet checked."""
    return run.config.classifier.load(run.at("classifier.pt"))


def map_maker(
    run: RunDir, network: nn.Module, device: str, gradient: Gradient = class_score_gradient
) -> MapMaker:
    """The run's way to make maps, of a network that is prepared."""
    config = run.config
    return gradients.map_maker(network, config.classifier, config.sensitivity, device, gradient)


class SensitivityActor:
    """One network, held on one device: a unit's pixels in, its file of maps written."""

    def __init__(self, run: RunDir) -> None:
        config = run.config
        device = "cuda" if config.resources.gpus_per_actor else "cpu"
        torch.set_num_threads(1)  # more would sum in another order: more actors are as fast
        self.run, self.config = run, config
        network = prepare(load_network_of(run), config.classifier, device)
        self.make = map_maker(run, network, device)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """See ``decode_unit`` for the row."""
        rows, size = _manifest_rows(self.run, row["unit"]), self.config.classifier.input_size
        pixels = np.frombuffer(row["pixels"], np.uint8).reshape(len(rows), size, size, 3)
        where = rows.schema.get_field_index("error")
        errors = pa.array(json.loads(row["errors"]), pa.string())
        rows, step = rows.set_column(where, "error", errors), self.config.sensitivity.batch_size
        made = [
            self.maps(rows.slice(start, step), pixels[start : start + step])
            for start in range(0, len(rows), step)
        ]
        return units.write(self.run, "sensitivity", row["unit"], pa.concat_tables(made))

    def maps(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """One batch: rows of the manifest and uint8 [n, S, S, 3] -> rows of the table."""
        grid = self.config.sensitivity.grid
        index = np.asarray(pc.fill_null(rows["class_index"], PREDICTED))
        truth = self.config.sensitivity.label == "truth"
        maps = self.make(pixels, index if truth else np.full_like(index, PREDICTED))
        errors = rows["error"].to_pylist()
        for i, wnid in enumerate(rows["wnid"].to_pylist()):
            if errors[i] is None and truth and index[i] == PREDICTED:
                errors[i] = f"class {wnid} is not one of the classifier's"
            elif errors[i] is None and not np.isfinite(maps.scale[i]):
                errors[i] = "the derivative is not finite"
        good = pa.array([error is None for error in errors])
        n = len(rows)

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
        kept = {name: rows[name] for name in rows.column_names}
        return pa.table(kept | new, tables.sensitivity(grid))


def _account(run: RunDir, made: Sequence[str], seconds: float) -> dict[str, Any]:
    """Compare the table with the manifest, and count rows, errors and top-1 in percent.

    Args:
        run: the run.
        made: units that this attempt made.
        seconds: that it took for them.
    """
    if not cluster.same_rows(run, "sensitivity", "manifest"):
        raise RunError(
            f"{run.at('sensitivity')} does not hold every row of the manifest exactly once: run "
            "`sensloc sensitivity` again"
        )
    columns = ["split", "class_index", "predicted_index", "error"]
    by_file = cluster.by_file(run, "sensitivity", columns, _tally)
    total = sum(by_file.values(), Counter[str]())
    ours = {f"{run.path('sensitivity')}/{unit}.parquet" for unit in made}
    rows = sum(counts["rows"] for file, counts in by_file.items() if file in ours)
    top1 = {
        split: round(100 * total[f"{split} right"] / total[split], 2)
        for split in NAMES
        if total[split]
    }
    rate = round(rows / seconds, 2) if rows else None
    return {"rows": total["rows"], "errors": total["errors"], "top1": top1, "images_per_s": rate}


def _tally(rows: pa.Table) -> Counter[str]:
    good = rows.filter(pc.is_null(rows["error"]))
    total = Counter(rows=len(rows), errors=len(rows) - len(good))
    for split in NAMES:
        mine = good.filter(pc.equal(good["split"], split))
        total[split] = len(mine)
        right = pc.equal(mine["class_index"], mine["predicted_index"])
        total[f"{split} right"] = pc.sum(right).as_py() or 0
    return total
