"""Sensitivity maps of the train and validation sets -> the fitted methods."""

import json
import logging
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import pyarrow as pa

from sensloc import corloc
from sensloc.boxes import Boxes
from sensloc.least_squares import LinearMap, NormalEquations
from sensloc.methods import Method, constant, learned
from sensloc.run import RunDir, RunError
from sensloc.stages.ray_data import over_files

log = logging.getLogger(__name__)

MAPS_AND_BOXES = ["map", "boxes"]


def fit(run: RunDir) -> None:
    """``sensitivity/`` (train, validation) -> ``linear_map.npz``, ``.json`` and ``fit.json``.

    Raises:
        RunError: there is nothing to learn from, or nothing to choose by.
    """
    run.require("sensitivity")
    config = run.config
    ridges, sizes = config.fit.ridges, config.fit.size_factors
    over = partial(over_files, run, "sensitivity")
    with run.stage("fit", "linear_map.npz", "linear_map.json", "fit.json") as facts:
        nothing = NormalEquations.zeros(config.sensitivity.grid**2, 4)
        parts = over(MAPS_AND_BOXES, _sums, config.fit.normalise, split="train")
        sums = reduce(NormalEquations.merge, parts, nothing)
        n_validation = sum(over(["image_id"], len, split="validation"))
        if not (sums.n and n_validation):
            raise RunError(
                f"{run.at('sensitivity')}: {sums.n} train and {n_validation} validation images "
                "without an error: the fit needs some of both"
            )
        path = sums.path(ridges)
        by_ridge = _validate(run, over, partial(learned.ridge_candidates, path))
        linear = path[learned.choose_ridge(ridges, by_ridge)]
        by_size = _validate(run, over, partial(learned.size_candidates, linear, sizes))
        boxes = [box for part in over(["boxes"], learned.truth, split="train") for box in part]
        ridge_path = [
            {"ridge": ridge, "validation_correct": int(correct)}
            for ridge, correct in zip(ridges, by_ridge, strict=True)
        ]
        linear.save(run.at("linear_map"), config_hash=config.fingerprint, ridge_path=ridge_path)
        facts |= {
            "n_train": sums.n,
            "n_validation": n_validation,
            "ridge": linear.ridge,
            "condition_number": linear.condition_number_,
            "validation_correct": int(by_ridge.max()),
            "factors": learned.choose_factors(sizes, by_size),
            "validation_correct_calibrated": int(by_size.max()),
            "constant_mean": constant.centre_mean(sums.y / sums.n).box,
            "constant_tuned": constant.tuned(boxes, config.evaluate.iou).box,
        }
        run.write("fit.json", json.dumps(facts | {"ridge_path": ridge_path}, indent=2))
    log.info("fit: ridge %(ridge)g, size factors %(factors)s, n = %(n_train)d", facts)


def _sums(rows: pa.Table, normalise: learned.Normalise) -> NormalEquations:
    return NormalEquations.from_batch(learned.features(rows, normalise), learned.targets(rows))


def _validate(run: RunDir, over: Callable[..., Any], candidates: Callable[..., Boxes]) -> Any:
    """How many validation images each of the candidates gets right: int64 [candidates]."""
    normalise, threshold = run.config.fit.normalise, run.config.evaluate.iou
    return sum(over(MAPS_AND_BOXES, _count, candidates, normalise, threshold, split="validation"))


def _count(
    rows: pa.Table,
    candidates: Callable[..., Boxes],
    normalise: learned.Normalise,
    threshold: float,
) -> Any:
    return corloc.count_correct(candidates(rows, normalise), learned.truth(rows), threshold)


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
