"""More maps of each image than the run's own, and features of its proposals."""

from collections.abc import Collection, Sequence
from copy import copy
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sensloc.boxes import largest
from sensloc.comparison import given
from sensloc.comparison.draw import Draw
from sensloc.comparison.partners import Partners, partners_of
from sensloc.comparison.proposals import PROPOSALS, carried, with_failures
from sensloc.engine import units
from sensloc.engine.batches import Worker
from sensloc.engine.chain import Chain, write_units
from sensloc.heatmaps import column, controls, names_of
from sensloc.heatmaps.regions import pooled_features
from sensloc.images.pixels import Pixels
from sensloc.methods import catalogue
from sensloc.networks.taps import FEATURES, Tap
from sensloc.rows import true_boxes
from sensloc.stages.network import map_maker
from sensloc.stages.sensitivity import map_columns
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.run import RunDir

MAPS = "compare/maps"
BOX_FEATURES = "box_features"


def make_maps(run: RunDir, taken: Draw) -> None:
    """``compare/proposals`` -> ``compare/maps``, the files that are missing."""
    wanted = "map_permuted" in catalogue.columns(run.config.compared)
    partners = partners_of(run, taken) if wanted else {}
    names = units.names(run, "sensitivity")
    write_units(chain(run), {unit: (unit, partners.get(unit)) for unit in names})


def chain(run: RunDir) -> Chain:
    """Return how a unit of ``compare/proposals`` gets the columns that the methods read."""
    columns = frozenset(catalogue.columns(run.config.compared)) - set(carried(run))
    return Chain(
        run,
        MAPS,
        rows=_rows,
        worker=partial(Mapper, run=run, columns=columns),
    )


def _rows(run: RunDir, unit: tuple[str, Partners | None]) -> pa.Table:
    """Return a unit of ``compare/proposals``, with maps that others made, and with those of other
    images if they are wanted.
    """
    name, partners = unit
    rows = given.beside(run, load_unit(run, PROPOSALS, name))
    if partners is None:
        return rows
    good = np.asarray(pc.is_null(rows["error"]))
    maps = partners.maps(run, rows.filter(pa.array(good))["image_id"].to_pylist())
    whole = np.zeros((len(rows), maps.shape[1]), np.float32)
    whole[good] = maps
    return rows.append_column("map_permuted", tables.nullable(whole, good, pa.float32()))


class Mapper(Worker):
    """The run's network and a random one: rows with proposals in, rows with more maps out."""

    def __init__(self, device: str, run: RunDir, columns: Collection[str]) -> None:
        self.config, self.columns = run.config.sensitivity, frozenset(columns)
        self.make = map_maker(run, names_of(columns), device, self._taps)

    @property
    def _taps(self) -> tuple[Tap, ...]:
        return (FEATURES,) if BOX_FEATURES in self.columns else ()

    def only(self, column: str) -> "Mapper":
        """Return a mapper with the same networks that makes one column alone."""
        other = copy(self)
        other.columns = frozenset({column})
        other.make = self.make.only(names_of([column]), other._taps)
        return other

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return the rows with the columns that the methods read; null where there is an error."""
        good = np.asarray(pc.is_null(rows["error"]))
        columns = self.read(rows, pixels)
        failures: list[dict[str, str]] = [{} for _ in range(len(rows))]
        for name in map(column, self.make.readings):
            for i in np.flatnonzero(good & np.asarray(pc.is_null(columns[name]))):
                failures[i][name] = f"{name} is not finite"
        for name in sorted(columns):
            rows = rows.append_column(name, columns[name])
        return with_failures(rows, failures)

    def read(self, rows: pa.Table, pixels: Pixels) -> dict[str, pa.Array]:
        """Return the columns of one batch; null where a row has an error or a map is not finite.

        Args:
            rows: n rows with proposals, n <= batch_size.
            pixels: uint8 [n, S, S, 3], whatever it is where a row has an error.
        """
        good = np.asarray(pc.is_null(rows["error"]))
        columns = self.controls(rows, pixels, good)
        if self.make.readings or self._taps:
            label = "class_index" if self.config.label == "truth" else "predicted_index"
            seen = self.make(pixels, np.asarray(pc.fill_null(rows[label], 0), np.int64))
            for name, maps in seen.maps.items():
                columns |= map_columns({name: maps}, good & np.isfinite(maps.scale))
            if BOX_FEATURES in self.columns:
                columns[BOX_FEATURES] = box_features(rows, seen.passed.activation(FEATURES))
        return columns

    def controls(self, rows: pa.Table, pixels: Pixels, good: Any) -> dict[str, pa.Array]:
        """Return what needs no network: the image itself, and the true box as a map."""
        grid, made = self.config.grid, {}
        if "image" in self.columns:
            made["image"] = controls.pooled_image(pixels, grid)
        if "map_mask" in self.columns:
            boxes = np.zeros((len(rows), 4))
            truth = true_boxes(rows.filter(pa.array(good)))
            boxes[good] = np.array([largest(box) for box in truth]).reshape(-1, 4)
            made["map_mask"] = controls.box_mask(boxes, grid)
        return {
            name: tables.nullable(values.astype(np.float16).astype(np.float32), good, pa.float32())
            for name, values in made.items()
        }


def box_features(rows: pa.Table, features: torch.Tensor) -> pa.Array:
    """Return what the last features say about each row's proposals.

    Args:
        rows: n rows with proposals, or without.
        features: [batch_size, C, h, w], of the rows' images first.

    Returns:
        A list [k * C] per row, of unit norm for each of its k proposals; null without any.
    """
    pooled = [
        _pooled(features[i : i + 1], boxes) if boxes else None
        for i, boxes in enumerate(rows["proposals"].to_pylist())
    ]
    return pa.array(pooled, pa.list_(pa.float32()))


def _pooled(features: torch.Tensor, boxes: Sequence[Any]) -> npt.NDArray[np.float32]:
    wanted = torch.tensor(boxes, device=features.device)[None]
    each_box = torch.nn.functional.normalize(pooled_features(features, wanted)[0], dim=1)
    values: npt.NDArray[np.float32] = each_box.half().float().flatten().cpu().numpy()
    return values
