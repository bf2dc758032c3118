"""Where a network can be read: places found by their stride, whatever the layers are called.

A *tap* names a place: ``PIXELS``, the input itself; a stride such as 8, 16 or 32, the last block of
the network whose grid is that much coarser than the input; ``FEATURES``, the last features before
the class scores; or the name of one of the network's modules. A convolutional network's outputs
[n, C, h, w] are grids already; a transformer's tokens [n, p + h * w, C] are a grid of its patches'
stride behind p tokens of their own (class token, registers).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sensloc.errors import ClassifierError

Tap = int | str

PIXELS = 1
FEATURES = "features"


@dataclass(frozen=True)
class Place:
    """The output of one module, and how it is a grid.

    Attributes:
        module: Name of the module.
        height: Cells of a column.
        width: Cells of a row.
        prefix: Tokens before the grid's; None where the output is a grid [n, C, h, w] itself.
    """

    module: str
    height: int
    width: int
    prefix: int | None = None

    def grid(self, output: Tensor) -> Tensor:
        """Return the module's output as a grid: [n, C, h, w]."""
        if self.prefix is None:
            return output
        tokens = output[:, self.prefix :].transpose(1, 2)
        return tokens.reshape(*tokens.shape[:2], self.height, self.width)


@dataclass(frozen=True)
class Layout:
    """The places of a network.

    Attributes:
        places: The place of each tap that was asked for.
        head: Name of the last linear layer, if it reads the mean or the maximum of ``FEATURES``
            over all places; else None: then there is no CAM.
    """

    places: Mapping[Tap, Place]
    head: str | None


@dataclass(frozen=True)
class _Call:
    """The last call of a module in one pass."""

    place: Place
    output: Tensor
    in_sequence: bool


def locate(network: nn.Module, probe: Tensor, taps: Iterable[Tap]) -> Layout:
    """Find the places that taps name, by running the network forward and backward once.

    Args:
        network: In eval mode.
        probe: [n, 3, S, S], any image.
        taps: See the module.

    Raises:
        ClassifierError: A tap has no place in this network.
    """
    calls, heads, score = _calls(network, probe)
    used = _used(calls, score)
    linear, pooled = heads[-1] if heads else (None, probe)
    pooling = [
        name for name, call in calls.items() if _pools_to(call.place.grid(call.output), pooled)
    ]
    found: dict[Tap, Place] = {}
    for tap in taps:
        if tap == PIXELS:
            continue
        if tap == FEATURES:
            name = pooling[-1:] or _last(calls, used, probe.shape[-1])
        elif isinstance(tap, int):
            name = _at_stride(calls, used, tap, probe.shape[-1])
        else:
            name = [tap] if tap in calls else []
        if not name:
            raise ClassifierError(_missing(tap, {name: calls[name] for name in used}, probe))
        found[tap] = calls[name[0]].place
    return Layout(found, linear if pooling else None)


