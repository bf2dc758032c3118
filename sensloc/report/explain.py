"""Why a box is where it is: what the network says of each place of one image, on the way to it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from sensloc.boxes import Boxes
from sensloc.errors import ClassifierError, SenslocError
from sensloc.heatmaps import FOREGROUND, MAIN, PREDICTED, SECOND, is_learned, names_of
from sensloc.images.decode import squash
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Pixels
from sensloc.networks.prepare import probe_of
from sensloc.networks.taps import strides
from sensloc.prediction.facts import LocalizerFacts, read_facts
from sensloc.prediction.localizer import Localizer, Prediction, looker, network_of, stored

LAYERS = 3
"""The inner layers that are shown: the coarsest, at most so many."""

WHOLE = np.array([[0.0, 0.0, 1.0, 1.0]])


class ExplanationError(SenslocError):
    """An image cannot be explained; the message names it and says why."""


@dataclass(frozen=True)
class ShownMap:
    """One heat map of the image.

    Attributes:
        values: [h, w] in [0, 1]: shares of a foreground; any other map over its own maximum. A map
            is as fine as the layer that it is of, the pixels' as the network's input.
        share: whether its values are shares of an object.
        region: the part of the image that it shows: [4] unit xyxy.
        read: whether the box is read from it.
    """

    values: npt.NDArray[np.float16]
    share: bool
    region: Boxes
    read: bool


@dataclass(frozen=True)
class Explanation:
    """An image, its box, and the heat maps on the way from the one to the other.

    Attributes:
        pixels: uint8 [h, w, 3], the image as it is stored.
        prediction: its class, box and confidence.
        maps: by name, in the order of the way: the paper's, the sensitivities of inner layers from
            fine to coarse, and what else the box is read from.
        strides: of those inner layers.
    """

    pixels: Pixels
    prediction: Prediction
    maps: Mapping[str, ShownMap]
    strides: tuple[int, ...]


def explain(url: str, image: str) -> Explanation:
    """Find an image's box, and keep what is seen on the way.

    Args:
        url: folder of a finished run, or of a copy of its ``localizer``.
        image: path or URL.

    Raises:
        LocalizerError: There is no localizer.
        ExplanationError: The image cannot be read, is too large, or has no box.
    """
    localizer = Localizer.load(url)
    try:
        pixels = stored(image)
    except ImageError as error:
        raise ExplanationError(str(error)) from error
    (prediction,) = localizer.predict([pixels])
    if not np.isfinite(prediction.box).all():
        raise ExplanationError(f"{image}: the derivative is not finite: there is no box")
    network, read = network_of(*read_facts(url)), names_of(localizer.box.columns)
    layers = inner_strides(network, localizer.facts)
    return Explanation(pixels, prediction, _maps(localizer, network, pixels, layers, read), layers)


def inner_strides(network: nn.Module, facts: LocalizerFacts) -> tuple[int, ...]:
    """Return the strides of the inner layers that are shown, ascending: the coarsest ``LAYERS``."""
    try:
        found, _ = strides(network.eval(), probe_of(facts.classifier))
    except ClassifierError:  # it has no layer with places
        return ()
    return found[-LAYERS:]


def _maps(
    localizer: Localizer,
    network: nn.Module,
    pixels: Pixels,
    layers: tuple[int, ...],
    read: tuple[str, ...],
) -> dict[str, ShownMap]:
    facts, size = localizer.facts, localizer.facts.classifier.input_size
    first = [FOREGROUND] if SECOND in read else []
    names = tuple(dict.fromkeys([MAIN, *(f"inner_{stride}" for stride in layers), *first, *read]))
    look = looker(facts, network, names, localizer.readout, grid=size).sized(1)
    seen = look(squash(pixels, size)[None], np.array([PREDICTED]), [pixels])
    return {
        name: ShownMap(
            values=np.reshape(maps.values, (maps.height, maps.width)),
            share=is_learned(name),
            region=seen.regions.get(name, WHOLE)[0],
            read=name in read,
        )
        for name, maps in ((name, seen.maps[name]) for name in names)
    }
