"""SIGHUP on a server process whose configuration file is broken: what is in force stays in force, as a whole."""

import contextlib
import re

import pytest

from serving.asking import ask, bearer, until
from serving.certificates import shared_authority
from serving.deployments import listening
from serving.peer import Peer
from serving.tokens import SECRET

REFUSED = "the configuration was not reloaded: all stays as it was"
PAIR, STRANGER = shared_authority().issue("reloaded"), shared_authority().issue("stranger")
HUSH = "hush-hush-hush-hush-hush-hush-hush-hush"

GOOD = {"websocket": {"max_connections": 50}, "rate_limiting": {"enabled": True}}
CHANGED = {"websocket": {"max_connections": 1}, "logging": {"level": "off"}, "auth": {"jwt_secret": HUSH}}
"""Good changes beside the broken one: none of them may come into force."""


@contextlib.contextmanager
def discreet():
    """A server that ends well and has not told its secrets."""
    with listening(GOOD) as made:
        yield made
        assert made.stop() == 0
        assert HUSH not in made.log and SECRET not in made.log


@pytest.fixture
def server():
    with discreet() as made:
        yield made


@pytest.fixture(scope="module")
def lasting():
    """One for all files that change nothing."""
    with discreet() as made:
        yield made


BROKEN = {
    "toml": ("\n[broken\n", [""]),
    "an unknown section": ("\n[websockets]\nmax_connections = 3\n", ["websockets"]),
    "an unknown key": ("\n[redis]\nmax_conections = 3\n", ["redis.max_conections"]),
    "a wrong type": ('\n[message_routing]\nenable_caching = "much"\n', ["message_routing.enable_caching"]),
    "out of range": ("\n[message_routing]\ncache_ttl_secs = -1\n", ["message_routing.cache_ttl_secs"]),
    "twice": ("\n[websocket]\nmax_frame_size = 4096\n", [""]),
    "a contradiction": ("\n[redis.pool]\nmin_idle = 11\n", ["redis.pool.min_idle"]),
    "two spellings that disagree": (
        "\n[circuit_breaker]\nhalf_open_max_requests = 1\nhalf_open_requests = 2\n",
        ["circuit_breaker.half_open"],
    ),
    "a key of another certificate": (
        f'\n[security.tls]\nenabled = true\ncert_file = "{PAIR.cert_file}"\nkey_file = "{STRANGER.key_file}"\n',
        ["security.tls.key_file"],
    ),
    "an unset variable": ('\n[redis]\nurl = "redis://:${NO_SUCH_VARIABLE}@localhost"\n', ["redis.url"]),
    "a secret that is too long": (
        f'\n[circuit_breaker.events]\nwebhook_secret = "{HUSH * 200}"\n',
        ["circuit_breaker.events.webhook_secret"],
    ),
    "several": (
        "\n[redis]\npool_size = 0\n\n[actor_system]\nmax_restarts = -1\n\n[message_routing]\nmax_cache_entries = 0\n",
        ["redis.pool_size", "actor_system.max_restarts", "message_routing.max_cache_entries"],
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_all_stays_as_it_was(lasting, case):
    text, keys = BROKEN[case]
    refused, reloaded = (len(lasting.events(event)) for event in (REFUSED, "configuration reloaded"))
    with Peer(lasting.url, "alice") as alice:
        before = ask(lasting.port, "GET", "/admin/config", bearer("root", roles=["admin"])).json["keys"]
        lasting.reload(CHANGED, text=text)
        lines = until(lambda: len(found := lasting.events(REFUSED)[refused:]) >= len(keys) and found)
        problems = [line["problem"] for line in lines]
        assert len(problems) == len(keys)
        for key in keys:
            (problem,) = [problem for problem in problems if key in problem]
            assert re.match(r"/\S+/config\.toml(:[0-9]+: |: .* \(at line [0-9]+, )", problem), "the file and the line"
        assert ask(lasting.port, "GET", "/admin/config", bearer("root", roles=["admin"])).json["keys"] == before
        assert alice.ok("Ping")
        with Peer(lasting.url, "bob") as bob:  # no fewer connections, no other secret
            assert bob.ok("Ping")
        lasting.reload(GOOD)
        until(lambda: len(lasting.events("configuration reloaded")) > reloaded)
        assert alice.ok("Ping")


def test_a_file_that_is_gone(server):
    server.reload(GOOD)
    until(lambda: server.events("configuration reloaded"))
    server.configuration.unlink()
    server.hang_up()
    (line,) = until(lambda: server.events(REFUSED))
    assert line["problem"].startswith(f"{server.configuration}: cannot be read: ")
    assert ask(server.port, "GET", "/health").status == 200


def test_many_signals_at_once(server):
    with Peer(server.url, "alice") as alice:
        for number in range(20):
            server.reload(GOOD | {"websocket": {"max_connections": 50 + number}})
        until(lambda: limit_of(server) == 69)
        assert alice.ok("Ping")


def limit_of(server):
    keys = ask(server.port, "GET", "/admin/config", bearer("root", roles=["admin"])).json["keys"]
    return keys["websocket.max_connections"]["value"]


def test_a_contradiction_with_what_needs_a_restart(serve, caplog):
    """The file is good by itself, but not with the values that stay until a restart."""
    section = {"enabled": True, "cert_file": str(PAIR.cert_file), "key_file": str(PAIR.key_file)}
    running = serve({"security": {"tls": section}})
    assert not running.reload({"security": {"tls": {"enabled": False, "cert_file": "", "key_file": ""}}})
    problems = [record.event_fields["problem"] for record in caplog.records if record.message == REFUSED]
    assert len(problems) == 2
    for problem in problems:
        assert re.match(r"/\S+/config\.toml:[0-9]+: security\.tls\.(cert|key)_file: ", problem)
    with running.peer() as alice:
        assert alice.ok("Ping")
