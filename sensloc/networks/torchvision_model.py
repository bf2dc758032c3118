"""Networks of torchvision."""

from typing import TYPE_CHECKING, Literal

from sensloc.errors import ClassifierError
from sensloc.networks.classifier import Classifier

if TYPE_CHECKING:
    from torch import nn


class Torchvision(Classifier):
    """``torchvision.models.get_model(name, weights=weights)``."""

    source: Literal["torchvision"]
    name: str
    weights: str | None = None
    """A weights enum such as "IMAGENET1K_V2"; None with no ``checkpoint`` is a random network."""
    checkpoint: str | None = None
    """A state dict (path or URL), loaded with ``weights_only=True``."""
    seed: int = 0
    """Seed of the random weights, where there are no others."""

    def load(self, trained: str | None = None) -> "nn.Module":
        """Build the network with its weights: see ``Classifier.load``."""
        import torch
        import torchvision

        from sensloc.networks.weights import with_checkpoint

        torch.manual_seed(self.seed)
        try:
            network = torchvision.models.get_model(self.name, weights=self.weights)
        except (ValueError, KeyError) as error:
            raise ClassifierError(
                f"classifier: torchvision has no {self.name!r} with weights {self.weights!r}: "
                f"{error}"
            ) from error
        return with_checkpoint(network, self.checkpoint)
