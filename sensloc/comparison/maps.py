"""More maps of each image than the run's own, and features of its proposals: a unit per file."""

from collections.abc import Sequence
from copy import copy
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from sensloc.boxes import largest
from sensloc.comparison.draw import Draw
from sensloc.comparison.proposals import FAILURES, PROPOSALS
from sensloc.engine import cluster, units
from sensloc.heatmaps import controls
from sensloc.heatmaps.layers import (
    ActivationMaker,
    IntegratedGradients,
    SmoothGrad,
    pooled_features,
)
from sensloc.images.decode import Pixels, read
from sensloc.images.fetch import ImageError
from sensloc.methods import catalogue
from sensloc.networks.prepare import prepare
from sensloc.networks.weights import randomised
from sensloc.rows import true_boxes, vectors
from sensloc.stages.sensitivity import load_network_of, map_maker, require_same_weights
from sensloc.store import tables
from sensloc.store.run import RunDir

MAPS = "compare/maps"
LAYERS = frozenset({"map_cam", "map_gradcam", "box_features"})


def make_maps(run: RunDir, taken: Draw) -> None:
    """``compare/proposals`` -> ``compare/maps``, the files that are missing."""
    resources = run.config.resources
    columns = frozenset(catalogue.columns(run.config.compare.methods) - {"map"})
    require_same_weights(run)
    # an actor that cannot start is tried again and again: a task says why, once
    check: Any = ray.remote(num_cpus=resources.cpus_per_actor)(_check)
    ray.get(check.remote(run, columns))
    others = permuted_maps(run, taken) if "map_permuted" in columns else (None, None)
    units.each(
        run,
        MAPS,
        units.names(run, "sensitivity"),
        Mapper,
        others,
        columns,
        cpus=resources.cpus_per_actor,
        gpus=resources.gpus_per_actor,
        actors=resources.actors,
    )


def _check(run: RunDir, columns: frozenset[str]) -> None:
    """Make the networks and find the layers once, for what that may raise."""
    Mapper(run, (None, None), columns, device="cpu")


