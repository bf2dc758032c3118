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

import torch
import typer
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.gpu_variants import compiled
from benchmarks.passes import (
    ALIKE,
    FOREGROUND,
    FORWARD,
    GRADIENT,
    NETWORKS,
    Passes,
    Way,
    alike,
    batch_of,
    counted,
    network,
)
from benchmarks.turns import Timed, apart, as_workers_run, in_turn, save, table
from sensloc.engine.cluster import KEEP_FREED_MEMORY
from sensloc.networks.precision import Precision
from sensloc.stages.accuracy import HOPELESS
from sensloc.turns import turns

QUICK = ("resnet18", "efficientnet_lite0")

SHAPES = ((64, 56), (128, 28), (256, 14))
"""Channels and places a side of the convolutions that find the peak: 3 x 3, as in a ResNet."""

OURS = f"sensloc, {GRADIENT}"

COMPILED = f"{OURS}, compiled"

HALF: Precision = "bfloat16"

# --------------------------------------------------------------------------- the ways


def ours(name: str, images: Tensor, labels: Tensor) -> dict[str, Way]:
    """Return the product's ways: the paper's map, the foreground, and the forward pass alone.

    The first two are there in bfloat16 too, unless this CPU takes longer for it by far.
    """
    passes = Passes.of(name)
    made = passes.ways(images, labels)
    named = {f"sensloc, {way}": made[way] for way in (GRADIENT, FOREGROUND, FORWARD)}
    half = passes.at(HALF, "cpu").ways(images, labels)
    once = turns({"float32": made[GRADIENT], HALF: half[GRADIENT]}, range(2))
    if once[HALF][0] > HOPELESS * once["float32"][0]:
        return named
    return named | {f"sensloc, {way}, {HALF}": half[way] for way in (GRADIENT, FOREGROUND)}


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

PLAIN = "captum Saliency, batched, in a process of its own"
"""With the memory settings that a process has by default, as captum's users have them."""


def captums(name: str, n: int) -> Way:
    """Return captum's Saliency of a batch, by a network of its own."""
    return partial(captum, network(name), *batch_of(n))


def ways(name: str, images: Tensor, labels: Tensor) -> dict[str, Way]:
    """Return all ways, the product's gradient first.

    Raises:
        AssertionError: A way to the gradient gives another.
    """
    theirs = {
        way: partial(call, network(name), images, labels) for way, call in (SAME | ANOTHER).items()
    }
    all_ways = ours(name, images, labels) | theirs
    wanted = all_ways[OURS]()
    for way in SAME:
        check_same(way, name, theirs[way](), wanted)
    return all_ways


def check_same(way: str, name: str, maps: Tensor, wanted: Tensor) -> None:
    """Check that a way's maps [n, S, S] by a network are the wanted ones.

    Raises:
        AssertionError: They are not.
    """
    cosine = alike(maps, wanted)
    assert cosine > ALIKE, f"{way} of {name} gives another map: cosine {cosine:.3f}"


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


def operations(way: Way, n: int) -> float:
    """Return the floating-point operations of a way, per image."""
    return counted(way).total / n


def measured(
    name: str, n: int, rounds: int, per_second: float, compiler: bool
) -> tuple[list[Timed], dict[str, Any]]:
    """Return the times of all ways by one network, and the floor in milliseconds, by way, of ours
    in float32.

    Args:
        name: Of the network.
        n: Images of a batch.
        rounds: That count.
        per_second: Operations, the peak of a convolution.
        compiler: Whether our gradient is timed compiled by torch too.
    """
    images, labels = batch_of(n)
    calls = ways(name, images, labels)
    floors = {
        way: 1000 * operations(calls[way], n) / per_second
        for way in calls
        if "sensloc" in way and HALF not in way
    }
    if compiler:
        calls[COMPILED] = compiled(Passes.of(name), images, labels)
    with apart(partial(captums, name, n), KEEP_FREED_MEMORY) as plain:
        return in_turn(calls | {PLAIN: plain}, n, rounds), floors


def main(
    everything: Annotated[bool, typer.Option("--all", help="All networks, not two.")] = False,
    batch: Annotated[int, typer.Option(help="Images of a batch.")] = 16,
    rounds: Annotated[int, typer.Option(help="Rounds in which the ways take turns.")] = 5,
    compiler: Annotated[
        bool, typer.Option("--compiled", help="Ours by torch.compile too: minutes more.")
    ] = False,
    output: Path = Path("runs/bench/gradient.json"),
) -> None:
    """Print milliseconds per map of the product and of others, each as the product's workers run.

    That is with one thread, and in a process that keeps the memory it frees; captum in one that
    does not, too.
    """
    as_workers_run()
    per_second = peak(batch, rounds)
    print(f"one thread; a convolution reaches {per_second / 1e9:.0f} GFLOP/s\n")
    networks: dict[str, Any] = {}
    for name in NETWORKS if everything else QUICK:
        timed, floors = measured(name, batch, rounds, per_second, compiler)
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
