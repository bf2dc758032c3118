"""More maps of each image than the run's own, and features of its proposals."""

from collections.abc import Sequence
from copy import copy
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sensloc.boxes import largest
from sensloc.comparison.draw import Draw
from sensloc.comparison.partners import Partners, partners_of
from sensloc.comparison.proposals import FAILURES, PROPOSALS
from sensloc.engine import units
from sensloc.engine.chain import Chain, Worker, write_units
from sensloc.heatmaps import controls
from sensloc.heatmaps.layers import (
    ActivationMaker,
    IntegratedGradients,
    SmoothGrad,
    pooled_features,
)
from sensloc.images.decode import Pixels
from sensloc.methods import catalogue
from sensloc.networks.prepare import prepare
from sensloc.networks.sources import randomised
from sensloc.rows import true_boxes
from sensloc.stages.sensitivity import load_network_of, map_maker, require_same_weights
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.run import RunDir

MAPS = "compare/maps"
LAYERS = frozenset({"map_cam", "map_gradcam", "box_features"})


def make_maps(run: RunDir, taken: Draw) -> None:
    """``compare/proposals`` -> ``compare/maps``, the files that are missing."""
    require_same_weights(run)
    wanted = "map_permuted" in catalogue.columns(run.config.compare.methods)
    partners = partners_of(run, taken) if wanted else {}
    names = units.names(run, "sensitivity")
    write_units(chain(run), {unit: (unit, partners.get(unit)) for unit in names})


def chain(run: RunDir) -> Chain:
    """Return how a unit of ``compare/proposals`` gets the columns that the methods read."""
    columns = frozenset(catalogue.columns(run.config.compare.methods) - {"map"})
    return Chain(
        run,
        MAPS,
        rows=_rows,
        size=run.config.classifier.input_size,
        batch_size=run.config.sensitivity.batch_size,
        worker=partial(Mapper, run=run, columns=columns),
    )


def _rows(run: RunDir, unit: tuple[str, Partners | None]) -> pa.Table:
    """Return a unit of ``compare/proposals``, with the maps of other images if they are wanted."""
    name, partners = unit
    rows = load_unit(run, PROPOSALS, name)
    if partners is None:
        return rows
    good = pc.is_null(rows["error"]).to_pylist()
    ids = rows["image_id"].to_pylist()
    maps = iter(partners.maps(run, [image_id for image_id, g in zip(ids, good, strict=True) if g]))
    column = [next(maps) if g else None for g in good]
    width = run.config.sensitivity.grid**2
    return rows.append_column("map_permuted", _column(column, "map_permuted", width))


