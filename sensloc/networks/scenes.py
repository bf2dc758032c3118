"""The demo's small network, which is trained inside the run."""

from typing import TYPE_CHECKING, Literal

from sensloc.errors import ClassifierError
from sensloc.networks.classifier import Classifier
from sensloc.sections import Above, Finite, Positive

if TYPE_CHECKING:
    from torch import nn


class SceneNet(Classifier):
    """The small network of the demo, trained inside the run on the train split's labels only."""

    source: Literal["scenes"]
    classes: str | tuple[str, ...] = tuple("0123456789")
    input_size: Positive = 64
    mean: tuple[Finite, Finite, Finite] = (0.5, 0.5, 0.5)
    std: tuple[Above, Above, Above] = (0.25, 0.25, 0.25)
    epochs: Positive = 5
    seed: int = 0

    def load(self, trained: str | None = None) -> "nn.Module":
        """Build the network with the weights that the run has trained: see ``Classifier.load``."""
        from sensloc.networks.scene_net import scene_net
        from sensloc.networks.weights import load_state, read_state

        if trained is None:
            raise ClassifierError("classifier.source = 'scenes' is trained inside a run")
        network = scene_net(len(self.classes))
        load_state(network, read_state(trained), trained)
        return network
