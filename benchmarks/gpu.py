"""One device: is its arithmetic right, and how near do the product's passes come to its limits?

It needs torch, numpy and this checkout, and no install: a network is measured where its library
(torchvision, timm) is there, decoding where TorchCodec and Pillow are. First the maps are compared
with those of the plain network in float64; where float32 is off, nothing is timed. Then images per
second, ways and arithmetics taking turns, beside the roofline of peaks that are measured here too.
What does not fit into the time is named.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_decode import decoding
from benchmarks.gpu_plan import Plan, in_turn, seconds_of
from benchmarks.gpu_variants import variants
from benchmarks.passes import (
    FOREGROUND,
    FORWARD,
    GRADIENT,
    GRID,
    Passes,
    Way,
    batch_of,
    counted,
    network,
)
from benchmarks.passes import NETWORKS as KNOWN
from sensloc.errors import ClassifierError
from sensloc.heatmaps.maker import pool
from sensloc.networks.precision import Precision, arithmetic

NETWORKS = ("efficientnet_lite0", "resnet50", "vgg16", "vit_small_patch16_224")
PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
BATCHES: tuple[int, ...] = (64, 128, 256, 512)

WRONG = 0.02
"""Float32's maps are at most so far from those in float64, by the relative L2 of the worst image: a
ReLU near zero may open in one and not in the other."""


Case = tuple[str, str, Precision, int]
"""A network, a way, an arithmetic and the images of a batch."""

# --------------------------------------------------------------------------- correctness


def reference(name: str, images: Tensor, labels: Tensor) -> Tensor:
    """Return the paper's maps by the plain network in float64, pooled: [n, GRID, GRID]."""
    plain = network(name).to(images.device, torch.float64)
    x = images.double().requires_grad_()
    score = plain(x).gather(1, labels[:, None]).sum()
    return pool(torch.autograd.grad(score, x)[0].abs().amax(1), GRID)


def deviation(maps: Tensor, wanted: Tensor) -> float:
    """Return the relative L2 distance of the worst of some maps [n, h, w] from others."""
    apart = (maps.double() - wanted).flatten(1).norm(dim=1) / wanted.flatten(1).norm(dim=1)
    return float(apart.max().nan_to_num(torch.inf))


def correctness(
    name: str, passes: Mapping[Precision, Passes], device: str, n: int
) -> dict[str, float]:
    """Return how far the pooled maps of n images are from the reference, by the arithmetic.

    Raises:
        SystemExit: Float32 is off.
    """
    images, labels = (x.to(device) for x in batch_of(n))
    wanted = reference(name, images, labels)
    apart: dict[str, float] = {}
    for precision, made in passes.items():
        maps = pool(made.ways(images, labels)[GRADIENT](), GRID)
        apart[precision] = deviation(maps, wanted)
        print(f"{name}, {precision}: relative L2 {apart[precision]:.1e}", flush=True)
    if not apart["float32"] <= WRONG:
        sys.exit(
            f"error: {name} in float32 is {apart['float32']:.1e} from float64, over {WRONG:g}: "
            "this device's numbers are wrong, nothing is timed"
        )
    return apart


# --------------------------------------------------------------------------- the roofline


def peaks(plan: Plan, precisions: Sequence[Precision]) -> dict[str, float]:
    """Return the most operations per second of a matrix product and of a convolution, by the
    arithmetic, and the bytes per second, read and written, of a copy ("bandwidth").
    """
    large = plan.device == "cuda"
    side, images, copied = (8192, 256, 2**30) if large else (512, 4, 2**24)
    most: dict[str, float] = {}
    for precision in precisions:
        kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
        a, b = torch.randn(2, side, side, device=plan.device, dtype=kind)
        x = torch.randn(images, 256, 14, 14, device=plan.device, dtype=kind)
        weights = torch.randn(256, 256, 3, 3, device=plan.device, dtype=kind)
        x, weights = (t.contiguous(memory_format=torch.channels_last) for t in (x, weights))
        with arithmetic(precision), torch.inference_mode():
            calls = {
                "product": partial(torch.matmul, a, b),
                "convolution": partial(torch.conv2d, x, weights, padding=1),
            }
            taken = in_turn(calls, plan)
        most[precision] = max(
            2 * side**3 / min(taken["product"]),
            2 * images * 9 * 256**2 * 14**2 / min(taken["convolution"]),
        )
    source = torch.randint(255, (copied,), device=plan.device, dtype=torch.uint8)
    target = torch.empty_like(source)
    taken = in_turn({"copy": lambda: target.copy_(source)}, plan)
    return most | {"bandwidth": 2 * copied / min(taken["copy"])}


# --------------------------------------------------------------------------- images per second


def best_batch(passes: Passes, what: str, plan: Plan) -> int | None:
    """Return the batch with which the gradient is fastest; None where none fits into memory."""
    rates: dict[int, float] = {}
    for n in plan.batches:
        if rates and not plan.goes_on(f"{what}, batch {n}"):
            break
        images, labels = (x.to(plan.device) for x in batch_of(n))
        way = passes.ways(images, labels)[GRADIENT]
        try:
            way()
            rates[n] = n / min(seconds_of(way, plan.device) for _ in range(2))
        except torch.OutOfMemoryError:
            plan.left_out[f"{what}, batch {n}"] = "memory runs out"
            break
    return max(rates, key=rates.__getitem__) if rates else None


