"""An image that kills the process which decodes it costs one row."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sensloc import isolation


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
        if name != "sensloc.pixels":
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

CONNECTED = """
import sys
from sensloc.run import RunDir
from sensloc.stages import ray_data
ray_data.RETRIES = 1
ray_data.connect(address="local", num_cpus=2, include_dashboard=False)
"""

MAPS = """
from sensloc.config import load_config
from sensloc.stages.manifest import manifest
from sensloc.stages.sensitivity import sensitivity
run = RunDir.open(load_config(sys.argv[1]))
manifest(run)
sensitivity(run)
"""


def poison(*files: Path) -> None:
    for file in files:
        file.write_bytes(file.read_bytes() + b"poison")


def fragile_job(folder: Path, lines: str, *arguments: str) -> None:
    """Run a Ray of its own, every Python of which has a decoder that crashes, as by a bug in C."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(FRAGILE)
    done = subprocess.run(
        [sys.executable, "-c", CONNECTED + lines, *arguments],
        env=os.environ | {"PYTHONPATH": str(folder / "site"), "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_decoder_that_crashes_costs_the_images_that_crash_it(tmp_path: Path) -> None:
    from test_stages import photographs, table_run  # not in the children of the other tests

    lines = photographs(tmp_path)
    poison(tmp_path / "image_03.jpg", tmp_path / "image_17.jpg")
    run = table_run(tmp_path, lines)
    fragile_job(tmp_path, MAPS, str(tmp_path / "table.toml"))
    rows = [row for file in run.files("sensitivity") for row in pq.read_table(file).to_pylist()]
    errors = {row["image_id"]: row["error"] for row in rows if row["error"]}
    assert errors.keys() == {"image_03.jpg", "image_17.jpg"}
    assert all("killed the process that decoded it" in error for error in errors.values())
    assert sum(row["map"] is not None for row in rows) == 22
