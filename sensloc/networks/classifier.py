"""What every source of networks has: its config section, which loads the network."""

from abc import abstractmethod
from typing import TYPE_CHECKING

from sensloc.sections import Above, Finite, Positive, Section

if TYPE_CHECKING:
    from torch import nn


class Classifier(Section):
    """A source of networks: the classes of the network's outputs, its input, and how it is loaded.

    A subclass per source adds its keys, and ``load``.
    """

    classes: str | tuple[str, ...] = "imagenet1k"
    """The class of each output, in order: "imagenet1k", or a text file (path or URL) whose lines
    begin with the class, or the list itself."""
    input_size: Positive = 224
    """Images are squashed to ``input_size`` x ``input_size``."""
    mean: tuple[Finite, Finite, Finite] = (0.485, 0.456, 0.406)
    std: tuple[Above, Above, Above] = (0.229, 0.224, 0.225)
    """Per channel, of pixels in [0, 1]."""

    @abstractmethod
    def load(self, trained: str | None = None) -> "nn.Module":
        """Build the network that the section names, with its weights.

        Args:
            trained: URL of the weights that a run trained itself; only such a source reads it.

        Returns:
            [n, 3, S, S] -> logits [n, classes], as its source made it: see
            ``sensloc.networks.prepare``.

        Raises:
            ClassifierError: a name, package or weights file is wrong.
        """
