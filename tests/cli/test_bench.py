"""`bench` against the real server, and against one that loses, doubles and swaps messages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from realtime_communication.cli.bench import bench
from serving.certificates import shared_authority
from serving.processes import ServerProcess, free_port
from serving.tokens import SECRET, token

MODES = ("fanout", "latency", "echo", "direct", "connect", "idle")
RELAY = Path(__file__).parents[1] / "benchmarks" / "faulty_relay.py"
SHORT = ("--connections=10", "--seconds=0.3", "--warmup=0.05", "--rate=100")
TIMED = ("fanout", "latency", "echo", "direct")


@contextmanager
def started(name: str) -> Iterator[ServerProcess]:
    settings = {"rate_limiting": {"enabled": False}, "actor_system": {"mailbox_capacity": 10_000}}
    process = ServerProcess(name, free_port(), settings, None)
    process.start()
    try:
        yield process
    finally:
        process.stop()
        process.dispose()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with started("product") as process:
        yield process


@pytest.fixture(scope="module")
def tls_server() -> Iterator[ServerProcess]:
    with started("tls") as process:
        yield process


@contextmanager
def relay(fault: str) -> Iterator[str]:
    with subprocess.Popen([sys.executable, RELAY, fault, "rtc"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"ws://127.0.0.1:{int(process.stdout.readline())}/ws"
        finally:
            process.kill()


def run(mode: str, url: str, *words: str, **variables: str) -> Result:
    """One run in this process; only a KeyboardInterrupt or a mistake would come out of it as an exception."""
    known = [word for word in SHORT if not (word.startswith("--rate") and mode != "latency")]
    if mode in ("connect", "idle"):
        known = [word for word in known if "warmup" not in word and not (mode == "connect" and "seconds" in word)]
    runner = CliRunner(env=dict.fromkeys(("RTC_BENCH_SECRET", "RTC_BENCH_TOKEN", "RTC_BENCH_API_KEY")))
    return runner.invoke(bench, [mode, f"--url={url}", *known, *words], env=variables or None, catch_exceptions=False)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_sound_and_reports(server: ServerProcess, tmp_path: Path, mode: str) -> None:
    files = (f"--json={tmp_path / 'run.json'}", f"--html={tmp_path / 'run.html'}")
    done = run(mode, server.url, *files, RTC_BENCH_SECRET=SECRET)
    assert done.exit_code == 0, done.output
    assert "sound: nothing lost" in done.stdout
    report = json.loads((tmp_path / "run.json").read_text())
    assert (report["mode"], report["sound"], report["problems"]) == (mode, True, {})
    assert report["rate"] > 0
    if mode in TIMED:
        result = report["result"]
        assert 0 < result["p50_us"] <= result["p99_us"] <= result["p999_us"] <= result["max_us"]
        assert sum(count for _, count in result["buckets"]) > 0
        assert any(point["measuring"] and point["rate"] > 0 for point in report["series"])
    page = (tmp_path / "run.html").read_text()
    assert page.startswith("<!doctype html>") and ("<svg" in page) == (mode != "connect")
    for text in (done.output, page, json.dumps(report)):
        assert SECRET not in text


@pytest.mark.parametrize("bytes_", ["24", "20000"])
@pytest.mark.parametrize("mode", ["fanout", "echo", "direct"])
def test_payloads_of_any_size(server: ServerProcess, tmp_path: Path, mode: str, bytes_: str) -> None:
    done = run(mode, server.url, f"--message-bytes={bytes_}", f"--json={tmp_path / 'r'}", RTC_BENCH_SECRET=SECRET)
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "r").read_text())["result"]
    assert result["bytes"] >= result["deliveries"] * int(bytes_) > 0


def test_a_name_of_the_host(server: ServerProcess) -> None:
    done = run("echo", f"ws://localhost:{server.port}/ws", RTC_BENCH_SECRET=SECRET)
    assert done.exit_code == 0, done.output


def test_a_secret_and_tokens_from_files(server: ServerProcess, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    (tmp_path / "tokens").write_text(f"{token('alice')}\n{token('bob')}\n")
    for option in (f"--secret-file={tmp_path / 'secret'}", f"--token-file={tmp_path / 'tokens'}"):
        done = run("fanout", server.url, option)
        assert done.exit_code == 0, done.output


def test_one_token_for_all(server: ServerProcess) -> None:
    done = run("echo", server.url, f"--token={token('carol')}", "--connections=2")
    assert done.exit_code == 0, done.output


def test_topics_that_are_shared_or_none(server: ServerProcess) -> None:
    for topics in ("0", "3"):
        assert run("connect", server.url, f"--topics={topics}", RTC_BENCH_SECRET=SECRET).exit_code == 0


@pytest.mark.parametrize("words", [(), ("--token=nonsense",), ("--secret=" + "x" * 32,), ("--api-key=wrong",)])
def test_credentials_that_the_server_refuses(server: ServerProcess, words: tuple[str, ...]) -> None:
    done = run("connect", server.url, *words)
    assert done.exit_code == 1
    assert "first error: " in done.stdout and "the server wants other credentials" in done.stdout


@pytest.mark.parametrize(("fault", "problem"), [("lose", "gaps"), ("double", "duplicates"), ("swap", "disorder")])
def test_a_server_that_is_not_sound(tmp_path: Path, fault: str, problem: str) -> None:
    with relay(fault) as url:
        done = run("fanout", url, f"--json={tmp_path / 'r'}", "--in-flight=30")
    assert done.exit_code == 1
    assert "unsound, the figures do not count" in done.stdout and problem in done.stdout
    report = json.loads((tmp_path / "r").read_text())
    assert report["sound"] is False and report["problems"][problem] > 0


def test_the_same_server_without_a_fault() -> None:
    with relay("none") as url:
        done = run("fanout", url)
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("mode", "words", "why"),
    [
        ("fanout", ("--connections=0",), "'--connections': 0 is not in the range 1<=x<=100000"),
        ("fanout", ("--in-flight=40000",), "'--in-flight': 40000 is not in the range 1<=x<=32768"),
        ("fanout", ("--message-bytes=23",), "'--message-bytes': 23 is not in the range 24<=x<=1048576"),
        ("fanout", ("--seconds=0",), "'--seconds': 0.0 is not in the range 0.1<=x<=3600.0"),
        ("echo", ("--warmup=-1",), "'--warmup': -1.0 is not in the range"),
        ("latency", ("--rate=0",), "'--rate': 0.0 is not in the range"),
        ("connect", ("--topics=-1",), "'--topics': -1 is not in the range"),
        ("connect", ("--in-flight=1",), "No such option"),
        ("idle", ("--topic=a b",), "'--topic': must be 1 to 200 printable ASCII"),
        ("idle", ("--topic=" + "a" * 201,), "'--topic': must be 1 to 200 printable ASCII"),
        ("direct", ("--connections=3",), "'--connections': must be even"),
        ("direct", ("--token=abc",), "direct needs a secret"),
        ("direct", (), "direct needs a secret"),
        ("echo", ("--token=a", "--api-key=b"), "give one of"),
        ("echo", ("--secret=short",), "has 5 bytes; at least 32"),
        ("echo", ("--token-file=/nowhere/tokens",), "does not exist"),
        ("echo", ("--html=/nowhere/run.html",), "there is no folder /nowhere"),
        ("echo", ("--insecure",), "they need a URL of wss"),
        ("echo", ("--ca-file=/nowhere/ca.pem",), "does not exist"),
    ],
)
def test_wrong_use(mode: str, words: tuple[str, ...], why: str) -> None:
    done = run(mode, "ws://127.0.0.1:1/ws", *words)
    assert done.exit_code == 2
    assert why in " ".join(done.stderr.split())


class TestOverTls:
    TRUST = f"--ca-file={shared_authority().ca_file}"

    @pytest.mark.parametrize("mode", MODES)
    def test_every_mode_is_sound(self, tls_server: ServerProcess, mode: str) -> None:
        done = run(mode, tls_server.url, self.TRUST, RTC_BENCH_SECRET=SECRET)
        assert done.exit_code == 0, done.output
        assert f"rtc bench {mode}  wss://" in done.stdout and "sound: nothing lost" in done.stdout

    @pytest.mark.parametrize("bytes_", ["24", "50000"])
    @pytest.mark.parametrize("mode", ["fanout", "echo"])
    def test_payloads_of_any_size(self, tls_server: ServerProcess, tmp_path: Path, mode: str, bytes_: str) -> None:
        words = (self.TRUST, f"--message-bytes={bytes_}", f"--json={tmp_path / 'r'}")
        done = run(mode, tls_server.url, *words, RTC_BENCH_SECRET=SECRET)
        assert done.exit_code == 0, done.output
        result = json.loads((tmp_path / "r").read_text())["result"]
        assert result["bytes"] >= result["deliveries"] * int(bytes_) > 0

    def test_a_certificate_that_nobody_vouches_for(self, tls_server: ServerProcess) -> None:
        done = run("echo", tls_server.url, RTC_BENCH_SECRET=SECRET)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "the certificate is not accepted" in done.stderr and done.stderr.count("\n") == 1
        done = run("echo", tls_server.url, "--insecure", RTC_BENCH_SECRET=SECRET)
        assert done.exit_code == 0, done.output

    def test_a_server_that_speaks_no_tls(self, server: ServerProcess) -> None:
        done = run("echo", server.url.replace("ws:", "wss:"), self.TRUST)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "no TLS with this server: " in done.stderr and done.stderr.count("\n") == 1

    def test_a_server_that_speaks_nothing_else(self, tls_server: ServerProcess) -> None:
        done = run("echo", tls_server.url.replace("wss:", "ws:"), RTC_BENCH_SECRET=SECRET)
        assert done.exit_code == 1
        assert "upgrade refused: HTTP/1.1 400" in done.stdout

    def test_without_openssl(self, tls_server: ServerProcess, tmp_path: Path) -> None:
        for name in ("libssl.so.3", "libssl.so.1.1"):
            (tmp_path / name).write_text("no library\n")
        done = run("echo", tls_server.url, self.TRUST, RTC_BENCH_SECRET=SECRET, LD_LIBRARY_PATH=str(tmp_path))
        assert (done.exit_code, done.stdout) == (1, "")
        last = done.stderr.splitlines()[-1]
        assert last.endswith("TLS needs OpenSSL's library libssl.so.3, which was not found (Debian: libssl3)")


def test_a_server_that_is_not_there() -> None:
    done = run("echo", f"ws://127.0.0.1:{free_port()}/ws")
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.endswith("cannot be reached: Connection refused\n")
