"""Sensitivity maps of the train and validation sets -> the fitted methods."""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import pyarrow as pa

from sensloc.boxes import Boxes
from sensloc.engine.cluster import over_files
from sensloc.methods import Method, constant, linear
from sensloc.methods.least_squares import LinearMap, NormalEquations
from sensloc.rows import complete, true_boxes
from sensloc.scoring import corloc
from sensloc.store.files import image_keys
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fitted:
    """A linear map, what was tried on validation, and the sums behind it.

    Attributes:
        linear: of the chosen ridge.
        factors: of the box's size.
        sums: over the train images.
        n_validation: images.
        by_ridge: [ridges] validation images right.
        by_size: [sizes ** 2] the same under each pair of factors.
    """

    linear: LinearMap
    factors: tuple[float, float]
    sums: NormalEquations
    n_validation: int
    by_ridge: Any
    by_size: Any

    def facts(self) -> dict[str, Any]:
        """For the run's JSON: what was chosen, and by what."""
        return {
            "n_train": self.sums.n,
            "n_validation": self.n_validation,
            "ridge": self.linear.ridge,
            "condition_number": self.linear.condition_number_,
            "validation_correct": int(self.by_ridge.max()),
            "factors": self.factors,
            "validation_correct_calibrated": int(self.by_size.max()),
        }


def fit(run: RunDir) -> None:
    """``sensitivity/`` (train, validation) -> ``linear_map.npz``, ``.json`` and ``fit.json``.

    Raises:
        RunError: there is nothing to learn from, or nothing to choose by.
    """
    run.require("sensitivity")
    config = run.config
    with run.stage("fit", "linear_map.npz", "linear_map.json", "fit.json") as facts:
        fitted = fit_linear(run, "sensitivity", ("map",))
        sums = fitted.sums
        share = constant.MOST_IMAGES / sums.n
        columns = ["image_id", "boxes"]
        over = over_files(run, "sensitivity", columns, _some_truth, share, split="train")
        boxes = [box for part in over for box in part]
        ridge_path = [
            {"ridge": ridge, "validation_correct": int(correct)}
            for ridge, correct in zip(config.fit.ridges, fitted.by_ridge, strict=True)
        ]
        fitted.linear.save(
            run.at("linear_map"), config_hash=config.fingerprint, ridge_path=ridge_path
        )
        facts |= fitted.facts() | {
            "constant_mean": constant.centre_mean(sums.y / sums.n).box,
            "constant_tuned": constant.tuned(boxes, config.evaluate.iou).box,
            "constant_tuned_on": len(boxes),
        }
        run.write("fit.json", json.dumps(facts | {"ridge_path": ridge_path}, indent=2))
    log.info("fit: ridge %(ridge)g, size factors %(factors)s, n = %(n_train)d", facts)


def _some_truth(rows: pa.Table, share: float) -> list[Boxes]:
    """The boxes of a share of the images, drawn by their ids; all from 1 on."""
    return true_boxes(rows.filter(pa.array(image_keys(rows) <= share * 2.0**64)))


def fit_linear(run: RunDir, stage: str, columns: Sequence[str]) -> Fitted:
    """Learn a linear map from some columns of a stage's train rows; choose it on validation.

    Raises:
        RunError: there is nothing to learn from, or nothing to choose by.
    """
    config = run.config.fit
    threshold = run.config.evaluate.iou
    read = [*columns, "boxes"]

    def over(split: str, function: Callable[..., Any], *args: Any) -> Any:
        see = (columns, config.normalise)
        return over_files(run, stage, read, function, *see, *args, split=split)

    sums: NormalEquations = reduce(NormalEquations.merge, over("train", _sums))
    n_validation = sum(over("validation", _count, None, threshold))
    if not (sums.n and n_validation):
        raise RunError(
            f"{run.at(stage)}: {sums.n} train and {n_validation} validation images without an "
            "error: the fit needs some of both"
        )
    path = sums.path(config.ridges)
    by_ridge = sum(over("validation", _count, partial(linear.ridge_candidates, path), threshold))
    chosen = path[linear.choose_ridge(config.ridges, by_ridge)]
    sizes = partial(linear.size_candidates, chosen, config.size_factors)
    by_size = sum(over("validation", _count, sizes, threshold))
    factors = linear.choose_factors(config.size_factors, by_size)
    return Fitted(chosen, factors, sums, n_validation, by_ridge, by_size)


def _sums(rows: pa.Table, columns: Sequence[str], normalise: linear.Normalise) -> NormalEquations:
    rows = complete(rows, columns)
    return NormalEquations.from_batch(
        linear.features(rows, normalise, columns), linear.targets(rows)
    )


def _count(
    rows: pa.Table,
    columns: Sequence[str],
    normalise: linear.Normalise,
    candidates: Callable[..., Boxes] | None,
    threshold: float,
) -> Any:
    """How many images each of the candidates gets right, int64 [candidates]; without: how many."""
    rows = complete(rows, columns)
    if candidates is None:
        return len(rows)
    inputs = linear.features(rows, normalise, columns)
    return corloc.count_correct(candidates(inputs), true_boxes(rows), threshold)


def fitted_methods(run: RunDir) -> dict[str, Method]:
    """The methods of a fitted run, by name, in the table's order."""
    run.require("fit")
    facts = json.loads(run.read("fit.json"))
    fitted = LinearMap.load(run.at("linear_map"))
    normalise = run.config.fit.normalise
    return {
        "constant_mean": constant.ConstantBox(tuple(facts["constant_mean"])),
        "constant_tuned": constant.ConstantBox(tuple(facts["constant_tuned"])),
        "sensitivity": linear.LinearBox(fitted, normalise),
        "sensitivity_calibrated": linear.LinearBox(fitted, normalise, tuple(facts["factors"])),
    }
