"""A network made ready for gradients: frozen, its batch norms folded, placed. torch only."""

import hashlib
import logging
from collections import Counter

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sensloc.errors import ClassifierError
from sensloc.networks import AnyClassifier
from sensloc.networks.classes import class_indices

log = logging.getLogger(__name__)


def weights_hash(network: nn.Module) -> str:
    """32 hex digits: equal for two networks of the same modules and, to the bit, weights."""
    digest = hashlib.blake2b(repr(network).encode(), digest_size=16)
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def prepare(network: nn.Module, config: AnyClassifier, device: str = "cpu") -> nn.Module:
    """Freeze, fold and place a network, after one pass that proves its output size.

    Returns:
        In eval mode, no parameter requires a gradient, batch norms folded into convolutions,
        channels_last, on ``device``.

    Raises:
        ClassifierError: the network has another number of outputs than the config has classes.
    """
    network = network.eval().requires_grad_(False)
    size, classes = config.input_size, len(class_indices(config))
    probe = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = network(probe).shape[-1]
    if outputs != classes:
        raise ClassifierError(
            f"classifier: the network has {outputs} outputs, classifier.classes {classes} names"
        )
    return fold(network, probe).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class _Tracer(fx.Tracer):
    """Sees convolutions and batch norms whole, subclasses (timm's) too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = isinstance(m, nn.Conv2d | nn.BatchNorm2d)
        return leaf or super().is_leaf_module(m, module_qualified_name)


def fold(network: nn.Module, probe: Tensor) -> nn.Module:
    """Fold each batch norm into the convolution that alone feeds it: the same function, faster.

    Args:
        network: in eval mode.
        probe: [n, 3, S, S], an input on which both must agree.

    Returns:
        A folded copy; or the network itself, which is said, where its forward cannot be traced
        (data-dependent control flow) or the folded one computes something else (weights that
        are shared or computed, hooks).
    """
    try:
        folded = _folded(network)
        with torch.no_grad():
            wanted, found = network(probe), folded(probe)
        if (found - wanted).norm() <= 1e-3 * wanted.norm():
            return folded
        reason = "the folded network computes something else"
    except Exception as error:  # tracing and folding run user code: they may raise anything
        reason = str(error)
    log.warning("%s is used without folding its batch norms: %s", type(network).__name__, reason)
    return network


def _folded(network: nn.Module) -> nn.Module:
    graph = _Tracer().trace(network)
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
    folded.recompile()
    return folded.eval().requires_grad_(False)


def _after(norm: nn.BatchNorm2d) -> nn.Module:
    """What is left of a batch norm: the activation that timm packs into it, or nothing."""
    activation = getattr(norm, "act", None)
    return activation if isinstance(activation, nn.Module) else nn.Identity()


def _replace(root: nn.Module, modules: dict[str, nn.Module], name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, new)
    modules[name] = new
