"""The sources of networks: one file for each, and the section that chooses among them.

To add a source, write its file (a subclass of ``Classifier``) and add it to ``AnyClassifier``.
No section imports its library before ``load`` is called.
"""

from typing import Annotated

from pydantic import Field

from sensloc.networks.efficientnet_lite0 import EfficientNetLite0
from sensloc.networks.python_function import Python
from sensloc.networks.scenes import SceneNet
from sensloc.networks.timm_model import Timm
from sensloc.networks.torchvision_model import Torchvision

AnyClassifier = Annotated[
    Torchvision
    | Timm
    | EfficientNetLite0
    | Python
    | SceneNet,
    Field(discriminator="source"),
]  # fmt: skip
"""The section ``[classifier]``: the key ``source`` chooses among these."""
