"""The image's files, without a Docker daemon: linted, checked against their schema, and their scripts run for real."""

import fnmatch
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from realtime_communication.config import load
from serving.processes import ROOT, ServerProcess, free_port
from serving.programs import output_of
from serving.redis import RedisServer, until

DOCKER = ROOT / "deploy" / "docker"
UNIT = ROOT / "deploy" / "systemd" / "rtc.service"
COMPOSE = yaml.safe_load((DOCKER / "compose.yaml").read_text())
NODES = [COMPOSE["services"][name] for name in ("rtc-1", "rtc-2")]
REDIS = COMPOSE["services"]["redis"]
ENVIRONMENT = {"JWT_SECRET": "x" * 32, "REDIS_PASSWORD": "secret"}


def configured(environ=None, *options):
    """The server's configuration in the container."""
    return load(
        [f"--config={DOCKER / 'config.toml'}", *options], environ=ENVIRONMENT | (environ or {}), directory=DOCKER
    ).config


def seconds(text):
    return int(re.fullmatch(r"(\d+)s", text)[1])


class TestImage:
    dockerfile = (DOCKER / "Dockerfile").read_text()

    def test_it_has_no_known_mistake(self):
        output_of("hadolint", DOCKER / "Dockerfile")

    def test_the_context_is_what_a_build_is_made_of_and_what_is_copied(self):
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        built = re.search(r"find (CMakeLists\.txt .*?) -type f", (ROOT / "ci" / "build").read_text())
        copied = set(re.findall(r"deploy/docker/[\w.]+", self.dockerfile.partition("FROM")[2]))
        assert allowed == set(built[1].split()) | copied
        assert all((ROOT / path).exists() for path in allowed)

    def test_no_secret_and_no_folder_of_git_can_come_into_it(self):
        lines = (ROOT / ".dockerignore").read_text().splitlines()
        rules = [line for line in lines if line and not line.startswith("#")]
        assert rules[0] == "*"
        assert not [rule for rule in rules[1:] if rule.startswith("!") and fnmatch.fnmatch(".git", rule[1:])]
        assert "!deploy/docker" not in rules  # where secrets/ is

    def test_its_ports_are_the_server_s(self):
        config = configured()
        (exposed,) = re.findall(r"^EXPOSE (.*)$", self.dockerfile, re.MULTILINE)
        assert exposed.split() == [str(config.server.port), str(config.monitoring.prometheus.port)]

    def test_it_runs_as_nobody_in_particular(self):
        assert re.findall(r"^USER (.*)$", self.dockerfile, re.MULTILINE) == ["10001:10001"]

    def test_its_configuration_is_good_in_production(self):
        config = configured()
        assert config.redis.url == "redis://:secret@redis:6379/0"
        assert config.server.host == "0.0.0.0"
        assert configured({"REDIS_URL": "rediss://elsewhere", "WORKERS": "3"}).server.workers == 3


