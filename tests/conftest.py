"""Fixtures that several test files share."""

import os
import re
import shutil
import tarfile
import tempfile
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import fsspec
import pytest
import ray
from moto.server import ThreadedMotoServer
from xdist.scheduler import LoadScopeScheduling

from sensloc.comparison.compare import compare
from sensloc.config import Compare, Config, load_config
from sensloc.engine.cluster import connect
from sensloc.stages.views.report import report
from sensloc.stages.whole_run import run_all
from sensloc.store.run import RunDir

if TYPE_CHECKING:
    import chaos

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the function that unpacks ``imagenet-mini`` or ``tiny-imagenet-100``: its folder.

    The tar files lie in the folder that SENSLOC_DATA names, or in ../shared/data beside the
    checkout; a test that asks for one that is not there is skipped.
    """

    @cache
    def unpacked(name: str) -> Path:
        file = Path(os.environ.get("SENSLOC_DATA", DATA)) / f"{name}.tar"
        if not file.is_file():
            pytest.skip(f"no real images: {file} is not there; SENSLOC_DATA names its folder")
        target = tmp_path_factory.mktemp("real")
        with tarfile.open(file) as tar:
            tar.extractall(target, filter="data")
        return target / name

    return unpacked


@pytest.fixture(scope="session")
def object_store() -> Iterator[tuple[str, int]]:
    """Serve a real S3 API on loopback, to this process and all that it starts: host and port."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "NO_PROXY": "127.0.0.1",
        }.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").clear_instance_cache()
        yield host, port
        fsspec.filesystem("s3").clear_instance_cache()
    server.stop()


def new_bucket() -> str:
    """Make a bucket in the object store; return its URL."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture
def bucket(object_store: tuple[str, int]) -> str:
    """Return the URL of a new bucket."""
    return new_bucket()


@pytest.fixture(scope="session")
def cluster(object_store: tuple[str, int]) -> Iterator[None]:
    """Start a real Ray on this machine, for the tests alone; its workers know the object store."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    places = [str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]  # of what tests send there
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    connect(address="local", num_cpus=2)
    yield
    ray.shutdown()


SMALL = """
name = "small"
output = "{output}"

[dataset]
layout = "scenes"
root = "{root}"
count = {count}

[classifier]
source = "scenes"
epochs = {epochs}

[sensitivity]
grid = 8
batch_size = 16

[resources]
actors = {actors}
cpus_per_actor = 0.5
cpus_per_task = {cpus_per_task}
rows_per_block = {rows_per_block}
"""


def small_config(folder: Path, **changes: object) -> Config:
    """Write and load the config of 400 scenes in ``folder``: a whole run in half a minute.

    One process for an actor and one for tasks: to start, each imports torch.
    """
    values = {
        "count": 400,
        "epochs": 3,
        "output": folder / "run",
        "root": folder / "scenes",
        "actors": 1,
        "cpus_per_task": 1.0,
        "rows_per_block": 64,
    }
    file = folder / "small.toml"
    file.write_text(SMALL.format(**values | changes))
    return load_config(str(file))


@pytest.fixture(scope="session")
def small_run(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Make a whole run; tests read it and leave it as it is."""
    run = RunDir.open(small_config(tmp_path_factory.mktemp("small")))
    run_all(run)
    return run


SECTION = Compare(
    train=120,
    validation=30,
    objectness_images=20,
    objectness_size=64,
    words=50,
    proposals=8,
    mus=(0.4,),
    lams=(0.01, 0.1),
    smoothgrad_samples=2,
    integrated_steps=2,
    label_counts=(1, 5),
    label_draws=1,
    speed_images=4,
    speed_rounds=1,
)
"""A comparison of every method, on little."""


def copied(run: RunDir, folder: Path) -> RunDir:
    """Copy the run to another folder, to be changed there."""
    shutil.copytree(run.path(""), folder)
    return RunDir(str(folder), run.config)


def copy_of(run: RunDir, folder: Path, section: Compare) -> RunDir:
    """Copy the run to another folder, to be compared there."""
    shutil.copytree(run.url, folder)
    return RunDir.open(run.config.model_copy(update={"output": str(folder), "compare": section}))


@pytest.fixture(scope="session")
def compared(small_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Compare all methods on the small run's 50 test images, and write the report."""
    run = copy_of(small_run, tmp_path_factory.mktemp("compared") / "run", SECTION)
    compare(run)
    report(run)
    return run


# --------------------------------------------------------------------------- a cluster


@pytest.fixture(scope="session")
def nodes() -> Iterator["chaos.Nodes"]:
    """Start a Ray of three nodes, for submitted jobs and for faults."""
    from chaos import Nodes

    with tempfile.TemporaryDirectory(prefix="c", dir="/tmp", ignore_cleanup_errors=True) as short:
        started = Nodes(Path(short))
        yield started
        started.kill()


@pytest.fixture(scope="session")
def submitted(nodes: "chaos.Nodes", tmp_path_factory: pytest.TempPathFactory) -> "chaos.Arena":
    """Submit a small job and see it to its end."""
    from chaos import Arena

    folder = tmp_path_factory.mktemp("submitted")
    small_config(folder, count=240, epochs=2, rows_per_block=32)
    return Arena.of(nodes, folder / "small.toml", folder)


@pytest.fixture(scope="session")
def submitted_demo(nodes: "chaos.Nodes", tmp_path_factory: pytest.TempPathFactory) -> "chaos.Arena":
    """Submit the demo and see it to its end."""
    from chaos import Arena

    return Arena.of(nodes, ROOT / "conf/demo.toml", tmp_path_factory.mktemp("demo"))


# --------------------------------------------------------------------------- two processes

CLUSTERS = {
    "ray": r'usefixtures\("cluster"\)|\b(cluster|small_run|compared): (None|RunDir)',
    "nodes": r"\b(nodes|submitted|submitted_demo): chaos\.",
}
"""How a test or fixture asks for one of this file's Rays, or a run on it."""


@cache
def group(file: Path) -> str:
    """Return the Ray that a file's tests ask for; a file that asks for none is its own group."""
    text = file.read_text()
    return next((ray for ray, asks in CLUSTERS.items() if re.search(asks, text)), file.name)


class ByCluster(LoadScopeScheduling):  # type: ignore[misc]
    """Of two processes one has the files on this file's Ray, so that it and its runs are made once.

    The other has those on the cluster of three nodes, then, like the first, file by file.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group(ROOT / nodeid.partition("::")[0])


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByCluster:
    """Schedule for ``--numprocesses 2``."""
    return ByCluster(config, log)


@cache
def on_torch(file: Path) -> bool:
    """Tell whether a file's tests compute with torch, and start no Ray."""
    imports = re.search(r"^(import|from) torch\b", file.read_text(), re.MULTILINE)
    return imports is not None and group(file) == file.name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what follows from a network, and begin with what takes minutes."""
    for item in items:
        if on_torch(item.path):
            item.add_marker("cpu")
    order = [*CLUSTERS, "test_fuzz.py"]

    def rank(item: pytest.Item) -> int:
        name = group(item.path)
        return order.index(name) if name in order else len(order)

    items.sort(key=rank)
