"""The cluster files are right by the schemas of those who read them, and name what exists.

No cluster is started. The schemas of Kubernetes, EC2 and Ray's launcher come from packages;
KubeRay's are in none.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import botocore.session
import click
import kubernetes_validate
import pytest
import yaml
from botocore.validate import ParamValidator
from conftest import ROOT
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli
from typer.main import get_group

from sensloc.cli import app
from sensloc.config import load_config

CLUSTER = ROOT / "cluster"
KUBERNETES = "1.34"
RESOURCES = load_config(str(ROOT / "conf/imagenet.toml")).resources

TEXT = {name: (CLUSTER / name).read_text() for name in ("Dockerfile", "rayjob.yaml", "aws.yaml")}
RAYJOB, NETWORK_POLICY = yaml.safe_load_all(TEXT["rayjob.yaml"])
AWS = yaml.safe_load(TEXT["aws.yaml"])

SPEC = RAYJOB["spec"]
RAY = SPEC["rayClusterSpec"]
GROUPS = {group["groupName"]: group for group in RAY["workerGroupSpecs"]}
PODS = {
    "submitter": SPEC["submitterPodTemplate"],
    "head": RAY["headGroupSpec"]["template"],
    **{name: group["template"] for name, group in GROUPS.items()},
}


def container(pod: str) -> dict[str, Any]:
    (only,) = PODS[pod]["spec"]["containers"]
    return only


def instructions(name: str) -> list[list[str]]:
    """The words of the Dockerfile's instructions of a name."""
    text = re.sub(r"^\s*#.*\n", "", TEXT["Dockerfile"], flags=re.MULTILINE)
    lines = map(shlex.split, text.replace("\\\n", " ").splitlines())
    return [words[1:] for words in lines if words and words[0] == name]


def pinned(package: str) -> str:
    constraints = (ROOT / "constraints.txt").read_text()
    (version,) = re.findall(rf"^{package}==(\S+)$", constraints, re.MULTILINE)
    return version


# --------------------------------------------------------------------------- rayjob.yaml


@pytest.mark.parametrize("pod", PODS)
def test_pods_are_kubernetes_pods(pod: str) -> None:
    template = {"apiVersion": "v1", "kind": "Pod", **PODS[pod]}
    kubernetes_validate.validate(template, KUBERNETES, strict=True)


def test_network_policy_covers_every_pod() -> None:
    kubernetes_validate.validate(NETWORK_POLICY, KUBERNETES, strict=True)
    chosen = NETWORK_POLICY["spec"]["podSelector"]["matchLabels"]
    assert all(chosen.items() <= pod["metadata"]["labels"].items() for pod in PODS.values())


@pytest.mark.parametrize("pod", PODS)
def test_pods_are_bounded_and_not_root(pod: str) -> None:
    (user,) = instructions("USER")
    assert PODS[pod]["spec"]["securityContext"]["runAsNonRoot"]
    assert [str(PODS[pod]["spec"]["securityContext"]["runAsUser"])] == user
    assert container(pod)["securityContext"]["allowPrivilegeEscalation"] is False
    assert {"cpu", "memory"} <= container(pod)["resources"]["limits"].keys()


def test_groups_have_room_for_what_the_config_asks() -> None:
    gpu = container("gpu")["resources"]["limits"]
    per_pod = int(gpu["nvidia.com/gpu"]) // RESOURCES.gpus_per_actor
    assert GROUPS["gpu"]["maxReplicas"] * per_pod >= RESOURCES.actors
    spare = int(gpu["cpu"]) - per_pod * RESOURCES.cpus_per_actor
    assert spare >= RESOURCES.cpus_per_task  # decoding


# --------------------------------------------------------------------------- aws.yaml


def test_aws_is_what_rays_launcher_takes() -> None:
    validate_config(prepare_config(AWS))


@pytest.mark.parametrize("kind", AWS["available_node_types"])
def test_nodes_are_what_ec2_takes(kind: str) -> None:
    node = AWS["available_node_types"][kind]["node_config"]
    ec2 = botocore.session.get_session().get_service_model("ec2")
    shape = ec2.operation_model("RunInstances").input_shape
    ParamValidator().validate(node | {"MinCount": 1, "MaxCount": 1}, shape)
    assert node.keys() <= shape.members.keys()
    assert node["InstanceType"] in ec2.shape_for("InstanceType").enum


