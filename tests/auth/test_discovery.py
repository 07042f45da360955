"""Getting keys from a real issuer over HTTP, and from one that wants to lead the server astray."""

import asyncio
import socket

import pytest

from realtime_communication.auth.discovery import (
    MAX_KEY_SET_BYTES,
    AddressGuard,
    IssuerClient,
    _age_of,
    _keys_in,
    is_public,
)
from realtime_communication.auth.issuer_keys import FetchFailed
from serving.oidc_issuer import WELL_KNOWN


@pytest.fixture(autouse=True)
def well_again(issuer):
    yield
    issuer.control(mode="ok", key_mode="ok", cache_control="", discovery={}, further_keys=[])


def client(issuer, **options):
    return IssuerClient(issuer.url, **{"request_secs": 10.0, **options})


def fetched(issuer, **options):
    return asyncio.run(client(issuer, **options).fetch())


def refused(issuer, match, **options):
    before = issuer.counts()
    with pytest.raises(FetchFailed, match=match) as caught:
        fetched(issuer, **options)
    after = issuer.counts()
    return {path for path, count in after.items() if count != before.get(path, 0)}, str(caught.value)


def test_keys_of_every_kind(issuer):
    found = fetched(issuer)
    assert {key.algorithms for key in found.keys.keys.values()} == {("RS256",), ("ES256",), ("EdDSA",)}
    assert found.max_age_secs == 3600


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("max-age=120", 120),
        ("public, Max-Age=77, must-revalidate", 77),
        ('max-age="9"', 9),
        ("s-maxage=5", 3600),
        ("max-age=-1", 3600),
        ("max-age=x", 3600),
        ("", 3600),
        ("no-store, max-age=500", 0),
        ("no-cache", 0),
        ("max-age=99999999999999999999", 3600),
    ],
)
def test_how_long_an_answer_is_good_for(header, seconds):
    assert _age_of(header) == seconds


def test_the_header_is_read(issuer):
    issuer.control(cache_control="max-age=1234")
    assert fetched(issuer).max_age_secs == 1234


def test_discovery_is_kept_and_asked_again_after_a_failure(issuer):
    async def check():
        asked = client(issuer)
        before = issuer.counts().get(WELL_KNOWN, 0)
        await asked.fetch()
        await asked.fetch()
        assert issuer.counts()[WELL_KNOWN] == before + 1
        issuer.control(key_mode="500")
        with pytest.raises(FetchFailed):
            await asked.fetch()
        issuer.control(key_mode="ok")
        await asked.fetch()
        assert issuer.counts()[WELL_KNOWN] == before + 2

    asyncio.run(check())


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("500", "status 500"),
        ("redirect", "status 302"),
        ("hang", "in time"),
        ("big", "larger than"),
        ("garbage", "JSON"),
        ("gzip", "compressed"),
    ],
)
def test_an_issuer_that_misbehaves(issuer, mode, reason):
    options = {"request_secs": 0.5} if mode == "hang" else {}
    issuer.control(mode=mode)
    assert refused(issuer, reason, **options)[0] == {WELL_KNOWN}
    issuer.control(mode="ok", key_mode=mode)
    assert refused(issuer, reason, **options)[0] == {WELL_KNOWN, "/jwks"}


def test_the_bound_of_a_key_set(issuer):
    issuer.control(further_keys=[{"kty": "oct", "k": "x" * (MAX_KEY_SET_BYTES - 10_000)}])
    assert len(fetched(issuer).keys.keys) == 3
    issuer.control(further_keys=[{"kty": "oct", "k": "x" * MAX_KEY_SET_BYTES}])
    refused(issuer, "larger than 524288 bytes")


@pytest.mark.parametrize("change", ["/", "x", "other", None, 7])
def test_the_issuer_must_be_the_one_that_was_asked(issuer, change):
    named = issuer.url + change if change in ("/", "x") else change
    issuer.control(discovery={"issuer": named})
    assert refused(issuer, "another `issuer`")[0] == {WELL_KNOWN}


