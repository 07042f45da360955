"""More than anybody needs: sockets that do not authenticate, what grows when it is unpacked, names that collide."""

import gzip
import subprocess
import sys
import zlib
from collections.abc import Iterator

import lz4.frame
import pytest
import zstandard

from serving.asking import ask, bearer
from serving.networks import Network
from serving.notices import noticed, total
from serving.peer import Peer, unique, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.raw import BINARY, CONTINUATION, TEXT, RawSocket, envelope, frame, upgrade
from serving.witness import Witness

METRICS = {"enabled": True, "port": 0}
CUT = {"reason": "crowded_out"}
BOUND_OF_ADDRESS = "websocket.max_unauthenticated_per_address"


def crowd(port: int, count: int, **options: str) -> Iterator[RawSocket]:
    """So many who say nothing."""
    for _ in range(count):
        yield RawSocket(port, **options)


def still_open(sockets: list[RawSocket]) -> list[bool]:
    """Which of them the server has not ended."""
    found = []
    for raw in sockets:
        raw.socket.setblocking(False)
        try:
            found.append(raw.socket.recv(1) != b"")
        except BlockingIOError:
            found.append(True)
        except ConnectionResetError:
            found.append(False)
    return found


class TestUnauthenticated:
    def test_the_oldest_make_room(self, start_server: StartServer) -> None:
        server = start_server({"metrics": METRICS | {"port": free_port()}, "websocket": {"max_unauthenticated": 50}})
        with Witness(server.url) as witness:
            with noticed(server, "request refused", "connections_cut_total", CUT, status=503):
                sockets = list(crowd(server.port, 200))
                with Peer(server.url, unique_user()) as peer:
                    peer.ok("Ping")
            try:
                assert sum(still_open(sockets)) in (49, 50)
                assert still_open(sockets)[-49:] == [True] * 49, "the youngest stay"
                assert total(server, "connections_cut_total", **CUT) >= 150
            finally:
                for raw in sockets:
                    raw.socket.close()
            witness.check()

    def test_one_that_was_upgraded_is_told_why(self, start_server: StartServer) -> None:
        server = start_server({"websocket": {"max_unauthenticated": 1}})
        with RawSocket(server.port) as raw:
            raw.send(upgrade(user=None))
            assert raw.answer().status == 101
            with RawSocket(server.port):
                received = raw.frame()
            assert (received.close_code, received.payload[2:]) == (1013, b"websocket.max_unauthenticated is reached")

    def test_one_address_takes_nothing_from_others(self, start_server: StartServer) -> None:
        bounds = {"max_unauthenticated_per_address": 20}
        server = start_server({"server": {"host": "0.0.0.0"}, "websocket": bounds})
        with Network() as network, Witness(server.url) as witness:
            one, other = network.link().here, network.link().here
            patient = [RawSocket(server.port, host=other), *crowd(server.port, 30)]
            sockets = list(crowd(server.port, 100, host=one))
            try:
                with RawSocket(server.port, host=one) as raw:
                    raw.send(upgrade())
                    assert raw.answer().status == 101
                assert sum(still_open(sockets)) in (19, 20)
                assert all(still_open(patient)), "neither another address nor this machine"
            finally:
                for each in (*sockets, *patient):
                    each.socket.close()
            witness.check()

    def test_a_trusted_proxy_brings_as_many_as_it_likes(self, start_server: StartServer) -> None:
        with Network() as network:
            proxy = network.link().here
            server = start_server(
                {
                    "server": {"host": "0.0.0.0"},
                    "websocket": {"max_unauthenticated_per_address": 5},
                    "security": {"trusted_proxies": [proxy]},
                }
            )
            sockets = list(crowd(server.port, 50, host=proxy))
            with Peer(server.url, unique_user()) as peer:
                peer.ok("Ping")
            assert all(still_open(sockets))
            for raw in sockets:
                raw.socket.close()


HEALTH = b"GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n"
AS_USER = b"GET /api/topics HTTP/1.1\r\nHost: h\r\nAuthorization: %b\r\n\r\n"
UPLOAD = b"POST /api/publish HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n"


