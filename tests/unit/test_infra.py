"""The files of infra/ that other programs read: each is held against what that program takes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs import cli
from workers import metrics

INFRA = Path(__file__).resolve().parents[2] / "infra"

#: Fields of KubeRay's objects, from ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go of
#: ray-project/kuberay (v1.5.1 for authOptions); pods and containers from the core/v1 API of Kubernetes. Only what one
#: might use here: a name that is not listed is a mistake until it is looked up. None: the object's keys are free.
FIELDS: dict[str, set[str] | None] = {
    "": {"apiVersion", "kind", "metadata", "spec"},
    "metadata": {"name", "namespace", "labels", "annotations"},
    "spec": {
        *("activeDeadlineSeconds", "backoffLimit", "rayClusterSpec", "submitterPodTemplate", "metadata"),
        *("clusterSelector", "submitterConfig", "entrypoint", "runtimeEnvYAML", "jobId", "submissionMode"),
        *("entrypointResources", "entrypointNumCpus", "entrypointNumGpus", "ttlSecondsAfterFinished"),
        *("shutdownAfterJobFinishes", "suspend", "deletionStrategy", "managedBy"),
    },
    "rayClusterSpec": {
        *("headGroupSpec", "workerGroupSpecs", "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions"),
        *("headServiceAnnotations", "suspend", "authOptions"),
    },
    "authOptions": {"mode"},
    "headGroupSpec": {"serviceType", "headService", "enableIngress", "rayStartParams", "template"},
    "workerGroupSpecs": {
        *("groupName", "replicas", "minReplicas", "maxReplicas", "numOfHosts", "rayStartParams", "template"),
        *("scaleStrategy", "idleTimeoutSeconds"),
    },
    "rayStartParams": None,
    "template": {"metadata", "spec"},
    "template.spec": {
        *("containers", "volumes", "nodeSelector", "tolerations", "affinity", "terminationGracePeriodSeconds"),
        *("imagePullSecrets", "schedulerName", "serviceAccountName", "initContainers", "hostNetwork"),
    },
    "containers": {
        *("name", "image", "imagePullPolicy", "command", "args", "env", "envFrom", "resources", "ports"),
        *("volumeMounts", "lifecycle", "securityContext"),
    },
    "env": {"name", "value", "valueFrom"},
    "envFrom": {"secretRef", "configMapRef", "prefix"},
    "secretRef": {"name", "optional"},
    "resources": {"requests", "limits"},
    "requests": None,
    "limits": None,
    "ports": {"containerPort", "name", "protocol"},
    "volumeMounts": {"name", "mountPath", "readOnly", "subPath"},
    "volumes": {"name", "hostPath", "emptyDir", "configMap", "secret", "persistentVolumeClaim"},
    "hostPath": {"path", "type"},
    "emptyDir": {"medium", "sizeLimit"},
    "configMap": {"name", "items", "optional"},
}


def unknown_fields(node: Any, name: str = "", parent: str = "") -> list[str]:
    """Keys below a node that KubeRay or Kubernetes would refuse, or drop without a word."""
    if isinstance(node, list):
        return [found for item in node for found in unknown_fields(item, name, parent)]
    if not isinstance(node, dict):
        return []
    kind = f"{parent}.{name}" if f"{parent}.{name}" in FIELDS else name
    allowed = FIELDS[kind]
    if allowed is None:
        return []
    wrong = [f"{kind}.{key}" for key in node if key not in allowed]
    return wrong + [
        found for key, value in node.items() if key in allowed for found in unknown_fields(value, key, name)
    ]


@pytest.fixture(scope="module")
def rayjob() -> Any:
    return yaml.safe_load((INFRA / "rayjob.yaml").read_text())


def test_the_cluster_file_is_what_ray_up_takes() -> None:
    config = yaml.safe_load((INFRA / "cluster.yaml").read_text())
    prepared = prepare_config(config)
    validate_config(prepared)
    # One of the machines is the head, and none of the others is left out.
    assert prepared["available_node_types"]["local.cluster.node"]["min_workers"] == len(
        config["provider"]["worker_ips"]
    )


def test_the_rayjob_has_kuberays_fields_only(rayjob: Any) -> None:
    assert (rayjob["apiVersion"], rayjob["kind"]) == ("ray.io/v1", "RayJob")
    assert unknown_fields(rayjob) == []
    rayjob = {**rayjob, "spec": {**rayjob["spec"], "backofLimit": 3}}
    assert unknown_fields(rayjob) == ["spec.backofLimit"]


def test_the_rayjobs_workers_tell_ray_of_as_many_cards_as_they_ask_for(rayjob: Any) -> None:
    cluster = rayjob["spec"]["rayClusterSpec"]
    (group,) = cluster["workerGroupSpecs"]
    # KubeRay pastes the value into a shell command, so it is quoted twice.
    told = json.loads(json.loads(group["rayStartParams"]["resources"]))
    (container,) = group["template"]["spec"]["containers"]
    cards = {int(container["resources"][kind]["huawei.com/Ascend910"]) for kind in ("requests", "limits")}
    assert cards == {told["NPU"]}
    assert cluster["rayVersion"] in (INFRA.parent / "pyproject.toml").read_text()
    for pod in (cluster["headGroupSpec"]["template"], group["template"]):
        spec = pod["spec"]
        mounted = {mount["name"] for part in spec["containers"] for mount in part.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_the_rayjobs_command_is_one_that_the_job_takes(
    rayjob: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    python, script, *arguments = rayjob["spec"]["entrypoint"].split()
    assert (python, Path(script).name) == ("python", "generate.py")
    arguments[arguments.index("--config") + 1] = str(INFRA / "run.example.toml")
    monkeypatch.setenv(cli.SUBMITTED_JOB_VARIABLE, "{}")
    config = cli.parse_config(arguments, "test")
    # A retry is another cluster on other pods.
    assert config.output.startswith("s3://")
    (head,) = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    patience = {entry["name"]: entry["value"] for entry in head["env"]}["RAY_JOB_STOP_WAIT_TIME_S"]
    assert config.grace < float(patience)


def test_the_example_config_is_one_that_the_job_takes() -> None:
    config = cli.parse_config(["--config", str(INFRA / "run.example.toml")], "test")
    assert config.device == "ascend"
    given = set(re.findall(r"^(\w+) =", (INFRA / "run.example.toml").read_text(), re.MULTILINE))
    assert given == config.model_fields_set | {"manifest"}


def test_prometheus_reads_the_addresses_that_ray_writes() -> None:
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    (job,) = yaml.safe_load((INFRA / "prometheus.yml").read_text())["scrape_configs"]
    assert job["file_sd_configs"] == [{"files": [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]}]


def test_the_image_is_made_of_what_is_there() -> None:
    text = (INFRA / "Dockerfile").read_text()
    sources = [name for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE) for name in line.split()[:-1]]
    assert sources
    assert all((INFRA.parent / name).exists() for name in sources)
    # Which registry and which CANN is for those to say who know their cards.
    assert re.search(r"^ARG CANN_IMAGE\nFROM \$\{CANN_IMAGE\}$", text, re.MULTILINE)


def test_the_dashboards_panels_are_whole() -> None:
    dashboard = json.loads((INFRA / "grafana.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            assert target["expr"].count("(") == target["expr"].count(")"), panel["title"]
            assert 'SessionName=~"$session"' in target["expr"], panel["title"]


def exported() -> dict[str, set[str]]:
    """Our metrics as Ray exports them, with their labels."""
    return {f"ray_{one.info['name']}": set(one.info["tag_keys"]) for one in metrics._instruments()}


def test_dashboard_and_readme_name_the_metrics_and_labels_that_the_code_has() -> None:
    series = {
        name + ending: labels | ({"le"} if ending == "_bucket" else set())
        for name, labels in exported().items()
        for ending in (("_bucket", "_count", "_sum") if name.endswith("_call_seconds") else ("_total",))
    }
    dashboard = json.loads((INFRA / "grafana.json").read_text())
    asked: dict[str, set[str]] = {}
    for target in (target for panel in dashboard["panels"] for target in panel["targets"]):
        for name, selected in re.findall(r"(ray_kandinsky_\w+)\{([^}]*)\}", target["expr"]):
            labels = set(re.findall(r"(\w+)=~?", selected.replace("!", ""))) - {"SessionName"}
            by = {label for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for label in group.split(", ")}
            shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert shown <= by, target["expr"]
            asked.setdefault(name, set()).update(labels, by)
    assert {name.removesuffix("_total").removesuffix("_bucket").removesuffix("_count") for name in asked} == {
        name.removesuffix("_total") for name in exported()
    }
    for name, labels in asked.items():
        assert labels <= series[name], name
    assert asked["ray_kandinsky_call_seconds_bucket"] == {"stage", "bucket", "le"}
    rows = re.findall(r"^\| `(ray_kandinsky_\w+)` \| ([^|]*) \|", (INFRA / "README.md").read_text(), re.MULTILINE)
    told = {name.removesuffix("_total"): set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    assert told == exported()
    words = set(re.findall(r"kandinsky_\w+", metrics.__doc__ or "")) - {"kandinsky_"}
    assert {f"ray_{name}".removesuffix("_total") for name in words} == set(exported())
