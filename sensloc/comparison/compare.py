"""Every system of the paper's Table 1, baselines and controls, judged on the same test images."""

import io
import json
import logging
from collections.abc import Mapping
from functools import reduce

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from sensloc.comparison import given
from sensloc.comparison.colocalize import colocalize
from sensloc.comparison.draw import draw
from sensloc.comparison.fit import choices_of, fit_methods
from sensloc.comparison.foregrounds import learn_foregrounds
from sensloc.comparison.less import label_efficiency_and_unseen
from sensloc.comparison.maps import MAPS, make_maps
from sensloc.comparison.proposals import RECALL_AT, propose
from sensloc.comparison.speed import milliseconds
from sensloc.comparison.table import methods_table
from sensloc.engine import cluster, units
from sensloc.methods import Fitted, catalogue, threshold
from sensloc.report import comparison
from sensloc.rows import complete, true_boxes
from sensloc.scoring import counts, paired
from sensloc.scoring.accuracy import breakdown
from sensloc.scoring.max_box_acc import MaxBoxAcc
from sensloc.stages.evaluate import predict
from sensloc.stages.network import require_same_weights
from sensloc.store import provenance
from sensloc.store.files import load, parquet, stamp
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)

PREDICTIONS = "compare/predictions"
IDENTITY = "compare/identity.json"


def compare(run: RunDir) -> str:
    """A fitted run -> ``compare/``: every method, its predictions, and tables.

    What is there of the units (proposals, maps, classes, predictions) is not made again.

    Returns:
        The table, for a terminal.

    Raises:
        RunError: ``compare/`` holds another comparison, or the run is not fitted, or there are no
            heat maps where the config says that others are.
    """
    run.require("sensitivity", "fit")
    given.require(run)
    _claim(run)
    with run.stage("compare") as facts:
        wanted = run.config.compare
        taken = draw(run, train=wanted.train, validation=wanted.validation)
        propose(run, taken)
        require_same_weights(run)
        learn_foregrounds(run)
        make_maps(run, taken)
        for method in catalogue.colocalizations(run.config.compared):
            colocalize(run, method)
        methods = fit_methods(run)
        chosen = {name: dict(fitted.facts) for name, fitted in methods.items()}
        files, choices = units.names(run, "sensitivity"), choices_of(run, methods)
        units.each(run, PREDICTIONS, {file: file for file in files}, judge, methods, choices)
        judged = paired.Judged.from_table(_predictions(run), list(methods))
        labels, unseen = label_efficiency_and_unseen(run)
        ms = milliseconds(run, methods)  # last of what networks do: idle actors make room for it
        table = methods_table(judged, chosen, _max_box_acc(run), ms, run.config.evaluate)
        _write(run, judged, table, labels, unseen, _recall(run))
        facts |= {"test_images": len(judged.image_id), "chosen": chosen}
    log.info("compare: %d methods on %d images", len(methods), len(judged.image_id))
    return comparison.text(table)


def _claim(run: RunDir) -> None:
    """Begin ``compare/``, or make sure that it was begun by this config and code on these maps.

    Raises:
        RunError: It was not.
    """
    stages = run.stages()
    identity = {
        "compare": run.config.compare.identity,
        "code": provenance.code(comparison=True),
        "maps made": stages["sensitivity"]["begun"],
        "linear map fitted": stages["fit"]["begun"],
    }
    if not run.exists(IDENTITY):
        run.write(IDENTITY, json.dumps(identity, indent=2))
        return
    differs = provenance.differences(json.loads(run.read(IDENTITY)), identity)
    if differs:
        raise RunError(
            f"{run.at('compare')} holds another comparison (what differs: {'; '.join(differs)}): "
            "delete that folder, or choose another --output"
        )


# --------------------------------------------------------------------------- judging


def judge(
    run: RunDir,
    unit: str,
    methods: Mapping[str, Fitted],
    choices: Mapping[str, Mapping[str, int]],
) -> pa.Table:
    """Return one row per method and test image of a file of ``compare/maps``."""
    rows = load(run, [run.file(MAPS, unit)], None, "test", errors=True)
    ids = rows["image_id"].to_pylist()
    for column, chosen in choices.items():
        index = [chosen.get(image_id) for image_id in ids]
        rows = rows.append_column(column, pa.array(index, pa.int32()))
    return predict(rows, methods, run.config.evaluate.iou)


def _predictions(run: RunDir) -> pa.Table:
    columns = ["image_id", "error", *counts.COLUMNS]
    return load(run, run.files(PREDICTIONS), columns, errors=True)


def _max_box_acc(run: RunDir) -> dict[str, float]:
    """MaxBoxAccV2 of the heat maps that are thresholded, over the test images."""
    values: dict[str, float] = {}
    for name, column in catalogue.thresholds(run.config.compared).items():
        parts = cluster.in_tasks(_max_box_acc_of, run.files(MAPS), run, column, cpus=1)
        values[name] = reduce(MaxBoxAcc.merge, (part for _, part in parts)).value
    return values


def _max_box_acc_of(file: str, run: RunDir, column: str) -> MaxBoxAcc:
    rows = complete(load(run, [file], [column, "boxes"], "test"), [column])
    if len(rows) == 0:
        return MaxBoxAcc.zeros()
    return MaxBoxAcc.from_batch(threshold.heatmaps(rows, column), true_boxes(rows))


def _recall(run: RunDir) -> dict[str, float]:
    """Return the recall of the objectness measure's proposals on the test images, in percent."""
    rows = load(
        run, run.files(MAPS), ["found", "boxes"], "test", where=pc.field("found").is_valid()
    )
    if len(rows) == 0:
        return {}
    objects = sum(pc.list_value_length(rows["boxes"]).to_pylist())
    found = np.array(rows["found"].to_pylist()).sum(0)
    return {str(k): 100 * float(v) / objects for k, v in zip(RECALL_AT, found, strict=True)}


# --------------------------------------------------------------------------- writing


def _write(
    run: RunDir,
    judged: paired.Judged,
    table: pa.Table,
    labels: pa.Table,
    unseen: pa.Table,
    recall: Mapping[str, float],
) -> None:
    config, metadata = run.config.evaluate, stamp(run)
    pairs = paired.all_differences(judged, config.bootstrap, config.seed, config.iou)
    groups = breakdown(judged, config.bootstrap, config.seed, config.iou)
    written = {
        "table": table,
        "differences": pairs,
        "breakdown": groups,
        "labels": labels,
        "unseen": unseen,
    }
    for name, rows in written.items():
        run.write(f"compare/{name}.parquet", parquet(rows, metadata))
    buffer = io.BytesIO()
    pacsv.write_csv(table, buffer)
    run.write("compare/table.csv", buffer.getvalue())
    run.write(
        "compare/table.md", comparison.markdown(table, groups, labels, unseen, recall, run.config)
    )