def kept(port: int, host: str, request: bytes = HEALTH) -> RawSocket:
    """A connection that has been answered one request, and stays."""
    raw = RawSocket(port, host=host)
    raw.send(request)
    assert raw.answer().status == 200
    return raw


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[str, str]]:
    """Two addresses that are neither this machine nor a proxy."""
    with Network() as network:
        yield network.link().here, network.link().here


class TestUnauthenticatedRequests:
    """What is kept open over HTTP by peers who have not authenticated."""

    @pytest.fixture
    def bounded(self, start_server: StartServer) -> ServerProcess:
        return start_server(
            {
                "metrics": METRICS | {"port": free_port()},
                "server": {"host": "0.0.0.0"},
                "websocket": {"max_unauthenticated_per_address": 5},
            }
        )

    def test_the_oldest_of_an_address_make_room(self, bounded: ServerProcess, site: tuple[str, str]) -> None:
        one, other = site
        port = bounded.port
        patient = [kept(port, other), *(kept(port, "127.0.0.1") for _ in range(10))]
        settled = [kept(port, one, AS_USER % bearer()["Authorization"].encode()) for _ in range(8)]
        with noticed(
            bounded, "HTTP request refused", "connections_cut_total", CUT, reason=f"{BOUND_OF_ADDRESS} is reached"
        ):
            sockets = [kept(port, one) for _ in range(30)]
        try:
            assert still_open(sockets) == [False] * 25 + [True] * 5
            assert all(still_open(patient)), "neither another address nor this machine"
            assert all(still_open(settled)), "who has authenticated is no newcomer"
        finally:
            for raw in (*sockets, *patient, *settled):
                raw.socket.close()

    def test_bodies_that_do_not_come(self, bounded: ServerProcess, site: tuple[str, str]) -> None:
        sockets = [RawSocket(bounded.port, host=site[0]) for _ in range(5)]
        for raw in sockets:
            raw.send(UPLOAD)
            assert raw.answer().status == 401
        last = kept(bounded.port, site[0])
        assert sockets[0].at_end()
        for raw in (last, *sockets):
            raw.socket.close()

    def test_event_streams_of_users_stay(self, bounded: ServerProcess, site: tuple[str, str]) -> None:
        stream = AS_USER.replace(b"/api/topics", b"/sse?topics=floods") % bearer()["Authorization"].encode()
        streams = []
        for _ in range(8):
            raw = RawSocket(bounded.port, host=site[0])
            raw.send(stream)
            assert raw.read_more()
            streams.append(raw)
        assert all(still_open(streams))
        for raw in streams:
            raw.socket.close()


BOMB = b'{"type":"Broadcast","topic":"bomb","payload":"' + b" " * 30_000_000 + b'"}'
PACKED = {
    "zstd": lambda: zstandard.ZstdCompressor(19).compress(BOMB),
    "lz4": lambda: lz4.frame.compress(BOMB),
    "gzip": lambda: gzip.compress(BOMB, 9),
}


