"""A fitted run on another annotated data set: judged on all of its images, which it has not seen.

The run directory is like any other's. Its images are all in the test set; its network, read-out and
methods are taken over from the fitted run; maps are of the predicted class, and where the network
knows the annotated class, the methods are judged by the map of that class too, as in their own run.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.engine import cluster, units
from sensloc.engine.batches import Worker
from sensloc.engine.chain import DECODE, Chain, write_units
from sensloc.engine.pool import by_actor
from sensloc.errors import DatasetError
from sensloc.heatmaps import PREDICTED, SECOND
from sensloc.images.pixels import Pixels
from sensloc.methods import Fitted, OfMaps, catalogue, saved
from sensloc.stages import localizer, readout_file
from sensloc.stages.evaluate import OUTPUTS, predict, write_corloc
from sensloc.stages.fit import fitted_methods
from sensloc.stages.fitted import FittedRun
from sensloc.stages.network import weights_of
from sensloc.stages.other_class import OtherClass
from sensloc.stages.whole_run import STAGES, run_all
from sensloc.store.files import load_unit
from sensloc.store.provenance import differences
from sensloc.store.run import RunDir, RunError

MOST_CLASSES = 5
"""As many are named in a message."""


def judge(run: RunDir, fitted: FittedRun) -> str:
    """Judge a fitted run on the images of the run directory's data set, once.

    Args:
        run: A directory of its own, see ``FittedRun.config_on``.
        fitted: The fitted run.

    Returns:
        The CorLoc table and where everything is, for a terminal.

    Raises:
        DatasetError: The network knows none of the data set's classes.
        LocalizerError: The network's weights are not those of the fitted run.
        RunError: The directory was begun with another fitted run, or a stage cannot be completed.
    """
    taken: dict[str, Callable[..., None]] = {
        "classifier": _classifier,
        "foreground": _foreground,
        "fit": _fit,
    }
    judging: dict[str, Callable[..., None]] = {"evaluate": _evaluate, "localizer": _confidence}
    begun = run.stages()
    for name in taken.keys() & begun.keys():
        if differs := differences(begun[name]["of"], fitted.of):
            raise RunError(
                f"{run.url} was begun with another fitted run ({'; '.join(differs)}): choose "
                "another --output, or delete that directory"
            )
    other = {name: partial(stage, fitted=fitted) for name, stage in (taken | judging).items()}
    return run_all(run, {**STAGES, **other})


# --------------------------------------------------------------------------- what is taken over


def _classifier(run: RunDir, fitted: FittedRun) -> None:
    """Take over the network, if it knows any class of the data set."""
    run.require("manifest")
    with run.stage("classifier", "classifier.pt", of=fitted.of) as facts:
        facts["taken_from"] = fitted.source | _unknown(run, fitted)
        fitted.write(run, "classifier.pt")
        fitted.facts.require_weights(by_actor(run, weights_of), fitted.url)


def _foreground(run: RunDir, fitted: FittedRun) -> None:
    with run.stage("foreground", readout_file.FOLDER, of=fitted.of):
        fitted.write(run, readout_file.FOLDER)


def _fit(run: RunDir, fitted: FittedRun) -> None:
    with run.stage("fit", saved.FOLDER, of=fitted.of):
        fitted.write(run, saved.FOLDER)


def _unknown(run: RunDir, fitted: FittedRun) -> dict[str, int]:
    """Count the images and classes that the network has no output for.

    Raises:
        DatasetError: It has none for any of them.
    """
    parts = list(cluster.over_files(run, "manifest", ["wnid", "class_index"], _classes))
    known = sum((known for known, _ in parts), Counter[str]())
    unknown = sum((unknown for _, unknown in parts), Counter[str]())
    if not known:
        raise DatasetError(
            f"{run.config.dataset.root}: none of its classes ({_some(sorted(unknown))}) is one of "
            f"{fitted.facts.run}'s network ({_some(fitted.facts.wnids)}): name the classes in the "
            f"annotations as the network's, and delete {run.url}; or take `sensloc predict`, which "
            "needs no annotation"
        )
    return {"images_unknown": unknown.total(), "classes_unknown": len(unknown)}


def _classes(rows: pa.Table) -> tuple[Counter[str], Counter[str]]:
    """Count images by class: those of the network's, and the others."""
    known = pc.is_valid(rows["class_index"])
    first, second = (rows.filter(mask)["wnid"].to_pylist() for mask in (known, pc.invert(known)))
    return Counter(first), Counter(second)


def _some(classes: Any) -> str:
    more = len(classes) - MOST_CLASSES
    return ", ".join(classes[:MOST_CLASSES]) + (f" and {more:,} more" if more > 0 else "")


# --------------------------------------------------------------------------- predictions


