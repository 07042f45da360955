"""The manifests: valid for Kubernetes, and in step with each other and with the server. No cluster is needed."""

import json
import re

import pytest
import yaml

from realtime_communication.config import load
from realtime_communication.errors import ConfigurationError
from serving.processes import ROOT
from serving.programs import output_of

FOLDER = ROOT / "deploy" / "kubernetes"
METRIC = "realtime_comm_websocket_connections"


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def rendered(folder):
    """What `kubectl apply -k` would apply."""
    return output_of("kubectl", "kustomize", folder)


@pytest.fixture(scope="module")
def text():
    return rendered(FOLDER)


@pytest.fixture(scope="module")
def manifests(text):
    """By kind and name."""
    return {(each["kind"], each["metadata"]["name"]): each for each in documents(text)}


@pytest.fixture(scope="module")
def pod(manifests):
    return manifests["Deployment", "rtc"]["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (only,) = pod["containers"]
    return only


@pytest.fixture(scope="module")
def config(manifests, tmp_path_factory):
    """What the server makes of the ConfigMap."""
    (data,) = [each["data"] for (kind, _), each in manifests.items() if kind == "ConfigMap"]
    path = tmp_path_factory.mktemp("etc") / "config.toml"
    path.write_text(data["config.toml"])
    environ = {"JWT_SECRET": "x" * 32, "REDIS_URL": "redis://redis:6379", "WORKERS": "2"}
    return load([f"--config={path}"], environ=environ, directory=path.parent).config


def test_all_are_as_the_api_wants_them(text, tmp_path):
    (tmp_path / "all.yaml").write_text(text)
    names = [tmp_path / "all.yaml", FOLDER / "secret.example.yaml"]
    for version in ("1.37.0", "1.30.0"):
        told = output_of("kubernetes-validate", "--strict", "--kubernetes-version", version, *names)
        assert "WARN" not in told, told
        assert told.count("passed for resource") == len(documents(text)) + 1


def test_all_that_belongs_to_it_is_there(manifests):
    assert sorted(kind for kind, _ in manifests) == [
        "ConfigMap",
        "Deployment",
        "HorizontalPodAutoscaler",
        "Namespace",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
        "Service",
        "ServiceAccount",
    ]
    assert {each["metadata"]["namespace"] for (kind, _), each in manifests.items() if kind != "Namespace"} == {"rtc"}


def test_selectors_find_the_pods_and_nothing_else_names_them(manifests):
    deployment = manifests["Deployment", "rtc"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert manifests["PodDisruptionBudget", "rtc"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["NetworkPolicy", "rtc"]["spec"]["podSelector"]["matchLabels"] == labels
    for name in ("rtc", "rtc-metrics"):
        assert manifests["Service", name]["spec"]["selector"] == labels
    spreads = deployment["template"]["spec"]["topologySpreadConstraints"]
    assert [each["labelSelector"]["matchLabels"] for each in spreads] == [labels, labels]
    assert manifests["HorizontalPodAutoscaler", "rtc"]["spec"]["scaleTargetRef"]["name"] == "rtc"


def test_ports_are_the_server_s(container, manifests, config):
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": config.server.port, "metrics": config.monitoring.prometheus.port}
    for name, target in (("rtc", "http"), ("rtc-metrics", "metrics")):
        assert [port["targetPort"] for port in manifests["Service", name]["spec"]["ports"]] == [target]
    ingress = manifests["NetworkPolicy", "rtc"]["spec"]["ingress"]
    assert [port["port"] for rule in ingress for port in rule["ports"]] == ["http", "metrics"]


def test_probes_ask_what_the_server_answers_and_wait_long_enough(container, config):
    health = config.monitoring.health_check
    assert health.enabled
    for probe, below in (("startupProbe", "live"), ("livenessProbe", "live"), ("readinessProbe", "ready")):
        assert container[probe]["httpGet"] == {"path": f"{health.path}/{below}", "port": "http"}
    assert container["readinessProbe"]["timeoutSeconds"] > health.timeout_secs
    assert not config.security.enforce_tls and not config.security.tls.enabled  # the probes come by plain HTTP


def test_the_pod_has_the_time_to_drain(pod, container, config):
    (command, pause) = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    needed = int(pause) + config.production.drain_timeout_secs + config.production.shutdown_timeout_secs
    assert config.production.enable_graceful_shutdown
    assert pod["terminationGracePeriodSeconds"] > needed


def test_no_pod_goes_before_another_is_ready(manifests):
    rolling = manifests["Deployment", "rtc"]["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    scaling = manifests["HorizontalPodAutoscaler", "rtc"]["spec"]
    assert manifests["PodDisruptionBudget", "rtc"]["spec"]["maxUnavailable"] < scaling["minReplicas"]


def test_the_container_may_do_nothing_but_serve(pod, container):
    assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "deploy" / "docker" / "Dockerfile").read_text(), re.MULTILINE)
    assert [str(pod["securityContext"][name]) for name in ("runAsUser", "runAsGroup")] == list(user.groups())
    context = container["securityContext"]
    assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/etc/rtc", "/tmp"}


def test_it_finds_its_configuration_and_rolls_out_another(pod, manifests):
    (volume,) = [each for each in pod["volumes"] if each["name"] == "config"]
    name = volume["configMap"]["name"]
    assert ("ConfigMap", name) in manifests and re.fullmatch(r"rtc-config-\w{10}", name)
    assert not pod["enableServiceLinks"]


def test_workers_are_as_many_as_cores_are_allowed(container):
    (workers,) = [each for each in container["env"] if each["name"] == "WORKERS"]
    assert workers["valueFrom"]["resourceFieldRef"]["resource"] == "limits.cpu"
    assert container["resources"]["limits"]["cpu"] == "2"


def test_the_secret_has_what_the_server_needs_and_the_example_starts_nothing(container, tmp_path):
    (secret,) = documents((FOLDER / "secret.example.yaml").read_text())
    assert container["envFrom"] == [{"secretRef": {"name": secret["metadata"]["name"]}}]
    assert secret["stringData"].keys() == {"JWT_SECRET", "REDIS_URL"}
    with pytest.raises(ConfigurationError, match="jwt_secret"):
        load([f"--config={FOLDER / 'config.toml'}"], environ=secret["stringData"], directory=tmp_path)


class TestScaling:
    @pytest.fixture
    def metrics(self, manifests):
        return {each["type"]: each for each in manifests["HorizontalPodAutoscaler", "rtc"]["spec"]["metrics"]}

    def test_another_pod_comes_before_they_are_full(self, metrics, config):
        pods = metrics["Pods"]["pods"]
        prometheus = config.monitoring.prometheus
        assert pods["metric"]["name"] == f"{prometheus.namespace}_{prometheus.subsystem}_connections" == METRIC
        assert int(pods["target"]["averageValue"]) <= 0.8 * config.websocket.max_connections
        assert metrics["Resource"]["resource"]["name"] == "cpu"

    def test_the_adapter_has_the_metric_by_that_name(self):
        (rule,) = yaml.safe_load((FOLDER / "monitoring" / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
        assert rule["seriesQuery"].startswith(f"{METRIC}{{")
        assert re.fullmatch(rule["name"]["matches"], METRIC) and rule["name"]["as"] == METRIC
        assert rule["resources"]["overrides"] == {name: {"resource": name} for name in ("namespace", "pod")}

    def test_pods_go_one_at_a_time(self, manifests):
        down = manifests["HorizontalPodAutoscaler", "rtc"]["spec"]["behavior"]["scaleDown"]
        assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]


def test_the_service_monitor_finds_the_metrics(manifests, config):
    (monitor,) = documents(rendered(FOLDER / "monitoring"))
    service = manifests["Service", "rtc-metrics"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in [port["name"] for port in service["spec"]["ports"]]
    assert endpoint["path"] == config.monitoring.prometheus.path
    job = service["metadata"]["labels"][monitor["spec"]["jobLabel"]]
    rules = (ROOT / "deploy" / "prometheus" / "rules.yaml").read_text()
    (pattern,) = set(re.findall(r'job=~"([^"]*)"', rules))
    assert re.fullmatch(pattern, job) and re.fullmatch(pattern, "realtime_communication")


def test_rules_become_one_manifest_as_the_documentation_says():
    page = (ROOT / "docs" / "deployment.md").read_text()
    (command,) = re.findall(r"^(\{ cat <<'END'.*?) \| kubectl apply -f -$", page, re.MULTILINE | re.DOTALL)
    (manifest,) = documents(output_of("bash", "-c", command, directory=ROOT))
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("PrometheusRule", "rtc")
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "rules.yaml").read_text())
    assert json.dumps(manifest["spec"]) == json.dumps(rules)
