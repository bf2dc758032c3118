"""Other questions to a frozen classifier about where it looked. torch only.

Two stand in for ``class_score_gradient`` and answer per pixel: ``SmoothGrad`` (Smilkov et al.
2017) and ``IntegratedGradients`` (Sundararajan et al. 2017); give them class indices, for
``PREDICTED`` would be taken anew for every version of an image. Two answer on the grid of a layer,
from one forward pass and at most a few layers of a backward one: CAM (Zhou et al. 2016) and
Grad-CAM (Selvaraju et al. 2017).
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sensloc.errors import ClassifierError
from sensloc.heatmaps.gradient import class_score_gradient


@dataclass(frozen=True)
class SmoothGrad:
    """The mean gradient over noisy copies of each image.

    Every image meets the same noise, scaled to its own range: its map does not depend on its
    neighbours in the batch.

    Attributes:
        samples: noisy copies.
        level: standard deviation of the noise, as a share of the image's range of values.
        seed: of the noise.
    """

    samples: int = 4
    level: float = 0.15
    seed: int = 0

    def __call__(self, network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As ``class_score_gradient``: gradient [n, 3, S, S] and logits, both means."""
        span = x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True)
        dice = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(self.samples, *x.shape[1:], generator=dice).to(x.device)
        return _mean(network, [x + self.level * span * one for one in noise], labels)


