"""The objectness measure: learned from some train images, then applied to each that takes part."""

import io
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from sensloc.baselines import dense_sift, objectness
from sensloc.comparison.draw import Draw, draw
from sensloc.engine import cluster, units
from sensloc.engine.batches import Worker
from sensloc.engine.chain import Chain, write_units
from sensloc.heatmaps import SECOND, column, region
from sensloc.images.pixels import Decoded, Pixels
from sensloc.methods import catalogue
from sensloc.store import tables
from sensloc.store.files import load_unit
from sensloc.store.images import images_of
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

PROPOSALS = "compare/proposals"
CARRIED = [
    *("image_id", "uri", "content", "wnid", "class_name", "class_index", "predicted_index"),
    *("split", "boxes", "source", "error"),
]
"""What is taken of the sensitivity table beside its heat maps."""

FAILURES = pa.map_(pa.string(), pa.string())
RECALL_AT = (10, 100, 1000)

PROPOSED = pa.schema(
    [
        ("proposals", pa.list_(tables.BOX)),  # best first, unit xyxy
        ("objectness", pa.list_(pa.float32())),  # of each, in [0, 1]
        ("found", pa.list_(pa.int32())),  # boxes among the first RECALL_AT proposals
        ("failures", FAILURES),  # column -> why it is null, where error is null
    ]
)
"""What is put beside the rows that are ``CARRIED``."""

DESCRIPTORS_PER_WORD = 100
IMAGES_PER_TASK = 20


def carried(run: RunDir) -> list[str]:
    """Return the columns of the sensitivity table that the comparison's rows begin with."""
    maps = [column(name) for name in run.config.maps]
    regions = [region(column(name)) for name in run.config.maps if name == SECOND]
    return [*CARRIED, *maps, *regions]


def propose(run: RunDir, taken: Draw) -> None:
    """``sensitivity/`` -> ``compare/proposals``, the files that are missing.

    Where no method asks for proposals, the rows go through without.
    """
    names = units.names(run, "sensitivity")
    if catalogue.wants_proposals(run.config.compared):
        learn_objectness(run)
        write_units(chain(run, taken), {unit: unit for unit in names}, held=False)
    else:
        units.each(run, PROPOSALS, {unit: unit for unit in names}, _without, taken, cpus=1.0)


def chain(run: RunDir, taken: Draw) -> Chain:
    """Return how the rows of a unit that take part get their proposals."""
    return Chain(
        run,
        PROPOSALS,
        rows=partial(_rows, taken=taken),
        size=run.config.compare.objectness_size,
        worker=partial(Proposer, run=run),
    )


def _rows(run: RunDir, unit: str, taken: Draw) -> pa.Table:
    """Return the rows that take part."""
    return taken(load_unit(run, "sensitivity", unit, carried(run))).combine_chunks()


def _without(run: RunDir, unit: str, taken: Draw) -> pa.Table:
    """Return the rows that take part, the columns of ``PROPOSED`` empty."""
    rows = _rows(run, unit, taken)
    return _beside(rows, [{"failures": []}] * len(rows))


# --------------------------------------------------------------------------- learning


