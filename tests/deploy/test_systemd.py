"""The unit and the kernel's settings: what systemd says of them, and a server that runs under what the unit allows."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from realtime_communication.config import load
from realtime_communication.errors import EXIT_CONFIG, MisuseError
from serving.asking import ask, until
from serving.peer import Peer, unique
from serving.processes import ROOT, START_SECS, free_port, settings_for, toml
from serving.programs import output_of

FOLDER = ROOT / "deploy" / "systemd"
UNIT = FOLDER / "rtc.service"
RTC = Path(sys.executable).with_name("rtc")
WORST_EXPOSURE = "15"  # of 100: what is left is the network, files of the machine to read, sockets between the workers


def service():
    """The lines of the section [Service]: values by name."""
    lines = UNIT.read_text().partition("[Service]\n")[2].partition("\n[")[0].splitlines()
    found = {}
    for name, _, value in (line.partition("=") for line in lines if line and not line.startswith("#")):
        found.setdefault(name, []).append(value)
    return found


SERVICE = service()


def analyze(*arguments):
    return output_of("systemd-analyze", *arguments)


def number_of(line):
    (value,) = SERVICE[line]
    return int(value)


def config():
    path = FOLDER / "config.toml"
    return load([f"--config={path}"], environ={"JWT_SECRET": "x" * 32}, directory=FOLDER).config


class TestUnit:
    def test_systemd_takes_it(self, tmp_path):
        # There is no command at the example's path; the test's own stands for it.
        copy = tmp_path / "rtc.service"
        copy.write_text(UNIT.read_text().replace("/opt/rtc/bin/rtc", str(RTC)))
        assert analyze("verify", "--man=no", str(copy)) == ""

    def test_it_leaves_little_to_attack(self):
        analyze("security", "--offline=true", "--no-pager", f"--threshold={WORST_EXPOSURE}", str(UNIT))

    def test_its_commands_are_the_server_s(self, tmp_path):
        (start,) = SERVICE["ExecStart"]
        assert start.startswith("/opt/rtc/bin/rtc serve --profile=prod --config=/etc/rtc/config.toml")
        check, hang_up = SERVICE["ExecReload"]
        assert check.partition(" config check ")[2] == start.partition(" serve ")[2]
        assert hang_up == "/bin/kill -HUP $MAINPID"
        words = ("config", "check", "--profile=prod", f"--config={FOLDER / 'config.toml'}")
        output_of("rtc", *words, environment=os.environ | {"JWT_SECRET": "x" * 32})

    def test_it_waits_for_the_end_of_draining(self):
        production = config().production
        assert number_of("TimeoutStopSec") > production.drain_timeout_secs + production.shutdown_timeout_secs

    def test_signals_go_to_the_supervisor(self):
        assert SERVICE["KillMode"] == ["mixed"] and SERVICE["Type"] == ["exec"]

    def test_what_does_not_get_better_is_not_tried_again(self):
        (statuses,) = SERVICE["RestartPreventExitStatus"]
        assert statuses.split() == [str(MisuseError.exit_status), str(EXIT_CONFIG)]

    def test_there_are_more_files_than_connections(self):
        assert number_of("LimitNOFILE") > config().websocket.max_connections + 1000

    def test_the_user_is_made(self, tmp_path):
        (tmp_path / "etc").mkdir()
        output_of("systemd-sysusers", f"--root={tmp_path}", FOLDER / "rtc.sysusers.conf")
        (name,) = SERVICE["User"]
        assert f"\n{name}:x:" in "\n" + (tmp_path / "etc" / "passwd").read_text()


def allowed_calls():
    """The system calls that SystemCallFilter allows, in the order of its lines as systemd reads them."""
    sets, current = {}, []
    for line in analyze("syscall-filter", "--no-pager").splitlines():
        if line.startswith("@"):
            current = sets.setdefault(line.strip(), [])
        elif (name := line.strip()) and not name.startswith("#"):
            current.append(name)

    def named(word):
        return {call for each in sets[word] for call in named(each)} if word.startswith("@") else {word}

    allowed = named("@default")
    for line in SERVICE["SystemCallFilter"]:
        calls = {call for word in line.removeprefix("~").split() for call in named(word)}
        allowed = allowed - calls if line.startswith("~") else allowed | calls
    return sorted(allowed)


@pytest.fixture(scope="module")
def confined():
    """A server of two workers as the unit's user, with what the unit lets it do and see."""
    with tempfile.TemporaryDirectory(prefix="rtc-unit-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "run").mkdir()
        families = [getattr(socket, family).value for family in SERVICE["RestrictAddressFamilies"][0].split()]
        (folder / "filter.json").write_text(json.dumps({"allowed": allowed_calls(), "families": families}))
        port = free_port()
        settings = settings_for(port)
        settings["server"]["workers"] = 2
        del settings["testing"], settings["development"]
        settings["redis"] = {"url": f"redis://127.0.0.1:{free_port()}"}
        (folder / "config.toml").write_text(toml(settings))
        serve = [RTC, "serve", "--profile=prod", f"--config={folder / 'config.toml'}"]
        # ProtectSystem=strict, RuntimeDirectory and PrivateTmp (one folder for both), then no capabilities, then the
        # filters. The user stays the test's: another one may not be able to reach the interpreter.
        script = 'mount -o remount,bind,ro /; mount -t tmpfs -o mode=0750 tmpfs "$1"; shift; exec "$@"'
        command = ["unshare", "--mount", "--propagation=private", "sh", "-ec", script, "sh", folder / "run"]
        command += ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        command += [sys.executable, Path(__file__).with_name("confined.py"), folder / "filter.json", *serve]
        environment = {"XDG_RUNTIME_DIR": str(folder / "run"), "TMPDIR": str(folder / "run")}
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                command, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        running = Confined(process, port, folder)
        try:
            until(lambda: running.count("a worker is ready") == 2, lambda: running.log, START_SECS)
            yield running
        finally:
            process.kill()
            process.wait()


class Confined:
    def __init__(self, process, port, folder):
        self.process = process
        self.port = port
        self.folder = folder

    @property
    def log(self):
        return (self.folder / "log").read_text()

    def count(self, event):
        assert self.process.poll() is None, self.log
        return self.log.count(f'"event":"{event}"')


class TestConfined:
    """In this order: the last one ends the server."""

    def test_it_serves(self, confined):
        status = Path(f"/proc/{confined.process.pid}/status").read_text()
        for line in (r"CapEff:\t0+", r"CapBnd:\t0+", r"NoNewPrivs:\t1", r"Seccomp:\t2"):
            assert re.search(f"^{line}$", status, re.MULTILINE), status
        topic = unique()
        with Peer(f"ws://127.0.0.1:{confined.port}/ws", "alice") as peer:
            peer.ok("Subscribe", topic=topic)
            peer.ok("Broadcast", topic=topic, payload="within bounds")
            assert peer.event()["payload"] == "within bounds"
        assert ask(confined.port, "GET", "/health/live").status == 200

    def test_it_reads_its_configuration_again(self, confined):
        (command,) = [line for line in SERVICE["ExecReload"] if line.startswith("/bin/kill")]
        output_of("sh", "-c", command.replace("$MAINPID", str(confined.process.pid)))
        until(lambda: confined.count("configuration reloaded") == 1, lambda: confined.log)

    def test_a_rolling_restart_loses_no_connection(self, confined):
        with Peer(f"ws://127.0.0.1:{confined.port}/ws", "alice") as peer:
            confined.process.send_signal(signal.SIGUSR2)
            until(lambda: confined.count("rolling restart done") == 1, lambda: confined.log)
            assert peer.ok("Ping")

    def test_it_ends_well_and_was_refused_nothing(self, confined):
        confined.process.send_signal(signal.SIGTERM)
        assert confined.process.wait(30) == 0, confined.log
        for refusal in ("not permitted", "Permission denied", "Read-only", "Traceback"):
            assert refusal not in confined.log, confined.log


KERNEL = ROOT / "deploy" / "sysctl" / "60-rtc.conf"
LINES = KERNEL.read_text().splitlines()
SETTINGS = dict(re.findall(r"^-?([\w.-]+) = (.+)$", KERNEL.read_text(), re.MULTILINE))


class TestKernelSettings:
    def test_each_has_its_reason(self):
        for number, line in enumerate(LINES):
            if line and not line.startswith("#"):
                assert re.fullmatch(r"-?[\w.-]+ = [\d ]+", line), line
                assert LINES[number - 1].startswith("# "), line

    def test_the_kernel_has_them(self):
        told = output_of("sysctl", "--dry-run", "-p", KERNEL).splitlines()
        assert told == [line.removeprefix("-") for line in LINES if line and not line.startswith("#")]
        optional = {line[1:].partition(" ")[0] for line in LINES if line.startswith("-")}
        for name in SETTINGS:
            assert name in optional or Path("/proc/sys", name.replace(".", "/")).exists(), name

    def test_they_fit_the_server_and_its_unit(self):
        loaded = config()
        assert int(SETTINGS["fs.nr_open"]) >= number_of("LimitNOFILE")
        first, last = map(int, SETTINGS["net.ipv4.ip_local_port_range"].split())
        assert not {loaded.server.port, loaded.monitoring.prometheus.port} & set(range(first, last + 1))
        forgets = int(SETTINGS["net.netfilter.nf_conntrack_tcp_timeout_established"])
        assert forgets > 4 * loaded.websocket.heartbeat_interval_secs
