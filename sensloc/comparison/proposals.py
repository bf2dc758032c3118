"""The objectness measure: learned from some train images, then a unit per file of maps."""

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import ray

from sensloc.baselines import dense_sift, objectness
from sensloc.comparison.draw import Draw, draw
from sensloc.engine import cluster, units
from sensloc.images.decode import Pixels, read
from sensloc.images.fetch import ImageError
from sensloc.methods import catalogue
from sensloc.store import tables
from sensloc.store.run import RunDir

log = logging.getLogger(__name__)

PROPOSALS = "compare/proposals"
CARRIED = [
    *("image_id", "uri", "wnid", "class_name", "class_index", "predicted_index", "split"),
    *("boxes", "source", "map", "error"),
]
FAILURES = pa.map_(pa.string(), pa.string())
RECALL_AT = (10, 100, 1000)
DESCRIPTORS_PER_WORD = 100
IMAGES_PER_TASK = 20


def propose(run: RunDir, taken: Draw) -> None:
    """``sensitivity/`` -> ``compare/proposals``, the files that are missing.

    Where no method asks for proposals, the rows go through without.
    """
    if catalogue.wants_proposals(run.config.compare.methods):
        learn_objectness(run)
    units.each(run, PROPOSALS, units.names(run, "sensitivity"), Proposer, taken)


# --------------------------------------------------------------------------- learning


def learn_objectness(run: RunDir) -> None:
    """Some train images -> ``compare/objectness.json``; ``compare/words.npy`` if SIFT is wanted."""
    config = run.config.compare
    few = draw(run, train=config.objectness_images)
    columns = ["image_id", "uri", "boxes", "split"]
    drawn = cluster.over_files(run, "sensitivity", columns, few, split="train")
    rows = pa.concat_tables(drawn).sort_by("image_id").combine_chunks()
    parts = [rows.slice(i, IMAGES_PER_TASK) for i in range(0, len(rows), IMAGES_PER_TASK)]
    over = partial(_over_parts, parts, config.objectness_size)
    if not run.exists("compare/objectness.json"):
        log.info("objectness: learning from %d train images", len(rows))
        thetas = objectness.choose_thetas(objectness.merged(over(_theta_counts)))
        tables_ = objectness.merged(over(partial(_cue_counts, thetas=thetas)))
        run.write("compare/objectness.json", objectness.Objectness(thetas, tables_).dumps())
    wanted = "box_words" in catalogue.colocalizations(config.methods).values()
    if wanted and not run.exists("compare/words.npy"):
        each = -(-DESCRIPTORS_PER_WORD * config.words // len(rows))
        sample = np.concatenate(list(over(partial(_descriptors, each=each))))
        log.info("visual words: %d from %d descriptors", config.words, len(sample))
        k_means: Any = ray.remote(num_cpus=1)(dense_sift.vocabulary)
        words = ray.get(k_means.remote(sample, min(config.words, len(sample)), config.seed))
        buffer = io.BytesIO()
        np.save(buffer, words)
        run.write("compare/words.npy", buffer.getvalue())


def _over_parts(
    parts: Sequence[pa.Table], size: int, function: Callable[..., Any]
) -> Iterator[Any]:
    """``function(pixels, row)`` of every row whose image can be read, in order."""
    task: Any = ray.remote(num_cpus=1)(_over_part)
    for part in ray.get([task.remote(part, size, function) for part in parts]):
        yield from part


def _over_part(rows: pa.Table, size: int, function: Callable[..., Any]) -> list[Any]:
    pairs = zip(read(rows["uri"].to_pylist(), size), rows.to_pylist(), strict=True)
    return [function(pixels, row) for pixels, row in pairs if not isinstance(pixels, ImageError)]


def _theta_counts(pixels: Pixels, row: dict[str, Any]) -> objectness.LikelihoodTables:
    seed = objectness.image_seed(row["image_id"])
    return objectness.theta_counts(pixels, np.array(row["boxes"]), seed)


def _cue_counts(
    pixels: Pixels, row: dict[str, Any], thetas: objectness.Thetas
) -> objectness.LikelihoodTables:
    seed = objectness.image_seed(row["image_id"])
    return objectness.cue_counts(pixels, np.array(row["boxes"]), seed, thetas)


def _descriptors(pixels: Pixels, row: dict[str, Any], each: int) -> npt.NDArray[np.float32]:
    """An even sample of an image's descriptors."""
    found, _ = dense_sift.dense_sift(pixels.mean(2))
    return np.asarray(found[np.unique(np.linspace(0, len(found) - 1, each).astype(int))])


# --------------------------------------------------------------------------- proposals


class Proposer:
    """The objectness measure: a file of ``sensitivity/`` in, rows with proposals out."""

    def __init__(self, run: RunDir, taken: Draw) -> None:
        self.run, self.taken = run, taken
        self.model = None
        if catalogue.wants_proposals(run.config.compare.methods):
            self.model = objectness.Objectness.load(run.at("compare/objectness.json"))

    def __call__(self, unit: str) -> pa.Table:
        """Add ``proposals``, ``objectness``, ``found`` (see RECALL_AT) and ``failures``."""
        file = f"{self.run.path('sensitivity')}/{unit}.parquet"
        rows = self.taken(cluster.load(self.run, [file], CARRIED, errors=True))
        config, made = self.run.config.compare, []
        for row, pixels in zip(rows.to_pylist(), self._pixels(rows), strict=True):
            made.append(self._propose(row, pixels, config.proposals))
        new = pa.schema(
            [
                ("proposals", pa.list_(tables.BOX)),  # best first, unit xyxy
                ("objectness", pa.list_(pa.float32())),  # of each, in [0, 1]
                ("found", pa.list_(pa.int32())),  # boxes among the first RECALL_AT proposals
                ("failures", FAILURES),  # column -> why it is null, where error is null
            ]
        )
        return _beside(rows, pa.Table.from_pylist(made, new))

    def _pixels(self, rows: pa.Table) -> list[Pixels | ImageError | None]:
        pixels: list[Pixels | ImageError | None] = [None] * len(rows)
        if self.model is None:
            return pixels
        good = np.flatnonzero(np.asarray(pc.is_null(rows["error"])))
        uris = rows["uri"].take(pa.array(good)).to_pylist()
        config = self.run.config
        found = read(uris, config.compare.objectness_size, config.resources.connections)
        for i, one in zip(good, found, strict=True):
            pixels[i] = one
        return pixels

    def _propose(
        self, row: dict[str, Any], pixels: Pixels | ImageError | None, count: int
    ) -> dict[str, Any]:
        if pixels is None or self.model is None:
            return {"failures": []}
        try:
            if isinstance(pixels, ImageError):
                raise pixels
            seed = objectness.image_seed(row["image_id"])
            boxes, scores = objectness.proposals(pixels, self.model, max(RECALL_AT), seed)
        except Exception as error:  # one image never costs its neighbours
            return {"failures": [("proposals", f"{type(error).__name__}: {error}")]}
        return {
            "proposals": boxes[:count].tolist(),
            "objectness": scores[:count].tolist(),
            "found": objectness.count_found(boxes, np.array(row["boxes"]), RECALL_AT).tolist(),
            "failures": [],
        }


def _beside(left: pa.Table, right: pa.Table) -> pa.Table:
    for name in right.column_names:
        left = left.append_column(right.schema.field(name), right[name])
    return left
