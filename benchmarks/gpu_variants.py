"""The gradient's pass launched otherwise: captured as a CUDA graph, or compiled.

Which of them pays is a matter of the network and the device: the product launches its kernels one
by one until a run of this says otherwise. A graph is of CUDA only.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.passes import ALIKE, GRADIENT, Passes, Way, alike


def variants(
    passes: Passes, images: Tensor, labels: Tensor
) -> tuple[dict[str, Way], dict[str, str]]:
    """Return the gradient as the product makes it, and launched otherwise, by name; all are warm.

    Args:
        passes: On a GPU.
        images: Normalised, [n, 3, S, S], there too.
        labels: Their classes, [n].

    Returns:
        The ways, and why those are missing that cannot be made or give another map.
    """
    eager = passes.ways(images, labels)[GRADIENT]
    wanted, ways, failed = eager(), {GRADIENT: eager}, {}
    makers: dict[str, Callable[[], Way]] = {
        "CUDA graph": partial(graphed, eager),
        "compiled": partial(compiled, passes, images, labels),
    }
    for name, make in makers.items():
        try:
            way = make()
            cosine = alike(way(), wanted)
        except Exception as error:  # all of torch runs here: it may raise anything
            failed[name] = f"{type(error).__name__}: {error}".partition("\n")[0]
            continue
        if cosine > ALIKE:
            ways[f"{GRADIENT}, {name}"] = way
        else:
            failed[name] = f"another map: cosine {cosine:.3f}"
    return ways, failed


def compiled(passes: Passes, images: Tensor, labels: Tensor) -> Way:
    """Return the gradient of a batch by a compiled network."""
    own = passes.prepared[GRADIENT]
    network: Any = torch.compile(own.network)
    prepared = {**passes.prepared, GRADIENT: replace(own, network=network)}
    return replace(passes, prepared=prepared).ways(images, labels)[GRADIENT]


def graphed(way: Way) -> Way:
    """Return a way that replays the kernels of another, captured once, in the same memory."""
    beside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):  # what is made at first use is not captured
            way()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        maps = way()

    def replay() -> Tensor:
        graph.replay()
        return maps

    return replay