class Mapper(Worker):
    """The run's network and a random one: rows with proposals in, rows with more maps out."""

    def __init__(self, device: str, run: RunDir, columns: frozenset[str]) -> None:
        config = run.config
        self.run, self.columns, self.device = run, columns, device
        network = prepare(load_network_of(run), config.classifier, device)
        smooth = SmoothGrad(
            config.compare.smoothgrad_samples, config.compare.smoothgrad_level, config.compare.seed
        )
        steps = IntegratedGradients(config.compare.integrated_steps)
        self.makers = {
            "map": map_maker(run, network, device),
            "map_smoothgrad": map_maker(run, network, device, smooth),
            "map_integrated": map_maker(run, network, device, steps),
        }
        if "map_random" in columns:
            fresh = randomised(load_network_of(run), config.compare.seed)
            fresh = prepare(fresh, config.classifier, device)
            self.makers["map_random"] = map_maker(run, fresh, device)
        if columns & LAYERS:
            size = config.classifier.input_size
            probe = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
            self.layers = ActivationMaker.of(
                network, probe.to(device), config.compare.gradcam_layer, "map_cam" in columns
            )

    def only(self, column: str) -> "Mapper":
        """Return a mapper with the same networks that makes one column alone."""
        other = copy(self)
        other.columns = frozenset({column})
        return other

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return the rows with the columns that the methods read; null where there is an error."""
        good = np.flatnonzero(np.asarray(pc.is_null(rows["error"])))
        values = self.read(rows.take(pa.array(good)), pixels[good]) if len(good) else {}
        failures = [dict(pairs or []) for pairs in rows["failures"].to_pylist()]
        for name in sorted(self.columns - {"map", "map_permuted"}):
            column: list[Any] = [None] * len(rows)
            for i, value in zip(good, values.get(name, ()), strict=False):
                column[i] = value
                if value is None and name != "box_features":
                    failures[i][name] = f"{name} is not finite"
            rows = rows.append_column(name, _column(column, name, self._width(name)))
        where = rows.schema.get_field_index("failures")
        listed = [list(reasons.items()) for reasons in failures]
        return rows.set_column(where, "failures", pa.array(listed, FAILURES))

    def read(self, rows: pa.Table, pixels: Pixels) -> dict[str, Sequence[Any]]:
        """Return the values of each column for a batch of images; None where a map is not finite.

        Args:
            rows: n rows without errors, n <= batch_size.
            pixels: Their images, uint8 [n, S, S, 3].
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
            objects = np.array([largest(boxes) for boxes in true_boxes(rows)])
            made["map_mask"] = controls.box_mask(objects, grid).astype(np.float16)
        if self.columns & LAYERS:
            made |= self._layers(rows, pixels, labels, n)
        return made

    def _layers(
        self, rows: pa.Table, pixels: Pixels, labels: npt.NDArray[np.int64], n: int
    ) -> dict[str, Any]:
        maker = self.makers["map"]
        layers = self.layers(maker.normalise(maker.padded(pixels)), maker.padded(labels))
        made = {}
        for name, maps in (("map_cam", layers.cam), ("map_gradcam", layers.grad_cam)):
            if name in self.columns and maps is not None:
                flat = maps[:n].flatten(1)
                low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
                stretched = (flat - low) / torch.where(high > low, high - low, 1)
                made[name] = _finite(
                    stretched.half().cpu().numpy(), torch.isfinite(flat).all(1).cpu().numpy()
                )
        if "box_features" in self.columns:
            made["box_features"] = [
                self._box_features(layers.features[i : i + 1], boxes)
                for i, boxes in enumerate(rows["proposals"].to_pylist())
            ]
        return made

    def _box_features(self, features: torch.Tensor, boxes: Any) -> Any:
        """Return an image's k boxes' unit features in a row: float32 [k * C]; None if k = 0."""
        if not boxes:
            return None
        wanted = torch.tensor(boxes, device=features.device)[None]
        unit = torch.nn.functional.normalize(pooled_features(features, wanted)[0], dim=1)
        return unit.half().float().flatten().cpu().numpy()

    def _width(self, name: str) -> int:
        grid = self.run.config.sensitivity.grid
        if name in ("map_cam", "map_gradcam"):
            return self._layer_size[name]
        return 3 * grid * grid if name == "image" else grid * grid

    @cached_property
    def _layer_size(self) -> dict[str, int]:
        size = self.run.config.classifier.input_size
        x = torch.zeros(1, 3, size, size, device=self.device)
        layers = self.layers(x, torch.zeros(1, dtype=torch.int64, device=self.device))
        cells = {"map_cam": layers.cam, "map_gradcam": layers.grad_cam}
        return {name: maps[0].numel() for name, maps in cells.items() if maps is not None}


def _finite(values: npt.NDArray[np.float16], good: Any) -> list[Any]:
    """Return the rows of [n, k], and None where they are not good."""
    return [row if finite else None for row, finite in zip(values, good, strict=True)]


def _column(values: list[Any], name: str, width: int) -> pa.Array:
    """Return values of some width, or None, as a column; features are lists of any length."""
    if name == "box_features":
        return pa.array(values, pa.list_(pa.float32()))
    good = pa.array([value is not None for value in values])
    dense = np.zeros((len(values), width), np.float32)
    for i, value in enumerate(values):
        if value is not None:
            dense[i] = value
    column = tables.fixed(dense, pa.float32())
    return pc.if_else(good, column, pa.scalar(None, column.type))