def strides(network: nn.Module, probe: Tensor) -> tuple[tuple[int, ...], bool]:
    """Return the strides at which a network can be read, ascending, and whether it has a CAM.

    Args:
        network: In eval mode.
        probe: [n, 3, S, S], any image.
    """
    calls, _, score = _calls(network, probe)
    size = probe.shape[-1]
    found = {size // calls[name].place.height for name in _used(calls, score)}
    exact = sorted(stride for stride in found if size % stride == 0 and stride > 1)
    return tuple(exact), locate(network, probe, [FEATURES]).head is not None


def _calls(
    network: nn.Module, probe: Tensor
) -> tuple[dict[str, _Call], list[tuple[str, Tensor]], Tensor]:
    """Run the network once.

    Returns:
        The modules with a grid of places, in the order of their last calls; the linear layers that
        read one vector per image, with what they read; and the highest class score, summed.
    """
    sequences = {
        f"{name}.{child}".lstrip(".")
        for name, module in network.named_modules()
        if isinstance(module, nn.Sequential | nn.ModuleList)
        for child, _ in module.named_children()
    }
    calls: dict[str, _Call] = {}
    heads: list[tuple[str, Tensor]] = []
    sides: list[tuple[int, int]] = []

    def note(name: str, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor):
            return
        if isinstance(module, nn.Linear) and output.ndim == 2:
            heads.append((name, inputs[0].detach()))
        place = _place(name, output, sides)
        if place is not None:
            calls.pop(name, None)
            calls[name] = _Call(place, output, name in sequences)

    with ExitStack() as hooks, torch.enable_grad():
        for name, module in network.named_modules():
            if name:
                hook = module.register_forward_hook(
                    lambda module, inputs, output, name=name: note(name, module, inputs, output)
                )
                hooks.callback(hook.remove)
        score = network(probe.detach().requires_grad_()).float().amax(1).sum()
    return calls, heads, score


def _place(name: str, output: Tensor, sides: list[tuple[int, int]]) -> Place | None:
    """Return how an output is a grid, given the grids [h, w] before it, or None."""
    if output.ndim == 4:
        height, width = output.shape[2:]
        if height == 1 or height != width:  # attention's heads have four dimensions too
            return None
        sides.append((height, width))
        return Place(name, height, width)
    if output.ndim == 3 and sides:
        height, width = sides[-1]
        prefix = output.shape[1] - height * width
        return Place(name, height, width, prefix) if 0 <= prefix < height * width else None
    return None


def _used(calls: Mapping[str, _Call], score: Tensor) -> list[str]:
    """Return the modules at whose places the class score has a derivative that is not zero.

    Behind the last attention of a transformer that reads its class token it is zero.
    """
    if not calls:
        return []
    outputs = [call.output for call in calls.values()]
    slopes = torch.autograd.grad(score, outputs, allow_unused=True)
    return [
        name
        for (name, call), slope in zip(calls.items(), slopes, strict=True)
        if slope is not None and bool(call.place.grid(slope).any())
    ]


def _last(calls: Mapping[str, _Call], used: Sequence[str], size: int) -> list[str]:
    """Return the last module with places, in a list; of a transformer its last block's input."""
    if used and calls[used[-1]].place.prefix is not None:
        return _at_stride(calls, used, size // calls[used[-1]].place.height, size)
    return list(used[-1:])


def _at_stride(
    calls: Mapping[str, _Call], used: Sequence[str], stride: int, size: int
) -> list[str]:
    """Return the outermost last block of a stride, in a list, or an empty list.

    Blocks are the members of sequences; where a whole sequence, or what holds it, has the stride,
    its output is that of its last block.
    """
    here = [name for name in used if calls[name].place.height == size // stride]
    blocks = [name for name in here if calls[name].in_sequence] or here
    outermost = {name: min(_holders(name, here), key=len) for name in blocks}
    depth = min((outer.count(".") for outer in outermost.values()), default=0)
    return [outer for outer in outermost.values() if outer.count(".") == depth][-1:]


def _holders(name: str, names: Sequence[str]) -> list[str]:
    """Return those of the modules that hold a module, itself among them."""
    return [other for other in names if name == other or name.startswith(f"{other}.")]


def _pools_to(features: Tensor, pooled: Tensor) -> bool:
    """Tell whether ``pooled`` is the mean or the maximum of features [n, C, h, w] over places."""
    if features.shape[:2] != pooled.shape:
        return False
    ways = (features.mean((2, 3)), features.amax((2, 3)))
    return any(torch.allclose(way, pooled, rtol=1e-3, atol=1e-5) for way in ways)


def _missing(tap: Tap, calls: Mapping[str, _Call], probe: Tensor) -> str:
    if isinstance(tap, int):
        strides = sorted({probe.shape[-1] // call.place.height for call in calls.values()})
        return f"the network has no layer of stride {tap}; its strides are {strides or 'none'}"
    if tap == FEATURES:
        return "the network has no layer with places"
    return f"no layer {tap!r} with places; the last ones are {', '.join(list(calls)[-8:])}"
