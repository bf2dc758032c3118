"""The demo's network is trained inside the run, on labels only. Others bring their weights."""

import io
import logging

import numpy as np

from sensloc.engine.pool import by_actor
from sensloc.images.fetch import ImageError
from sensloc.images.pixels import Decoded
from sensloc.networks.scenes import SceneNet
from sensloc.store.files import load
from sensloc.store.images import images_of
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)


def classifier(run: RunDir) -> None:
    """Train the demo's network on the train split's labels -> ``classifier.pt``.

    Every other source brings its weights along: then there is nothing to do, and that is recorded.
    """
    run.require("manifest")
    with run.stage("classifier", "classifier.pt"):
        if isinstance(run.config.classifier, SceneNet):
            run.write("classifier.pt", by_actor(run, _train_scene_net))
            log.info("classifier: trained on the labels of the train split")


def _train_scene_net(run: RunDir) -> bytes:
    """Return the trained weights as the bytes of their file."""
    import torch

    from sensloc.networks.scene_net import train

    config = run.config.classifier
    assert isinstance(config, SceneNet)
    columns = ["image_id", "uri", "content", "class_index"]
    rows = load(run, run.files("manifest"), columns, "train").sort_by("image_id")
    images = images_of(rows, config.input_size, run.config)
    errors = [image for image in images if isinstance(image, ImageError)]
    if errors:
        raise RunError(
            f"{len(errors)} scenes cannot be read, the first: {errors[0]}: make the manifest again"
        )
    pixels = [image.pixels for image in images if isinstance(image, Decoded)]
    state = train(
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2),
        torch.tensor(rows["class_index"].to_pylist()),
        mean=config.mean,
        std=config.std,
        epochs=config.epochs,
        seed=config.seed,
    )
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()
