"""Grad-CAM (Selvaraju et al. 2017): features weighted by the mean gradient of their channels."""

from torch import Tensor

from sensloc.heatmaps.cam import weighted
from sensloc.heatmaps.passes import Options, Reading
from sensloc.networks.taps import FEATURES


def reading(options: Options) -> Reading:
    """Read the positive part of the features weighted by their channels' mean derivative."""
    tap = options.gradcam_layer or FEATURES
    return Reading(
        lambda passed: gradient_activation(passed.activation(tap), passed.sensitivity(tap)),
        taps=(tap,),
        signed=True,
    )


def gradient_activation(activation: Tensor, gradient: Tensor) -> Tensor:
    """Return Grad-CAM, negative values cut to 0: twice [n, C, h, w] -> [n, h, w]."""
    return weighted(activation, gradient.mean((2, 3))).clamp(min=0)
