"""Every method of a comparison: learned on train, chosen on validation, saved whole."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import Boxes
from sensloc.comparison.colocalize import weights
from sensloc.comparison.foregrounds import learned_from
from sensloc.comparison.maps import MAPS
from sensloc.engine import cluster
from sensloc.methods import (
    Fitted,
    Method,
    catalogue,
    constant,
    entries,
    linear,
    proposal,
    threshold,
)
from sensloc.rows import complete, true_boxes
from sensloc.scoring import corloc
from sensloc.stages.fit import fit_whole, fitted_methods, save_methods
from sensloc.stages.fit_foreground import fit_soft_iou
from sensloc.store.files import load
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

METHODS = "compare/methods"
"""The folder of the fitted methods."""


def fit_methods(run: RunDir) -> dict[str, Fitted]:
    """Fit the config's methods and write them to ``compare/methods``.

    Returns:
        By name, in the config's order; a linear map's calibrated twin follows it.
    """
    methods: dict[str, Fitted] = {}
    for name in run.config.compared:
        for full_name, fitted in save_methods(run, _fitted(run, name), METHODS).items():
            methods[full_name] = fitted
            log.info("compare: %s %s", full_name, fitted.facts)
    return methods


def _fitted(run: RunDir, name: str) -> dict[str, Fitted]:
    """Fit one method of the catalogue, with its calibrated twin if it has one."""
    line = catalogue.entry(name)
    if line.in_run:
        methods = fitted_methods(run)
        return {full_name: methods[full_name] for full_name in catalogue.with_twins([name])}
    match line:
        case entries.Linear(maps=columns):
            return fit_whole(run, MAPS, columns).methods(name)
        case entries.SoftIoU(column=column):
            chosen = fit_soft_iou(run, MAPS, column)
            return {name: Fitted(chosen.method, {**learned_from(run, column), **chosen.facts})}
        case entries.Threshold(column=column):
            return {name: _thresholded(run, column)}
        case entries.Mass(column=column):
            return {name: _central_mass(run, column)}
        case entries.ClassMean():
            return {name: _class_box(run)}
        case entries.Colocalization():
            return {name: _colocalization(run, name)}
        case entries.Proposal(which=which):
            among: dict[str, Method] = {
                "first": proposal.FirstProposal(),
                "random": proposal.RandomProposal(run.config.compare.seed),
                "best": proposal.BestProposal(),
            }
            return {name: Fitted(among[which], {"n_train": _behind_proposals(run)})}
    raise TypeError(f"{name}: nothing here fits a {type(line).__name__}")


def _behind_proposals(run: RunDir) -> int:
    """Return the number of boxed images that the objectness measure learned from."""
    n_train = fitted_methods(run)[catalogue.MAIN].facts["n_train"]
    return min(run.config.compare.objectness_images, int(n_train))


# --------------------------------------------------------------------------- one number each


def _count_on_validation(
    run: RunDir,
    columns: Sequence[str],
    candidates: Callable[[pa.Table], Boxes],
    stage: str = MAPS,
) -> npt.NDArray[np.int64]:
    """Count the validation images that each of k candidates gets right: int64 [k].

    Args:
        run: The run.
        columns: The columns that the candidates read beside boxes and wnid.
        candidates: From n rows to the boxes of each candidate, [k, n, 4].
        stage: The folder of the rows.
    """
    iou, read = run.config.evaluate.iou, [*columns, "boxes", "wnid"]
    args = (columns, candidates, iou)
    parts = cluster.over_files(run, stage, read, _count, *args, split="validation")
    return np.asarray(sum(parts), np.int64)


def _count(
    rows: pa.Table, columns: Sequence[str], candidates: Callable[[pa.Table], Boxes], iou: float
) -> Any:
    rows = complete(rows, columns)
    if len(rows) == 0:
        return 0
    return corloc.count_correct(candidates(rows), true_boxes(rows), iou)


def _thresholded(run: RunDir, column: str) -> Fitted:
    """Choose the threshold of a heat map."""
    values = threshold.THRESHOLDS
    candidates = partial(threshold.threshold_candidates, column, values)
    counts = _count_on_validation(run, [column], candidates)
    best = threshold.choose(values, counts)
    facts = {"threshold": best, "validation_correct": int(counts.max())}
    return Fitted(threshold.ThresholdBox(column, best), facts)


def _central_mass(run: RunDir, column: str) -> Fitted:
    """Choose the quantile of a heat map's mass."""
    values = threshold.QUANTILES
    candidates = partial(threshold.mass_candidates, column, values)
    counts = _count_on_validation(run, [column], candidates)
    best = threshold.choose(values, counts)
    facts = {"quantile": best, "validation_correct": int(counts.max())}
    return Fitted(threshold.MassBox(column, best), facts)


