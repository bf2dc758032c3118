"""The cluster files are right by the schemas of those who read them, and name what exists.

No cluster is started. Kubernetes' schemas and the launcher's come from packages; KubeRay's are in
none, so that its fields are written down here.
"""

import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any, Literal

import botocore.session
import click
import kubernetes_validate
import pytest
import yaml
from botocore.validate import ParamValidator
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import cli as ray_cli

from sensloc.config import load_config

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster"
DOCKERFILE = CLUSTER / "Dockerfile"
KUBERNETES = "1.34"
CONFIG = "conf/imagenet.toml"

RAYJOB, NETWORK_POLICY = yaml.safe_load_all((CLUSTER / "rayjob.yaml").read_text())
AWS = yaml.safe_load((CLUSTER / "aws.yaml").read_text())


# ----------------------------------------------------- KubeRay's fields, of v1.6.2, ray.io/v1


class Fields(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AuthOptions(Fields):
    mode: Literal["disabled", "token"]
    secretName: str | None = None


class AutoscalerOptions(Fields):
    version: Literal["v1", "v2"]
    upscalingMode: Literal["Default", "Aggressive", "Conservative"]
    idleTimeoutSeconds: NonNegativeInt
    image: str | None = None
    env: list[dict[str, Any]] = Field(default_factory=list)
    resources: dict[str, Any]
    securityContext: dict[str, Any]


class HeadGroupSpec(Fields):
    rayStartParams: dict[str, str]
    template: dict[str, Any]
    serviceType: str = "ClusterIP"


class WorkerGroupSpec(Fields):
    groupName: str
    replicas: NonNegativeInt | None = None
    minReplicas: NonNegativeInt
    maxReplicas: NonNegativeInt
    idleTimeoutSeconds: NonNegativeInt | None = None
    rayStartParams: dict[str, str]
    template: dict[str, Any]


class RayClusterSpec(Fields):
    rayVersion: str
    authOptions: AuthOptions
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions
    headGroupSpec: HeadGroupSpec
    workerGroupSpecs: list[WorkerGroupSpec]


class RayJobSpec(Fields):
    entrypoint: str
    runtimeEnvYAML: str
    submissionMode: Literal["K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"]
    backoffLimit: NonNegativeInt
    preRunningDeadlineSeconds: PositiveInt
    activeDeadlineSeconds: PositiveInt
    shutdownAfterJobFinishes: bool
    ttlSecondsAfterFinished: NonNegativeInt
    submitterPodTemplate: dict[str, Any]
    rayClusterSpec: RayClusterSpec


class RayJob(Fields):
    apiVersion: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: dict[str, Any]
    spec: RayJobSpec


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


def gibibytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(\w+)", quantity).groups()  # type: ignore[union-attr]
    assert unit == "Gi"
    return int(number)


# --------------------------------------------------------------------------- rayjob.yaml


def test_rayjob_has_kuberays_fields_and_no_others() -> None:
    RayJob.model_validate(RAYJOB)


@pytest.mark.parametrize("pod", PODS)
def test_pods_are_kubernetes_pods(pod: str) -> None:
    template = {"apiVersion": "v1", "kind": "Pod", **PODS[pod]}
    kubernetes_validate.validate(template, KUBERNETES, strict=True)


def test_a_field_that_kubernetes_lacks_is_found() -> None:
    wrong = {"apiVersion": "v1", "kind": "Pod", "spec": PODS["head"]["spec"] | {"volume": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_network_policy_covers_every_pod() -> None:
    kubernetes_validate.validate(NETWORK_POLICY, KUBERNETES, strict=True)
    chosen = NETWORK_POLICY["spec"]["podSelector"]["matchLabels"]
    for pod in PODS.values():
        assert chosen.items() <= pod["metadata"]["labels"].items()


@pytest.mark.parametrize("pod", PODS)
def test_pods_are_bounded_and_not_root(pod: str) -> None:
    spec, only = PODS[pod]["spec"], container(pod)
    assert spec["restartPolicy"] == "Never"  # autoscaler v2 asks for it
    assert spec["securityContext"]["runAsNonRoot"]
    assert only["securityContext"]["allowPrivilegeEscalation"] is False
    assert only["resources"]["requests"] == only["resources"]["limits"]
    assert {"cpu", "memory"} <= set(only["resources"]["limits"])


@pytest.mark.parametrize("pod", ["head", *GROUPS])
def test_ray_pods_have_credentials_and_shared_memory(pod: str) -> None:
    assert [source["secretRef"]["name"] for source in container(pod)["envFrom"]] == ["sensloc-s3"]
    (mount,) = container(pod)["volumeMounts"]
    (volume,) = PODS[pod]["spec"]["volumes"]
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/dev/shm")
    assert volume["emptyDir"]["medium"] == "Memory"
    memory = gibibytes(container(pod)["resources"]["limits"]["memory"])
    assert 0.3 * memory <= gibibytes(volume["emptyDir"]["sizeLimit"]) < 0.5 * memory


def test_a_retry_of_the_job_asks_for_a_token_scales_and_cleans_up() -> None:
    assert SPEC["backoffLimit"] > 0
    assert SPEC["shutdownAfterJobFinishes"]
    assert RAY["authOptions"]["mode"] == "token"
    assert RAY["enableInTreeAutoscaling"]
    assert RAY["autoscalerOptions"]["version"] == "v2"
    assert RAY["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert {pod["metadata"]["labels"]["app"] for pod in PODS.values()} == {"sensloc"}


def test_groups_have_room_for_what_the_config_asks() -> None:
    resources = load_config(str(ROOT / CONFIG)).resources
    gpu = container("gpu")["resources"]["limits"]
    per_pod = int(gpu["nvidia.com/gpu"]) // resources.gpus_per_actor
    assert GROUPS["gpu"]["maxReplicas"] * per_pod >= resources.actors
    beside = int(gpu["cpu"]) - per_pod * resources.cpus_per_actor
    assert beside >= resources.cpus_per_task  # decoding
    for group in GROUPS.values():
        assert group["minReplicas"] == 0  # nothing costs before there is work


# --------------------------------------------------------------------------- aws.yaml


def test_aws_is_what_rays_launcher_takes() -> None:
    validate_config(prepare_config(AWS))


def test_a_key_that_rays_launcher_lacks_is_found() -> None:
    wrong = prepare_config(AWS | {"initialisation_commands": []})
    with pytest.raises(Exception, match="initialisation_commands"):
        validate_config(wrong)


@pytest.mark.parametrize("kind", AWS["available_node_types"])
def test_nodes_are_what_ec2_takes(kind: str) -> None:
    node = AWS["available_node_types"][kind]["node_config"]
    ec2 = botocore.session.get_session().get_service_model("ec2")
    shape = ec2.operation_model("RunInstances").input_shape
    ParamValidator().validate(node | {"MinCount": 1, "MaxCount": 1}, shape)
    unknown = set(node) - set(shape.members)
    assert not unknown
    assert node["InstanceType"] in ec2.shape_for("InstanceType").enum
    assert node["IamInstanceProfile"]
    assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert all(disk["Ebs"]["Encrypted"] for disk in node["BlockDeviceMappings"])
    spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
    assert spot == (kind != AWS["head_node_type"])


def test_aws_nodes_have_room_for_what_the_config_asks() -> None:
    resources = load_config(str(ROOT / CONFIG)).resources
    kinds = AWS["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0}
    gpu = kinds["gpu_spot"]
    per_node = gpu["resources"]["GPU"] // resources.gpus_per_actor
    assert gpu["max_workers"] * per_node >= resources.actors
    beside = gpu["resources"]["CPU"] - per_node * resources.cpus_per_actor
    assert beside >= resources.cpus_per_task
    assert sum(kind.get("max_workers", 0) for kind in kinds.values()) <= AWS["max_workers"]


def test_aws_asks_for_a_token_and_opens_nothing() -> None:
    assert "--env RAY_AUTH_MODE=token" in AWS["docker"]["run_options"]
    assert AWS["file_mounts"] == {"/home/ray/.ray": "~/.ray"}
    assert "IpPermissions" not in AWS["provider"]["security_group"]
    assert "--dashboard-host=127.0.0.1" in AWS["head_start_ray_commands"][-1]


@pytest.mark.parametrize("key", ["head_start_ray_commands", "worker_start_ray_commands"])
def test_start_commands_are_rays(key: str) -> None:
    for line in AWS[key]:
        for command in line.split(";"):
            words = shlex.split(command)
            if words[0] == "ray":
                parse_ray(words[1:])


# --------------------------------------------------------------------------- Dockerfile


def instructions() -> list[tuple[str, list[str]]]:
    """The Dockerfile's, each with its words."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(words[0], words[1:]) for words in map(shlex.split, lines) if words]


def copied() -> list[str]:
    return [
        source
        for name, words in instructions()
        if name == "COPY"
        for source in words[:-1]
        if not source.startswith("--")
    ]


def test_dockerfile_passes_its_linter() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_dockerfile_copies_what_exists_and_is_not_ignored() -> None:
    ignore = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignore
    kept = {line[1:] for line in ignore if line.startswith("!")}
    for source in copied():
        assert (ROOT / source).exists(), source
    assert {source.split("/")[0] for source in copied()} == kept


def test_dockerfile_ends_as_the_user_of_the_pods() -> None:
    user = [words for name, words in instructions() if name == "USER"][-1]
    assert user == [str(PODS["head"]["spec"]["securityContext"]["runAsUser"])]


def test_workdir_is_where_the_pods_start() -> None:
    (workdir,) = (words for name, words in instructions() if name == "WORKDIR")
    assert {container(pod)["workingDir"] for pod in ["head", *GROUPS]} == set(workdir)


# --------------------------------------------------------------------------- all of them


def pinned(package: str) -> str:
    (version,) = re.findall(
        rf"^{package}==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE
    )
    return version


def test_one_version_of_ray() -> None:
    (base,) = (words for name, words in instructions() if name == "FROM")
    assert base[0].startswith(f"rayproject/ray:{pinned('ray')}-py311")
    assert RAY["rayVersion"] == pinned("ray")
    # the image is the only Ray of rayjob.yaml and aws.yaml
    images = {container(pod)["image"] for pod in PODS} | {AWS["docker"]["image"]}
    (image,) = images
    assert image in DOCKERFILE.read_text()


def test_boto3_of_the_image_is_the_pinned_one() -> None:
    assert f"boto3=={pinned('boto3')}" in DOCKERFILE.read_text()


def headers() -> list[list[str]]:
    """The commands in the files' headers: comments indented by three spaces."""
    found = []
    for name in ("Dockerfile", "rayjob.yaml", "aws.yaml"):
        lines = (CLUSTER / name).read_text().splitlines()
        commands = [line[4:] for line in lines if line.startswith("#   ")]
        assert len(commands) == 3, name
        found += [
            shlex.split(part, comments=True) for line in commands for part in line.split("&&")
        ]
    return [words for words in found if words]


def parse_ray(words: list[str]) -> None:
    """Let Ray's own command line read ``words``; nothing is run."""
    command = ray_cli.get_command(click.Context(ray_cli), words[0])
    assert command is not None, words
    context = command.make_context(words[0], words[1:])
    if isinstance(command, click.Group):
        inner = command.get_command(context, words[1])
        assert inner is not None, words
        inner.make_context(words[1], words[2:])


def test_header_commands_of_ray_are_rays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    rays = [words[words.index("ray") + 1 :] for words in headers() if "ray" in words]
    for words in rays:
        parse_ray([word.rstrip(")") for word in words if not word.startswith(">")])
    assert [words[0] for words in rays] == ["get-auth-token", "up", "dashboard", "job", "down"]


@pytest.mark.parametrize("name", ["Dockerfile", "rayjob.yaml", "aws.yaml"])
def test_paths_exist(name: str) -> None:
    """Whatever a file, its comments too, says is in the repository."""
    paths = set(re.findall(r"\b(?:cluster|conf|jobs)/[\w.]+\w", (CLUSTER / name).read_text()))
    assert {f"cluster/{name}", "jobs/localize.py"} <= paths
    for path in paths:
        assert (ROOT / path).is_file(), path


def job_commands() -> list[list[str]]:
    """``python jobs/...`` as the entrypoint and the headers have it."""
    found = [shlex.split(SPEC["entrypoint"])]
    found += [words[words.index("python") :] for words in headers() if "python" in words]
    assert len(found) >= 3
    return found


@cache
def said_by(script: str) -> str:
    """What a job's ``--help`` prints."""
    help_me = [sys.executable, script, "--help"]
    return subprocess.run(help_me, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("words", job_commands(), ids=" ".join)
def test_job_commands_are_the_jobs(words: list[str]) -> None:
    """Its script exists and knows these flags; its config takes these URLs."""
    python, script, *arguments = words
    assert python == "python"
    known = set(re.findall(r"--[\w-]+", said_by(script)))
    given = dict(zip(arguments[1::2], arguments[2::2], strict=True))
    assert set(given) <= known
    if given:
        config = load_config(
            str(ROOT / arguments[0]), data=given["--data"], output=given["--output"]
        )
        assert config.dataset.root == given["--data"]
        assert config.output == given["--output"]


def test_both_clusters_run_the_same_job() -> None:
    submitted = [words for words in job_commands() if len(words) > 3]
    assert all(words == submitted[0] for words in submitted)
    assert len(submitted) == 2


def test_no_secret_is_written_down() -> None:
    for file in CLUSTER.iterdir():
        text = file.read_text()
        assert not re.search(r"AKIA[0-9A-Z]{16}", text)
        assert not re.search(r"(?i)(secret|password|token)\w*\s*[:=]\s*['\"]?[0-9a-z/+]{20,}", text)
