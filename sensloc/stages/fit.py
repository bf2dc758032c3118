"""Sensitivity maps of the train and validation sets -> the run's own methods, saved whole."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.boxes import Boxes
from sensloc.engine.cluster import over_files
from sensloc.heatmaps import column
from sensloc.methods import Fitted, catalogue, constant, entries, linear, saved
from sensloc.methods.least_squares import NormalEquations
from sensloc.rows import complete, true_boxes
from sensloc.scoring import corloc
from sensloc.stages.fit_foreground import fit_soft_iou
from sensloc.stages.subset import Subset, everything
from sensloc.store.files import image_keys
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

Candidates = Callable[[npt.NDArray[np.float64]], Boxes]
"""From features [n, d] to the boxes of c candidates: [c, n, 4]."""


def maps_of(run: RunDir) -> tuple[str, ...]:
    """Return the columns of the heat maps that the run's linear map reads."""
    return tuple(column(name) for name in run.config.fit.maps)


@dataclass(frozen=True)
class LinearFit:
    """A linear map that was learned from train rows, and what was tried on validation rows.

    Attributes:
        plain: The map of the chosen ridge, as a method.
        factors: What its boxes' width and height are multiplied by in the calibrated twin.
        sums: The sums over the train rows.
        n_validation: The number of validation rows.
        by_ridge: int64 [ridges] The validation rows that each ridge gets right.
        by_size: int64 [sizes ** 2] Those that the chosen map gets right under each pair of factors.
    """

    plain: linear.LinearBox
    factors: tuple[float, float]
    sums: NormalEquations
    n_validation: int
    by_ridge: npt.NDArray[np.int64]
    by_size: npt.NDArray[np.int64]

    @property
    def calibrated(self) -> linear.LinearBox:
        """The same map with the chosen factors, as a method."""
        return replace(self.plain, factors=self.factors)

    @property
    def mean(self) -> constant.ConstantBox:
        """The centred box of the train rows' mean width and height."""
        return constant.centre_mean(self.sums.y / self.sums.n)

    @property
    def facts(self) -> dict[str, Any]:
        """What it was learned from, what was chosen and by how many images, for JSON."""
        return {
            "n_train": self.sums.n,
            "n_validation": self.n_validation,
            "ridge": self.plain.linear.ridge,
            "condition_number": self.plain.linear.condition_number_,
            "validation_correct": int(self.by_ridge.max()),
            "factors": self.factors,
            "validation_correct_calibrated": int(self.by_size.max()),
        }

    def methods(self, name: str) -> dict[str, Fitted]:
        """Return the method of that name and its calibrated twin."""
        pair = (Fitted(box, self.facts) for box in (self.plain, self.calibrated))
        return dict(zip(catalogue.with_twins([name]), pair, strict=True))


# --------------------------------------------------------------------------- the stage


def fit(run: RunDir) -> None:
    """``sensitivity/`` (train, validation) -> ``methods/`` and ``fit.json``.

    Raises:
        RunError: There is nothing to learn from, or nothing to choose by.
    """
    run.require("sensitivity")
    config = run.config
    with run.stage("fit", saved.FOLDER, "fit.json") as facts:
        learned = fit_whole(run, "sensitivity", maps_of(run))
        n_train = learned.sums.n
        columns, share = ["image_id", "boxes"], constant.MOST_IMAGES / n_train
        over = over_files(run, "sensitivity", columns, _sample_of_truth, share, split="train")
        boxes = [box for part in over for box in part]
        tuned = constant.tuned(boxes, config.evaluate.iou)
        methods = {
            catalogue.MEAN_BOX: Fitted(learned.mean, {"n_train": n_train}),
            catalogue.TUNED_BOX: Fitted(tuned, {"n_train": n_train, "tuned_on": len(boxes)}),
            **learned.methods(catalogue.MAIN),
        }
        for name in set(methods).symmetric_difference(catalogue.of_run(config.maps)):
            methods[name] = _soft_iou(run, name)
        save_methods(run, methods)
        ridge_path = [
            {"ridge": ridge, "validation_correct": int(correct)}
            for ridge, correct in zip(config.fit.ridges, learned.by_ridge, strict=True)
        ]
        facts |= learned.facts | {
            "constant_mean": learned.mean.box,
            "constant_tuned": tuned.box,
            "constant_tuned_on": len(boxes),
        }
        run.write("fit.json", json.dumps(facts | {"ridge_path": ridge_path}, indent=2))
    log.info("fit: ridge %(ridge)g, size factors %(factors)s, n = %(n_train)d", facts)


def _soft_iou(run: RunDir, name: str) -> Fitted:
    """Choose how the box of a foreground map is taken."""
    line = catalogue.entry(name)
    assert isinstance(line, entries.SoftIoU)
    chosen = fit_soft_iou(run, "sensitivity", line.column, line.part)
    behind = {"n_train": run.stages()["foreground"]["n_train"]}
    return Fitted(chosen.method, behind | dict(chosen.facts))


def _sample_of_truth(rows: pa.Table, share: float) -> list[Boxes]:
    """Return the boxes of a share of the images, drawn by their ids; of all from 1 on."""
    return true_boxes(rows.filter(pa.array(image_keys(rows) <= share * 2.0**64)))


