"""Maps per image beside other hands' and beside the floor: the gradient, and the foreground.

The networks have random weights: a pass takes as long with any. Each way gets the same normalised
images and classes and gives one map per image; those that say they give the gradient are compared
with it before anything is timed.
"""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import timm
import torch
import torchvision
import typer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.turns import Timed, as_workers_run, in_turn, save, table
from sensloc.heatmaps import foreground, gradient
from sensloc.heatmaps.passes import Options, Reading, look
from sensloc.heatmaps.readout import Readout
from sensloc.networks.prepare import tapped
from sensloc.networks.taps import strides

SIZE, GRID = 224, 14

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": torchvision.models.resnet18,
    "resnet50": torchvision.models.resnet50,
    "vgg16": torchvision.models.vgg16,
    "mobilenet_v3_large": torchvision.models.mobilenet_v3_large,
    "efficientnet_lite0": partial(timm.create_model, "tf_efficientnet_lite0"),
    "vit_small_patch16_224": partial(timm.create_model, "vit_small_patch16_224"),
}

QUICK = ("resnet50", "efficientnet_lite0")

SHAPES = ((64, 56), (128, 28), (256, 14))
"""Channels and places a side of the convolutions that find the peak: 3 x 3, as in a ResNet."""

OURS = "sensloc, gradient"

Way = Callable[[], Tensor]
"""Makes the maps of a batch: [n, h, w]."""


def network(name: str) -> nn.Module:
    """Return a network with random weights, as its library makes it, in eval mode."""
    torch.manual_seed(0)
    return NETWORKS[name]().eval()


def batch_of(n: int) -> tuple[Tensor, Tensor]:
    """Return n normalised images [n, 3, SIZE, SIZE] of noise and their classes [n]."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(n, 3, SIZE, SIZE, generator=generator)
    return images, torch.randint(1000, (n,), generator=generator)


# --------------------------------------------------------------------------- the ways


def ours(name: str, images: Tensor, labels: Tensor) -> dict[str, Way]:
    """Return the product's ways: the paper's map, the foreground, and the forward pass alone."""
    probe, options = images[:1], Options()
    pixels = images.contiguous(memory_format=torch.channels_last)
    plain = tapped(network(name), probe)

    def forward() -> Tensor:
        with torch.inference_mode():
            return torch.as_tensor(plain.network(pixels))

    def reading(read: Reading) -> Way:
        prepared = tapped(network(name), probe, read.taps)
        return lambda: read.read(look(prepared, pixels, labels, read.taps, read.backward))

    blocks = foreground.blocks_at(*strides(network(name), probe))
    learned = Options(readouts={"foreground": (some_readout(name, blocks, probe),)})
    return {
        OURS: reading(gradient.reading(options)),
        "sensloc, foreground": reading(foreground.reading(learned)),
        "sensloc, forward pass only": forward,
    }


def some_readout(name: str, blocks: tuple[str, ...], probe: Tensor) -> Readout:
    """Return a read-out of these blocks whose weights are noise."""
    cells = foreground.Cells.of(blocks, GRID, Options())
    prepared = tapped(network(name), probe, cells.taps)
    passed = look(prepared, probe, torch.zeros(1, dtype=torch.int64), cells.taps, cells.backward)
    d = sum(cells.widths(passed).values())
    return Readout(
        cells.blocks,
        GRID,
        means_x=np.zeros((GRID**2, d), np.float32),
        means_y=np.zeros(GRID**2, np.float32),
        weights=np.random.default_rng(0).normal(0, 1, (1, d)).astype(np.float32),
        classes=np.array([], np.int64),
    )


def captum(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return captum's Saliency of a whole batch."""
    from captum.attr import Saliency

    attributed: Tensor = Saliency(net).attribute(images.clone().requires_grad_(), labels)
    return attributed.amax(1).detach()


