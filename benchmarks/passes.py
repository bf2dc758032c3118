"""The product's passes by networks of random weights, and the operations that they take.

torch and the package's pure rooms alone. The networks' libraries are imported when one is asked
for; a pass takes as long with any weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from sensloc.heatmaps import foreground, gradient
from sensloc.heatmaps.passes import Options, Reading, look
from sensloc.heatmaps.readout import Readout
from sensloc.networks.precision import Precision, require
from sensloc.networks.prepare import Prepared, tapped
from sensloc.networks.taps import strides

SIZE, GRID = 224, 14

NETWORKS = {
    "resnet18": "torchvision.models.resnet18",
    "resnet50": "torchvision.models.resnet50",
    "vgg16": "torchvision.models.vgg16",
    "mobilenet_v3_large": "torchvision.models.mobilenet_v3_large",
    "efficientnet_lite0": "timm.models.tf_efficientnet_lite0",
    "vit_small_patch16_224": "timm.models.vit_small_patch16_224",
}
"""The function that makes each."""

ALIKE = 0.99
"""The least cosine of maps that pass for the same."""

FORWARD, GRADIENT, FOREGROUND = "forward pass only", "gradient", "foreground"

Way = Callable[[], Tensor]
"""Makes the maps of a batch: [n, h, w]."""


def network(name: str) -> nn.Module:
    """Return a network with random weights, as its library makes it, in eval mode."""
    library, _, function = NETWORKS[name].rpartition(".")
    torch.manual_seed(0)
    made: nn.Module = getattr(import_module(library), function)()
    return made.eval()


def batch_of(n: int, size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Return n normalised images [n, 3, size, size] of noise and their classes [n]."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, size, size, generator=generator)
    return images, torch.randint(1000, (n,), generator=generator)


@dataclass(frozen=True)
class Passes:
    """The product's passes by one network: the forward pass alone, the paper's map, the foreground.

    Attributes:
        prepared: The network on its device, tapped for each pass.
        readings: What each reads; none of the forward pass.
    """

    prepared: Mapping[str, Prepared]
    readings: Mapping[str, Reading | None]

    @classmethod
    def of(cls, name: str, device: str = "cpu") -> "Passes":
        """Return the passes of a network of ``NETWORKS``, in float32."""
        probe, _ = batch_of(1)
        blocks = foreground.blocks_at(*strides(network(name), probe))
        learned = Options(readouts={"foreground": (some_readout(name, blocks, probe),)})
        readings = {
            FORWARD: None,
            GRADIENT: gradient.reading(Options()),
            FOREGROUND: foreground.reading(learned),
        }
        taps = {way: reading.taps if reading else () for way, reading in readings.items()}
        prepared = {way: tapped(network(name), probe, taps[way], device) for way in readings}
        return cls(prepared, readings)

    def at(self, precision: Precision, device: str) -> "Passes":
        """Return the same passes in another arithmetic.

        Raises:
            ClassifierError: The device has no such arithmetic.
        """
        require(precision, device)
        prepared = {way: replace(one, precision=precision) for way, one in self.prepared.items()}
        return replace(self, prepared=prepared)

    def ways(self, images: Tensor, labels: Tensor) -> dict[str, Way]:
        """Return what makes the logits and the maps of a batch.

        Args:
            images: Normalised, [n, 3, S, S], on the device.
            labels: Their classes, [n], there too.
        """
        pixels = images.contiguous(memory_format=torch.channels_last)

        def way(name: str) -> Way:
            prepared, reading = self.prepared[name], self.readings[name]
            if reading is None:
                return lambda: look(prepared, pixels, labels, (), backward=False).logits
            taps, backward, read = reading.taps, reading.backward, reading.read
            return lambda: read(look(prepared, pixels, labels, taps, backward))

        return {name: way(name) for name in self.readings}


def alike(maps: Tensor, others: Tensor) -> float:
    """Return the least cosine of n maps with others, both [n, h, w].

    Lengths are left out: random weights make them as small as they like.
    """
    one, other = (F.normalize(of.flatten(1), eps=1e-30) for of in (maps, others))
    return float((one * other).sum(1).min().detach())


def some_readout(name: str, blocks: tuple[str, ...], probe: Tensor) -> Readout:
    """Return a read-out of these blocks whose weights are noise."""
    cells = foreground.Cells.of(blocks, GRID, Options())
    prepared = tapped(network(name), probe, cells.taps)
    passed = look(prepared, probe, torch.zeros(1, dtype=torch.int64), cells.taps, cells.backward)
    d = sum(cells.widths(passed).values())
    return Readout(
        cells.blocks,
        GRID,
        means_x=np.zeros((GRID**2, d), np.float32),
        means_y=np.zeros(GRID**2, np.float32),
        weights=np.random.default_rng(0).normal(0, 1, (1, d)).astype(np.float32),
        classes=np.array([], np.int64),
    )


# --------------------------------------------------------------------------- the floor


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the floating-point operations of convolutions and matrix products, by torch's own
    formulas, and the bytes that each reads and writes. Its own counter cannot watch
    ``autograd.grad`` to a leaf.

    Attributes:
        calls: Operations and bytes of each call.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[float, float]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        count, kwargs = flop_registry.get(func._overloadpacket), kwargs or {}
        if count is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **kwargs)
        if count:
            outputs = output if isinstance(output, tuple | list) else (output,)
            inputs = args
            if func._overloadpacket == torch.ops.aten.convolution_backward:
                inputs = (args[0], args[2])  # the derivative of the weights alone reads the input
            moved = sum(x.nbytes for x in (*inputs, *outputs) if isinstance(x, Tensor))
            self.calls.append((count(*args, **kwargs, out_val=output), moved))
        return output

    @property
    def total(self) -> float:
        """All floating-point operations."""
        return float(sum(operations for operations, _ in self.calls))

    def seconds(self, per_second: float, bandwidth: float) -> float:
        """Return the least time by the roofline: each call's operations or bytes, the longer.

        All else is taken to be fused into these calls, and free.

        Args:
            per_second: Operations, the peak.
            bandwidth: Bytes per second.
        """
        return sum(max(n / per_second, moved / bandwidth) for n, moved in self.calls)


def counted(way: Way) -> Operations:
    """Return the operations of a way."""
    operations = Operations()
    with operations:
        way()
    return operations
