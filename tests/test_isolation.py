"""An image that kills the process which decodes it costs one row."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sensloc.images import isolation


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
from sensloc.config import load_config
from sensloc.engine import cluster
from sensloc.stages.manifest import manifest
from sensloc.stages.sensitivity import sensitivity
from sensloc.store.run import RunDir
cluster.RETRIES = 0
cluster.connect(address="local", num_cpus=2, include_dashboard=False)
run = RunDir.open(load_config(sys.argv[1]))
manifest(run)
sensitivity(run)
"""


def test_a_decoder_that_crashes_costs_the_images_that_crash_it(tmp_path: Path) -> None:
    """Every Python of this job has such a decoder, as a bug in its C code would make it."""
    from test_stages import photographs, table_run  # not in the children of the other tests

    lines = photographs(tmp_path)
    poisoned = {"image_03.jpg", "image_17.jpg"}
    for name in poisoned:
        file = tmp_path / name
        file.write_bytes(file.read_bytes() + b"poison")
    run = table_run(tmp_path, lines)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FRAGILE)
    done = subprocess.run(
        [sys.executable, "-c", JOB, f"{tmp_path}/table.toml"],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site"), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = pq.read_table(run.path("sensitivity")).to_pylist()
    errors = {row["image_id"]: row["error"] for row in rows if row["error"]}
    assert errors == {
        name: f"{tmp_path}/{name}: killed the process that decoded it" for name in poisoned
    }
    assert sum(row["map"] is not None for row in rows) == 24 - len(poisoned)
