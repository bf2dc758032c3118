"""Fixtures that several test files share."""

import os
import re
import shutil
import tarfile
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

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

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``real_data("imagenet-mini")`` or ``("tiny-imagenet-100")``: the unpacked folder.

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
    """A real S3 API on loopback, for this process and all that it starts: its host and port."""
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


@pytest.fixture
def bucket(object_store: tuple[str, int]) -> str:
    """The URL of a new bucket."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def cluster(object_store: tuple[str, int]) -> Iterator[None]:
    """A real Ray on this machine, for the tests alone; its workers know the object store."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "600000")
    connect(address="local", num_cpus=2, include_dashboard=False)
    yield
    ray.shutdown()


SMALL = """
name = "small"
output = "{output}"

[dataset]
layout = "scenes"
root = "{root}"
count = 400

[classifier]
source = "scenes"
epochs = 3

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
    """400 scenes, in ``folder``: a whole run in half a minute."""
    values = {
        "output": folder / "run",
        "root": folder / "scenes",
        "actors": 1,
        "cpus_per_task": 1,
        "rows_per_block": 64,
    }
    file = folder / "small.toml"
    file.write_text(SMALL.format(**values | changes))
    return load_config(str(file))


@pytest.fixture(scope="session")
def small_run(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A finished run; tests read it and leave it as it is."""
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
    label_draws=2,
    speed_images=8,
    speed_rounds=1,
)
"""Every method, on little."""


def copied(run: RunDir, folder: Path) -> RunDir:
    """The run in another folder, to be changed there."""
    shutil.copytree(run.path(""), folder)
    return RunDir(str(folder), run.config)


def copy_of(run: RunDir, folder: Path, section: Compare) -> RunDir:
    shutil.copytree(run.url, folder)
    return RunDir.open(run.config.model_copy(update={"output": str(folder), "compare": section}))


@pytest.fixture(scope="session")
def compared(small_run: RunDir, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """All methods on the small run's 50 test images, and its report."""
    run = copy_of(small_run, tmp_path_factory.mktemp("compared") / "run", SECTION)
    compare(run)
    report(run)
    return run


class TwoGroups(LoadScopeScheduling):  # type: ignore[misc]
    """Of two processes one has the files on this file's Ray, so that it and its runs are made once.

    The others go file by file.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "ray" if on_ray(ROOT / file) else file


@cache
def on_ray(file: Path) -> bool:
    """Do a file's tests or fixtures ask for this file's Ray, or a run on it?"""
    wants = r'usefixtures\("cluster"\)|\b(cluster|small_run|compared): (None|RunDir)'
    return re.search(wants, file.read_text()) is not None


LONGEST = ("test_end_to_end.py", "test_chaos.py", "test_rehearsal.py")
"""Files whose tests start a Ray of their own."""


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> TwoGroups:
    """For ``--numprocesses 2``."""
    return TwoGroups(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes minutes begins first, so that both processes end together."""
    items.sort(key=lambda item: (not on_ray(item.path), item.path.name not in LONGEST))
