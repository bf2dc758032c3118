"""One pass of a batch through a classifier, and what can be read from it. torch only.

A *pass* is one run forward and, where it is asked for, one backward from the class scores, as far
as the earliest tap. A *reading* is a pure function from a pass to one heat map per image: each file
of ``sensloc.heatmaps`` has one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sensloc.heatmaps import PREDICTED
from sensloc.heatmaps.readout import Readout
from sensloc.networks.precision import arithmetic
from sensloc.networks.prepare import Prepared
from sensloc.networks.taps import FEATURES, PIXELS, Tap


@dataclass(frozen=True)
class Pass:
    """What one pass of n images gives.

    Attributes:
        prepared: The network.
        images: Normalised pixels [n, 3, S, S].
        labels: The class whose score was differentiated, int64 [n].
        logits: float32 [n, classes].
        activations: The output at each tap, as its module gives it.
        slopes: The derivative of the class score with regard to each of these; empty without a
            backward pass.
        fold: Which fold of a cross-fitted reading reads each image, int64 [n]; 0 is the whole.
    """

    prepared: Prepared
    images: Tensor
    labels: Tensor
    logits: Tensor
    activations: Mapping[Tap, Tensor]
    slopes: Mapping[Tap, Tensor]
    fold: Tensor

    def activation(self, tap: Tap) -> Tensor:
        """Return the activations at a tap: float32 [n, C, h, w]; the pixels' are the images."""
        return self._grid(tap, self.activations)

    def sensitivity(self, tap: Tap) -> Tensor:
        """Return the derivative of the class score there (eq. 1): float32 [n, C, h, w]."""
        return self._grid(tap, self.slopes)

    def _grid(self, tap: Tap, values: Mapping[Tap, Tensor]) -> Tensor:
        place = self.prepared.places.get(tap)
        value = values[tap].detach().float()
        return value if place is None else place.grid(value)


def look(
    prepared: Prepared,
    images: Tensor,
    labels: Tensor,
    taps: Iterable[Tap] = (PIXELS,),
    backward: bool = True,
    fold: Tensor | None = None,
) -> Pass:
    """Run a batch forward, and backward from the class scores (logits) as far as the taps ask.

    Args:
        prepared: The network, which knows the places of the taps.
        images: Normalised pixels [n, 3, S, S].
        labels: Class indices, or ``PREDICTED``, int64 [n].
        taps: What is kept.
        backward: Whether the derivatives at the taps are wanted.
        fold: See ``Pass``; None: the whole.

    Returns:
        The pass. The graph begins at the earliest tap, so nothing is differentiated before it.
    """
    taps = list(taps)
    kept: dict[Tap, Tensor] = {}
    with ExitStack() as hooks, torch.set_grad_enabled(backward), arithmetic(prepared.precision):
        x = images.detach()
        if PIXELS in taps:
            kept[PIXELS] = x = x.requires_grad_(backward)
        for tap in taps:
            if tap != PIXELS:
                hook = partial(_keep, kept, tap, backward)
                hooks.callback(prepared.marks[tap].register_forward_hook(hook).remove)
        half = prepared.precision == "bfloat16"
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            logits = prepared.network(x).float()
        index = torch.where(labels == PREDICTED, logits.argmax(1), labels)
        slopes: Sequence[Tensor] = ()
        if backward and taps:
            score = logits.gather(1, index[:, None]).sum()
            slopes = torch.autograd.grad(score, [kept[tap] for tap in taps])
    derivatives = dict(zip(taps, slopes, strict=False))
    fold = torch.zeros_like(index) if fold is None else fold
    return Pass(prepared, images, index, logits.detach(), kept, derivatives, fold)


def _keep(
    kept: dict[Tap, Tensor], tap: Tap, backward: bool, _module: Any, _inputs: Any, output: Tensor
) -> Tensor:
    """Keep what passes through a tap, and pass on a copy, which the next layer may change."""
    begins = backward and not output.requires_grad
    own = output.detach().requires_grad_() if begins else output
    passed_on = own.clone()
    kept[tap] = passed_on if tap == FEATURES else own  # features as what pools them sees them
    return passed_on


# --------------------------------------------------------------------------- readings


@dataclass(frozen=True)
class Reading:
    """How a heat map is read from a pass.

    Attributes:
        read: From a pass to [n, h, w]; of what has many channels, to [n, C, h, w].
        taps: What it reads of the pass.
        backward: Whether it reads derivatives.
        signed: Whether values may be negative, or zero has no meaning: such a map is stretched
            from its minimum to its maximum, any other from zero.
        random: Whether it is of a network of the same architecture with random weights.
        share: Whether its values are shares in [0, 1]: such a map is clipped to them, and kept.
    """

    read: Callable[[Pass], Tensor]
    taps: tuple[Tap, ...] = ()
    backward: bool = True
    signed: bool = False
    random: bool = False
    share: bool = False


@dataclass(frozen=True)
class Options:
    """The numbers that readings depend on, as the config's sections have them.

    Attributes:
        channels: How the three colours' derivatives become one number: "max", "l2" or "sum".
        samples: Noisy copies of SmoothGrad.
        level: Standard deviation of its noise, as a share of each image's range of values.
        seed: Of the noise, and of random weights.
        steps: Points on Integrated Gradients' way.
        gradcam_layer: Name of the module that Grad-CAM reads; None: the last features.
        readouts: Of each learned heat map by name: the whole one, and those of its folds where it
            is cross-fitted.
    """

    channels: str = "max"
    samples: int = 4
    level: float = 0.15
    seed: int = 0
    steps: int = 8
    gradcam_layer: str | None = None
    readouts: Mapping[str, tuple[Readout, ...]] = field(default_factory=dict)
