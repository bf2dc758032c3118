"""A fitted run as one small folder that finds boxes: it needs no annotation and no cluster.

The folder is ``localizer/`` of a run directory. It may be copied anywhere::

    localizer.json    what the run did: network, maps, classes, confidence
    method.npz        the fitted method, see ``sensloc.methods.saved``
    readout.npz       the foreground's read-out, only where the run has one
    methods/*.npz     every method that the run has fitted: what `sensloc evaluate` judges
    classifier.pt     the network's weights, only where the run trained them itself
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import nn

from sensloc.boxes import Boxes
from sensloc.heatmaps import FOREGROUND, PREDICTED, SECOND, names_of
from sensloc.heatmaps.maker import map_maker
from sensloc.heatmaps.passes import Options
from sensloc.heatmaps.readout import Readout
from sensloc.images.decode import pixels_of, squash
from sensloc.images.fetch import ImageError, fetch
from sensloc.images.pixels import Pixels
from sensloc.methods import OfMaps, saved
from sensloc.networks.prepare import prepare, weights_hash
from sensloc.prediction.confidence import evidence
from sensloc.prediction.facts import METHOD, READOUT, LocalizerFacts, read_facts, read_file
from sensloc.prediction.looks import Looker, Source


@dataclass(frozen=True)
class PredictedBatch:
    """The classes and boxes that were predicted for n images.

    Attributes:
        predicted: [n] int64, the network's output of the predicted class.
        score: [n] float32, that class's logit.
        probability: [n] float32, its softmax.
        boxes: float64 [n, 4], unit xyxy; nan where the derivative is not finite.
        confidence: [n] float64, the chance that the box is right; nan there too.
        readout: [n] which read-out made the foreground map, "class" or "shared"; None where the
            method reads no such map.
    """

    predicted: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    boxes: Boxes
    confidence: npt.NDArray[np.float64]
    readout: list[str] | None


@dataclass(frozen=True)
class Prediction:
    """The class and the box that were predicted for one image.

    Attributes:
        wnid: the predicted class.
        class_name: the class's name for people.
        probability: of that class, in [0, 1].
        box: x0, y0, x1, y1, the edges in pixels of the image as it was given.
        confidence: the chance that its IoU with the object is as high as the run asked for.
        readout: of a foreground's box: "class", or "shared" where no boxes taught that class.
    """

    wnid: str
    class_name: str
    probability: float
    box: tuple[float, float, float, float]
    confidence: float
    readout: str | None = None


AnyImage = Image.Image | npt.NDArray[np.uint8] | bytes | str | Path
"""An image of Pillow, uint8 [h, w, 3] RGB, a file's bytes, or its path or URL."""