@dataclass(frozen=True)
class IntegratedGradients:
    """The image times the mean gradient on the straight way to it from the mean colour.

    Attributes:
        steps: points on the way: the midpoints of as many equal parts.
    """

    steps: int = 8

    def __call__(self, network: nn.Module, x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """As ``class_score_gradient``: attributions [n, 3, S, S] and mean logits.

        A channel's mean colour is 0 after normalisation, so the way from it to x is ``a * x``.
        """
        shares = (torch.arange(self.steps) + 0.5) / self.steps
        gradient, logits = _mean(network, [share * x for share in shares.tolist()], labels)
        return (x * gradient).float(), logits


def _mean(network: nn.Module, inputs: list[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean gradient and logits over several versions of a batch."""
    gradient, logits = class_score_gradient(network, inputs[0], labels)
    for x in inputs[1:]:
        more, scores = class_score_gradient(network, x, labels)
        gradient, logits = gradient + more, logits + scores
    return gradient / len(inputs), logits / len(inputs)


# --------------------------------------------------------------------------- layers


def class_activation(features: Tensor, weights: Tensor) -> Tensor:
    """CAM: the last features, weighted by the class's row of the last linear layer.

    Args:
        features: [n, C, h, w].
        weights: [n, C].

    Returns:
        [n, h, w], of either sign.
    """
    return torch.einsum("nchw,nc->nhw", features, weights)


def gradient_activation(activation: Tensor, gradient: Tensor) -> Tensor:
    """Grad-CAM: a layer's activation, weighted by the mean gradient of its channels.

    Args:
        activation: [n, C, h, w].
        gradient: [n, C, h, w], of the class score with regard to it.

    Returns:
        [n, h, w], negative values cut to 0.
    """
    return class_activation(activation, gradient.mean((2, 3))).clamp(min=0)


def pooled_features(features: Tensor, boxes: Tensor) -> Tensor:
    """The mean feature of each box (RoIAlign of one bin).

    Args:
        features: [n, C, h, w].
        boxes: [n, m, 4] unit xyxy.

    Returns:
        [n, m, C].
    """
    from torchvision.ops import roi_align  # see sensloc.images.decode

    height, width = features.shape[2:]
    scaled = boxes * torch.tensor([width, height, width, height], device=boxes.device)
    pooled = roi_align(features.float(), list(scaled.float()), 1, aligned=True)
    return torch.as_tensor(pooled).reshape(*boxes.shape[:2], -1)


def _pools_to(features: Tensor, pooled: Tensor) -> bool:
    """Is ``pooled`` the mean or the maximum of features [n, C, h, w] over places?"""
    if features.shape[:2] != pooled.shape:
        return False
    ways = (features.mean((2, 3)), features.amax((2, 3)))
    return any(torch.allclose(way, pooled, rtol=1e-3, atol=1e-5) for way in ways)


@dataclass(frozen=True)
class Activations:
    """What one pass of n images gives.

    Attributes:
        cam: [n, h, w], see ``class_activation``; None where the network has none.
        grad_cam: [n, h', w'], see ``gradient_activation``.
        features: [n, C, h, w], the last ones before they are pooled.
    """

    cam: Tensor | None
    grad_cam: Tensor
    features: Tensor


@dataclass(frozen=True)
class ActivationMaker:
    """A network and the names of the layers that CAM, Grad-CAM and box features read.

    Attributes:
        network: as ``sensloc.networks.prepare.prepare`` returns it.
        last: the module whose output are the last features.
        linear: the last linear layer, if it reads their mean or maximum over places: CAM's.
        layer: the module whose output Grad-CAM reads.
    """

    network: nn.Module
    last: str
    linear: str | None
    layer: str

    @classmethod
    def of(
        cls, network: nn.Module, probe: Tensor, layer: str | None = None, cam: bool = True
    ) -> "ActivationMaker":
        """Find the layers by running the network once.

        Args:
            network: as ``sensloc.networks.prepare.prepare`` returns it.
            probe: [n, 3, S, S], any image.
            layer: for Grad-CAM, a module without modules of its own; None: the last features.
            cam: is CAM wanted?

        Raises:
            ClassifierError: it has no such layer; or CAM is wanted, and it does not end in
                features, their mean or maximum over places and one linear layer.
        """
        calls: list[tuple[str, nn.Module, Tensor, Tensor]] = []

        def note(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
                if isinstance(out, Tensor):
                    calls.append((name, module, inputs[0].detach(), out.detach()))

            return hook

        with ExitStack() as hooks, torch.no_grad():
            for name, module in network.named_modules():
                if not list(module.children()):
                    hooks.callback(module.register_forward_hook(note(name)).remove)
            network(probe)
        maps: dict[str, Tensor] = {}  # in the order of each one's last call
        for name, _, _, out in calls:
            maps.pop(name, None)
            if out.ndim == 4 and out[0, 0].numel() > 1:
                maps[name] = out
        if not maps:
            raise ClassifierError("Grad-CAM needs a network with a layer that has places")
        heads = [(name, x) for name, module, x, _ in calls if isinstance(module, nn.Linear)]
        linear, pooled = heads[-1] if heads else (None, probe)
        last = [name for name, out in maps.items() if _pools_to(out, pooled)]
        if cam and not last:
            raise ClassifierError(
                "CAM needs a network whose last linear layer reads the mean or maximum of its last "
                f"features over all places; {linear or 'this one'} reads something else"
            )
        if layer is not None and layer not in maps:
            raise ClassifierError(
                f"compare.gradcam_layer: no layer {layer!r} with places; the last ones are "
                f"{', '.join(list(maps)[-8:])}"
            )
        features = [*maps, *last][-1]
        return cls(network, features, linear if last else None, layer or features)

    def __call__(self, x: Tensor, labels: Tensor) -> Activations:
        """One pass: normalised pixels [n, 3, S, S] and class indices [n] >= 0."""
        kept: dict[str, Tensor] = {}

        def begin(_: Any, __: Any, out: Tensor) -> Tensor:
            kept["layer"] = out.detach().requires_grad_()  # the graph begins here
            return kept["layer"].clone()  # which may be changed in place

        def keep(_: Any, __: Any, out: Tensor) -> None:
            kept["last"] = out

        with ExitStack() as hooks, torch.enable_grad():
            for name, hook in ((self.layer, begin), (self.last, keep)):
                module = self.network.get_submodule(name)
                hooks.callback(module.register_forward_hook(hook).remove)
            logits = self.network(x.detach()).float()
            score = logits.gather(1, labels[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, kept["layer"])
        features, layer = kept["last"].detach().float(), kept["layer"].detach().float()
        return Activations(
            cam=self._cam(features, labels),
            grad_cam=gradient_activation(layer, gradient.float()),
            features=features,
        )

    def _cam(self, features: Tensor, labels: Tensor) -> Tensor | None:
        if self.linear is None:
            return None
        weights: Any = self.network.get_submodule(self.linear).weight
        return class_activation(features, weights[labels].float())