def _class_box(run: RunDir) -> Fitted:
    """Learn each class's mean box from all train images, and choose their shrinkage."""
    sums: dict[str, tuple[int, Boxes]] = {}
    columns = ["wnid", "boxes"]
    for part in cluster.over_files(run, "sensitivity", columns, class_sums, split="train"):
        for wnid, (n, total) in part.items():
            before = sums.get(wnid, (0, np.zeros(4)))
            sums[wnid] = (before[0] + n, before[1] + total)
    shrinkages = run.config.compare.shrinkages
    boxes = [constant.class_means(sums, shrinkage) for shrinkage in shrinkages]
    candidates = partial(_class_candidates, boxes)
    counts = _count_on_validation(run, [], candidates, stage="sensitivity")
    best = max(range(len(boxes)), key=lambda i: (counts[i], shrinkages[i]))
    facts = {
        "n_train": sum(n for n, _ in sums.values()),
        "shrinkage": shrinkages[best],
        "validation_correct": int(counts.max()),
    }
    return Fitted(boxes[best], facts)


def class_sums(rows: pa.Table) -> dict[str, tuple[int, Boxes]]:
    """Return by class its images and the sum of their largest boxes (exact: they are quantised)."""
    wnids, targets = np.array(rows["wnid"].to_pylist()), linear.targets(rows)
    masks = {wnid: wnids == wnid for wnid in set(wnids.tolist())}
    return {wnid: (int(mask.sum()), targets[mask].sum(0)) for wnid, mask in masks.items()}


def _class_candidates(boxes: Sequence[constant.ClassBox], rows: pa.Table) -> Boxes:
    return np.stack([method.predict(rows) for method in boxes])


# --------------------------------------------------------------------------- co-localization


def _colocalization(run: RunDir, name: str) -> Fitted:
    """Choose the pair of weights by the CorLoc of what it chooses for validation images."""
    pairs = weights(run.config.compare)
    choices = load(run, run.files(f"compare/{name}"), None)
    valid = dict(_choices_of(choices, "validation"))
    columns, iou = ["image_id", "proposals", "boxes"], run.config.evaluate.iou
    parts = cluster.over_files(run, MAPS, columns, _count_choices, valid, iou, split="validation")
    counts = sum(parts, np.zeros(len(pairs), np.int64))
    best = int(counts.argmax())
    test = choices.filter(pc.equal(choices["split"], "test"))
    seconds = [row[best] for row in test["seconds"].to_pylist()]
    n_class = test["n_class"].to_pylist()
    per_image = np.array(seconds) / np.array(n_class)
    facts = {
        "n_train": _behind_proposals(run),
        "mu": pairs[best][0],
        "lambda": pairs[best][1],
        "validation_correct": int(counts.max()),
        "images_per_class": float(np.mean(n_class)) if n_class else 0.0,
        "seconds_per_image": float(per_image.mean()) if n_class else 0.0,
    }
    return Fitted(proposal.ChosenProposal(name), facts)


def choices_of(run: RunDir, methods: Mapping[str, Fitted]) -> dict[str, Mapping[str, int]]:
    """Return the proposals that co-localization has chosen for test images.

    Args:
        run: The run.
        methods: The fitted methods.

    Returns:
        By the column that the method reads, from an image's id to the index of its proposal.
    """
    pairs, columns = weights(run.config.compare), ["image_id", "split", "chosen"]
    chosen: dict[str, Mapping[str, int]] = {}
    for fitted in methods.values():
        if isinstance(fitted.method, proposal.ChosenProposal):
            name = fitted.method.column
            best = pairs.index((fitted.facts["mu"], fitted.facts["lambda"]))
            rows = load(run, run.files(f"compare/{name}"), columns)
            chosen[name] = {image_id: row[best] for image_id, row in _choices_of(rows, "test")}
    return chosen


def _choices_of(choices: pa.Table, split: str) -> list[tuple[str, list[int]]]:
    mine = choices.filter(pc.equal(choices["split"], split))
    return list(zip(mine["image_id"].to_pylist(), mine["chosen"].to_pylist(), strict=True))


def _count_choices(rows: pa.Table, chosen: Mapping[str, list[int]], iou: float) -> Any:
    """Count the images that each pair of weights gets right: int64 [pairs]."""
    rows = rows.filter(
        pa.array([name in chosen for name in rows["image_id"].to_pylist()], pa.bool_())
    )
    if len(rows) == 0:
        return 0
    index = np.array([chosen[name] for name in rows["image_id"].to_pylist()])
    proposed = proposal.proposed(rows)
    boxes = np.array([of_image[i] for of_image, i in zip(proposed, index, strict=True)])
    return corloc.count_correct(boxes.swapaxes(0, 1), true_boxes(rows), iou)
