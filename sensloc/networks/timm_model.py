"""Networks of timm."""

import importlib
from typing import TYPE_CHECKING, Any, Literal

from sensloc.errors import ClassifierError
from sensloc.networks.classifier import Classifier

if TYPE_CHECKING:
    from torch import nn


class Timm(Classifier):
    """``timm.create_model(name, pretrained=pretrained)``; needs the extra ``timm``."""

    source: Literal["timm"]
    name: str
    pretrained: bool = True
    checkpoint: str | None = None
    seed: int = 0

    def load(self, trained: str | None = None) -> "nn.Module":
        """Build the network with its weights: see ``Classifier.load``."""
        import torch

        from sensloc.networks.weights import with_checkpoint

        torch.manual_seed(self.seed)
        pretrained = self.pretrained and self.checkpoint is None
        try:
            network = timm_module().create_model(self.name, pretrained=pretrained)
        except RuntimeError as error:
            raise ClassifierError(f"classifier: timm cannot make {self.name!r}: {error}") from error
        return with_checkpoint(network, self.checkpoint)


def timm_module() -> Any:
    """Import timm.

    Raises:
        ClassifierError: it is not installed.
    """
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ClassifierError(
            "classifier: this source needs timm: pip install 'sensloc[timm]'"
        ) from error
