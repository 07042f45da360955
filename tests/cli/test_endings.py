"""How commands fail: one line, and a status."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from realtime_communication.cli.endings import INTERRUPTED, plain_endings, told
from realtime_communication.client.errors import (
    AuthenticationFailed,
    ClientClosed,
    ClientError,
    ConnectionLost,
    HandshakeRejected,
    ProtocolViolation,
    RequestError,
    RequestTimeout,
)
from serving.certificates import shared_authority
from serving.commands import as_user, complaint, environment, rtc
from serving.processes import ServerProcess, free_port
from serving.tokens import token
from serving.web import Handler, web_server

URL = "ws://h/ws"


@pytest.fixture(scope="module")
def tls_server() -> Iterator[ServerProcess]:
    process = ServerProcess("tls", free_port(), None, None)
    process.start()
    try:
        yield process
    finally:
        process.dispose()


class Pages(Handler):
    """A server that is none of ours, and has pages for every path."""

    def answer(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AuthenticationFailed("no"), "check RTC_TOKEN"),
        (HandshakeRejected("no", status=404), "ends with /ws"),
        (HandshakeRejected("no", status=418), "status 418"),
        (RequestError("forbidden", "topic: not yours"), "forbidden: topic: not yours"),
        (RequestError("rate_limited", "slow down", retry_after_ms=1500), "try again in 1.5 s"),
        (RequestTimeout("late"), "--timeout"),
        (ProtocolViolation("strange"), "no server of this kind"),
        (ConnectionLost("it went"), "it went"),
        (ClientClosed("over"), "over"),
    ],
)
def test_words(error: ClientError, words: str) -> None:
    text = told(error, URL)
    assert words in text and "\n" not in text


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (ConnectionRefusedError(111, "Connection refused"), "is the server running"),
        (socket.gaierror(-2, "Name or service not known"), "no host of the name"),
        (TimeoutError(110, "Connection timed out"), "cannot be reached: Connection timed out"),
        (OSError("odd"), "cannot be reached: odd"),
    ],
)
def test_words_for_what_the_system_says(cause: OSError, words: str) -> None:
    error = ConnectionLost("x")
    error.__cause__ = cause
    outer = ConnectionLost("within 3 s")
    outer.__cause__ = error
    assert words in told(error, URL) and words in told(outer, URL)


def test_ctrl_c() -> None:
    with pytest.raises(SystemExit) as caught, plain_endings(URL):
        raise KeyboardInterrupt
    assert caught.value.code == INTERRUPTED


def test_what_the_client_raises_is_a_failure_of_the_command() -> None:
    with pytest.raises(click.ClickException) as caught, plain_endings(URL):
        raise ProtocolViolation("strange")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("words", [("pub", "t", "1"), ("presence", "t"), ("top", "--once")], ids=lambda words: words[0])
def test_nobody_listens(words: tuple[str, ...]) -> None:
    env = environment(RTC_URL=f"ws://127.0.0.1:{free_port()}/ws", RTC_TOKEN="t")
    done = rtc(*words, env=env)
    assert done.returncode == 1 and "nothing listens at" in complaint(done)


@pytest.mark.parametrize("words", [("sub", "t"), ("history", "t"), ("top", "--once")], ids=lambda words: words[0])
def test_wrong_credentials(live_server: ServerProcess, words: tuple[str, ...]) -> None:
    done = rtc(*words, env=environment(RTC_URL=live_server.url, RTC_TOKEN="wrong"))
    assert done.returncode == 1 and "refused the credentials" in complaint(done)


@pytest.mark.parametrize(
    "words", [("sub", "t", "--history=1", "--count=1"), ("history", "t")], ids=lambda words: words[0]
)
def test_tls(tls_server: ServerProcess, words: tuple[str, ...]) -> None:
    env = as_user(tls_server)
    assert rtc("pub", "t", "1", f"--ca-file={shared_authority().ca_file}", env=env).returncode == 0
    done = rtc(*words, f"--ca-file={shared_authority().ca_file}", env=env)
    assert done.returncode == 0, done.stderr
    distrusting = rtc(*words, env=env)
    assert distrusting.returncode == 1 and "give its authority with --ca-file" in complaint(distrusting)
    plain = rtc(*words, env=env | {"RTC_URL": tls_server.url.replace("wss", "ws")})
    assert plain.returncode == 1 and complaint(plain)


@pytest.mark.parametrize("command", ["sub", "history"])
def test_tls_where_there_is_none(live_server: ServerProcess, command: str) -> None:
    done = rtc(command, "t", env=as_user(live_server) | {"RTC_URL": live_server.url.replace("ws:", "wss:")})
    assert done.returncode == 1 and "does not speak TLS" in complaint(done)


@pytest.mark.parametrize("command", ["sub", "history"])
def test_another_server_altogether(command: str) -> None:
    with web_server(Pages) as url:
        done = rtc(command, "t", env=environment(RTC_URL=url, RTC_TOKEN="t"))
    assert done.returncode == 1 and complaint(done)


def test_a_wrong_path(live_server: ServerProcess) -> None:
    done = rtc("sub", "t", env=as_user(live_server) | {"RTC_URL": live_server.http_url + "/prefix"})
    assert done.returncode == 1 and "ends with /ws" in complaint(done)


@pytest.mark.parametrize("url", ["nonsense", "http://h:99999", "ftp://h"])
def test_a_bad_url(url: str) -> None:
    done = rtc("sub", "t", f"--url={url}", env=environment(RTC_TOKEN="t"))
    assert done.returncode == 2 and "--url" in done.stderr.splitlines()[-1]


def test_the_reader_has_gone(live_server: ServerProcess, tmp_path: Path) -> None:
    env = as_user(live_server) | {"SCRIPT": str(Path(sys.executable).with_name("rtc"))}
    done = subprocess.run(
        ["bash", "-c", '"$SCRIPT" pub gone - < <(seq 100000) | head -1; echo ${PIPESTATUS[0]}'],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1] == "141" and done.stderr == ""


def test_credentials_are_in_no_message(live_server: ServerProcess) -> None:
    secret = token("alice", key="another-secret-that-the-server-does-not-have")
    done = rtc("pub", "t", "1", env=environment(RTC_URL=live_server.url, RTC_TOKEN=secret))
    assert secret not in done.stderr + done.stdout
