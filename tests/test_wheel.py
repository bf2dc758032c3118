"""An installed wheel is all that a run needs: no checkout is found, nor looked for."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

import sensloc

Installed = Callable[..., str]

NAMED = {file.stem for file in (ROOT / "conf").glob("*.toml")} - {"rehearsal"}
"""The configs that need no checkout."""

SMALL = (
    *("--set", "dataset.count=300", "--set", "classifier.epochs=2", "--set", "sensitivity.grid=8"),
    *("--set", "resources.actors=1", "--set", "resources.rows_per_block=64"),
)

LOOK = """
import sys, sensloc
from sensloc.config import load_config
print(sensloc.__file__, load_config("demo").output, *sys.path, sep="\\n")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel, and install it alone into a folder: that folder."""
    built, target = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("installed")
    build = (sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", built)
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (file,) = built.glob("*.whl")
    install = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps")
    subprocess.run((*install, "--target", target, file), check=True)
    return target


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Installed:
    """Run Python in an empty folder with the wheel and its dependencies, and return its output.

    ``-S`` leaves out ``site``, and with it the editable install of the checkout.
    """
    paths = os.pathsep.join([str(wheel), sysconfig.get_path("purelib")])

    def python(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-S", *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return python


def test_the_wheel_holds_the_package_and_the_named_configs(wheel: Path) -> None:
    files = (ROOT / "sensloc").rglob("*")
    package = {f.relative_to(ROOT) for f in files if f.is_file() and f.suffix != ".pyc"}
    configs = {Path("sensloc/conf") / f"{name}.toml" for name in NAMED}
    there = (f.relative_to(wheel) for f in (wheel / "sensloc").rglob("*") if f.is_file())
    assert {file for file in there if file.suffix != ".pyc"} == package | configs


def test_it_runs_without_a_checkout(installed: Installed, wheel: Path, tmp_path: Path) -> None:
    found, output, *paths = installed("-c", LOOK).splitlines()
    assert Path(found).is_relative_to(wheel)
    assert output == f"{tmp_path}/runs/demo"
    assert str(ROOT) not in paths
    assert installed("-m", "sensloc", "--version") == f"{sensloc.__version__}\n"
    lines = installed("-m", "sensloc", "configs").splitlines()
    assert {line.split()[0] for line in lines} == NAMED


@pytest.mark.long
def test_it_runs_the_demo(installed: Installed, tmp_path: Path) -> None:
    text = installed("-m", "sensloc", "run", "demo", *SMALL)
    assert "CorLoc" in text
    assert (tmp_path / "runs/demo/report.html").is_file()
    assert (tmp_path / "data/scenes").is_dir()


def test_extras_that_are_named_are_there() -> None:
    """What a message, a page or the container names can be installed."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*(ROOT / "sensloc").rglob("*.py"), *ROOT.glob("*.md"), ROOT / "cluster/Dockerfile"]
    found = " ".join(
        names
        for file in texts
        for names in re.findall(r"(?:sensloc|['\"]\.)\[([\w,]+)\]", file.read_text())
    )
    assert set(re.findall(r"\w+", found)) <= project["optional-dependencies"].keys()
    assert "offline" in found
