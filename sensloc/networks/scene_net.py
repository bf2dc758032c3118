"""The demo's classifier: a small convolutional network, trained on class labels and nothing else.

No box is seen here: where an object is, the network must find out by itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH_SIZE = 32
PEAK_LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-2
THREADS = 1
"""The threads of the training, wherever it runs: another number would sum to other bits. Two are
faster on an idle machine, and wait for each other on a busy one."""


class SceneNet(nn.Module):
    """A network from normalised pixels [n, 3, 64, 64] to logits [n, num_classes].

    Five 3 x 3 convolutions with batch norm and ReLU, three of stride 2, and a maximum over
    places, so that a class is scored where its evidence is strongest.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        plan = [(3, 16, 2), (16, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1)]
        blocks = [_block(*layer) for layer in plan]
        self.features = nn.Sequential(*blocks)
        self.head = nn.Linear(plan[-1][1], num_classes)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits [n, num_classes] of normalised pixels [n, 3, 64, 64]."""
        logits: Tensor = self.head(self.features(pixels).amax((2, 3)))
        return logits


def _block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


def scene_net(num_classes: int = 10) -> nn.Module:
    """Return the untrained network."""
    return SceneNet(num_classes)


def train(
    pixels: Tensor,
    labels: Tensor,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    epochs: int,
    seed: int,
) -> dict[str, Tensor]:
    """Train a fresh network by cross-entropy on the labels.

    On one kind of CPU, equal arguments give equal bits. The caller's random state and number of
    threads are left as they were.

    Args:
        pixels: The images, uint8 [n, 3, 64, 64].
        labels: Their classes, int64 [n].
        mean: Per channel, of pixels in [0, 1].
        std: Per channel, of pixels in [0, 1].
        epochs: Passes over the data.
        seed: Seed of the initial weights and the order of the images.

    Returns:
        The state dict of ``scene_net()`` after training.
    """
    with _alone(seed):
        network = scene_net().to(memory_format=torch.channels_last).train()
        steps = -(-len(pixels) // BATCH_SIZE)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, PEAK_LEARNING_RATE, total_steps=epochs * steps
        )
        offset, scale = (255 * torch.tensor(value).reshape(3, 1, 1) for value in (mean, std))
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(pixels)), BATCH_SIZE):
                inputs = ((pixels[batch] - offset) / scale).contiguous(
                    memory_format=torch.channels_last
                )
                loss = functional.cross_entropy(network(inputs), labels[batch])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
    return network.state_dict()


@contextmanager
def _alone(seed: int) -> Iterator[None]:
    """Give torch ``THREADS`` threads and a random state of its own; outside, nothing changes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)
