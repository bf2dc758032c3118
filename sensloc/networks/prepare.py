"""A network made ready for gradients: frozen, its batch norms folded, placed, its taps found.

torch only. What it computes stays what its source made of it.
"""

import hashlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sensloc.errors import ClassifierError
from sensloc.networks.classes import class_indices
from sensloc.networks.clipping import clipping
from sensloc.networks.padding import padding_itself
from sensloc.networks.precision import Precision, require
from sensloc.networks.taps import PIXELS, Layout, Place, Tap, locate

if TYPE_CHECKING:
    from sensloc.networks.classifier import Classifier

log = logging.getLogger(__name__)

_one_at_a_time = threading.Lock()
"""For tracing: torch.fx replaces how modules are called meanwhile, for the whole process."""


@dataclass(frozen=True)
class Prepared:
    """A network that is ready for gradients.

    Attributes:
        network: [n, 3, S, S] -> logits [n, classes]; in eval mode, frozen, on its device.
        places: Where each of its taps is, and how that module's output is a grid.
        marks: For each tap, the identity module in ``network`` that its output passes through.
        head: The weights of the last linear layer [classes, C], if it reads the mean or the
            maximum of the features at the tap ``FEATURES`` over all places; else None.
        precision: Of its arithmetic.
    """

    network: nn.Module
    places: Mapping[Tap, Place]
    marks: Mapping[Tap, nn.Module]
    head: Tensor | None
    precision: Precision = "float32"


def prepare(
    network: nn.Module,
    config: "Classifier",
    device: str = "cpu",
    taps: Iterable[Tap] = (),
    precision: Precision = "float32",
) -> Prepared:
    """Freeze, fold and place a network, after a pass that proves its output size.

    Args:
        network: As its source made it: [n, 3, S, S] -> logits.
        config: Names the classes and the size of the input.
        device: Where the network goes.
        taps: Where it will be read, beside its pixels and its logits.
        precision: Of its arithmetic.

    Returns:
        The network in channels_last, batch norms folded into convolutions.

    Raises:
        ClassifierError: The network has another number of outputs, or no place for a tap, or the
            device has no such arithmetic.
    """
    network = network.eval().requires_grad_(False)
    probe, classes = probe_of(config), len(class_indices(config))
    with torch.no_grad():
        outputs = network(probe).shape[-1]
    if outputs != classes:
        raise ClassifierError(
            f"classifier: the network has {outputs} outputs, classifier.classes {classes} names"
        )
    return tapped(network, probe, taps, device, precision)


def probe_of(config: "Classifier") -> Tensor:
    """Return an image that is noise, of the size of the input: [1, 3, S, S]."""
    size = config.input_size
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def tapped(
    network: nn.Module,
    probe: Tensor,
    taps: Iterable[Tap] = (),
    device: str = "cpu",
    precision: Precision = "float32",
) -> Prepared:
    """Fold and place a network that is frozen, and find its taps by an input [n, 3, S, S].

    Raises:
        ClassifierError: The network has no place for a tap, or the device no such arithmetic.
    """
    require(precision, device)
    taps = [tap for tap in taps if tap != PIXELS]
    layout = locate(network, probe, taps) if taps else Layout({}, None)
    head = network.get_submodule(layout.head).weight if layout.head else None
    ready, marks = fold(network, probe, {place.module for place in layout.places.values()})
    ready = ready.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Prepared(
        network=ready,
        places=layout.places,
        marks={tap: marks[place.module] for tap, place in layout.places.items()},
        head=head.to(device) if isinstance(head, Tensor) else None,
        precision=precision,
    )