def rates(
    name: str, by_precision: Mapping[Precision, Passes], peak: Mapping[str, float], plan: Plan
) -> list[dict[str, Any]]:
    """Return a row for each way and arithmetic of a network, which take turns."""
    ways: dict[Case, Way] = {}
    for precision, passes in by_precision.items():
        what = f"{name}, {precision}"
        if not plan.goes_on(what) or not (n := best_batch(passes, what, plan)):
            continue
        images, labels = (x.to(plan.device) for x in batch_of(n))
        made = passes.ways(images, labels)
        ways |= {(name, way, precision, n): call for way, call in made.items()}
    taken = in_turn(ways, plan)
    return [_row(case, ways[case], taken[case], peak) for case in ways]


def launched(
    passes: Passes, row: Mapping[str, Any], peak: Mapping[str, float], plan: Plan
) -> list[dict[str, Any]]:
    """Return rows of the gradient launched otherwise, beside itself, given its row."""
    name, precision, n = row["network"], row["precision"], row["batch"]
    what = f"{name}, {precision}, launched otherwise"
    if plan.device != "cuda" or not plan.goes_on(what):
        return []
    images, labels = (x.to(plan.device) for x in batch_of(n))
    ways, failed = variants(passes, images, labels)
    plan.left_out |= {f"{what}: {way}": why for way, why in failed.items()}
    cases: dict[Case, Way] = {(name, way, precision, n): call for way, call in ways.items()}
    taken = in_turn(cases, plan)
    return [_row(case, cases[case], taken[case], peak) for case in cases]


def _row(
    case: Case, call: Way, taken: Sequence[float], peak: Mapping[str, float]
) -> dict[str, Any]:
    """Return a way's row, and print it, given the seconds that it has taken."""
    name, way, precision, n = case
    row: dict[str, Any] = {"network": name, "way": way, "precision": precision, "batch": n}
    row |= {"images_per_second": n / median(taken), "low": n / max(taken), "high": n / min(taken)}
    if way in (FORWARD, GRADIENT, FOREGROUND):  # the others have the gradient's operations
        floor = counted(call).seconds(peak[precision], peak["bandwidth"])
        row["share_of_roofline"] = floor / median(taken)
    print(line(row), flush=True)
    return row


def line(row: Mapping[str, Any]) -> str:
    """Return a row of the table of images per second."""
    rate, low, high = (row[name] for name in ("images_per_second", "low", "high"))
    share = f"{row['share_of_roofline']:.0%}" if "share_of_roofline" in row else ""
    return (
        f"{row['network']:<22} {row['way']:<20} {row['precision']:<9} {row['batch']:>5} "
        f"{rate:>10,.1f} [{low:,.1f}, {high:,.1f}]  {share}"
    )


# --------------------------------------------------------------------------- the whole


def placed(name: str, plan: Plan) -> dict[Precision, Passes]:
    """Return a network's passes in each arithmetic of the device; none without its library."""
    try:
        passes = Passes.of(name, plan.device)
    except (ImportError, RuntimeError) as error:  # one of another torch may not load
        plan.left_out[name] = f"its library: {error}"
        return {}
    made: dict[Precision, Passes] = {}
    for precision in plan.precisions:
        try:
            made[precision] = passes.at(precision, plan.device)
        except ClassifierError as error:
            plan.left_out[precision] = str(error)
    return made


def measured(plan: Plan) -> dict[str, Any]:
    """Measure all that the plan has, and that there is time for."""
    networks = {name: passes for name in plan.networks if (passes := placed(name, plan))}
    n = min(8, plan.batches[0])
    apart = {name: correctness(name, made, plan.device, n) for name, made in networks.items()}
    precisions = list(dict.fromkeys(p for made in networks.values() for p in made))
    peak = peaks(plan, precisions)
    for what, most in peak.items():
        print(f"{what}: {most / 1e12:.3g} {'TB/s' if what == 'bandwidth' else 'TFLOP/s'}")
    rows = [
        row
        for name, made in networks.items()
        if plan.goes_on(name)
        for row in rates(name, made, peak, plan)
    ]
    decoded = decoding(plan.device, plan.batches[0]) if plan.goes_on("decoding") else {}
    if "left_out" in decoded:
        plan.left_out["decoding on the device"] = decoded["left_out"]
    last = plan.precisions[-1]
    for row in [row for row in rows if (row["way"], row["precision"]) == (GRADIENT, last)]:
        rows += launched(networks[row["network"]][last], row, peak, plan)
    return {"relative_l2": apart, "peaks": peak, "rows": rows, "decoding": decoded}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and save them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--quick", action="store_true", help="one network in float32, once")
    parser.add_argument("--networks", nargs="+", default=NETWORKS, choices=KNOWN)
    parser.add_argument("--seconds", type=float, default=400, help="then nothing more is begun")
    parser.add_argument("--output", type=Path, default=Path("runs/bench/gpu.json"))
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("error: torch sees no GPU here; --device cpu measures the CPU")
    if given.quick:
        plan = Plan(given.device, given.networks[:1], (2,), 1, PRECISIONS[:1], given.seconds)
    else:
        plan = Plan(given.device, given.networks, BATCHES, 5, PRECISIONS, given.seconds)
    content = measured(plan)
    gpu = torch.cuda.get_device_name() if given.device == "cuda" else None
    content |= {"torch": torch.__version__, "cuda": torch.version.cuda, "gpu": gpu}
    content |= {"plan": asdict(plan)}
    for what, why in plan.left_out.items():
        print(f"left out: {what}: {why}")
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(json.dumps(content, indent=2))
    print(f"saved: {given.output}")


if __name__ == "__main__":
    main()
