"""Every method of a comparison: learned on train, chosen on validation."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.boxes import Boxes
from sensloc.comparison.colocalize import weights
from sensloc.comparison.maps import MAPS
from sensloc.engine import cluster
from sensloc.methods import Method, catalogue, constant, linear, proposal, threshold
from sensloc.rows import complete, true_boxes
from sensloc.scoring import corloc
from sensloc.stages.fit import fit_linear, fitted_methods
from sensloc.store.files import load
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

THRESHOLD = (
    "threshold",
    threshold.THRESHOLDS,
    threshold.threshold_candidates,
    threshold.ThresholdBox,
)
MASS = ("quantile", threshold.QUANTILES, threshold.mass_candidates, threshold.MassBox)


@dataclass(frozen=True)
class Entry:
    """A method that is ready to be judged.

    Attributes:
        method: fitted.
        facts: what was learned from how much, and what was chosen; for the run's JSON.
        choice: image_id -> index of a proposal, where another table holds them: the judge makes
            them a column of the method's name.
        reads: the columns in which it needs a value.
    """

    method: Method
    facts: dict[str, Any]
    choice: Mapping[str, int] | None = None
    reads: Sequence[str] = field(default=())


def fit_methods(run: RunDir) -> dict[str, Entry]:
    """The config's methods by name, in its order; a linear map's calibrated twin follows it."""
    made: dict[str, Entry] = {}
    for name in run.config.compare.methods:
        for full_name, entry in _entries(run, name).items():
            made[full_name] = replace(entry, reads=_reads(name))
            log.info("compare: %s %s", full_name, entry.facts)
    return made


def _entries(run: RunDir, name: str) -> dict[str, Entry]:
    if name in ("constant_mean", "constant_tuned", "sensitivity"):
        return _main_run(run, name)
    if name in catalogue.LINEAR:
        return _linear(run, name)
    if name in catalogue.THRESHOLD:
        return {name: _from_heat_map(run, catalogue.THRESHOLD[name], *THRESHOLD)}
    if name in catalogue.MASS:
        return {name: _from_heat_map(run, catalogue.MASS[name], *MASS)}
    if name in catalogue.COLOCALIZATION:
        return {name: _colocalization(run, name)}
    if name == "constant_class":
        return {name: _class_box(run)}
    among: dict[str, Method] = {
        "objectness": proposal.FirstProposal(),
        "proposal_random": proposal.RandomProposal(run.config.compare.seed),
        "proposal_best": proposal.BestProposal(),
    }
    return {name: Entry(among[name], {"n_train": _behind_proposals(run)})}


def _reads(name: str) -> tuple[str, ...]:
    read = sorted(catalogue.columns([name]) - {"box_features"})
    if name in catalogue.COLOCALIZATION:
        read.append(name)
    return tuple([*read, "proposals"] if name in catalogue.PROPOSALS else read)


def _main_run(run: RunDir, name: str) -> dict[str, Entry]:
    """What the main run has fitted, on all of its train images."""
    facts = _main_facts(run)
    told = ["n_train", "n_validation", "ridge", "factors"] if name == "sensitivity" else ["n_train"]
    return {
        full_name: Entry(method, {key: facts[key] for key in told})
        for full_name, method in fitted_methods(run).items()
        if catalogue.base(full_name) == name
    }


def _behind_proposals(run: RunDir) -> int:
    """Boxed images that the objectness measure learned from."""
    return min(run.config.compare.objectness_images, int(_main_facts(run)["n_train"]))


def _main_facts(run: RunDir) -> dict[str, Any]:
    return json.loads(run.read("fit.json"))  # type: ignore[no-any-return]


def _linear(run: RunDir, name: str) -> dict[str, Entry]:
    columns, normalise = catalogue.LINEAR[name], run.config.fit.normalise
    fitted = fit_linear(run, MAPS, columns)
    plain = linear.LinearBox(fitted.linear, normalise, columns=columns)
    return {
        name: Entry(plain, fitted.facts()),
        name + catalogue.CALIBRATED: Entry(replace(plain, factors=fitted.factors), fitted.facts()),
    }


def _count_on_validation(
    run: RunDir,
    columns: Sequence[str],
    candidates: Callable[..., Boxes],
    *args: Any,
    stage: str = MAPS,
) -> npt.NDArray[np.int64]:
    """Validation images that each of ``candidates(*args, rows)`` gets right: int64 [k]."""
    threshold = run.config.evaluate.iou
    read = [*columns, "boxes", "wnid"]
    parts = cluster.over_files(
        run, stage, read, _count, columns, candidates, args, threshold, split="validation"
    )
    return np.asarray(sum(parts), np.int64)


def _count(
    rows: pa.Table, columns: Sequence[str], candidates: Any, args: Any, threshold: float
) -> Any:
    rows = complete(rows, columns)
    if len(rows) == 0:
        return 0
    return corloc.count_correct(candidates(*args, rows), true_boxes(rows), threshold)


def _from_heat_map(
    run: RunDir,
    column: str,
    what: str,
    values: Sequence[float],
    candidates: Callable[..., Boxes],
    make: Callable[[str, float], Method],
) -> Entry:
    """The best of some values of the one number that ``what`` names."""
    counts = _count_on_validation(run, [column], candidates, column, values)
    best = threshold.choose(values, counts)
    return Entry(make(column, best), {what: best, "validation_correct": int(counts.max())})


def _class_box(run: RunDir) -> Entry:
    """Sums per class over all train images; the shrinkage by all validation images."""
    sums: dict[str, tuple[int, Boxes]] = {}
    for part in cluster.over_files(
        run, "sensitivity", ["wnid", "boxes"], class_sums, split="train"
    ):
        for wnid, (n, total) in part.items():
            before = sums.get(wnid, (0, np.zeros(4)))
            sums[wnid] = (before[0] + n, before[1] + total)
    shrinkages = run.config.compare.shrinkages
    boxes = [constant.class_means(sums, one) for one in shrinkages]
    counts = _count_on_validation(run, [], _class_candidates, boxes, stage="sensitivity")
    best = max(range(len(boxes)), key=lambda i: (counts[i], shrinkages[i]))
    facts = {
        "n_train": sum(n for n, _ in sums.values()),
        "shrinkage": shrinkages[best],
        "validation_correct": int(counts.max()),
    }
    return Entry(boxes[best], facts)


def class_sums(rows: pa.Table) -> dict[str, tuple[int, Boxes]]:
    """Images of each class and the sum of their largest boxes (exact: they are quantised)."""
    wnids, targets = np.array(rows["wnid"].to_pylist()), linear.targets(rows)
    masks = {wnid: wnids == wnid for wnid in set(wnids.tolist())}
    return {wnid: (int(mask.sum()), targets[mask].sum(0)) for wnid, mask in masks.items()}


def _class_candidates(boxes: Sequence[constant.ClassBox], rows: pa.Table) -> Boxes:
    return np.stack([one.predict(rows) for one in boxes])


def _colocalization(run: RunDir, name: str) -> Entry:
    """The weights with the best CorLoc on validation, and what they choose for test images."""
    stage, pairs = f"compare/{name}", weights(run.config.compare)
    made = load(run, run.files(stage), None)
    valid = dict(_rows_of(made, "validation"))
    counts = np.zeros(len(pairs), np.int64)
    columns, threshold = ["image_id", "proposals", "boxes"], run.config.evaluate.iou
    for part in cluster.over_files(
        run, MAPS, columns, _count_choices, valid, threshold, split="validation"
    ):
        counts += part
    best = int(counts.argmax())
    test = made.filter(pc.equal(made["split"], "test"))
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
    choice = {image_id: row[best] for image_id, row in _rows_of(made, "test")}
    return Entry(proposal.ChosenProposal(name), facts, choice)


def _rows_of(made: pa.Table, split: str) -> list[tuple[str, list[int]]]:
    mine = made.filter(pc.equal(made["split"], split))
    return list(zip(mine["image_id"].to_pylist(), mine["chosen"].to_pylist(), strict=True))


def _count_choices(rows: pa.Table, chosen: Mapping[str, list[int]], threshold: float) -> Any:
    rows = rows.filter(
        pa.array([name in chosen for name in rows["image_id"].to_pylist()], pa.bool_())
    )
    if len(rows) == 0:
        return 0
    index = np.array([chosen[name] for name in rows["image_id"].to_pylist()])
    proposed = proposal.proposed(rows)
    boxes = np.array([some[i] for some, i in zip(proposed, index, strict=True)])
    return corloc.count_correct(boxes.swapaxes(0, 1), true_boxes(rows), threshold)
