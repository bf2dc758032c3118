"""An image that kills the process which decodes it costs one row."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from sensloc.images import isolation

ROOT = Path(__file__).parents[1]  # children import this file: not that of the fixtures


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

READ = """
if __name__ == "__main__":
    import sys
    import pyarrow as pa
    from sensloc.config import load_config
    from sensloc.store.images import images_of
    for image in images_of(pa.table({"uri": sys.argv[2:]}), 8, load_config(sys.argv[1]), True):
        print(image if isinstance(image, Exception) else (image.width, image.height))
"""


def test_a_decoder_that_crashes_costs_the_images_that_crash_it(tmp_path: Path) -> None:
    """Every Python of this test has such a decoder, as a bug in its C code would make it."""
    files = [tmp_path / f"image_{i}.jpg" for i in range(3)]
    for i, file in enumerate(files):
        Image.new("RGB", (20 + i, 10)).save(file)
        file.write_bytes(file.read_bytes() + b"poison" * (i == 1))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(FRAGILE)
    (tmp_path / "read.py").write_text(READ)
    done = subprocess.run(
        [sys.executable, tmp_path / "read.py", ROOT / "conf/demo.toml", *files],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    killed = f"{files[1]}: killed the process that decoded it"
    assert done.stdout.splitlines() == ["(20, 10)", killed, "(22, 10)"]
