"""On a GPU: maps are the CPU's but for rounding, and a batch is begun without waiting for it."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from sensloc.heatmaps import PREDICTED
from sensloc.heatmaps.maker import MapMaker, Seen, map_maker
from sensloc.heatmaps.passes import Options
from sensloc.networks.precision import Precision
from sensloc.networks.prepare import tapped
from sensloc.networks.scene_net import scene_net

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: torch sees none"),
]

SIZE, BATCH = 64, 16
NAMES = ("gradient", "cam", "layercam_8")


def maker(device: str, precision: Precision = "float32") -> MapMaker:
    torch.manual_seed(0)
    network = scene_net(10).eval().requires_grad_(False)
    probe = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return map_maker(
        lambda: network,
        lambda network, taps: tapped(network, probe, taps, device, precision),
        NAMES,
        Options(),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        batch_size=BATCH,
        grid=8,
        device=device,
    )


def images(seed: int, n: int = BATCH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, SIZE, SIZE, 3), np.uint8)


def apart(seen: Seen, wanted: Seen, name: str = "gradient") -> float:
    a, b = (
        of.maps[name].values.astype(np.float64) * of.maps[name].scale[:, None]
        for of in (seen, wanted)
    )
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@contextmanager
def without_waiting() -> Iterator[None]:
    """Have torch raise an error where the host would wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    ("precision", "most"), [("float32", 5e-3), ("tf32", 0.05), ("bfloat16", 0.25)]
)
def test_maps_are_the_cpus_but_for_rounding(precision: Precision, most: float) -> None:
    pixels = images(0)
    wanted = maker("cpu")(pixels, np.full(BATCH, PREDICTED))
    seen = maker("cuda", precision)(pixels, wanted.predicted)
    for name in NAMES:
        assert apart(seen, wanted, name) < most, name
    np.testing.assert_allclose(seen.score, wanted.score, rtol=most, atol=most)


def test_a_batch_is_begun_without_waiting_and_two_at_a_time_are_as_each_alone() -> None:
    make = maker("cuda")
    batches = [(images(seed), np.full(BATCH, PREDICTED)) for seed in (0, 1)]
    alone = [make(*batch) for batch in batches]
    with without_waiting():
        begun = [make.start(*batch) for batch in batches]
    for started, wanted in zip(begun, alone, strict=True):
        assert apart(started.seen(), wanted) < 1e-4
    assert apart(alone[0], alone[1]) > 0.1, "other images have other maps"