def learn_objectness(run: RunDir) -> None:
    """Some train images -> ``compare/objectness.json``; ``compare/words.npy`` if SIFT is wanted."""
    config = run.config.compare
    few = draw(run, train=config.objectness_images)
    columns = ["image_id", "uri", "content", "boxes", "split"]
    drawn = cluster.over_files(run, "sensitivity", columns, few, split="train")
    rows = pa.concat_tables(drawn).sort_by("image_id").combine_chunks()
    over = partial(_over_images, run, rows)
    if not run.exists("compare/objectness.json"):
        log.info("objectness: learning from %d train images", len(rows))
        thetas = objectness.choose_thetas(objectness.merged(over(_theta_counts)))
        likelihoods = objectness.merged(over(partial(_cue_counts, thetas=thetas)))
        run.write("compare/objectness.json", objectness.Objectness(thetas, likelihoods).dumps())
    wanted = "box_words" in catalogue.colocalizations(run.config.compared).values()
    if wanted and not run.exists("compare/words.npy"):
        share = -(-DESCRIPTORS_PER_WORD * config.words // len(rows))
        sample = np.concatenate(list(over(partial(_descriptors, count=share))))
        log.info("visual words: %d from %d descriptors", config.words, len(sample))
        count = min(config.words, len(sample))
        words = cluster.in_task(dense_sift.vocabulary, sample, count, config.seed)
        buffer = io.BytesIO()
        np.save(buffer, words)
        run.write("compare/words.npy", buffer.getvalue())


def _over_images(run: RunDir, rows: pa.Table, function: Callable[..., Any]) -> list[Any]:
    """Return ``function(pixels, row)`` of every row whose image can be read, in order."""
    parts = [rows.slice(i, IMAGES_PER_TASK) for i in range(0, len(rows), IMAGES_PER_TASK)]
    values = dict(cluster.in_tasks(_over_part, parts, run, function, cpus=1))
    return [value for _, part in sorted(values.items()) for value in part]


def _over_part(rows: pa.Table, run: RunDir, function: Callable[..., Any]) -> list[Any]:
    images = images_of(rows, run.config.compare.objectness_size, run.config)
    pairs = zip(images, rows.to_pylist(), strict=True)
    return [function(image.pixels, row) for image, row in pairs if isinstance(image, Decoded)]


def _theta_counts(pixels: Pixels, row: dict[str, Any]) -> objectness.LikelihoodTables:
    seed = objectness.image_seed(row["image_id"])
    return objectness.theta_counts(pixels, np.array(row["boxes"]), seed)


def _cue_counts(
    pixels: Pixels, row: dict[str, Any], thetas: objectness.Thetas
) -> objectness.LikelihoodTables:
    seed = objectness.image_seed(row["image_id"])
    return objectness.cue_counts(pixels, np.array(row["boxes"]), seed, thetas)


def _descriptors(pixels: Pixels, row: dict[str, Any], count: int) -> npt.NDArray[np.float32]:
    """Return an even sample of an image's descriptors: [at most count, 128]."""
    descriptors, _ = dense_sift.dense_sift(pixels.mean(2))
    sample = np.unique(np.linspace(0, len(descriptors) - 1, count).astype(int))
    return np.asarray(descriptors[sample])


# --------------------------------------------------------------------------- proposals


class Proposer(Worker):
    """The objectness measure: rows and their images in, rows with proposals out."""

    def __init__(self, device: str, run: RunDir) -> None:
        self.model = objectness.Objectness.load(run.at("compare/objectness.json"))
        self.count = run.config.compare.proposals

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return the rows with the columns of ``PROPOSED``."""
        pairs = zip(rows.to_pylist(), pixels, strict=True)
        return _beside(rows, [self._propose(row, image) for row, image in pairs])

    def _propose(self, row: dict[str, Any], pixels: Pixels) -> dict[str, Any]:
        if row["error"] is not None:
            return {"failures": []}
        try:
            seed = objectness.image_seed(row["image_id"])
            boxes, scores = objectness.proposals(pixels, self.model, max(RECALL_AT), seed)
        except Exception as error:  # one image never costs its neighbours
            return {"failures": [("proposals", f"{type(error).__name__}: {error}")]}
        return {
            "proposals": boxes[: self.count].tolist(),
            "objectness": scores[: self.count].tolist(),
            "found": objectness.count_found(boxes, np.array(row["boxes"]), RECALL_AT).tolist(),
            "failures": [],
        }


def _beside(rows: pa.Table, proposed: list[dict[str, Any]]) -> pa.Table:
    """Return the rows with further columns, for the next stage."""
    new = pa.Table.from_pylist(proposed, PROPOSED)
    for field in PROPOSED:
        rows = rows.append_column(field, new[field.name])
    return rows


def with_failures(rows: pa.Table, more: Sequence[Mapping[str, str]]) -> pa.Table:
    """Return the rows with more reasons why a column is null, by column for each row."""
    before = rows["failures"].to_pylist()
    together = [
        [*(pairs or []), *reasons.items()] for pairs, reasons in zip(before, more, strict=True)
    ]
    at = rows.schema.get_field_index("failures")
    return rows.set_column(at, "failures", pa.array(together, FAILURES))
