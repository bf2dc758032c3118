"""The demo's network is trained inside the run, on labels only. Others bring their weights."""

import io
import logging

import numpy as np
import ray
import torch

from sensloc.engine import cluster
from sensloc.images.decode import decode
from sensloc.images.fetch import ImageError, fetch
from sensloc.networks.scenes import SceneNet
from sensloc.store.run import RunDir, RunError

log = logging.getLogger(__name__)


def classifier(run: RunDir) -> None:
    """Train the demo's network on the train split's labels -> ``classifier.pt``.

    Every other source brings its weights along: then there is nothing to do, and that is recorded.
    """
    run.require("manifest")
    with run.stage("classifier", "classifier.pt"):
        if isinstance(run.config.classifier, SceneNet):
            train = ray.remote(num_cpus=1)(_train_scene_net)
            run.write("classifier.pt", ray.get(train.remote(run)))
            log.info("classifier: trained on the labels of the train split")


def _train_scene_net(run: RunDir) -> bytes:
    from sensloc.networks.scene_net import train

    config = run.config.classifier
    assert isinstance(config, SceneNet)
    rows = cluster.load(run, run.files("manifest"), ["image_id", "uri", "class_index"], "train")
    rows = rows.sort_by("image_id")
    pixels = [
        decode(data, config.input_size).pixels
        for data in fetch(rows["uri"].to_pylist(), run.config.resources.connections)
        if not isinstance(data, ImageError)
    ]
    if len(pixels) < len(rows):
        raise RunError(f"{len(rows) - len(pixels)} scenes cannot be read: make the manifest again")
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