def _evaluate(run: RunDir, fitted: FittedRun) -> None:
    """``sensitivity/`` and ``methods/`` -> ``predictions/`` and the rest, by both classes.

    A run whose own maps are of the predicted class is judged by these alone.
    """
    run.require("sensitivity")
    methods, names = fitted_methods(run), units.names(run, "sensitivity")
    twins = [name + catalogue.BY_PREDICTED for name in methods if methods[name].reads]
    with run.stage("evaluate", *OUTPUTS, of=fitted.of) as facts:
        if fitted.facts.sensitivity.label == "truth":
            write_units(_chain(run, methods), {unit: unit for unit in names})
            facts |= write_corloc(run, [*methods, *twins])
        else:
            units.each(run, "predictions", {unit: unit for unit in names}, _predicted, methods)
            facts |= write_corloc(run, list(methods))


def _predicted(run: RunDir, unit: str, methods: Mapping[str, Fitted]) -> pa.Table:
    """Return the predictions by the maps of a unit, rows with an error among them."""
    return predict(load_unit(run, "sensitivity", unit), methods, run.config.evaluate.iou)


def _chain(run: RunDir, methods: Mapping[str, Fitted]) -> Chain:
    return Chain(
        run,
        "predictions",
        rows=_rows,
        worker=partial(BothClasses, run=run, methods=methods),
        keep=SECOND in run.config.maps,
    )


def _rows(run: RunDir, unit: str) -> pa.Table:
    """Return a unit's rows; an image is needed where the network predicts another known class."""
    rows = load_unit(run, "sensitivity", unit)
    other = pc.not_equal(rows["predicted_index"], rows["class_index"])
    return rows.append_column(DECODE, pc.fill_null(other, False))


class BothClasses(Worker):
    """A run's network and methods: predictions by the true class's map, and by the predicted's."""

    by_row = False

    def __init__(self, device: str, run: RunDir, methods: Mapping[str, Fitted]) -> None:
        self.threshold, self.methods = run.config.evaluate.iou, methods
        self.of_maps = {name: fitted for name, fitted in methods.items() if fitted.reads}
        columns = [c for f in self.of_maps.values() for c in saved.of_maps(f.method).columns]
        self.of_class = OtherClass(run, dict.fromkeys(columns), device)

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return rows of ``tables.PREDICTIONS``: all methods', and those of maps once more."""
        good = np.asarray(pc.is_null(rows["error"]))
        images, failed = rows.filter(pa.array(good)), rows.filter(pa.array(~good))
        labels = np.asarray(pc.fill_null(images["class_index"], PREDICTED))
        by_truth = _without_unknown(self.of_class(images, pixels[good], labels))
        constant = self.methods.keys() - self.of_maps.keys()
        free = {name: self.methods[name] for name in self.methods if name in constant}
        return pa.concat_tables(
            [
                predict(images, free, self.threshold),
                predict(by_truth, self.of_maps, self.threshold),
                _by_predicted(predict(images, self.of_maps, self.threshold)),
                predict(failed, self.methods, self.threshold),
                _by_predicted(predict(failed, self.of_maps, self.threshold)),
            ]
        )


def _without_unknown(rows: pa.Table) -> pa.Table:
    """Return the rows with an error where the network has no output of the annotated class."""
    errors = [
        f"class {wnid} is not one of the classifier's" if index is None and error is None else error
        for wnid, index, error in zip(
            *(rows[name].to_pylist() for name in ("wnid", "class_index", "error")), strict=True
        )
    ]
    at = rows.column_names.index("error")
    return rows.set_column(at, "error", pa.array(errors, pa.string()))


def _by_predicted(rows: pa.Table) -> pa.Table:
    """Return predictions under the names of methods that have the predicted class's map."""
    names = pc.binary_join_element_wise(rows["method"], catalogue.BY_PREDICTED, "")
    return rows.set_column(rows.column_names.index("method"), "method", names)


# --------------------------------------------------------------------------- confidence


def _confidence(run: RunDir, fitted: FittedRun) -> None:
    """``sensitivity/`` -> ``judged/``, ``confidence/`` and ``localizer/``: is it kept here too?"""
    run.require("evaluate")
    name = fitted.facts.method
    method = saved.of_maps(fitted_methods(run)[name].method)
    with run.stage("localizer", *localizer.OUTPUTS, of=fitted.of) as facts:
        files = {unit: unit for unit in units.names(run, "sensitivity")}
        units.each(run, localizer.JUDGED, files, _judged, method)
        rows = localizer.judged_rows(run)
        test = localizer.accuracy(run, rows, fitted.facts.confidence, "test")
        facts |= localizer.finish(run, rows, fitted.facts.model_copy(update={"test": test}))


def _judged(run: RunDir, unit: str, method: OfMaps) -> pa.Table:
    columns = [*localizer.COLUMNS, *method.columns]
    good = pc.field("error").is_null()
    rows = load_unit(run, "sensitivity", unit, columns, good)
    return localizer.judged(rows, method, run.config.evaluate.iou)