class TestEntrypoint:
    @pytest.fixture
    def rtc(self, tmp_path):
        """A stand-in for the command that tells what it gets."""
        script = tmp_path / "rtc"
        script.write_text('#!/bin/sh\necho $* "$JWT_SECRET" "${JWT_SECRET_FILE-unset}" "${REDIS_URL-unset}"\n')
        script.chmod(0o755)
        return {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

    def test_files_become_variables(self, rtc, tmp_path):
        (tmp_path / "secret").write_text("a secret with spaces and $signs\n")
        environment = rtc | {"JWT_SECRET_FILE": str(tmp_path / "secret")}
        told = output_of(DOCKER / "entrypoint.sh", "serve", "--port=1", environment=environment)
        assert told == "serve --port=1 a secret with spaces and $signs unset unset\n"

    def test_variables_stay_as_they_are(self, rtc):
        assert output_of(DOCKER / "entrypoint.sh", environment=rtc | {"JWT_SECRET": "given"}) == "given unset unset\n"

    def test_a_file_that_is_missing_is_an_error(self, rtc):
        environment = rtc | {"JWT_SECRET_FILE": "/nowhere"}
        (line,) = output_of(DOCKER / "entrypoint.sh", environment=environment, status=1).splitlines()
        assert line.startswith("cat: /nowhere")


def test_the_health_check_sees_whether_the_server_lives():
    server = ServerProcess("product", free_port(), None, None)
    check = (Path(sys.executable), "-I", DOCKER / "healthcheck.py")
    environment = {"PORT": str(server.port)}
    try:
        output_of(*check, environment=environment, status=1)
        server.start()
        output_of(*check, environment=environment)
    finally:
        server.dispose()


class TestCompose:
    def test_it_is_as_the_specification_says(self):
        output_of("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DOCKER / "compose.yaml")

    def test_it_waits_for_the_end_of_draining(self):
        production = configured().production
        for node in NODES:
            assert seconds(node["stop_grace_period"]) > production.drain_timeout_secs + production.shutdown_timeout_secs

    def test_a_node_has_more_files_than_connections(self):
        for node in NODES:
            assert node["ulimits"]["nofile"]["hard"] > configured().websocket.max_connections + 1000

    def test_ports_are_the_server_s(self):
        config = configured()
        for node in NODES:
            inside = [int(port.rpartition(":")[2]) for port in node["ports"]]
            assert inside == [config.server.port, config.monitoring.prometheus.port]
        published = [port.rpartition(":")[0] for node in NODES for port in node["ports"]]
        assert len(published) == len(set(published))

    def test_nothing_may_be_written_but_temporary_files(self):
        for service in COMPOSE["services"].values():
            assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
        for node in NODES:
            assert node["pids_limit"] == int(re.search(r"^TasksMax=(\d+)$", UNIT.read_text(), re.MULTILINE)[1])
            assert node["tmpfs"][0].startswith("/tmp:")

    def test_secrets_are_files(self):
        for node in NODES:
            files = {name: path for name, path in node["environment"].items() if name.endswith("_FILE")}
            assert sorted(files.values()) == sorted(f"/run/secrets/{secret}" for secret in node["secrets"])
            known = re.search(r"for name in (.*?);", (DOCKER / "entrypoint.sh").read_text())[1].split()
            assert {name.removesuffix("_FILE") for name in files} <= set(known)
        ignored = (ROOT / ".gitignore").read_text().splitlines()
        assert "/deploy/docker/secrets/" in ignored
        assert {secret["file"].rpartition("/")[0] for secret in COMPOSE["secrets"].values()} == {"./secrets"}

    def test_redis_starts_with_its_command_and_is_found_healthy(self, tmp_path):
        server = RedisServer(requirepass="hexadecimal")
        (tmp_path / "secret").write_text("hexadecimal\n")

        def here(text):
            """As Compose hands it on, with the paths and the port of this machine."""
            text = text.replace("$$", "$").replace("/run/secrets/redis_password", str(tmp_path / "secret"))
            return text.replace("/etc/redis.conf", str(tmp_path / "redis.conf"))

        local = (DOCKER / "redis.conf").read_text().replace("dir /data", f"dir {tmp_path}")
        (tmp_path / "redis.conf").write_text(f"{local.replace('bind * -::*', 'bind 127.0.0.1')}\nport {server.port}\n")
        (script,) = REDIS["command"]
        process = subprocess.Popen([*REDIS["entrypoint"], here(script)], stdout=subprocess.DEVNULL)
        try:
            until(server.client.ping)
            assert server.client.config_get("appendonly") == {"appendonly": "yes"}
            assert server.client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert b"hexadecimal" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
            kind, check = REDIS["healthcheck"]["test"]
            assert kind == "CMD-SHELL"
            output_of("sh", "-c", here(check).replace("redis-cli", f"redis-cli -p {server.port}"))
            process.terminate()  # reaches Redis itself, not a shell before it
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            server.dispose()
