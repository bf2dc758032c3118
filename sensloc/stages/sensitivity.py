"""The manifest -> one sensitivity map per image, from one backward pass each."""

import logging
from collections import Counter
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from ray.data import ActorPoolStrategy
from torch import nn

from sensloc import tables
from sensloc.classifiers import load_network, prepare
from sensloc.config import SceneNet
from sensloc.images import ImageError
from sensloc.methods.learned import column
from sensloc.pixels import read
from sensloc.run import RunDir, RunError
from sensloc.sensitivity import PREDICTED, Gradient, MapMaker, class_score_gradient
from sensloc.splits import NAMES, keys
from sensloc.stages import ray_data

log = logging.getLogger(__name__)


def sensitivity(run: RunDir) -> None:
    """``manifest/`` -> ``sensitivity/``: one map per image, from one backward pass.

    Raises:
        RunError: the table does not hold every row of the manifest exactly once.
    """
    run.require("manifest")
    config, resources = run.config, run.config.resources
    # an actor that cannot start is tried again and again: a task says why, once
    check = ray.remote(num_cpus=resources.cpus_per_actor)(_check)
    ray.get(check.remote(run))
    # those that there is room for now, beside two tasks; autoscaling may add more
    at_once = ray_data.room(
        resources.cpus_per_actor, resources.gpus_per_actor, 2 * resources.cpus_per_task
    )
    with run.stage("sensitivity", "sensitivity") as facts:
        rows = (
            ray_data.read(run, "manifest")
            .map_batches(
                partial(
                    decode_images,
                    size=config.classifier.input_size,
                    connections=resources.connections,
                ),
                batch_format="pyarrow",
                batch_size=config.sensitivity.batch_size,
                num_cpus=resources.cpus_per_task,
            )
            .map_batches(
                SensitivityActor,
                fn_constructor_args=(run,),
                batch_format="pyarrow",
                batch_size=config.sensitivity.batch_size,
                compute=ActorPoolStrategy(
                    min_size=1,
                    max_size=resources.actors,
                    initial_size=min(at_once, resources.actors),
                ),
                num_cpus=resources.cpus_per_actor,
                num_gpus=resources.gpus_per_actor,
            )
        )
        ray_data.write(rows, run, "sensitivity")
        facts |= _account(run)
    log.info("sensitivity: %(rows)d rows, %(errors)d errors, top-1 %% %(top1)s", facts)


def decode_images(rows: pa.Table, size: int, connections: int) -> pa.Table:
    """Add ``pixels``, uint8 [S * S * 3] per row (zeros where there is an error)."""
    errors = rows["error"].to_pylist()
    wanted = [i for i, error in enumerate(errors) if error is None]
    uris = rows["uri"].to_pylist()
    pixels = np.zeros((len(rows), size, size, 3), np.uint8)
    found = read([uris[i] for i in wanted], size, connections)
    for i, one in zip(wanted, found, strict=True):
        if isinstance(one, ImageError):
            errors[i] = str(one)
        else:
            pixels[i] = one
    column = tables.fixed(pixels.reshape(len(rows), -1), pa.uint8())
    where = rows.schema.get_field_index("error")
    return rows.set_column(where, "error", pa.array(errors, pa.string())).append_column(
        "pixels", column
    )


def load_network_of(run: RunDir) -> nn.Module:
    """The run's network, on the CPU, its number of outputs not yet checked."""
    config = run.config.classifier
    return load_network(config, run.at("classifier.pt") if isinstance(config, SceneNet) else None)


def map_maker(
    run: RunDir, network: nn.Module, device: str, gradient: Gradient = class_score_gradient
) -> MapMaker:
    """The run's way to make maps, of a network that is prepared."""
    config = run.config
    return MapMaker(
        network,
        config.classifier.mean,
        config.classifier.std,
        config.sensitivity.batch_size,
        config.sensitivity.channels,
        config.sensitivity.grid,
        config.sensitivity.precision,
        device,
        gradient,
    )


def _check(run: RunDir) -> None:
    """Load and prepare the network once, for what that may raise."""
    prepare(load_network_of(run), run.config.classifier)


class SensitivityActor:
    """One network, held on one device: rows with pixels in, rows of the sensitivity table out."""

    def __init__(self, run: RunDir) -> None:
        config = run.config
        device = "cuda" if config.resources.gpus_per_actor else "cpu"
        torch.set_num_threads(1)  # more would sum in another order: more actors are as fast
        self.config = config
        self.stamp = ray_data.stamp(run)
        network = prepare(load_network_of(run), config.classifier, device)
        self.make = map_maker(run, network, device)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Rows of the manifest with pixels -> rows of the sensitivity table."""
        size, grid = self.config.classifier.input_size, self.config.sensitivity.grid
        pixels = column(rows, "pixels").reshape(-1, size, size, 3)
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
            "map": known(maps.map, pa.float16()),
            "map_scale": known(maps.scale, pa.float32()),
            "map_height": pa.array([grid] * n, pa.int32()),
            "map_width": pa.array([grid] * n, pa.int32()),
            "error": pa.array(errors, pa.string()),
        }
        schema = tables.sensitivity(grid).with_metadata(self.stamp)
        return pa.table({**{name: rows[name] for name in rows.column_names}, **new}, schema)


def _account(run: RunDir) -> dict[str, Any]:
    """Compare the table with the manifest, and count rows, errors and top-1 in percent."""
    columns = ["image_id", "split", "class_index", "predicted_index", "error"]
    made = list(ray_data.over_files(run, "sensitivity", columns, _tally, errors=True))
    ids, total = [part for part, _ in made], sum((part for _, part in made), Counter[str]())
    wanted = ray_data.over_files(run, "manifest", ["image_id"], _ids, errors=True)
    if not np.array_equal(np.sort(np.concatenate(ids)), np.sort(np.concatenate(list(wanted)))):
        raise RunError(
            f"{run.at('sensitivity')} does not hold every row of the manifest exactly once "
            f"({total['rows']} rows): run jobs/sensitivity.py again"
        )
    top1 = {
        split: round(100 * total[f"{split} right"] / total[split], 2)
        for split in NAMES
        if total[split]
    }
    return {"rows": total["rows"], "errors": total["errors"], "top1": top1}


def _ids(rows: pa.Table) -> Any:
    return keys(rows["image_id"].to_pylist(), 0)


def _tally(rows: pa.Table) -> tuple[Any, Counter[str]]:
    good = rows.filter(pc.is_null(rows["error"]))
    total = Counter(rows=len(rows), errors=len(rows) - len(good))
    for split in NAMES:
        mine = good.filter(pc.equal(good["split"], split))
        total[split] = len(mine)
        right = pc.equal(mine["class_index"], mine["predicted_index"])
        total[f"{split} right"] = pc.sum(right).as_py() or 0
    return _ids(rows), total