@pytest.mark.parametrize(
    "address",
    [
        *(
            None,
            7,
            "",
            "jwks",
            "/jwks",
            "//host/jwks",
            "file:///etc/passwd",
            "ftp://127.0.0.1/x",
            "http://",
            "http://[::1",
        ),
        *("http://127.0.0.1:0/jwks", "http://127.0.0.1:99999/", "http://u:p@127.0.0.1/jwks", "http://127.0.0.1 /jwks"),
        *("http://é.example/", "http://127.0.0.1/\r\nX: y"),
    ],
)
def test_addresses_that_are_none(issuer, address):
    issuer.control(discovery={"jwks_uri": address})
    refused(issuer, "jwks_uri")


@pytest.mark.parametrize(
    "host",
    [
        *(
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "127.0.0.2",
            "100.64.0.1",
            "224.0.0.1",
        ),
        *("[::1]", "[fe80::1]", "[fd00::1]", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]", "[::]"),
    ],
)
def test_private_addresses_are_never_asked(issuer, host):
    issuer.control(discovery={"jwks_uri": f"http://{host}:{issuer.port}/jwks"})
    assert refused(issuer, "private")[0] == {WELL_KNOWN}


def test_a_name_with_one_private_address_is_refused(issuer, monkeypatch):
    """Every address is looked at: a second, private one would else be tried when the first does not answer."""
    real = asyncio.BaseEventLoop.getaddrinfo

    async def resolve(self, host, port, **options):
        if host != "keys.example":
            return await real(self, host, port, **options)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("93.184.215.14", "10.0.0.1")
        ]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", resolve)
    issuer.control(discovery={"jwks_uri": f"http://keys.example:{issuer.port}/jwks"})
    assert refused(issuer, "private")[0] == {WELL_KNOWN}


def test_another_name_of_the_issuers_own_address_is_allowed(issuer):
    issuer.control(discovery={"jwks_uri": f"http://localhost:{issuer.port}/jwks"})
    # `localhost` may be ::1 too, which 127.0.0.1 is not.
    addresses = {found[4][0] for found in socket.getaddrinfo("localhost", issuer.port, type=socket.SOCK_STREAM)}
    if addresses == {"127.0.0.1"}:
        assert len(fetched(issuer).keys.keys) == 3
    else:
        refused(issuer, "private")


@pytest.mark.parametrize("entries", ["[]", '[{"kty":"oct","k":"AAAA","kid":"k1"}]'])
def test_a_set_without_a_usable_key_replaces_nothing(entries):
    with pytest.raises(FetchFailed, match="no key"):
        _keys_in(f'{{"keys":{entries}}}'.encode())


def test_nobody_there():
    with pytest.raises(FetchFailed, match="cannot be fetched"):
        asyncio.run(IssuerClient("http://127.0.0.1:1").fetch())


def test_https_only_for_the_keys_of_an_https_issuer():
    body = b'{"issuer":"https://issuer.example","jwks_uri":"http://issuer.example/jwks"}'
    with pytest.raises(FetchFailed, match="https"):
        IssuerClient("https://issuer.example")._key_set_address(body)


def test_a_slash_at_the_end_of_the_issuer(issuer):
    issuer.control(discovery={"issuer": issuer.url + "/"})
    assert len(asyncio.run(IssuerClient(issuer.url + "/").fetch()).keys.keys) == 3


def test_reasons_repeat_nothing_that_was_sent(issuer):
    issuer.control(discovery={"jwks_uri": "http://10.0.0.1/hunter2"})
    assert "hunter2" not in refused(issuer, "private")[1]


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("::ffff:93.184.215.14", True),
        ("127.0.0.1", False),
        ("fe80::1%eth0", False),
        ("203.0.113.5", False),
        ("no address", False),
    ],
)
def test_public_addresses(address, public):
    assert is_public(address) is public


def test_the_guard_finds_nothing_for_a_name_that_does_not_exist():
    with pytest.raises(OSError):
        asyncio.run(AddressGuard("127.0.0.1").resolve("no-such-name.invalid"))
