"""A user's own network, made by a function of the user's own module."""

import importlib
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from sensloc.errors import ClassifierError
from sensloc.networks.classifier import Classifier

if TYPE_CHECKING:
    from torch import nn


class Python(Classifier):
    """A user's own: ``module:function`` returns the network. This runs that module's code."""

    source: Literal["python"]
    function: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    checkpoint: str | None = None

    def load(self, trained: str | None = None) -> "nn.Module":
        """Call the function, and load the checkpoint: see ``Classifier.load``."""
        from torch import nn

        from sensloc.networks.weights import with_checkpoint

        module, function = self.function.split(":")
        try:
            make = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ClassifierError(f"classifier.function: no {self.function}: {error}") from error
        network = make()
        if not isinstance(network, nn.Module):
            kind = type(network).__name__
            raise ClassifierError(f"classifier.function: {self.function} made a {kind}, no network")
        return with_checkpoint(network, self.checkpoint)