def tutorial(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the map that tutorials make: image by image, ``score.backward()``, ``x.grad``."""
    maps = []
    for image, label in zip(images, labels, strict=True):
        x = image[None].clone().requires_grad_()
        torch.autograd.backward(net(x)[0, label])
        assert x.grad is not None
        maps.append(x.grad[0].abs().amax(0))
        net.zero_grad()
    return torch.stack(maps)


def functional(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the map by ``torch.func``: ``vmap`` of ``grad``."""
    chosen = F.one_hot(labels, 1000).float()

    def score(image: Tensor, weights: Tensor) -> Tensor:
        return torch.as_tensor((net(image[None])[0] * weights).sum())

    slopes: Tensor = torch.func.vmap(torch.func.grad(score))(images, chosen)
    return slopes.abs().amax(1)


def grad_cam(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return pytorch-grad-cam's Grad-CAM of a whole batch: another map, at the last features."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    layers = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    targets = [ClassifierOutputTarget(int(label)) for label in labels]
    with GradCAM(net, layers[-1:]) as cam:
        return torch.as_tensor(cam(images, targets))


SAME: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "captum Saliency, batched": captum,
    "torch.func, vmap of grad": functional,
    "tutorial loop": tutorial,
}
"""Other hands' ways to the gradient."""

ANOTHER = {"pytorch-grad-cam, batched: another map": grad_cam}


def ways(name: str, images: Tensor, labels: Tensor) -> dict[str, Way]:
    """Return all ways, the product's gradient first.

    Raises:
        AssertionError: A way to the gradient gives another.
    """
    theirs = {
        way: partial(call, network(name), images, labels) for way, call in (SAME | ANOTHER).items()
    }
    all_ways = ours(name, images, labels) | theirs
    wanted = all_ways[OURS]().flatten(1)
    for way in SAME:
        alike = F.cosine_similarity(theirs[way]().flatten(1), wanted).min()
        assert alike > 0.99, f"{way} of {name} gives another map: cosine {alike:.3f}"
    return all_ways


# --------------------------------------------------------------------------- the floor


def peak(n: int, rounds: int) -> float:
    """Return the most floating-point operations per second that a convolution reaches here."""
    calls: dict[str, Way] = {}
    for channels, side in SHAPES:
        convolution = nn.Conv2d(channels, channels, 3, padding=1).eval().requires_grad_(False)
        convolution = convolution.to(memory_format=torch.channels_last)
        x = torch.randn(n, channels, side, side).contiguous(memory_format=torch.channels_last)
        calls[f"{channels}"] = partial(convolution, x)
    timed = in_turn(calls, n, rounds)
    per_image = [2 * 9 * channels**2 * side**2 for channels, side in SHAPES]
    return max(
        1000 * of_image / time.milliseconds.low
        for of_image, time in zip(per_image, timed, strict=True)
    )


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the floating-point operations of convolutions and matrix products, by torch's own
    formulas. Its own counter cannot watch ``autograd.grad`` to a leaf.
    """

    total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count it."""
        count, kwargs = flop_registry.get(func._overloadpacket), kwargs or {}
        if count is None:
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        output = func(*args, **kwargs)
        self.total += count(*args, **kwargs, out_val=output) if count else 0
        return output


def operations(way: Way, n: int) -> float:
    """Return the floating-point operations of a way, per image."""
    with Operations() as counted:  # type: ignore[no-untyped-call]
        way()
    return float(counted.total) / n


def measured(
    name: str, n: int, rounds: int, per_second: float
) -> tuple[list[Timed], dict[str, Any]]:
    """Return the times of all ways by one network, and by way the floor in milliseconds.

    Args:
        name: Of the network.
        n: Images of a batch.
        rounds: That count.
        per_second: Operations, the peak of a convolution.
    """
    images, labels = batch_of(n)
    calls = ways(name, images, labels)
    floors = {
        way: 1000 * operations(calls[way], n) / per_second for way in calls if "sensloc" in way
    }
    return in_turn(calls, n, rounds), floors


def main(
    everything: Annotated[bool, typer.Option("--all", help="All networks, not two.")] = False,
    batch: Annotated[int, typer.Option(help="Images of a batch.")] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds in which the ways take turns.")] = 5,
    output: Path = Path("runs/bench/gradient.json"),
) -> None:
    """Print milliseconds per map of the product and of others, each as the product's workers run.

    That is with one thread, and in a process that keeps the memory it frees.
    """
    as_workers_run()
    per_second = peak(batch, rounds)
    print(f"one thread; a convolution reaches {per_second / 1e9:.0f} GFLOP/s\n")
    networks: dict[str, Any] = {}
    for name in NETWORKS if everything else QUICK:
        timed, floors = measured(name, batch, rounds, per_second)
        networks[name] = {"ways": [asdict(time) for time in timed], "floor_ms": floors}
        print(table(name, timed))
        for time in timed:
            if time.way in floors:
                over = time.milliseconds.median / floors[time.way]
                print(f"  {time.way}: floor {floors[time.way]:.2f} ms, {over:.2f} x of it")
        print()
    print(save(output, batch=batch, rounds=rounds, flop_per_second=per_second, networks=networks))


if __name__ == "__main__":
    typer.run(main)