def test_aws_nodes_have_room_for_what_the_config_asks() -> None:
    gpu = AWS["available_node_types"]["gpu_spot"]
    per_node = gpu["resources"]["GPU"] // RESOURCES.gpus_per_actor
    assert gpu["max_workers"] * per_node >= RESOURCES.actors
    spare = gpu["resources"]["CPU"] - per_node * RESOURCES.cpus_per_actor
    assert spare >= RESOURCES.cpus_per_task


def test_both_clusters_ask_for_a_token_and_open_nothing() -> None:
    assert RAY["authOptions"]["mode"] == "token"
    assert "--env RAY_AUTH_MODE=token" in AWS["docker"]["run_options"]
    assert "IpPermissions" not in AWS["provider"]["security_group"]
    assert "--dashboard-host=127.0.0.1" in AWS["head_start_ray_commands"][-1]


# --------------------------------------------------------------------------- Dockerfile


def test_dockerfile_passes_its_linter() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    command = [linter, "--no-color", CLUSTER / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile_copies_what_exists_and_is_not_ignored() -> None:
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    copied = {
        source
        for words in instructions("COPY")
        for source in words[:-1]
        if not source.startswith("--")
    }
    assert all((ROOT / source).exists() for source in copied)
    assert "*" in ignore
    assert {source.split("/")[0] for source in copied} == {
        line[1:] for line in ignore if line.startswith("!")
    }


def test_one_image_of_the_pinned_versions() -> None:
    (base,) = instructions("FROM")
    assert base[0].startswith(f"rayproject/ray:{pinned('ray')}-py311")
    assert RAY["rayVersion"] == pinned("ray")
    assert f"boto3=={pinned('boto3')}" in TEXT["Dockerfile"]
    (image,) = {container(pod)["image"] for pod in PODS} | {AWS["docker"]["image"]}
    assert image in TEXT["Dockerfile"]
    assert [container("head")["workingDir"]] == instructions("WORKDIR")[0]


# --------------------------------------------------------------------------- commands

TYPED = [
    shlex.split(part, comments=True)
    for text in TEXT.values()
    for line in text.splitlines()
    if line.startswith("#   ")
    for part in line[4:].split("&&")
]
"""The commands in the files' headers, which are comments indented by three spaces."""

STARTED = [
    shlex.split(part)
    for key in ("head_start_ray_commands", "worker_start_ray_commands")
    for line in AWS[key]
    for part in line.split(";")
]
RAYS = [words[words.index("ray") :] for words in TYPED + STARTED if "ray" in words]
JOBS = [
    words[words.index("python") :]
    for words in [shlex.split(SPEC["entrypoint"]), *TYPED]
    if "python" in words
]


@pytest.mark.parametrize("words", RAYS, ids=" ".join)
def test_commands_of_ray_are_rays(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own command line reads them; nothing is run."""
    monkeypatch.chdir(ROOT)
    arguments = [word.rstrip(")") for word in words[1:] if not word.startswith(">")]
    command: click.Command | None = ray_cli
    while isinstance(command, click.Group):
        command = command.get_command(click.Context(command), arguments.pop(0))
    assert command is not None
    command.make_context(command.name, arguments)


@pytest.mark.parametrize("words", JOBS, ids=" ".join)
def test_job_commands_are_the_jobs(words: list[str]) -> None:
    """The script exists, and the command that it is named after knows the options."""
    _, script, *arguments = words
    assert (ROOT / script).is_file()
    command = get_group(app).commands[Path(script).stem]
    command.make_context(script, arguments, resilient_parsing="--help" in arguments)


def test_both_clusters_run_the_same_job() -> None:
    first, second = (words for words in JOBS if len(words) > 3)
    assert first == second


@pytest.mark.parametrize("name", TEXT)
def test_paths_exist(name: str) -> None:
    """Whatever a file, its comments too, says is in the repository."""
    paths = set(re.findall(r"\b(?:cluster|conf|jobs)/[\w.]+\w", TEXT[name]))
    assert {f"cluster/{name}", "jobs/run.py"} <= paths
    assert all((ROOT / path).is_file() for path in paths)
