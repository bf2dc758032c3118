"""Co-localization, a unit per class: its images together choose one proposal each."""

import io
from collections.abc import Mapping, Sequence
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
from sensloc.images.decode import read
from sensloc.images.fetch import ImageError
from sensloc.methods import catalogue
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
"""One row per image that takes part, has proposals and can be described."""


def weights(config: Compare) -> list[tuple[float, float]]:
    """The candidates: pairs of mu and lambda."""
    return list(product(config.mus, config.lams))


def colocalize(run: RunDir, method: str) -> None:
    """``compare/maps`` -> ``compare/<method>``, the classes that are missing."""
    files: dict[str, list[str]] = {}
    for file in run.files(MAPS):
        for wnid in pc.unique(cluster.load(run, [file], ["wnid"])["wnid"]).to_pylist():
            files.setdefault(wnid, []).append(file)
    classes = {f"{i:05d}": wnid for i, wnid in enumerate(sorted(files))}
    described_by = catalogue.colocalizations([method])[method]
    make = {"box_features": ByFeatures, "box_words": BySift}[described_by]
    units.each(run, f"compare/{method}", list(classes), make, classes, files)


class ByFeatures:
    """A class's boxes by the network's last features, of unit norm: cosine, median gamma."""

    columns: tuple[str, ...] = ("box_features",)
    model = Colocalization(kernel="cosine", gamma="median")

    def __init__(
        self, run: RunDir, classes: Mapping[str, str], files: Mapping[str, Sequence[str]]
    ) -> None:
        self.run, self.classes, self.files = run, classes, files

    def __call__(self, unit: str) -> pa.Table:
        """The rows of ``CHOICES`` of one class."""
        wnid = self.classes[unit]
        columns = ["image_id", "wnid", "split", "uri", "proposals", "objectness", *self.columns]
        where = pc.field("wnid") == wnid
        for name in ("proposals", *self.columns):
            where &= pc.field(name).is_valid()
        rows = cluster.load(self.run, list(self.files[wnid]), columns, where=where)
        rows = rows.sort_by("image_id")
        pairs = zip(rows.to_pylist(), self.describe(rows), strict=True)
        described = [(row, features) for row, features in pairs if features is not None]
        if not described:
            return CHOICES.empty_table()
        found, features = zip(*described, strict=True)
        boxes = padded([np.array(row["proposals"]) for row in found])
        prior = padded([np.array(row["objectness"]) for row in found])
        path = self.model.path(padded(features), prior, boxes, weights(self.run.config.compare))
        seconds = [taken for _, taken in path]
        made = [
            {
                "image_id": row["image_id"],
                "wnid": wnid,
                "split": row["split"],
                "chosen": [int(chosen[i]) for chosen, _ in path],
                "seconds": seconds,
                "n_class": len(found),
            }
            for i, row in enumerate(found)
        ]
        return pa.Table.from_pylist(made, CHOICES)

    def describe(self, rows: pa.Table) -> list[npt.NDArray[Any] | None]:
        """The features of each image's k boxes, [k, d], or None where they cannot be had."""
        lengths = pc.list_value_length(rows["proposals"]).to_pylist()
        lists = rows["box_features"].combine_chunks()
        return [
            np.asarray(one.values).astype(np.float32).reshape(k, -1)
            for one, k in zip(lists, lengths, strict=True)
        ]


class BySift(ByFeatures):
    """A class's boxes by visual words, as in the paper: chi2, its gamma, the whole box's words."""

    columns = ()

    def __init__(
        self, run: RunDir, classes: Mapping[str, str], files: Mapping[str, Sequence[str]]
    ) -> None:
        super().__init__(run, classes, files)
        self.words = np.load(io.BytesIO(run.read("compare/words.npy")), allow_pickle=False)
        self.model = Colocalization(kernel="chi2", whole_box_features=len(self.words))

    def describe(self, rows: pa.Table) -> list[npt.NDArray[Any] | None]:
        """See ``ByFeatures``; an image that can no longer be read is left out."""
        config = self.run.config
        pixels = read(
            rows["uri"].to_pylist(),
            config.compare.objectness_size,
            config.resources.connections,
        )
        return [
            None
            if isinstance(one, ImageError)
            else word_histograms(one, np.array(boxes), self.words)
            for one, boxes in zip(pixels, rows["proposals"].to_pylist(), strict=True)
        ]


def word_histograms(
    pixels: npt.NDArray[np.uint8], boxes: npt.NDArray[Any], words: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Of each box: [S, S, 3], [k, 4] and [w, 128] -> [k, 10 * w]."""
    descriptors, positions = dense_sift.dense_sift(pixels.mean(2))
    nearest = dense_sift.nearest_words(descriptors, words)
    return dense_sift.box_histograms(nearest, positions, boxes, len(words))


def padded(arrays: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Stack n arrays [k_i, ...] -> [n, max k, ...], zeros behind."""
    longest = max(len(one) for one in arrays)
    whole = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for row, one in zip(whole, arrays, strict=True):
        row[: len(one)] = one
    return whole
