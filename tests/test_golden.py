"""What was counted on 400 scenes, method by method; a run that counts otherwise is seen.

Where no network is asked, version 0.1 counted it. The others changed with the demo's network, and
with nothing else.
"""

import json

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sensloc.store.run import RunDir

pytestmark = pytest.mark.usefixtures("cluster")

COUNTS = {
    "constant_mean": (17, 0),
    "constant_class": (15, 0),
    "constant_tuned": (10, 0),
    "perfect_mask": (48, 1),
    "proposal_best": (49, 1),
    "proposal_random": (22, 1),
    "objectness": (22, 1),
    "pooled_image": (16, 2),
    "colocalization_sift": (23, 4),
    "colocalization_cnn": (22, 6),
    "random_network": (25, 6),
    "permuted_map": (11, 6),
    "sensitivity": (16, 6),
    "smoothgrad": (15, 6),
    "integrated_gradients": (12, 6),
    "cam_threshold": (3, 5),
    "gradcam_threshold": (2, 5),
    "gradient_threshold": (7, 6),
    "gradient_mass": (16, 6),
}
"""Of 50 test images, those that a method got right, and by how many another CPU may differ.

Nothing where no network is asked; what a network computes depends on the CPU in the last bits, and
what training makes of them in more: the middle of two CPUs' counts, one of them without AVX.
"""


def test_the_draws_are_those_of_version_0_1(small_run: RunDir) -> None:
    split = pq.read_table(small_run.path("manifest"), columns=["split"])["split"]
    counts = {row["values"]: row["counts"] for row in pc.value_counts(split).to_pylist()}
    assert counts == {"train": 299, "validation": 51, "test": 50}
    assert json.loads(small_run.read("fit.json"))["constant_tuned"] == pytest.approx(
        [0.2, 0.325, 0.8, 0.875]
    )


def test_every_method_gets_as_many_right(compared: RunDir) -> None:
    rows = pq.read_table(compared.path("compare/predictions"), columns=["method", "correct"])
    sums = rows.group_by("method").aggregate([("correct", "sum")])
    counts = dict(zip(sums["method"].to_pylist(), sums["correct_sum"].to_pylist(), strict=True))
    assert COUNTS.keys() <= set(compared.config.compared) <= counts.keys()
    differ = {
        name: (counts[name], wanted)
        for name, (wanted, margin) in COUNTS.items()
        if abs(counts[name] - wanted) > margin
    }
    assert not differ
