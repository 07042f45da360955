"""Who the client is: the rules one by one, and random chains of proxies against a plain model."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime_communication.http.forwarding import MAX_BYTES, MAX_HOPS, Client, TrustedProxies, client_of

TRUSTED = TrustedProxies(("10.0.0.0/8", "2001:db8:aaaa::/48", "192.0.2.1", "unix"))
PROXY, STRANGER = "10.0.0.1:5000", "203.0.113.9:5000"


def told(peer=PROXY, *, secure=False, trusted=TRUSTED, **headers):
    """What comes out for headers given as `x_forwarded_for="…"`; a list is several lines."""
    lines = []
    for name, values in headers.items():
        for value in values if isinstance(values, list) else [values]:
            lines.append((name.replace("_", "-").encode(), value.encode("latin-1")))
    return client_of(peer, lines, secure, trusted)


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("203.0.113.9:5000", "203.0.113.9"),
        ("203.0.113.9", "203.0.113.9"),
        ("[2001:db8::1]:5000", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("", ""),
        ("nonsense", ""),
    ],
)
@pytest.mark.parametrize("secure", [True, False])
def test_without_proxies_it_is_the_peer(peer, address, secure):
    assert told(peer, secure=secure, trusted=TrustedProxies(())) == Client(address, secure)


NUMBERS = st.integers(0, 300).map(str) | st.text("0123456789.:ax% \x00٣", max_size=3)


@given(st.lists(NUMBERS, min_size=3, max_size=5).map(".".join), st.just("") | st.text("0123456789:_a ²", max_size=7))
def test_the_short_cut_for_plain_peers_reads_what_the_rules_read(host, port):
    peer = f"{host}:{port}" if port else host
    # With a proxy that is far away the whole rules are used.
    assert told(peer, trusted=TrustedProxies(())) == told(peer, trusted=TrustedProxies(("192.0.2.77",)))


@pytest.mark.parametrize(
    "peer",
    ["1.2.3.4:", "1.2.3.4:80:80", "1.2.3.4:123456", "1.2.3.4:_x", "01.2.3.4", "1.2.3", "1.2.3.4\x00", "é:1", ":80"],
)
def test_peers_of_odd_forms_read_the_same(peer):
    assert told(peer, trusted=TrustedProxies(())) == told(peer, trusted=TrustedProxies(("192.0.2.77",)))


@pytest.mark.parametrize("peer", [STRANGER, "[2001:db8:bbbb::1]:1", "nonsense"])
def test_nobody_else_is_believed(peer):
    headers = {
        "x_forwarded_for": "1.1.1.1",
        "x_forwarded_proto": "https",
        "forwarded": "for=1.1.1.1;proto=https",
    }
    spoofed = told(peer, **headers)
    assert spoofed == told(peer)
    assert not spoofed.secure
    assert told("", trusted=TrustedProxies(("10.0.0.0/8",)), **headers) == Client("", False)


@pytest.mark.parametrize("peer", [PROXY, "[2001:db8:aaaa::7]:1", "192.0.2.1", "::ffff:10.1.2.3", ""])
def test_a_trusted_proxy_is_believed(peer):
    assert told(peer, x_forwarded_for="1.1.1.1", x_forwarded_proto="https") == Client("1.1.1.1", True)
    assert told(peer, forwarded="for=1.1.1.1;proto=https") == Client("1.1.1.1", True)


class TestXForwardedFor:
    @pytest.mark.parametrize(
        ("value", "address"),
        [
            ("1.1.1.1", "1.1.1.1"),
            ("6.6.6.6, 1.1.1.1", "1.1.1.1"),  # what is left of the client is its own invention
            ("6.6.6.6, 1.1.1.1, 10.0.0.2, 10.0.0.3", "1.1.1.1"),
            ("10.0.0.9, 10.0.0.2", "10.0.0.9"),  # a client inside the network of the proxies
            (["6.6.6.6", "1.1.1.1", "10.0.0.2"], "1.1.1.1"),
            ("1.1.1.1:4711", "1.1.1.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("::ffff:1.1.1.1", "1.1.1.1"),
            ('evil", 1.1.1.1', "1.1.1.1"),
            (",, 1.1.1.1 ,\t,", "1.1.1.1"),
            # The last that can be read counts.
            ("unknown", "10.0.0.1"),
            ("unknown, 10.0.0.2", "10.0.0.2"),
            ("1.1.1.1, 999.1.1.1", "10.0.0.1"),
            ("1.1.1.1, 10.0.0", "10.0.0.1"),
            ("1.1.1.1, 010.000.000.001", "10.0.0.1"),
            ("1.1.1.1, fe80::1%eth0", "10.0.0.1"),
            ("1.1.1.1, [10.0.0.2", "10.0.0.1"),
            ("1.1.1.1 10.0.0.2", "10.0.0.1"),
            ("1.1.1.1, \xff", "10.0.0.1"),
            ("", "10.0.0.1"),
            (",", "10.0.0.1"),
        ],
    )
    def test_address(self, value, address):
        assert told(x_forwarded_for=value).address == address

    @pytest.mark.parametrize(
        ("value", "secure"),
        [
            ("https", True),
            ("HTTPS", True),
            ("wss", True),
            ("http", False),
            ("http, https", True),  # the nearest proxy is the one to ask
            ("https, http", False),
            (["https", "http"], False),
            ("https!", False),
            ("", False),
        ],
    )
    def test_proto(self, value, secure):
        assert told(x_forwarded_for="1.1.1.1", x_forwarded_proto=value) == Client("1.1.1.1", secure)
        assert told(x_forwarded_proto=value) == Client("10.0.0.1", secure)

    def test_tls_up_to_here_counts_whatever_is_told(self):
        assert told(secure=True, x_forwarded_for="1.1.1.1", x_forwarded_proto="http") == Client("1.1.1.1", True)


class TestForwarded:
    @pytest.mark.parametrize(
        ("value", "client"),
        [
            ("for=1.1.1.1", Client("1.1.1.1", False)),
            ("For=1.1.1.1;Proto=HTTPS", Client("1.1.1.1", True)),
            ('for="1.1.1.1:4711";proto=https;by=10.0.0.1;host=example', Client("1.1.1.1", True)),
            ('for="[2001:db8::1]:4711";proto="https"', Client("2001:db8::1", True)),
            ('for="[2001:db8::1]:_port"', Client("2001:db8::1", False)),
            ('for="1.1\\.1.1";proto=https', Client("1.1.1.1", True)),
            # Whether a hop was encrypted is told by the proxy it reached; the client's own hop is the one that counts.
            ("for=6.6.6.6;proto=https, for=1.1.1.1;proto=http, for=10.0.0.2;proto=https", Client("1.1.1.1", False)),
            ("for=6.6.6.6;proto=http, for=1.1.1.1;proto=https, for=10.0.0.2;proto=http", Client("1.1.1.1", True)),
            # Who does not want to be known is not; its link still counts.
            ("for=unknown;proto=https", Client("10.0.0.1", True)),
            ("for=_hidden;proto=https, for=10.0.0.2;proto=http", Client("10.0.0.2", True)),
            ("proto=https", Client("10.0.0.1", True)),
            # Not what RFC 7239 allows.
            ("for=1.1.1.1;for=2.2.2.2", Client("10.0.0.1", False)),
            ("for=[2001:db8::1];proto=https", Client("10.0.0.1", False)),
            ("for=1.1.1.1:80;proto=https", Client("10.0.0.1", False)),
            ("for = 1.1.1.1", Client("10.0.0.1", False)),
            ("1.1.1.1;proto=https", Client("10.0.0.1", False)),
            ("", Client("10.0.0.1", False)),
        ],
    )
    def test_elements(self, value, client):
        assert told(forwarded=value) == client

    @pytest.mark.parametrize(
        "forged", ['for="', 'x="\\', 'for=6.6.6.6;proto=https, x="', "for=6.6.6.6;proto=https;", '"' * 101, "\\", ";"]
    )
    def test_what_a_client_leaves_open_does_not_swallow_what_the_proxy_adds(self, forged):
        for added in ("for=1.1.1.1;proto=http", 'for="1.1.1.1";by="_a,b"', 'by="a\\"b";for=1.1.1.1'):
            assert told(forwarded=f"{forged}, {added}") == Client("1.1.1.1", False)
            assert told(forwarded=[forged, added]) == Client("1.1.1.1", False)


class TestBothKinds:
    def test_they_may_agree(self):
        client = told(x_forwarded_for="1.1.1.1", x_forwarded_proto="https", forwarded="for=1.1.1.1;proto=https")
        assert client == Client("1.1.1.1", True)

    def test_one_of_them_may_be_the_clients_word(self):
        client = told(x_forwarded_for="1.1.1.1", x_forwarded_proto="http", forwarded="for=6.6.6.6;proto=https")
        assert client == Client("10.0.0.1", False)
        client = told(x_forwarded_for="6.6.6.6", x_forwarded_proto="https", forwarded="for=1.1.1.1;proto=http")
        assert client == Client("10.0.0.1", False)
        assert not told(x_forwarded_for="1.1.1.1", forwarded="proto=https").secure


class TestBounds:
    def test_hops(self):
        chain = ["1.1.1.1"] + ["10.0.0.2"] * (MAX_HOPS - 1)
        assert told(x_forwarded_for=", ".join(chain)).address == "1.1.1.1"
        assert told(x_forwarded_for=", ".join([*chain, "10.0.0.3"])).address == "10.0.0.2"

    def test_bytes_count_from_the_end(self):
        assert told(x_forwarded_for="6.6.6.6, " * 100_000 + "1.1.1.1").address == "1.1.1.1"
        assert told(x_forwarded_for="9" * MAX_BYTES + "1.1.1.1").address == "10.0.0.1"
        assert told(x_forwarded_for="1.1.1.1," + " " * MAX_BYTES).address == "10.0.0.1"
        assert told(x_forwarded_for=["1.1.1.1", " " * MAX_BYTES]).address == "10.0.0.1"

    def test_an_element_cut_in_two_is_none(self):
        padding = "," * (MAX_BYTES - 7)
        assert told(x_forwarded_for="81.1.1.1" + padding).address == "10.0.0.1"
        assert told(x_forwarded_for="1.1.1.1" + padding).address == "1.1.1.1"

    @pytest.mark.parametrize("filling", ['"', "\\", '\\"', ",", '",', "a=", "a=b;", 'a="', ":", "[", "1.", " "])
    def test_hostile_text_says_nothing(self, filling):
        # In quadratic time this would not come to an end.
        for name in ("forwarded", "x_forwarded_for", "x_forwarded_proto"):
            assert told(**{name: filling * 1_000_000}) == Client("10.0.0.1", False)


ADDRESSES = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["10.0.0.2", "10.0.0.3", "2001:db8:aaaa::1", "1.1.1.1", "8.8.8.8"]),
)
UNREADABLE = st.sampled_from(["unknown", "_hidden", "_", "x"])


def is_trusted(address):
    """By the text of the networks above, not by their code."""
    parsed = ipaddress.ip_address(address)
    if parsed.version == 6 and parsed.ipv4_mapped:
        parsed = parsed.ipv4_mapped
    text = parsed.exploded
    return text.startswith(("10.", "2001:0db8:aaaa:")) or text == "192.0.2.1"


def plain(address):
    parsed = ipaddress.ip_address(address)
    return str(parsed.ipv4_mapped or parsed) if parsed.version == 6 else str(parsed)


def model(hops):
    """The client among `hops`, nearest last: each (address or an unreadable text, encrypted)."""
    address, secure = "10.0.0.1", False
    for name, encrypted in hops[::-1][:MAX_HOPS]:
        secure = encrypted
        try:
            ipaddress.ip_address(name)
        except ValueError:
            break
        address = plain(name)
        if not is_trusted(name):
            break
    return Client(address, secure)


HOPS = st.lists(st.tuples(st.one_of(ADDRESSES, ADDRESSES, UNREADABLE), st.booleans()), min_size=1, max_size=40)


@given(HOPS, st.data())
def test_chains_of_x_forwarded_for(hops, data):
    lines, line = [], []
    for name, _ in hops:
        text = name
        if ":" in name and data.draw(st.booleans()):
            text = f"[{name}]" + data.draw(st.sampled_from(["", ":1", ":65535"]))
        line.append(text)
        if data.draw(st.booleans()):
            lines.append(data.draw(st.sampled_from([",", ", ", " ,,\t"])).join(line))
            line = []
    lines.append(", ".join(line))
    proto = data.draw(st.sampled_from([None, "http", "https"]))
    headers = {"x_forwarded_for": lines} | ({"x_forwarded_proto": proto} if proto else {})
    assert told(**headers) == Client(model(hops).address, proto == "https")


def element(name, encrypted, data):
    """A hop as an element of Forwarded, in one of the forms that are allowed."""
    port = data.draw(st.sampled_from(["", ":1", ":_p"]))
    node = (f"[{name}]" if ":" in name else name) + port
    quoted = ":" in node or data.draw(st.booleans())
    pairs = [f'for="{node}"' if quoted else f"for={node}", "proto=https" if encrypted else "proto=http"]
    if data.draw(st.booleans()):
        pairs.append(data.draw(st.sampled_from(["by=_me", 'host="a,b;c"', 'ext="\\\\"', 'ext="\\","', "secret=x"])))
    return ";".join(data.draw(st.permutations(pairs)))


@given(HOPS, st.data())
def test_chains_of_forwarded(hops, data):
    lines = [[]]
    for name, encrypted in hops:
        lines[-1].append(element(name, encrypted, data))
        if data.draw(st.booleans()):
            lines.append([])
    assert told(forwarded=[", ".join(line) for line in lines]) == model(hops)


@given(st.text(max_size=200), st.binary(max_size=300), st.binary(max_size=300), st.booleans())
def test_nothing_makes_it_fail(peer, first, second, secure):
    headers = [
        (b"x-forwarded-for", first),
        (b"forwarded", second),
        (b"x-forwarded-proto", second),
        (b"forwarded", first),
    ]
    client = client_of(peer, headers, secure, TRUSTED)
    assert client.secure or not secure
    if client.address:
        ipaddress.ip_address(client.address)


@given(st.binary(max_size=100))
def test_nothing_a_client_says_changes_what_its_proxy_said(said):
    for separator in (b",", b", "):
        headers = [(b"x-forwarded-for", said + separator + b"1.1.1.1"), (b"x-forwarded-proto", said + b",http")]
        assert client_of(PROXY, headers, False, TRUSTED) == Client("1.1.1.1", False)
        headers = [(b"forwarded", said + separator + b'for="[2001:db8::1]:80";proto=http')]
        assert client_of(PROXY, headers, False, TRUSTED) == Client("2001:db8::1", False)


def test_networks_are_checked():
    with pytest.raises(ValueError, match="nonsense"):
        TrustedProxies(("nonsense",))


def test_requests_are_seen_through_the_configuration(make_server, bearer, caplog):
    caplog.set_level("DEBUG", "realtime_communication")
    for trusted, address in (((), "127.0.0.1"), (("127.0.0.1",), "1.1.1.1")):
        server = make_server(changes={"security.trusted_proxies": trusted})
        server.request("GET", "/health", headers={"X-Forwarded-For": "1.1.1.1"})
        fields = [record.event_fields for record in caplog.records if record.message == "HTTP request"]
        assert fields[-1]["address"] == address