def save_methods(
    run: RunDir, methods: Mapping[str, Fitted], folder: str = saved.FOLDER
) -> dict[str, Fitted]:
    """Write each method's file, and return the methods."""
    stamp = {"run": run.config.name, "config_hash": run.config.fingerprint}
    for name, fitted in methods.items():
        run.write(saved.place(name, folder), saved.dumps(fitted, **stamp))
    return dict(methods)


def load_methods(
    run: RunDir, names: Iterable[str], folder: str = saved.FOLDER
) -> dict[str, Fitted]:
    """Read the methods of these names, in their order.

    Raises:
        MethodError: A file holds none.
    """
    places = {name: saved.place(name, folder) for name in names}
    return {name: saved.loads(run.read(place), run.at(place)) for name, place in places.items()}


def fitted_methods(run: RunDir) -> dict[str, Fitted]:
    """Return the methods that the run itself has fitted, by name, in its table's order."""
    run.require("fit")
    return load_methods(run, catalogue.of_run(run.config.maps))


# --------------------------------------------------------------------------- linear maps


def fit_whole(run: RunDir, stage: str, columns: Sequence[str]) -> LinearFit:
    """Learn a linear map from all train rows of a stage, see ``fit_linear``.

    Raises:
        RunError: There is nothing to learn from, or nothing to choose by.
    """
    (learned,) = fit_linear(run, stage, columns, [everything])
    if not learned.n_validation:
        raise RunError(_lacks(run, stage, "validation"))
    return learned


def fit_linear(
    run: RunDir, stage: str, columns: Sequence[str], subsets: Sequence[Subset]
) -> list[LinearFit]:
    """Learn a linear map from each subset of a stage's rows, all of them together.

    One pass over the train rows gives the sums of every subset; two over the validation rows
    choose each one's ridge, and its factors.

    Args:
        run: The run, whose config has the candidates.
        stage: The folder of the rows.
        columns: The heat maps that the map reads, side by side; rows that lack one are left out.
        subsets: Which rows each map is learned from and chosen by.

    Raises:
        RunError: A subset has nothing to learn from.
    """
    config, threshold = run.config.fit, run.config.evaluate.iou
    see, reads = (tuple(columns), config.normalise), [*columns, "boxes", "image_id", "wnid"]

    def counts(candidates: Sequence[Candidates]) -> npt.NDArray[np.int64]:
        args = (*see, subsets, candidates, threshold)
        return np.asarray(sum(over_files(run, stage, reads, _count, *args, split="validation")))

    sums = reduce(_merged, over_files(run, stage, reads, _sums, *see, subsets, split="train"))
    if not all(total.n for total in sums):
        raise RunError(_lacks(run, stage, "train"))
    paths = [total.path(config.ridges) for total in sums]
    by_ridge = counts([partial(linear.ridge_candidates, path) for path in paths])
    chosen = [
        path[linear.choose_ridge(config.ridges, right)]
        for path, right in zip(paths, by_ridge[:, 1:], strict=True)
    ]
    sizes = config.size_factors
    by_size = counts([partial(linear.size_candidates, best, sizes) for best in chosen])
    return [
        LinearFit(
            linear.LinearBox(best, config.normalise, columns=tuple(columns)),
            linear.choose_factors(sizes, of_sizes[1:]),
            *(total, int(of_ridges[0]), of_ridges[1:], of_sizes[1:]),
        )
        for best, total, of_ridges, of_sizes in zip(chosen, sums, by_ridge, by_size, strict=True)
    ]


def _merged(a: Sequence[NormalEquations], b: Sequence[NormalEquations]) -> list[NormalEquations]:
    return [mine.merge(other) for mine, other in zip(a, b, strict=True)]


def _sums(
    rows: pa.Table,
    columns: Sequence[str],
    normalise: linear.Normalise,
    subsets: Sequence[Subset],
) -> list[NormalEquations]:
    """Return the sums of each subset of some train rows."""
    rows = complete(rows, columns)
    x, y = linear.features(rows, normalise, columns), linear.targets(rows)
    masks = [subset(rows, "train") for subset in subsets]
    return [NormalEquations.from_batch(x[mask], y[mask]) for mask in masks]


def _count(
    rows: pa.Table,
    columns: Sequence[str],
    normalise: linear.Normalise,
    subsets: Sequence[Subset],
    candidates: Sequence[Candidates],
    threshold: float,
) -> npt.NDArray[np.int64]:
    """Return each subset's number of validation rows, and how many each candidate gets right.

    Args:
        rows: Some validation rows.
        columns: See ``fit_linear``.
        normalise: See ``linear.features``.
        subsets: s of them.
        candidates: [s] Of each subset, c ways to a box.
        threshold: The IoU from which a box is right.

    Returns:
        int64 [s, 1 + c].
    """
    rows = complete(rows, columns)
    x, truth = linear.features(rows, normalise, columns), true_boxes(rows)
    counts = []
    for subset, boxes_of in zip(subsets, candidates, strict=True):
        index = np.flatnonzero(subset(rows, "validation"))
        right = corloc.count_correct(boxes_of(x[index]), [truth[i] for i in index], threshold)
        counts.append([len(index), *right])
    return np.array(counts, np.int64)


def _lacks(run: RunDir, stage: str, split: str) -> str:
    return f"{run.at(stage)}: no {split} image without an error: the fit needs train and validation"
