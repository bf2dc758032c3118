"""A Ray started on one machine is for this machine and this user: sockets, token, files."""

import ipaddress
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(300),
]

LISTENING = "0A"
QUIET = 10.0
"""Seconds without a new listening socket after which Ray has started all that it starts."""

RUN = """
import os, sys
import ray
from ray._private.worker import get_dashboard_url
from sensloc.engine.cluster import connect

connect({options})

@ray.remote(num_cpus=0.5)
def work():
    return 1

assert ray.get(work.remote()) == 1
address = ray.get_runtime_context().gcs_address
print("ready", address, get_dashboard_url(), os.environ.get("RAY_AUTH_TOKEN"), flush=True)
sys.stdin.read()
"""


class LocalRun(NamedTuple):
    """A process that has called ``connect`` and waits."""

    pid: int
    home: Path
    temp: str
    address: str
    dashboard: str
    token: str


@pytest.fixture(scope="module")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalRun]:
    """Call ``connect`` as a job on one machine does, with a HOME of its own."""
    home = tmp_path_factory.mktemp("home")
    # its own, so that no other Ray of this machine is found there; short, since sockets lie in it
    with tempfile.TemporaryDirectory(prefix="ray") as temp:
        options = "num_cpus=1, include_dashboard=True"  # what listens beside the default's
        child = start(home, options, {"RAY_TMPDIR": temp})
        try:
            yield LocalRun(child.pid, home, temp, *ready(child))
        finally:
            child.communicate()


def start(home: Path, options: str, settings: dict[str, str]) -> subprocess.Popen[str]:
    """Start a child whose environment says nothing of Ray but ``settings``."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", RUN.format(options=options)],
        env=plain | {"HOME": str(home)} | settings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ready(child: subprocess.Popen[str]) -> tuple[str, str, str]:
    """Wait for a child's Ray. Return its address, its dashboard's, its token."""
    assert child.stdout is not None
    word, address, dashboard, token = child.stdout.readline().split()
    assert word == "ready"
    return address, dashboard, token


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    children = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = stat.read_text().rpartition(")")[2].split()[1]
        except OSError:  # it has just ended
            continue
        children[int(parent)].append(int(stat.parent.name))
    members = [pid]
    for member in members:
        members += children[member]
    return members


def address(words: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Parse an address as /proc/net/tcp writes it: hexadecimal, 32-bit words little-endian."""
    raw = bytes.fromhex(words)
    parsed = ipaddress.ip_address(b"".join(raw[at : at + 4][::-1] for at in range(0, len(raw), 4)))
    return getattr(parsed, "ipv4_mapped", None) or parsed


def listeners(pid: int) -> dict[str, set[tuple[str, int]]]:
    """Return the addresses and ports that the family listens on, by the name of a process."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING:
                host, port = fields[1].split(":")
                sockets[f"socket:[{fields[9]}]"] = (str(address(host)), int(port, 16))
    ports = defaultdict(set)
    for member in family(pid):
        try:
            name = Path(f"/proc/{member}/comm").read_text().strip()
            links = [os.readlink(file) for file in Path(f"/proc/{member}/fd").iterdir()]
        except OSError:
            continue
        for link in links:
            if link in sockets:
                ports[name].add(sockets[link])
    return ports


def settled(pid: int) -> dict[str, set[tuple[str, int]]]:
    """Return all that the family listened on, until nothing new has come for a while."""
    seen = defaultdict(set)
    last = time.monotonic()
    while time.monotonic() < last + QUIET:
        for name, ports in listeners(pid).items():
            if ports - seen[name]:
                seen[name] |= ports
                last = time.monotonic()
        time.sleep(0.5)
    return seen


def test_address_of_proc() -> None:
    assert str(address("0100007F")) == "127.0.0.1"
    assert str(address("00000000")) == "0.0.0.0"
    assert str(address("00000000000000000000000001000000")) == "::1"
    assert str(address("0000000000000000FFFF00000100007F")) == "127.0.0.1"
    assert str(address("00000000000000000000000000000000")) == "::"


def test_listens_on_loopback_only(local_run: LocalRun) -> None:
    listening = settled(local_run.pid)
    assert {"gcs_server", "raylet", "ray::DashboardA"} <= set(listening)
    beyond = {
        f"{name} on {host}:{port}"
        for name, ports in listening.items()
        for host, port in ports
        if not ipaddress.ip_address(host).is_loopback
    }
    assert not beyond


def test_writes_nothing_into_home(local_run: LocalRun) -> None:
    assert list(local_run.home.iterdir()) == []


@pytest.mark.parametrize("token", [None, "0" * 64])
def test_takes_no_job_without_the_token(local_run: LocalRun, token: str | None) -> None:
    request = urllib.request.Request(
        f"http://{local_run.dashboard}/api/jobs/",
        data=b'{"entrypoint": "true"}',
        headers={"Content-Type": "application/json"}
        | ({"Authorization": f"Bearer {token}"} if token else {}),
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=60)
    assert refused.value.code in (401, 403)


def test_a_cluster_that_is_named_is_joined(local_run: LocalRun, tmp_path: Path) -> None:
    settings = {
        "RAY_ADDRESS": local_run.address,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": local_run.token,
        "RAY_TMPDIR": local_run.temp,
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # or Ray takes another address than 127.0.0.1
    }
    child = start(tmp_path, "", settings)
    try:
        assert ready(child) == (local_run.address, local_run.dashboard, local_run.token)
        names = {Path(f"/proc/{pid}/comm").read_text().strip() for pid in family(child.pid)}
        assert not names & {"gcs_server", "raylet"}
    finally:
        child.communicate()
    assert list(tmp_path.iterdir()) == []
