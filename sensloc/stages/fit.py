"""Sensitivity maps of the train and validation sets -> the fitted methods."""

import json
import logging
from collections.abc import Callable
from functools import reduce
from typing import Any

import pyarrow as pa

from sensloc import corloc
from sensloc.least_squares import LinearMap, NormalEquations
from sensloc.methods import Method, constant, learned
from sensloc.run import RunDir, RunError
from sensloc.stages.ray_data import over_files

log = logging.getLogger(__name__)


def fit(run: RunDir) -> None:
    """``sensitivity/`` (train, validation) -> ``linear_map.npz``, ``.json`` and ``fit.json``."""
    run.require("sensitivity")
    config = run.config
    normalise, threshold = config.fit.normalise, config.evaluate.iou
    maps_and_boxes = ["map", "map_scale", "boxes"]
    with run.stage("fit", "linear_map.npz", "linear_map.json", "fit.json") as facts:
        train = over_files(run, "sensitivity", maps_and_boxes, _sums, normalise, split="train")
        sums = reduce(
            NormalEquations.merge, train, NormalEquations.zeros(config.sensitivity.grid**2, 4)
        )
        if sums.n == 0:
            raise RunError(f"{run.at('sensitivity')}: no train image without an error")
        path = sums.path(config.fit.ridges)

        def validate(count: Callable[..., Any], *args: Any) -> Any:
            return sum(
                over_files(
                    run, "sensitivity", maps_and_boxes, count, *args, normalise, threshold,
                    split="validation",
                )
            )  # fmt: skip

        by_ridge = validate(_count_ridges, path)
        linear = path[learned.choose_ridge(config.fit.ridges, by_ridge)]
        sizes = config.fit.size_factors
        by_size = validate(_count_sizes, linear, sizes)
        factors = learned.choose_factors(sizes, by_size)
        boxes = [
            b
            for part in over_files(run, "sensitivity", ["boxes"], learned.truth, split="train")
            for b in part
        ]
        n_validation = sum(over_files(run, "sensitivity", ["image_id"], len, split="validation"))
        ridge_path = [
            {"ridge": ridge, "validation_correct": int(correct)}
            for ridge, correct in zip(config.fit.ridges, by_ridge, strict=True)
        ]
        linear.save(run.at("linear_map"), config_hash=config.fingerprint, ridge_path=ridge_path)
        facts |= {
            "n_train": sums.n,
            "n_validation": n_validation,
            "ridge": linear.ridge,
            "condition_number": linear.condition_number_,
            "validation_correct": int(by_ridge.max()),
            "factors": factors,
            "validation_correct_calibrated": int(by_size.max()),
            "constant_mean": constant.centre_mean(sums.y / sums.n).box,
            "constant_tuned": constant.tuned(boxes, threshold).box,
        }
        run.write("fit.json", json.dumps(facts | {"ridge_path": ridge_path}, indent=2))
    log.info("fit: ridge %g, size factors %s, n = %d", linear.ridge, factors, sums.n)


def _sums(rows: pa.Table, normalise: learned.Normalise) -> NormalEquations:
    return NormalEquations.from_batch(learned.features(rows, normalise), learned.targets(rows))


def _count_ridges(
    rows: pa.Table, path: list[LinearMap], normalise: learned.Normalise, threshold: float
) -> Any:
    boxes = learned.ridge_candidates(path, rows, normalise)
    return corloc.count_correct(boxes, learned.truth(rows), threshold)


def _count_sizes(
    rows: pa.Table,
    linear: LinearMap,
    sizes: tuple[float, ...],
    normalise: learned.Normalise,
    threshold: float,
) -> Any:
    boxes = learned.size_candidates(linear, sizes, rows, normalise)
    return corloc.count_correct(boxes, learned.truth(rows), threshold)


def fitted_methods(run: RunDir) -> dict[str, Method]:
    """The methods of a fitted run, by name, in the table's order."""
    run.require("fit")
    facts = json.loads(run.read("fit.json"))
    linear = LinearMap.load(run.at("linear_map"))
    normalise = run.config.fit.normalise
    return {
        "constant_mean": constant.ConstantBox(tuple(facts["constant_mean"])),
        "constant_tuned": constant.ConstantBox(tuple(facts["constant_tuned"])),
        "sensitivity": learned.SensitivityBox(linear, normalise),
        "sensitivity_calibrated": learned.SensitivityBox(
            linear, normalise, tuple(facts["factors"])
        ),
    }