class Mapper:
    """The run's network and a random one: a file of proposals in, rows with more maps out."""

    def __init__(
        self,
        run: RunDir,
        permuted: tuple[Any, Any],
        columns: frozenset[str],
        device: str | None = None,
    ) -> None:
        config = run.config
        self.run, self.columns = run, columns
        self.ids, self.others = permuted
        self.device = device or ("cuda" if config.resources.gpus_per_actor else "cpu")
        torch.set_num_threads(1)
        network = prepare(load_network_of(run), config.classifier, self.device)
        smooth = SmoothGrad(
            config.compare.smoothgrad_samples, config.compare.smoothgrad_level, config.compare.seed
        )
        steps = IntegratedGradients(config.compare.integrated_steps)
        self.makers = {
            "map": map_maker(run, network, self.device),
            "map_smoothgrad": map_maker(run, network, self.device, smooth),
            "map_integrated": map_maker(run, network, self.device, steps),
        }
        if "map_random" in columns:
            fresh = randomised(load_network_of(run), config.compare.seed)
            fresh = prepare(fresh, config.classifier, self.device)
            self.makers["map_random"] = map_maker(run, fresh, self.device)
        if columns & LAYERS:
            size = config.classifier.input_size
            probe = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(
                self.device
            )
            self.layers = ActivationMaker.of(
                network, probe, config.compare.gradcam_layer, "map_cam" in columns
            )

    def only(self, column: str) -> "Mapper":
        """The same, which makes one column alone."""
        other = copy(self)
        other.columns = frozenset({column})
        return other

    def __call__(self, unit: str) -> pa.Table:
        """Add the columns that the methods read."""
        file = f"{self.run.path(PROPOSALS)}/{unit}.parquet"
        rows = cluster.load(self.run, [file], None, errors=True)
        config, errors = self.run.config, rows["error"].to_pylist()
        good = [i for i, error in enumerate(errors) if error is None]
        uris = rows["uri"].take(pa.array(good, pa.int64())).to_pylist()
        pixels = read(uris, config.classifier.input_size, config.resources.connections)
        for i, one in zip(good, pixels, strict=True):
            if isinstance(one, ImageError):
                errors[i] = str(one)
        kept = [(i, one) for i, one in zip(good, pixels, strict=True) if errors[i] is None]
        where = rows.schema.get_field_index("error")
        rows = rows.set_column(where, "error", pa.array(errors, pa.string()))
        size = config.sensitivity.batch_size
        made: dict[str, list[Any]] = {}
        for start in range(0, len(kept), size):
            index, images = zip(*kept[start : start + size], strict=True)
            batch = rows.take(pa.array(index))
            for name, values in self.read(batch, np.stack(images)).items():
                made.setdefault(name, []).extend(values)
        return self._joined(rows, [i for i, _ in kept], made)

    def read(self, rows: pa.Table, pixels: Pixels) -> dict[str, Sequence[Any]]:
        """Each column's values for one batch of images; None where a map is not finite.

        Args:
            rows: n of them, without errors.
            pixels: uint8 [n, S, S, 3], n <= batch_size.
        """
        config, n = self.run.config, len(rows)
        truth = config.sensitivity.label == "truth"
        labels = np.asarray(rows["class_index" if truth else "predicted_index"], np.int64)
        grid = config.sensitivity.grid
        made: dict[str, Any] = {}
        for name in self.columns & self.makers.keys():
            maps = self.makers[name](pixels, labels)
            made[name] = _finite(maps.map, np.isfinite(maps.scale))
        if "image" in self.columns:
            made["image"] = controls.pooled_image(pixels, grid).astype(np.float16)
        if "map_mask" in self.columns:
            boxes = np.array([largest(one) for one in true_boxes(rows)])
            made["map_mask"] = controls.box_mask(boxes, grid).astype(np.float16)
        if "map_permuted" in self.columns:
            mine = np.searchsorted(self.ids, np.array(rows["image_id"].to_pylist()))
            made["map_permuted"] = self.others[mine]
        if self.columns & LAYERS:
            made |= self._layers(rows, pixels, labels, n)
        return made

    def _layers(
        self, rows: pa.Table, pixels: Pixels, labels: npt.NDArray[np.int64], n: int
    ) -> dict[str, Any]:
        maker = self.makers["map"]
        found = self.layers(maker.normalise(maker.padded(pixels)), maker.padded(labels))
        made = {}
        for name, maps in (("map_cam", found.cam), ("map_gradcam", found.grad_cam)):
            if name in self.columns and maps is not None:
                flat = maps[:n].flatten(1)
                low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
                stretched = (flat - low) / torch.where(high > low, high - low, 1)
                made[name] = _finite(
                    stretched.half().cpu().numpy(), torch.isfinite(flat).all(1).cpu().numpy()
                )
        if "box_features" in self.columns:
            made["box_features"] = [
                self._box_features(found.features[i : i + 1], boxes)
                for i, boxes in enumerate(rows["proposals"].to_pylist())
            ]
        return made

    def _box_features(self, features: torch.Tensor, boxes: Any) -> Any:
        """Of unit norm, one image's boxes in a row: float32 [k * C]; None without boxes."""
        if not boxes:
            return None
        wanted = torch.tensor(boxes, device=features.device)[None]
        each = torch.nn.functional.normalize(pooled_features(features, wanted)[0], dim=1)
        return each.half().float().flatten().cpu().numpy()

    def _joined(self, rows: pa.Table, index: list[int], made: dict[str, list[Any]]) -> pa.Table:
        """Put the values of the rows ``index`` beside the rows; null elsewhere."""
        failures = [dict(pairs or []) for pairs in rows["failures"].to_pylist()]
        for name in sorted(self.columns - {"map"}):
            column: list[Any] = [None] * len(rows)
            for i, value in zip(index, made.get(name, []), strict=True):
                column[i] = value
                if value is None and name != "box_features":
                    failures[i][name] = f"{name} is not finite"
            rows = rows.append_column(name, _column(column, name, self._width(name)))
        where = rows.schema.get_field_index("failures")
        listed = [list(one.items()) for one in failures]
        return rows.set_column(where, "failures", pa.array(listed, FAILURES))

    def _width(self, name: str) -> int:
        grid = self.run.config.sensitivity.grid
        if name in ("map_cam", "map_gradcam"):
            return int(self._layer_size()[name])
        return 3 * grid * grid if name == "image" else grid * grid

    def _layer_size(self) -> dict[str, int]:
        size = self.run.config.classifier.input_size
        x = torch.zeros(1, 3, size, size, device=self.device)
        found = self.layers(x, torch.zeros(1, dtype=torch.int64, device=self.device))
        cells = {"map_cam": found.cam, "map_gradcam": found.grad_cam}
        return {name: maps[0].numel() for name, maps in cells.items() if maps is not None}


def _finite(values: npt.NDArray[np.float16], good: Any) -> list[Any]:
    return [row if fine else None for row, fine in zip(values, good, strict=True)]


def _column(values: list[Any], name: str, width: int) -> pa.Array:
    if name == "box_features":
        return pa.array(values, pa.list_(pa.float32()))
    good = pa.array([value is not None for value in values])
    dense = np.zeros((len(values), width), np.float32)
    for i, value in enumerate(values):
        if value is not None:
            dense[i] = value
    made = tables.fixed(dense, pa.float32())
    return pc.if_else(good, made, pa.scalar(None, made.type))


def permuted_maps(run: RunDir, taken: Draw) -> tuple[Any, Any]:
    """Another image's sensitivity map for each that takes part, drawn within its split.

    Returns:
        The image ids, sorted [n], and the other image's map for each, [n, G * G].
    """
    ids, others = [], []
    for split in ("train", "validation", "test"):
        parts = cluster.over_files(
            run, "sensitivity", ["image_id", "split", "map"], taken, split=split
        )
        rows = pa.concat_tables(parts).sort_by("image_id").combine_chunks()
        if len(rows):
            names = rows["image_id"].to_pylist()
            ids += names
            others.append(vectors(rows, "map")[controls.partners(names, taken.seed)])
    order = np.argsort(np.array(ids))
    return np.array(ids)[order], np.concatenate(others)[order]
