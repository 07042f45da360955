"""FAULTS.md: Config: files that are broken or gone, at the start and at a reload; secrets that change."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.certificates import Authority
from serving.notices import lines, noticed, total
from serving.peer import Peer, unique_user
from serving.processes import ServerProcess, StartServer, ended_cleanly, free_port, merged
from serving.raw import exchange, upgrade
from serving.tokens import SECRET, token
from serving.witness import Witness

EX_CONFIG = 78
KEPT, TAKEN = "the configuration was not reloaded: all stays as it was", "configuration reloaded"
SUCCESS = "config_last_reload_successful"
OTHER = "the-secret-that-comes-after-it-0123456789abcdef"


def bearer(text: str) -> bytes:
    return upgrade(user=None, extra=(f"Authorization: Bearer {text}",))


@pytest.fixture(scope="module")
def lasting() -> Iterator[ServerProcess]:
    """One for all files that change nothing."""
    server = ServerProcess("product", free_port(), {"metrics": {"enabled": True, "port": free_port()}}, None)
    server.start()
    with ended_cleanly(server):
        yield server


class TestReload:
    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"metrics": {"enabled": True, "port": free_port()}}

    @pytest.mark.parametrize(
        "text",
        [
            "[server\nport = ",
            "",
            "\x00\xff",
            "no_such_key = 1\n",
            '[auth]\njwt_secret = "short"\n',
            '[auth]\njwt_secret = "${NO_SUCH_VARIABLE}"\n',
            "[websocket]\nmax_connections = -1\n",
        ],
        ids=["syntax", "empty", "binary", "unknown key", "short secret", "open variable", "range"],
    )
    def test_a_broken_file_changes_nothing(self, lasting: ServerProcess, text: str) -> None:
        server = lasting
        with Witness(server.url) as witness, Peer(server.url, unique_user()) as peer:
            server.configuration.write_bytes(text.encode("latin-1"))
            with noticed(server, KEPT, level="error") as found:
                server.hang_up()
            assert all(line["problem"] for line in found)
            assert total(server, SUCCESS) == 0
            peer.ok("Ping")
            assert exchange(server.port, bearer(token())).status == 101
            server.configure()
            with noticed(server, TAKEN):
                server.hang_up()
            assert total(server, SUCCESS) == 1
            witness.check()

    @pytest.mark.parametrize("gone", ["deleted", "directory", "too large"])
    def test_a_file_that_is_none_any_more(self, start_server: StartServer, settings: dict[str, Any], gone: str) -> None:
        server = start_server(settings)
        with Witness(server.url) as witness:
            before = server.resident_kib()
            server.configuration.unlink()
            if gone == "directory":
                server.configuration.mkdir()
            elif gone == "too large":
                with server.configuration.open("wb") as file:
                    file.truncate(1 << 30)
            with noticed(server, KEPT, level="error"):
                server.hang_up()
            assert server.resident_kib() - before < 16 * 1024
            assert exchange(server.port, bearer(token())).status == 101
            witness.check()

    def test_a_secret_that_changes_leaves_nobody_outside(
        self, start_server: StartServer, settings: dict[str, Any]
    ) -> None:
        server = start_server(settings)
        old = token("old")
        with Peer(server.url, token_text=old) as peer:
            assert exchange(server.port, bearer(token("new", key=OTHER))).status == 401
            server.configure(merged(settings, {"auth": {"jwt_secret": OTHER}}))
            with noticed(server, TAKEN):
                server.hang_up()
            peer.ok("Ping")
            assert exchange(server.port, bearer(old)).status == 101, (
                "tokens of the earlier secret are good until they end"
            )
            assert exchange(server.port, bearer(token("new", key=OTHER))).status == 101
            assert exchange(server.port, bearer(token("third", key="x" * 40))).status == 401
        assert SECRET not in server.log
        assert OTHER not in server.log

    def test_a_signal_before_there_is_somebody_to_take_it(self, start_server: StartServer) -> None:
        server = start_server()
        server.hang_up()  # as soon as the port is open
        with Peer(server.url, unique_user()) as peer:
            peer.ok("Ping")

    def test_a_storm_of_signals(self, start_server: StartServer, settings: dict[str, Any]) -> None:
        server = start_server(settings)
        with Witness(server.url) as witness:
            with noticed(server, TAKEN):
                for _ in range(200):
                    server.hang_up()
            witness.check()
            assert exchange(server.port, bearer(token())).status == 101


class TestFilesAtTheStart:
    @pytest.fixture
    def authority(self, tmp_path: Path) -> Authority:
        return Authority(tmp_path)

    def refused(self, tls: dict[str, Any], key: str) -> str:
        server = ServerProcess("product", free_port(), {"security": {"tls": {"enabled": True, **tls}}}, None)
        try:
            server.launch()
            assert server.wait() == EX_CONFIG
            assert f"security.tls.{key}" in server.log
            assert "Traceback" not in server.log
            return server.log
        finally:
            server.dispose()

    def test_certificate_missing(self, authority: Authority, tmp_path: Path) -> None:
        pair = authority.issue()
        self.refused({"cert_file": str(tmp_path / "none.pem"), "key_file": str(pair.key_file)}, "cert_file")

    def test_certificate_expired(self, authority: Authority) -> None:
        day = datetime.timedelta(days=1)
        pair = authority.issue(starts=-2 * day, ends=-day)
        assert "expired" in self.refused(
            {"cert_file": str(pair.cert_file), "key_file": str(pair.key_file)}, "cert_file"
        )

    def test_key_of_another(self, authority: Authority) -> None:
        pair, other = authority.issue("server"), authority.issue("other")
        self.refused({"cert_file": str(pair.cert_file), "key_file": str(other.key_file)}, "key_file")

    def test_key_is_a_directory(self, authority: Authority, tmp_path: Path) -> None:
        pair = authority.issue()
        self.refused({"cert_file": str(pair.cert_file), "key_file": str(tmp_path)}, "key_file")

    def test_configuration_unreadable(self) -> None:
        server = ServerProcess("product", free_port(), None, None, words=["--config=/proc/self/mem"])
        try:
            server.launch()
            assert server.wait() == EX_CONFIG
            assert "/proc/self/mem" in server.log
            assert "Traceback" not in server.log
        finally:
            server.dispose()

    def test_secret_of_an_unset_variable(self) -> None:
        server = ServerProcess("product", free_port(), {"auth": {"jwt_secret": "${NO_SUCH_SECRET}"}}, None)
        try:
            server.launch()
            assert server.wait() == EX_CONFIG
            assert "auth.jwt_secret" in server.log
        finally:
            server.dispose()


class TestCertificatesAtAReload:
    @pytest.fixture
    def server(self, start_server: StartServer, settings: dict[str, Any]) -> Iterator[ServerProcess]:
        yield start_server(settings, target="tls")

    @pytest.fixture
    def settings(self) -> dict[str, Any]:
        return {"metrics": {"enabled": True, "port": free_port()}}

    @pytest.mark.parametrize("key", ["cert_file", "key_file", "ca_file"])
    def test_a_file_that_is_gone_keeps_the_old_ones(
        self, server: ServerProcess, settings: dict[str, Any], key: str
    ) -> None:
        changes = {"security": {"tls": {key: "/nowhere/file.pem"}}}
        if key == "ca_file":
            changes["security"]["tls"]["client_auth"] = "required"
        end = total(server, "tls_certificate_expiry_timestamp_seconds")
        server.configure(merged(settings, changes))
        with noticed(server, KEPT, level="error") as found:
            server.hang_up()
        assert any(key in line["problem"] for line in found)
        with Peer(server.url, unique_user()) as peer:
            peer.ok("Ping")
        assert total(server, "tls_certificate_expiry_timestamp_seconds") == end


class TestChecksThatAreOff:
    """Loud warnings: at the start, and again at each reload."""

    @pytest.mark.parametrize("name", ["validate_issuer", "validate_audience", "validate_exp", "validate_nbf"])
    def test_of_tokens(self, start_server: StartServer, name: str) -> None:
        server = start_server({"auth": {name: False}})
        warnings = [line for line in lines(server.log) if line["level"] == "warn" and name in line["event"]]
        assert len(warnings) == 1
        with Peer(server.url, unique_user()), noticed(server, warnings[0]["event"], level="warn"):
            server.hang_up()

    def test_of_redis(self, start_server: StartServer) -> None:
        url = f"rediss://127.0.0.1:{free_port()}?ssl_cert_reqs=none"
        with_redis = {"redis": {"url": url}, "testing": {"use_in_memory_storage": False}}
        server = start_server(with_redis)
        assert any("is not verified" in line["event"] and line["level"] == "warn" for line in lines(server.log))

    def test_of_everything(self) -> None:
        server = ServerProcess(
            "product", free_port(), {"testing": {"bypass_auth": True}}, None, words=["--profile=prod"]
        )
        try:
            server.launch()
            assert server.wait() == EX_CONFIG
            assert "testing.bypass_auth" in server.log
        finally:
            server.dispose()
