"""An image that kills the process which decodes it costs one row."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sensloc.images import isolation
from sensloc.store.run import RunDir


def fragile(n: int) -> int:
    if n % 3 == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return n * n


def failing(n: int) -> int:
    raise ValueError(f"{n} is wrong")


def test_what_kills_its_child_is_none_and_the_others_are_there() -> None:
    assert isolation.each(fragile, [1, 2, 3, 4, 6, 7]) == [1, 4, None, 16, None, 49]
    assert isolation.each(fragile, []) == []


def test_what_a_child_raises_is_raised() -> None:
    with pytest.raises(ValueError, match="2 is wrong"):
        isolation.each(failing, [2])


FRAGILE = """
import importlib.util, os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name != "sensloc.images.decode":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def patched(module):
            execute(module)
            decode = module.decode
            def fragile(data, *rest, **more):
                if b"poison" in data:
                    os.kill(os.getpid(), signal.SIGKILL)
                return decode(data, *rest, **more)
            module.decode = fragile
        spec.loader.exec_module = patched
        return spec

sys.meta_path.insert(0, Finder())
"""

JOB = """
import sys
from sensloc.config import Resources, load_config
from sensloc.engine import cluster
from sensloc.stages.manifest import manifest
from sensloc.stages.predict import predict, prediction
from sensloc.stages.sensitivity import sensitivity
from sensloc.store.run import RunDir
cluster.RETRIES = 0
cluster.connect(address="local", num_cpus=2, include_dashboard=False)
config, localizer, images, output = sys.argv[1:]
run = RunDir.open(load_config(config))
manifest(run)
sensitivity(run)
predict(RunDir.open(prediction(localizer, images, output, Resources(actors=1))), localizer)
"""


def test_a_decoder_that_crashes_costs_the_images_that_crash_it(
    small_run: RunDir, tmp_path: Path
) -> None:
    """Every Python of this job has such a decoder, as a bug in its C code would make it."""
    from test_stages import photographs, table_run  # not in the children of the other tests

    lines = photographs(tmp_path)
    for name in ("image_03.jpg", "image_17.jpg"):
        file = tmp_path / name
        file.write_bytes(file.read_bytes() + b"poison")
    run, boxes = table_run(tmp_path, lines), tmp_path / "predicted/boxes"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FRAGILE)
    done = subprocess.run(
        [
            *(sys.executable, "-c", JOB, f"{tmp_path}/table.toml"),
            *(small_run.url, f"{tmp_path}/image_0*.jpg", f"{tmp_path}/predicted"),
        ],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for table, made, images, poisoned in (
        (run.path("sensitivity"), "map", 24, {"image_03.jpg", "image_17.jpg"}),
        (boxes, "box", 10, {"image_03.jpg"}),
    ):
        rows = pq.read_table(table).to_pylist()
        errors = {row["image_id"]: row["error"] for row in rows if row["error"]}
        assert errors == {
            name: f"{tmp_path}/{name}: killed the process that decoded it" for name in poisoned
        }
        assert sum(row[made] is not None for row in rows) == images - len(poisoned)