@pytest.fixture(scope="module", params=PACKED)
def bomb(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """The name of a form, and 30 megabytes of nothing in it."""
    return request.param, PACKED[request.param]()


class TestBombs:
    @pytest.mark.parametrize("encoding", ["json", "msgpack"])
    def test_messages(self, victim: ServerProcess, bomb: tuple[str, bytes], encoding: str) -> None:
        form, packed = bomb
        before = victim.resident_kib()
        with RawSocket.upgraded(victim.port, subprotocol=f"rtc.v1.{encoding}+{form}") as raw:
            pieces = [packed[at : at + 60_000] for at in range(0, len(packed), 60_000)]
            for number, piece in enumerate(pieces):
                raw.send(frame(CONTINUATION if number else BINARY, piece, fin=number == len(pieces) - 1))
            assert raw.closed_with() == 1009
        assert victim.resident_kib() - before < 16 * 1024

    @pytest.mark.parametrize("form", PACKED)
    def test_before_authentication_there_are_64_kib(self, victim: ServerProcess, form: str) -> None:
        text = b'{"type":"Authenticate","token":"' + b"x" * 200_000 + b'"}'
        packed = {
            "zstd": zstandard.ZstdCompressor().compress(text),
            "lz4": lz4.frame.compress(text),
            "gzip": gzip.compress(text),
        }[form]
        with RawSocket(victim.port) as raw:
            raw.send(upgrade(user=None, subprotocol=f"rtc.v1.json+{form}") + frame(BINARY, packed))
            assert raw.answer().status == 101
            assert raw.closed_with() == 1009

    @pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
    def test_bodies_of_requests_are_not_unpacked(self, victim: ServerProcess, coding: str) -> None:
        packed = zlib.compress(b'{"topic":"bomb","payload":"' + b" " * 50_000_000 + b'"}', 9)
        before, spent = victim.resident_kib(), victim.cpu_secs()
        headers = bearer(unique_user()) | {"Content-Encoding": coding}
        answer = ask(victim.port, "POST", "/api/publish", headers, packed)
        assert answer.status in (400, 415, 422), answer
        assert victim.resident_kib() - before < 8 * 1024
        assert victim.cpu_secs() - spent < 0.5


DRAW = "from realtime_communication._core.base.table import siphash; print(siphash(b'room'), hash(b'room'))"


def test_nobody_knows_which_names_collide() -> None:
    """Tables of the data plane and Python's own hash under a key that each process draws."""
    command = [sys.executable, "-c", DRAW]
    one, other = (subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() for _ in range(2))
    assert one[0] != other[0]
    assert one[1] != other[1], "PYTHONHASHSEED is set"


def test_names_that_collide_elsewhere_cost_nothing_here(victim: ServerProcess) -> None:
    """Names of one hash under FNV-1a and under Java's and Python 2's multiplication by 31: topics, keys, members."""
    names = ["".join(("Aa", "BB")[number >> bit & 1] for bit in range(11)) for number in range(1 << 11)]
    with Peer(victim.url, unique_user()) as peer:
        before = victim.cpu_secs()
        mark = unique()
        for name in names:
            peer.send({"type": "Subscribe", "topic": f"{mark}{name}"})
            peer.send({"type": "Broadcast", "topic": mark, "payload": 1, "idempotency_key": name})
        members = ",".join(f'"{name}":1' for name in names)
        for _ in range(20):
            peer.send(f'{{"type":"Ping",{members}}}')
        peer.ok("Ping")
        assert victim.cpu_secs() - before < 2.0


def test_frames_that_drip_hold_nobody_up(victim: ServerProcess) -> None:
    """Many who send a message byte by byte before they have authenticated, and many who have."""
    message = frame(TEXT, b'{"type":"Ping","id":1,"filler":"' + b"x" * 100 + b'"}')
    known = [RawSocket.upgraded(victim.port) for _ in range(20)]
    strangers = [RawSocket(victim.port) for _ in range(20)]
    for raw in strangers:
        raw.send(upgrade(user=None))
        assert raw.answer().status == 101
    for at in range(len(message)):
        for raw in (*known, *strangers):
            raw.send(message[at : at + 1])
    for raw in known:
        assert raw.json()["type"] == "Pong"
        raw.socket.close()
    for raw in strangers:
        assert raw.json()["code"] == "unauthorized"
        raw.socket.close()


def test_envelopes_without_end_before_authentication(victim: ServerProcess) -> None:
    """A stranger's first message is bounded, and nothing behind it is kept."""
    before = victim.resident_kib()
    with RawSocket(victim.port) as raw:
        raw.send(upgrade(user=None))
        assert raw.answer().status == 101
        for number in range(40):
            raw.send(frame(CONTINUATION if number else TEXT, b"x" * 4000, fin=False))
        assert raw.closed_with() in (1008, 1009)
    with RawSocket(victim.port) as raw:
        attempt = envelope(type="Authenticate", id=1, token="wrong")
        raw.send(upgrade(user=None) + attempt + envelope(type="Ping") * 50_000)
        assert raw.answer().status == 101
        assert raw.json()["code"] == "unauthorized"
        assert raw.closed_with() == 4401
    assert victim.resident_kib() - before < 8 * 1024
