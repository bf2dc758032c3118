"""A fitted run as one small folder, and the boxes that it finds: no annotation, no cluster.

The folder is ``localizer/`` of a run directory. It may be copied anywhere::

    localizer.json    what the run did: network, maps, classes, factors, confidence
    linear_map.npz    the linear map; .json beside it
    classifier.pt     the network's weights, only where the run trained them itself
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import ValidationError

from sensloc.boxes import Boxes
from sensloc.config import AnyClassifier, SceneNet, Section, Sensitivity
from sensloc.errors import SenslocError
from sensloc.heatmaps.gradient import PREDICTED, MapMaker, map_maker
from sensloc.images.decode import Decoded, Pixels, decode, squash
from sensloc.images.fetch import ImageError, fetch
from sensloc.methods.least_squares import LinearMap
from sensloc.methods.linear import LinearBox, Normalise, features_of
from sensloc.networks.prepare import prepare, weights_hash
from sensloc.networks.sources import load_network
from sensloc.prediction.confidence import Bin, Confidence, evidence

FORMAT = 1
"""Of the folder."""


class LocalizerError(SenslocError):
    """A localizer that cannot be loaded: says what is missing or differs."""


class Judged(Section):
    """How good the boxes were, on images of the run, where the class had to be predicted too.

    Attributes:
        images: how many.
        corloc: percent of them whose box was right.
        confidence: mean, in percent.
        calibration_error: of the confidence, expected, in percentage points.
        reliability: what was promised beside what was kept.
    """

    images: int
    corloc: float
    confidence: float
    calibration_error: float
    reliability: tuple[Bin, ...]


class Facts(Section):
    """``localizer.json``.

    Attributes:
        format: of the folder.
        version: of sensloc.
        run: its name.
        config_hash: of its config.
        weights: hash of the network's weights, see ``sensloc.networks.prepare.weights_hash``.
        wnids: the class of each of the network's outputs.
        names: the same for people.
        factors: of the box's width and height.
        iou: from which a box was right.
        confidence: that it is.
        validation: where it was learned.
        test: where it was not.
    """

    format: int
    version: str
    run: str
    config_hash: str
    classifier: AnyClassifier
    weights: str
    wnids: tuple[str, ...]
    names: tuple[str, ...]
    sensitivity: Sensitivity
    normalise: Normalise
    factors: tuple[float, float]
    iou: float
    confidence: Confidence
    validation: Judged
    test: Judged


@dataclass(frozen=True)
class Found:
    """What is found in n images.

    Attributes:
        predicted: [n] int64, the network's output of the predicted class.
        score: [n] float32, its logit.
        probability: [n] float32, its softmax.
        boxes: float64 [n, 4], unit xyxy; nan where the derivative is not finite.
        confidence: [n] float64, the chance that the box is right; nan there too.
    """

    predicted: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    boxes: Boxes
    confidence: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """One image's.

    Attributes:
        wnid: the predicted class.
        class_name: the same for people.
        probability: of that class, in [0, 1].
        box: x0, y0, x1, y1 in pixels of the image as it was given, edges.
        confidence: the chance that its IoU with the object is as high as the run asked for.
    """

    wnid: str
    class_name: str
    probability: float
    box: tuple[float, float, float, float]
    confidence: float


AnyImage = Image.Image | npt.NDArray[np.uint8] | bytes | str | Path
"""Pillow's, uint8 [h, w, 3] RGB, a file's bytes, or where it is (path or URL)."""


@dataclass(frozen=True)
class Localizer:
    """A classifier, and the linear map that was learned from its gradients.

    Attributes:
        facts: of the run.
        make: its way to make maps.
        box: its way from a map to a box.
    """

    facts: Facts
    make: MapMaker
    box: LinearBox

    @classmethod
    def load(cls, url: str | Path, device: str = "cpu") -> "Localizer":
        """Read a localizer.

        Args:
            url: folder of a finished run, or of a copy of its ``localizer``.
            device: of the network.

        Raises:
            LocalizerError: there is none, or the weights are not those that the run had.
            ClassifierError: the network cannot be built.
        """
        folder, facts = read_facts(str(url))
        config = facts.classifier
        own = f"{folder}/classifier.pt" if isinstance(config, SceneNet) else None
        network = load_network(config, own)
        if (found := weights_hash(network)) != facts.weights:
            raise LocalizerError(
                f"{folder}: the network's weights are not those of the run (their hash is {found}, "
                f"not {facts.weights}): install the package versions of localizer.json's run"
            )
        make = map_maker(prepare(network, config, device), config, facts.sensitivity, device)
        linear = LinearMap.load(f"{folder}/linear_map")
        return cls(facts, make, LinearBox(linear, facts.normalise, facts.factors))

    def find(self, pixels: Pixels) -> Found:
        """The boxes of squashed images: uint8 [n, S, S, 3], in one batch."""
        maps = self.make(pixels, np.full(len(pixels), PREDICTED))
        finite = np.isfinite(maps.scale)
        known = np.where(finite[:, None], maps.map, 0)
        inputs = features_of([known], self.facts.normalise)
        boxes = self.box.of(inputs)
        chance = self.facts.confidence(evidence(maps.probability, boxes, known))
        nan = np.where(finite, 0.0, np.nan)
        return Found(
            maps.predicted, maps.score, maps.probability, boxes + nan[:, None], chance + nan
        )

    def predict(self, images: Sequence[AnyImage]) -> list[Prediction]:
        """Find the object of each image, in one batch: a gradient for each is held in memory.

        Raises:
            ImageError: one cannot be read; an error names a file.
        """
        if not images:
            return []
        size = self.facts.classifier.input_size
        opened = [_open(image, size) for image in images]
        found = replace(self, make=replace(self.make, batch_size=len(images))).find(
            np.stack([image.pixels for image in opened])
        )
        scaled = found.boxes * [[image.width, image.height] * 2 for image in opened]
        return [
            Prediction(
                wnid=self.facts.wnids[index],
                class_name=self.facts.names[index],
                probability=float(found.probability[i]),
                box=tuple(scaled[i].tolist()),
                confidence=float(found.confidence[i]),
            )
            for i, index in enumerate(found.predicted.tolist())
        ]


def read_facts(url: str) -> tuple[str, Facts]:
    """The folder of a localizer, and its facts.

    Raises:
        LocalizerError: there is none, or one of another version.
    """
    url = url.rstrip("/")
    for folder in (url, f"{url}/localizer"):
        try:
            with fsspec.open(f"{folder}/localizer.json", "rb") as file:
                read: Any = json.load(file)
        except FileNotFoundError:
            continue
        except ValueError as error:
            raise LocalizerError(f"{folder}/localizer.json: not a JSON file: {error}") from error
        try:
            return folder, Facts.model_validate(read)
        except ValidationError as error:
            raise LocalizerError(
                f"{folder}/localizer.json: not of this version of sensloc: {error}"
            ) from error
    raise LocalizerError(
        f"{url}: no localizer there: finish that run (jobs/status.py says how), or name its folder"
    )


def _open(image: AnyImage, size: int) -> Decoded:
    """Return an image's pixels, squashed to ``size``, and its width and height."""
    if isinstance(image, str | Path):
        (data,) = fetch([str(image)])
        if isinstance(data, ImageError):
            raise data
        image = data
    if isinstance(image, bytes):
        return decode(image, size)
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        kind, shape = image.dtype, list(image.shape)
        raise ImageError(f"an array {kind} {shape}, not uint8 [h, w, 3]")
    return Decoded(squash(image, size), width=image.shape[1], height=image.shape[0])
