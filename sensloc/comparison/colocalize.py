"""Co-localization, a unit per class: its images together choose one proposal each."""

import io
from collections.abc import Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensloc.baselines import dense_sift
from sensloc.baselines.colocalization import Colocalization
from sensloc.comparison.maps import MAPS
from sensloc.config import Compare
from sensloc.engine import cluster, units
from sensloc.engine.batches import Worker
from sensloc.engine.chain import Chain, write_units
from sensloc.images.pixels import Pixels
from sensloc.methods import catalogue
from sensloc.store.files import load
from sensloc.store.run import RunDir

CHOICES = pa.schema(
    [
        ("image_id", pa.string()),
        ("wnid", pa.string()),
        ("split", pa.string()),
        ("chosen", pa.list_(pa.int32())),  # index of the proposal, for each pair of ``weights``
        ("seconds", pa.list_(pa.float32())),  # of CPU, over the class's images
        ("n_class", pa.int32()),  # images that chose together
        ("error", pa.string()),
    ]
)
"""One row per image that takes part and has proposals."""

COLUMNS = (
    "image_id", "uri", "content", "wnid", "split", "proposals", "objectness", "error",
)  # fmt: skip

ClassImages = tuple[str, Sequence[str]]
"""A class's wnid, and the files of ``compare/maps`` in which it has images."""


def weights(config: Compare) -> list[tuple[float, float]]:
    """Return the candidates: pairs of mu and lambda."""
    return list(product(config.mus, config.lams))


def colocalize(run: RunDir, method: str) -> None:
    """``compare/maps`` -> ``compare/<method>``, the classes that are missing."""
    files: dict[str, list[str]] = {}
    for file, wnids in cluster.by_file(run, MAPS, ["wnid", "error"], _classes).items():
        for wnid in wnids:
            files.setdefault(wnid, []).append(file)
    classes = {f"{i:05d}": (wnid, files[wnid]) for i, wnid in enumerate(sorted(files))}
    if catalogue.colocalizations([method])[method] == "box_features":
        units.each(run, f"compare/{method}", classes, by_features, cpus=1.0)
        return
    chain = Chain(
        run,
        f"compare/{method}",
        rows=class_rows,
        size=run.config.compare.objectness_size,
        worker=partial(BySift, run=run),
    )
    write_units(chain, classes, held=False)


def _classes(rows: pa.Table) -> list[str]:
    """Return the classes of the rows without an error."""
    wnids: list[str] = pc.unique(rows.filter(pc.is_null(rows["error"]))["wnid"]).to_pylist()
    return wnids


def class_rows(run: RunDir, images: ClassImages, columns: Sequence[str] = ()) -> pa.Table:
    """Return a class's rows that have proposals and a value in each column, by image id."""
    wnid, files = images
    where = pc.field("wnid") == wnid
    for name in ("proposals", *columns):
        where &= pc.field(name).is_valid()
    return load(run, files, [*COLUMNS, *columns], where=where).sort_by("image_id").combine_chunks()


def choose(
    model: Colocalization, rows: pa.Table, features: Sequence[npt.NDArray[Any]], config: Compare
) -> pa.Table:
    """Let the images of one class choose a proposal each, together.

    Args:
        model: How proposals are compared.
        rows: n rows with proposals.
        features: Of each image's k proposals, [k, d].
        config: The section of the comparison.

    Returns:
        Rows of ``CHOICES``.
    """
    if len(rows) == 0:
        return CHOICES.empty_table()
    boxes = padded([np.array(proposals) for proposals in rows["proposals"].to_pylist()])
    prior = padded([np.array(scores) for scores in rows["objectness"].to_pylist()])
    path = model.path(padded(features), prior, boxes, weights(config))
    seconds = [taken for _, taken in path]
    choices = [
        {
            "image_id": image_id,
            "wnid": wnid,
            "split": split,
            "chosen": [int(chosen[i]) for chosen, _ in path],
            "seconds": seconds,
            "n_class": len(rows),
        }
        for i, (image_id, wnid, split) in enumerate(
            zip(*(rows[name].to_pylist() for name in ("image_id", "wnid", "split")), strict=True)
        )
    ]
    return pa.Table.from_pylist(choices, CHOICES)


BY_FEATURES = Colocalization(kernel="cosine", gamma="median")
"""How boxes are compared by the network's last features, which are of unit norm."""


def by_features(run: RunDir, images: ClassImages) -> pa.Table:
    """Return the rows of ``CHOICES`` of one class, chosen by the network's features."""
    rows = class_rows(run, images, ["box_features"])
    lengths = pc.list_value_length(rows["proposals"]).to_pylist()
    features = [
        np.asarray(values).astype(np.float32).reshape(k, -1)
        for values, k in zip(rows["box_features"].to_numpy(), lengths, strict=True)
    ]
    return choose(BY_FEATURES, rows, features, run.config.compare)


class BySift(Worker):
    """A class's boxes by visual words, as in the paper: chi2, its gamma, the whole box's words."""

    def __init__(self, device: str, run: RunDir) -> None:
        self.config = run.config.compare
        self.words = np.load(io.BytesIO(run.read("compare/words.npy")), allow_pickle=False)
        self.model = Colocalization(kernel="chi2", whole_box_features=len(self.words))

    def __call__(self, rows: pa.Table, pixels: Pixels) -> pa.Table:
        """Return the rows with the words of their boxes, all in one list; null without an image."""
        pairs = zip(pixels, rows.select(["proposals", "error"]).to_pylist(), strict=True)
        histograms = [
            None
            if row["error"]
            else word_histograms(image, np.array(row["proposals"]), self.words).ravel()
            for image, row in pairs
        ]
        return rows.append_column("words", pa.array(histograms, pa.large_list(pa.float32())))

    def whole(self, rows: pa.Table) -> pa.Table:
        """Return the rows of ``CHOICES`` of one class; an image that has changed is an error."""
        good, bad = (rows.filter(pc.equal(pc.is_null(rows["error"]), g)) for g in (True, False))
        lengths = pc.list_value_length(good["proposals"]).to_pylist()
        features = [
            np.asarray(values).reshape(k, -1)
            for values, k in zip(good["words"].to_numpy(), lengths, strict=True)
        ]
        errors = bad.select(["image_id", "wnid", "split", "error"]).to_pylist()
        chosen = choose(self.model, good, features, self.config)
        return pa.concat_tables([chosen, pa.Table.from_pylist(errors, CHOICES)])


def word_histograms(
    pixels: npt.NDArray[np.uint8], boxes: npt.NDArray[Any], words: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the visual words of each box: [S, S, 3], [k, 4] and [w, 128] -> [k, 10 * w]."""
    descriptors, positions = dense_sift.dense_sift(pixels.mean(2))
    nearest = dense_sift.nearest_words(descriptors, words)
    return dense_sift.box_histograms(nearest, positions, boxes, len(words))


def padded(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Stack n arrays [k_i, ...] -> [n, max k, ...], zeros behind."""
    longest = max(map(len, arrays))
    stacked = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked
