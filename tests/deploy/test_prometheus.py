"""The alerts: what Prometheus itself says of them, and whether the server serves what they go by."""

import re

import pytest
import yaml

from realtime_communication.config.metric_names import CUSTOM_METRICS
from realtime_communication.config.schema import Config
from realtime_communication.observability.catalogue import CUT_REASONS, ROWS, WORKER_ROWS
from serving.processes import ROOT
from serving.programs import output_of
from serving.scrapes import PREFIX

FOLDER = ROOT / "deploy" / "prometheus"
RULES = [rule for group in yaml.safe_load((FOLDER / "rules.yaml").read_text())["groups"] for rule in group["rules"]]
TESTS = yaml.safe_load((FOLDER / "rules_test.yaml").read_text())["tests"]
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
SERVED = {
    f"{PREFIX}{name}{suffix}": frozenset(row.labels)
    for name, row in (ROWS | WORKER_ROWS | CUSTOM_METRICS).items()
    if not getattr(row, "standard", False)
    for suffix in SUFFIXES[row.type]
}
"""Labels by the name of a sample."""


def promtool(*arguments):
    return output_of("promtool", *arguments, directory=FOLDER)


def test_prometheus_takes_them():
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "--lint=all", "--lint-fatal", "rules.yaml")


def test_each_is_raised_when_it_should_be_and_not_near_it():
    assert "SUCCESS" in promtool("test", "rules", "rules_test.yaml")
    assert sorted(test["name"] for test in TESTS[1:]) == sorted(rule["alert"] for rule in RULES)


def test_the_documented_configuration_is_one(tmp_path):
    page = (ROOT / "docs" / "deployment.md").read_text()
    (text,) = re.findall(r"^```yaml\n(rule_files.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "prometheus.yml").write_text(text.replace("/etc/prometheus/rules/rtc.yaml", str(FOLDER / "rules.yaml")))
    assert f"{len(RULES)} rules found" in promtool("check", "config", tmp_path / "prometheus.yml")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
class TestAlert:
    def test_the_server_serves_what_it_goes_by(self, rule):
        for name, selector in re.findall(rf"\b({PREFIX}\w+)(?:\{{([^}}]*)\}})?", rule["expr"]):
            assert name in SERVED, name
            assert set(re.findall(r"(\w+)[=!]~?\"", selector)) <= SERVED[name], (name, selector)
        assert re.search(rf"\b({PREFIX}\w+|up\{{)", rule["expr"])

    def test_it_says_what_happened_what_it_means_and_what_to_do(self, rule):
        assert rule["annotations"].keys() == {"summary", "description", "action"}
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["alert"].startswith("Rtc")


def test_reasons_and_routes_are_the_server_s():
    text = (FOLDER / "rules.yaml").read_text()
    assert set(re.findall(r'cut_total\{reason="(\w+)"', text)) <= set(CUT_REASONS.values())
    assert re.findall(r'route!~"([^"]*)"', text) == [f"{Config().monitoring.health_check.path}.*"] * 2
