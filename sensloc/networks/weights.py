"""A network's weights: read from a checkpoint, loaded, or drawn at random."""

from collections.abc import Mapping

import fsspec
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from sensloc.errors import ClassifierError

NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


def read_state(url: str) -> Mapping[str, Tensor]:
    """Read a state dict (path or URL) without running anything that it holds.

    Raises:
        ClassifierError: it cannot be read, or is no state dict.
    """
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


def load_state(network: nn.Module, state: Mapping[str, Tensor], url: str) -> None:
    """Give a network its weights, in place.

    Raises:
        ClassifierError: they are another network's; names the ``url`` that they come from.
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        raise ClassifierError(f"{url} does not fit the network: {error}") from error


def with_checkpoint(network: nn.Module, url: str | None) -> nn.Module:
    """Return the network itself, with the weights of a checkpoint (path or URL) if there is one.

    Raises:
        ClassifierError: the checkpoint cannot be read, or is another network's.
    """
    if url is not None:
        load_state(network, read_state(url), url)
    return network


def randomised(network: nn.Module, seed: int) -> nn.Module:
    """Forget all that the network learned: the same architecture with random weights, in place.

    Convolutions and linear layers are drawn as by He et al. 2015, biases are 0, norms are as they
    begin. What else is learned (class tokens, position embeddings, packed projections, layer
    scales) is drawn with a standard deviation of 0.02, as transformers begin; of one dimension, 1.

    Args:
        network: Of any architecture.
        seed: Of the draw.

    Returns:
        The network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, NORMS):
                module.reset_parameters()
            else:
                _redraw(module)
    return network


def _redraw(module: nn.Module) -> None:
    """Draw anew what a module of no known kind has learned itself, in place."""
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
        elif "bias" in name:
            nn.init.zeros_(parameter)
        else:
            nn.init.ones_(parameter)
