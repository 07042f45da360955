"""The chart, as `ci/helm` had helm render it: in step with the manifests for kubectl, and valid for Kubernetes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from realtime_communication.config import load
from serving.processes import ROOT
from serving.programs import output_of

CHART = ROOT / "deploy" / "helm"
RENDERED = ROOT / "tests" / "deploy" / "helm"
NAMES = ("default", "everything", "autoscaled")
INSTANCE = "app.kubernetes.io/instance"

Manifests = dict[tuple[str, str], dict[str, Any]]


def manifests(text: str) -> Manifests:
    """By kind and name."""
    found = [document for document in yaml.safe_load_all(text) if document]
    return {(each["kind"], each["metadata"]["name"]): each for each in found}


def rendered(name: str) -> Manifests:
    return manifests((RENDERED / f"{name}.yaml").read_text())


def chart_digest() -> str:
    """That of all files of the chart, as `sha256sum` writes them."""
    files = sorted(path for path in CHART.rglob("*") if path.is_file())
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(CHART)}\n"
        for path in sorted(files, key=lambda path: f"./{path.relative_to(CHART)}".encode())
    ]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_looked_at_here_was_made_of_this_chart(name: str) -> None:
    first, _, _ = (RENDERED / f"{name}.yaml").read_text().partition("\n")
    assert first == f"# ci/helm made this of the chart {chart_digest()}", "run ci/helm"
    sets = {path.name.removesuffix(".values.yaml") for path in RENDERED.glob("*.values.yaml")}
    assert sets == set(NAMES) - {"default"}


@pytest.mark.parametrize("name", NAMES)
def test_all_are_as_the_api_wants_them(name: str, tmp_path: Path) -> None:
    known = [each for each in rendered(name).values() if each["kind"] != "ServiceMonitor"]  # the operator's own kind
    path = tmp_path / "all.yaml"
    path.write_text(yaml.safe_dump_all(known))
    told = output_of("kubernetes-validate", "--strict", "--kubernetes-version", "1.30.0", path)
    assert "WARN" not in told and told.count("passed for resource") == len(known)


def plain(value: Any) -> Any:
    """Without what only one of the two ways has: the release's name among the labels."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key != INSTANCE}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def test_with_its_own_values_it_is_the_manifests_for_kubectl() -> None:
    for_kubectl = plain(manifests(output_of("kubectl", "kustomize", ROOT / "deploy" / "kubernetes")))
    chart = plain(rendered("default"))
    del for_kubectl["Namespace", "rtc"]  # helm makes it, `--create-namespace`
    (config,) = [key for key in for_kubectl if key[0] == "ConfigMap"]
    of_kubectl, of_chart = for_kubectl.pop(config), chart.pop(("ConfigMap", "rtc-config"))
    assert of_chart["data"] == of_kubectl["data"]
    deployments = [each["Deployment", "rtc"]["spec"]["template"] for each in (for_kubectl, chart)]
    for template in deployments:
        # kustomize puts a hash into the name of the ConfigMap, helm into an annotation: either rolls another one out.
        assert template["spec"]["volumes"][0].pop("configMap") in ({"name": config[1]}, {"name": "rtc-config"})
    assert deployments[1]["metadata"].pop("annotations").keys() == {"rtc/config"}
    assert deployments[1]["spec"]["containers"][0].pop("imagePullPolicy") == "IfNotPresent"
    assert chart == for_kubectl


def test_every_selector_names_the_release() -> None:
    for (kind, _), each in rendered("default").items():
        spec = each.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector:
            assert selector.get("matchLabels", selector)[INSTANCE] == "rtc", kind


class TestEverything:
    made = rendered("everything")
    spec = made["Deployment", "rtc"]["spec"]
    pod = spec["template"]["spec"]

    def test_what_is_switched_off_is_not_there(self) -> None:
        kinds = {kind for kind, _ in self.made}
        assert not kinds & {"HorizontalPodAutoscaler", "NetworkPolicy"} and {"Ingress", "ServiceMonitor"} <= kinds
        assert self.spec["replicas"] == 2

    def test_the_pod_has_all_that_is_asked_for(self) -> None:
        (container,) = self.pod["containers"]
        assert (container["image"], container["imagePullPolicy"]) == ("registry.test/team/rtc:1.2.3", "Always")
        assert container["envFrom"] == [{"secretRef": {"name": "rtc-secret"}}]
        assert container["resources"] == {
            "limits": {"cpu": "4", "memory": "4Gi"},
            "requests": {"cpu": "2", "memory": "1Gi"},
        }
        assert self.pod["imagePullSecrets"] == [{"name": "registry"}]
        assert self.pod["terminationGracePeriodSeconds"] == 120
        assert self.pod["nodeSelector"] == {"kubernetes.io/arch": "amd64"}
        assert self.pod["tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
        assert self.pod["affinity"] == {"podAntiAffinity": {}}
        assert self.spec["template"]["metadata"]["annotations"]["example.com/team"] == "chat"

    def test_the_way_in(self) -> None:
        spec = self.made["Ingress", "rtc"]["spec"]
        (rule,) = spec["rules"]
        (path,) = rule["http"]["paths"]
        assert (rule["host"], spec["tls"][0]["hosts"]) == ("chat.example.com", ["chat.example.com"])
        assert path["backend"]["service"] == {"name": "rtc", "port": {"name": "http"}}

    def test_the_monitor_finds_the_metrics(self) -> None:
        wanted = self.made["ServiceMonitor", "rtc"]["spec"]["selector"]["matchLabels"]
        assert wanted == self.made["Service", "rtc-metrics"]["metadata"]["labels"]

    def test_another_configuration_is_another_pod(self, tmp_path: Path) -> None:
        text = self.made["ConfigMap", "rtc-config"]["data"]["config.toml"]
        (tmp_path / "config.toml").write_text(text)
        environ = {"JWT_SECRET": "x" * 32, "REDIS_URL": "redis://redis"}
        config = load([f"--config={tmp_path / 'config.toml'}"], environ=environ, directory=tmp_path).config
        assert config.websocket.max_connections == 500
        annotations = self.spec["template"]["metadata"]["annotations"]
        assert annotations["rtc/config"] == hashlib.sha256(text.encode()).hexdigest()


def test_without_the_adapter_the_autoscaler_goes_by_cpu_alone() -> None:
    made = rendered("autoscaled")
    (metric,) = made["HorizontalPodAutoscaler", "rtc"]["spec"]["metrics"]
    assert metric["resource"]["name"] == "cpu"
    peers = made["NetworkPolicy", "rtc"]["spec"]["ingress"][0]["from"]
    assert peers == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "traefik"}}}]
