"""What the parts cost that are no pass of a network: each by itself, on one thread, made-up data.

Objectness and co-localization per image, the read-out's sums, CorLoc of the paper's test images,
and a table of the paper's size: its bytes, and what DuckDB takes to read it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import typer

from benchmarks.decode import embedded
from benchmarks.turns import Spread, as_workers_run, save, spread
from sensloc.baselines.colocalization import Colocalization
from sensloc.baselines.objectness import Objectness, proposals
from sensloc.baselines.objectness.likelihoods import LikelihoodTables
from sensloc.baselines.objectness.measure import Thetas
from sensloc.heatmaps.maker import Maps
from sensloc.heatmaps.readout import CellSums, quantise
from sensloc.images.decode import decode
from sensloc.report.text import Columns, aligned, table_lines
from sensloc.scoring.corloc import best_iou, count_correct
from sensloc.scoring.counts import COLUMNS, tally
from sensloc.stages.sensitivity import map_columns
from sensloc.store import tables
from sensloc.store.files import parquet
from sensloc.turns import turns

IMAGES, TESTED, CLASSES = 300_916, 45_137, 478
"""The paper's: all images, those of its test set (15 %), and their classes."""

SIDE, BOXES = 128, 10
"""Of the images that proposals are made of, in pixels; proposals of an image."""

FEATURES, CLASS_IMAGES = 1280, 94
"""Of a box, by EfficientNet-Lite0; test images of one of the paper's classes."""

CELLS, VALUES, BATCH = 196, 630, 32
"""Cells of an image, values of a cell (EfficientNet-Lite0's foreground), images of a batch."""

rng = np.random.default_rng(0)


@dataclass(frozen=True)
class Part:
    """What is timed.

    Attributes:
        title: What it is, and on what.
        items: How many items a call works on; 1 where the call counts as a whole.
        call: Does it.
    """

    title: str
    items: int
    call: Callable[[], object]


def boxes_of(n: int) -> npt.NDArray[np.float64]:
    """Return n boxes: [n, 4] unit xyxy."""
    corners = np.sort(rng.random((n, 2, 2)), axis=1)
    return corners.reshape(n, 4)


def objectness() -> Part:
    """Return how windows are proposed, scored by a measure that has learned nothing."""
    model = Objectness(Thetas(), LikelihoodTables.zeros(3))
    photographs = [decode(data, SIDE).pixels for data in embedded()]
    return Part(
        f"objectness, {BOXES} proposals of an image",
        len(photographs),
        lambda: [proposals(pixels, model, BOXES, seed) for seed, pixels in enumerate(photographs)],
    )


def colocalization() -> Part:
    """Return how the images of a class choose a box each, by the features of a network."""
    features = rng.random((CLASS_IMAGES, BOXES, FEATURES)).astype(np.float32)
    prior = rng.random((CLASS_IMAGES, BOXES))
    boxes = boxes_of(CLASS_IMAGES * BOXES).reshape(CLASS_IMAGES, BOXES, 4)
    model = Colocalization(kernel="cosine", gamma="median")
    return Part(
        f"co-localization of a class of {CLASS_IMAGES}, an image",
        CLASS_IMAGES,
        lambda: model.path(features, prior, boxes, [(0.4, 0.1)]),
    )


def sums() -> Part:
    """Return how the sums of the read-out are made of what a pass says."""
    values = quantise(rng.normal(0, 1, (BATCH, CELLS, VALUES)))
    shares = quantise(rng.random((BATCH, CELLS)))
    return Part(
        f"the read-out's sums of {CELLS} cells of {VALUES} values, an image",
        BATCH,
        lambda: CellSums.from_batch(values, shares),
    )


def scores(images: int) -> list[Part]:
    """Return how predictions are judged, and how they are counted in every group."""
    truth, predicted = list(boxes_of(images)[:, None]), boxes_of(images)
    iou = best_iou(predicted, truth)
    judged = dict.fromkeys(COLUMNS) | {
        "method": ["sensitivity"] * images,
        "wnid": [f"n{i % CLASSES:08d}" for i in range(images)],
        "class_name": ["a class"] * images,
        "source": ["imagenet/train"] * images,
        "n_boxes": np.ones(images, np.int64),
        "area": rng.random(images),
        "recognised": rng.random(images) < 0.8,
        "iou": iou,
        "iou_largest": iou,
        "correct": iou >= 0.5,
    }
    rows = pa.table(judged)
    return [
        Part(f"CorLoc of {images:,} images", 1, lambda: count_correct(predicted, truth, 0.5)),
        Part(f"its counts by class, size, IoU, ..., {images:,}", 1, lambda: tally([rows])),
    ]


@contextmanager
def stored(images: int) -> Iterator[tuple[list[Part], float]]:
    """Write maps of made-up images, and yield how DuckDB reads them, and the bytes of a map.

    Noise compresses less than maps do.
    """
    with TemporaryDirectory() as folder:
        size = 0
        for start in range(0, images, 4096):
            n = min(4096, images - start)
            values = rng.random((n, CELLS)).astype(np.float16)
            maps = Maps(values, np.ones(n, np.float32), 14, 14)
            columns = {
                "image_id": [f"image_{i}" for i in range(start, start + n)],
                "wnid": [f"n{i % CLASSES:08d}" for i in range(start, start + n)],
                "score": rng.random(n).astype(np.float32),
            }
            made = map_columns({"gradient": maps}, np.ones(n, bool))
            own = [("image_id", pa.string()), ("wnid", pa.string()), ("score", pa.float32())]
            schema = pa.schema([*own, *tables.heat_map("map", CELLS)])
            file = Path(folder) / f"{start:07d}.parquet"
            file.write_bytes(parquet(pa.table(columns | made, schema), {}))
            size += file.stat().st_size
        files = f"'{folder}/*.parquet'"

        def query(what: str) -> Callable[[], object]:
            select = f"SELECT wnid, count(*), {what} FROM {files} GROUP BY wnid"  # noqa: S608
            return lambda: duckdb.execute(select).fetchall()

        yield (
            [
                Part(f"DuckDB, each class's mean score, {images:,} rows", 1, query("avg(score)")),
                Part(
                    f"DuckDB, each class's mean of a map's maximum, {images:,} rows",
                    1,
                    query("avg(list_max(map::FLOAT[]))"),
                ),
            ],
            size / images,
        )


def main(
    rounds: int = 3,
    images: int = IMAGES,
    tested: int = TESTED,
    output: Path = Path("runs/bench/parts.json"),
) -> None:
    """Print milliseconds per item of what is no pass of a network, and the bytes of a map."""
    as_workers_run()
    duckdb.execute("SET threads = 1")
    with stored(images) as (reading, size):
        parts = [objectness(), colocalization(), sums(), *scores(tested), *reading]
        seconds = turns({part.title: part.call for part in parts}, range(rounds + 1))
    rows = [
        {
            "part": part.title,
            "milliseconds": asdict(
                Spread.of([1000 * taken / part.items for taken in seconds[part.title]])
            ),
        }
        for part in parts
    ]
    columns: Columns = {
        "one thread": lambda row: row["part"],
        "ms": spread("milliseconds", 2),
    }
    print(aligned(table_lines(columns, rows)))
    print(f"a row with a map of {CELLS} cells of noise: {size:,.0f} bytes")
    print(save(output, rounds=rounds, parts=rows, bytes_per_row=size))


if __name__ == "__main__":
    typer.run(main)