def weights_hash(network: nn.Module) -> str:
    """Return 32 hex digits that are equal for equal modules and, to the bit, weights."""
    digest = hashlib.blake2b(repr(network).encode(), digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


# --------------------------------------------------------------------------- folding


def fold(
    network: nn.Module, probe: Tensor, marked: Collection[str] = ()
) -> tuple[nn.Module, dict[str, nn.Module]]:
    """Fold each batch norm into the convolution that alone feeds it, and paddings into kernels, and
    clip in place: the same function, faster.

    Args:
        network: In eval mode.
        probe: [n, 3, S, S], an input on which both must agree.
        marked: Names of modules whose outputs shall pass through an identity module.

    Returns:
        A folded copy, or the network itself where it has no batch norm, or, which is logged, where
        its forward cannot be traced (data-dependent control flow) or the folded one computes
        something else (weights that are shared or computed, hooks). And the identity modules by
        the names of the marked ones.
    """
    marks: dict[str, nn.Module] = {name: nn.Identity() for name in sorted(marked)}
    if any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        try:
            folded = _folded(network, marks, probe)
            with torch.no_grad():
                wanted, found = network(probe), folded(probe)
            if (found - wanted).norm() <= 1e-3 * wanted.norm():
                return folded, marks
            reason = "the folded network computes something else"
        except Exception as error:  # tracing and folding run user code: they may raise anything
            reason = str(error)
        kind = type(network).__name__
        log.warning("%s is used without folding its batch norms: %s", kind, reason)
    for name, mark in marks.items():
        _pass_through(network.get_submodule(name), mark)
    return network, marks


def _pass_through(module: nn.Module, mark: nn.Module) -> None:
    """Have a module's output go through an identity module."""
    module.register_forward_hook(lambda _module, _inputs, output: mark(output))


class _Tracer(fx.Tracer):
    """Sees convolutions and batch norms whole, subclasses (timm's) too, and notes every output.

    The modules that other threads call meanwhile are none of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}
        self.thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = isinstance(m, nn.Conv2d | nn.BatchNorm2d)
        return leaf or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if threading.get_ident() != self.thread:
            return forward(*args, **kwargs)
        output = super().call_module(m, forward, args, kwargs)
        if isinstance(output, fx.Proxy):
            self.outputs[self.path_of_module(m)] = output.node
        return output


def _folded(network: nn.Module, marks: Mapping[str, nn.Module], probe: Tensor) -> nn.Module:
    inputs = _inputs(network, probe)
    tracer = _Tracer()
    with _one_at_a_time:
        graph = tracer.trace(network)
    folded = fx.GraphModule(network, graph)
    modules = dict(folded.named_modules())
    calls = Counter(str(node.target) for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        feeder, target = str(source.target), str(node.target)
        convolution, norm = modules[feeder], modules[target]
        if not (isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)):
            continue
        if len(source.users) == calls[feeder] == calls[target] == 1:
            _replace(folded, modules, feeder, fuse_conv_bn_eval(convolution, norm))
            _replace(folded, modules, target, _after(norm))
    for name, (height, width) in inputs.items():
        if calls[name] == 1 and (own := padding_itself(modules[name], height, width)):
            _replace(folded, modules, name, own)
    for name in calls:
        if clip := clipping(modules[name]):
            _replace(folded, modules, name, clip)
    folded.add_module("marks", nn.ModuleList(marks.values()))
    for i, name in enumerate(marks):
        marked = tracer.outputs[name]
        with graph.inserting_after(marked):
            mark = graph.call_module(f"marks.{i}", (marked,))
        marked.replace_all_uses_with(mark)
        mark.args = (marked,)
    folded.recompile()
    return folded.eval().requires_grad_(False)


def _inputs(network: nn.Module, probe: Tensor) -> dict[str, tuple[int, int]]:
    """Return the height and the width of each convolution's last input, by its name."""
    sides: dict[str, tuple[int, int]] = {}

    def note(name: str, inputs: tuple[Any, ...]) -> None:
        sides[name] = (inputs[0].shape[2], inputs[0].shape[3])

    with ExitStack() as hooks, torch.no_grad():
        for name, module in network.named_modules():
            if isinstance(module, nn.Conv2d):
                hook = module.register_forward_pre_hook(
                    lambda _, inputs, name=name: note(name, inputs)
                )
                hooks.callback(hook.remove)
        network(probe)
    return sides


def _after(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what is left of a batch norm: the activation that timm packs into it, or nothing."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _replace(root: nn.Module, modules: dict[str, nn.Module], name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, new)
    modules[name] = new