@dataclass(frozen=True)
class Localizer:
    """A classifier and the method that was learned from what it knows of each place.

    Attributes:
        facts: of the run that made it.
        look: makes heat maps.
        box: gets boxes from maps.
        readout: of the foreground map, if the method reads it.
    """

    facts: LocalizerFacts
    look: Looker
    box: OfMaps
    readout: Readout | None = None

    @classmethod
    def load(cls, url: str | Path, device: str = "cpu") -> "Localizer":
        """Read a localizer.

        Args:
            url: folder of a finished run, or of a copy of its ``localizer``.
            device: where the network runs: "cpu" or "cuda".

        Raises:
            LocalizerError: There is none, or the weights are not those that the run had.
            ClassifierError: The network cannot be built.
        """
        folder, facts = read_facts(str(url))
        method, _ = _unpacked(f"{folder}/{METHOD}")
        box = saved.of_maps(method)
        names = names_of(box.columns)
        learned = bool({FOREGROUND, SECOND} & set(names))
        (readout,) = _unpacked(f"{folder}/{READOUT}")[0] if learned else (None,)
        look = looker(facts, network_of(folder, facts), names, readout, device=device)
        return cls(facts, look, box, readout)

    def find(self, pixels: Pixels, sources: Sequence[Source]) -> PredictedBatch:
        """Find boxes in images, in one batch.

        Args:
            pixels: uint8 [n, S, S, 3], squashed.
            sources: n, as they are stored: what a second look is taken from.
        """
        seen = self.look(pixels, np.full(len(pixels), PREDICTED), sources)
        maps = seen.columns()
        boxes = self.box.of_maps(maps)
        first = maps[self.box.columns[0]]
        chance = self.facts.confidence(evidence(seen.probability, boxes, first))
        nan = np.where(seen.finite, 0.0, np.nan)
        readout = None
        if self.readout is not None:
            own = self.readout.row(seen.predicted) > 0
            readout = ["class" if known else "shared" for known in own]
        return PredictedBatch(
            predicted=seen.predicted,
            score=seen.score,
            probability=seen.probability,
            boxes=boxes + nan[:, None],
            confidence=chance + nan,
            readout=readout,
        )

    def predict(self, images: Sequence[AnyImage]) -> list[Prediction]:
        """Find the object of each image, in one batch: a gradient for each is held in memory.

        Raises:
            ImageError: An image cannot be read; the error names its file if it has one.
        """
        if not images:
            return []
        size = self.facts.classifier.input_size
        opened = [stored(image) for image in images]
        whole = replace(self, look=self.look.sized(len(images)))
        predicted = whole.find(np.stack([squash(image, size) for image in opened]), opened)
        scaled = predicted.boxes * [[*image.shape[1::-1]] * 2 for image in opened]
        return [
            Prediction(
                wnid=self.facts.wnids[index],
                class_name=self.facts.names[index],
                probability=float(predicted.probability[i]),
                box=tuple(scaled[i].tolist()),
                confidence=float(predicted.confidence[i]),
                readout=predicted.readout[i] if predicted.readout else None,
            )
            for i, index in enumerate(predicted.predicted.tolist())
        ]


def network_of(folder: str, facts: LocalizerFacts) -> nn.Module:
    """Return the network of a localizer, on the CPU.

    Args:
        folder: The localizer's, as ``read_facts`` gives it.
        facts: Of the localizer.

    Raises:
        LocalizerError: The weights are not those that the run had.
        ClassifierError: It cannot be built.
    """
    network = facts.classifier.load(f"{folder}/classifier.pt")
    facts.require_weights(weights_hash(network), folder)
    return network


def looker(
    facts: LocalizerFacts,
    network: nn.Module,
    names: Collection[str],
    readout: Readout | None,
    grid: int | None = None,
    device: str = "cpu",
) -> Looker:
    """Return the maker of some heat maps, as the localizer's run makes them.

    Args:
        facts: Of the localizer.
        network: Its network.
        names: Of the heat maps, see ``sensloc.heatmaps``.
        readout: Of the foreground, where it is among them.
        grid: A map of more cells than ``grid`` x ``grid`` is pooled to that; None: as in the run.
        device: Where the network runs: "cpu" or "cuda".

    Raises:
        ClassifierError: The network has no place for a heat map.
    """
    config, maps = facts.classifier, facts.sensitivity
    readouts = {} if readout is None else {FOREGROUND: (readout,)}
    return Looker.of(
        names,
        lambda names: map_maker(
            lambda: network,
            lambda network, taps: prepare(network, config, device, taps, facts.precision),
            names,
            Options(channels=maps.channels, readouts=readouts),
            mean=config.mean,
            std=config.std,
            batch_size=maps.batch_size,
            grid=grid or maps.grid,
            device=device,
        ),
    )


def _unpacked(url: str) -> tuple[Any, Any]:
    """Return the value of a saved file, and its facts."""
    return saved.unpack(read_file(url), url)


def stored(image: AnyImage) -> Pixels:
    """Return an image's pixels as it is stored: uint8 [h, w, 3].

    Raises:
        ImageError: It cannot be read, or is too large; the error names its file if it has one.
    """
    if isinstance(image, str | Path):
        (data,) = fetch([str(image)])
        if isinstance(data, ImageError):
            raise data
        try:
            return pixels_of(data)
        except ImageError as error:
            raise ImageError(f"{image}: {error}") from error
    if isinstance(image, bytes):
        return pixels_of(image)
    if isinstance(image, Image.Image):
        image = np.asarray(image.convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        kind, shape = image.dtype, list(image.shape)
        raise ImageError(f"an array {kind} {shape}, not uint8 [h, w, 3]")
    return image
