"""Class activation maps (Zhou et al., CVPR 2016): features weighted by the last linear layer."""

import torch
from torch import Tensor

from sensloc.errors import ClassifierError
from sensloc.heatmaps.passes import Options, Pass, Reading
from sensloc.networks.taps import FEATURES


def reading(options: Options) -> Reading:
    """Read the last features, weighted by the class's row of the last linear layer."""
    return Reading(class_activation_map, taps=(FEATURES,), backward=False, signed=True)


def class_activation_map(passed: Pass) -> Tensor:
    """Return CAM, of either sign: [n, h, w].

    Raises:
        ClassifierError: The last linear layer reads something else than the mean or the maximum of
            the last features over all places.
    """
    head = passed.prepared.head
    if head is None:
        raise ClassifierError(
            "CAM needs a network whose last linear layer reads the mean or maximum of its last "
            "features over all places; this network's reads something else"
        )
    return weighted(passed.activation(FEATURES), head[passed.labels].float())


def weighted(features: Tensor, weights: Tensor) -> Tensor:
    """Return the sum of channels under weights: [n, C, h, w] and [n, C] -> [n, h, w]."""
    return torch.einsum("nchw,nc->nhw", features, weights)
