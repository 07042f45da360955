"""The transport of HTTP over TLS: in memory, on a socket pair, and under the application."""

import asyncio
import contextlib
import json
import socket
import ssl

import pytest

from realtime_communication._core.io.tls_connection import TlsStream
from realtime_communication.http.tls_transport import HIGH_WATER, RECORD_BYTES, Sealed, TlsTransport, last_words
from serving.certificates import shared_authority, shared_server


def handshake(version=ssl.TLSVersion.TLSv1_3, server_out=None):
    """The state of a server behind its handshake, and the client with its two BIOs."""
    server_in, server_out = ssl.MemoryBIO(), server_out or ssl.MemoryBIO()
    context = shared_authority().client_context()
    context.maximum_version = version
    server_context = shared_authority().server_context(shared_server())
    server = server_context.wrap_bio(server_in, server_out, server_side=True)
    client_in, client_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(client_in, client_out, server_hostname="localhost")
    waiting = [client, server]
    while waiting:
        side = waiting.pop(0)
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            waiting.append(side)
        server_in.write(client_out.read())
        client_in.write(server_out.read())
    return TlsStream(server, server_in, server_out), client, client_in, client_out


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def version(request):
    return request.param


class TestSealed:
    def test_both_directions(self, version):
        stream, client, client_in, client_out = handshake(version)
        sealed = Sealed(stream)
        client.write(b"question")
        assert sealed.receive(client_out.read()) == b"question"
        assert sealed.seal(memoryview(b"answer")) == 6
        data = bytes(sealed.next_bytes())
        sealed.sent(3)
        assert bytes(sealed.next_bytes()) == data[3:]
        assert sealed.pending == len(data) - 3
        sealed.sent(len(data) - 3)
        assert sealed.pending == 0 and not sealed.next_bytes()
        client_in.write(data)
        assert client.read() == b"answer"

    def test_input_in_pieces_of_one_byte(self, version):
        stream, client, _, client_out = handshake(version)
        sealed = Sealed(stream)
        client.write(b"question")
        pieces = [sealed.receive(bytes([byte])) for byte in client_out.read()]
        assert pieces[-1] == b"question" and not any(pieces[:-1])

    def test_many_records_at_once(self, version):
        stream, client, _, client_out = handshake(version)
        for _ in range(5):
            client.write(bytes(RECORD_BYTES))
        assert len(Sealed(stream).receive(client_out.read())) == 5 * RECORD_BYTES

    def test_no_more_than_a_record_is_sealed_at_a_time(self, version):
        assert Sealed(handshake(version)[0]).seal(memoryview(bytes(100_000))) == RECORD_BYTES

    def test_the_peers_end_behind_its_last_bytes(self, version):
        stream, client, _, client_out = handshake(version)
        sealed = Sealed(stream)
        client.write(b"last")
        with contextlib.suppress(ssl.SSLWantReadError):
            client.unwrap()
        assert sealed.receive(client_out.read()) == b"last"
        assert sealed.ended
        assert sealed.receive(b"") == b""

    def test_our_end_is_said_once(self, version):
        stream, client, client_in, _ = handshake(version)
        sealed = Sealed(stream)
        sealed.notify()
        size = sealed.pending
        sealed.notify()
        assert sealed.pending == size > 0
        client_in.write(bytes(sealed.next_bytes()))
        assert client.read() == b""

    def test_broken_records_are_an_error(self, version):
        with pytest.raises(ssl.SSLError):
            Sealed(handshake(version)[0]).receive(b"\x17\x03\x03\x00\x20" + bytes(32))

    def test_a_peer_that_asks_for_new_keys_without_end(self):
        stream, *_ = handshake()

        class Asked:
            """Answers whatever comes, as OpenSSL answers a KeyUpdate."""

            def read(self, size):
                stream.outgoing.write(bytes(1000))
                raise ssl.SSLWantReadError

        sealed = Sealed(TlsStream(Asked(), stream.incoming, stream.outgoing))
        for _ in range(4):
            assert sealed.receive(b"x") == b""
        with pytest.raises(ssl.SSLError, match="too many updates of keys"):
            sealed.receive(b"x")

    def test_what_the_reactor_could_not_send_goes_first(self):
        stream, client, client_in, _ = handshake()
        stream.ssl_object.write(b"first")
        sealed = Sealed(TlsStream(stream.ssl_object, stream.incoming, stream.outgoing, stream.outgoing.read()))
        first = bytes(sealed.next_bytes())
        sealed.sent(len(first))
        sealed.seal(memoryview(b"second"))
        client_in.write(first + bytes(sealed.next_bytes()))
        assert client.read() + client.read() == b"firstsecond"

    def test_what_is_sealed_for_one_never_leaves_through_another(self, version):
        """OpenSSL writes into one BIO for all connections."""
        shared = ssl.MemoryBIO()
        made = [handshake(version, shared) for _ in range(3)]
        several = [Sealed(stream) for stream, *_ in made]
        for number, sealed in enumerate(several):
            sealed.seal(memoryview(b"for %d" % number))
        with pytest.raises(ssl.SSLError):
            several[0].receive(b"\x17\x03\x03\x00\x20" + bytes(32))  # which is answered by an alert
        several[1].notify()
        several[2].seal(memoryview(b", more"))
        assert not shared.pending
        for sealed, (_, _, client_in, _) in zip(several, made, strict=True):
            client_in.write(bytes(sealed.next_bytes()))
        assert [client.read() for _, client, *_ in made] == [b"for 0", b"for 1", b"for 2"]
        with pytest.raises(ssl.SSLError, match=r"(?i)alert bad record mac"):
            made[0][1].read()
        assert (made[1][1].read(), made[2][1].read()) == (b"", b", more")

    def test_last_words(self, version):
        stream, client, client_in, _ = handshake(version)
        client_in.write(last_words(stream, b"full"))
        assert client.read() == b"full"
        assert client.read() == b""


class Recorder(asyncio.Protocol):
    """Remembers what its transport told it."""

    def __init__(self, keep_open=False):
        self.events = []
        self.data = b""
        self.lost = asyncio.get_running_loop().create_future()
        self.keep_open = keep_open

    def connection_made(self, transport):
        self.transport = transport
        self.events.append("made")

    def data_received(self, data):
        self.data += data

    def eof_received(self):
        self.events.append("eof")
        return self.keep_open

    def pause_writing(self):
        self.events.append("pause")

    def resume_writing(self):
        self.events.append("resume")

    def connection_lost(self, exc):
        self.events.append("lost")
        self.lost.set_result(exc)


class Client:
    """The other end of the socket, in the same loop."""

    def __init__(self, sock, client, client_in, client_out):
        self.sock, self.tls, self._in, self._out = sock, client, client_in, client_out
        self._loop = asyncio.get_running_loop()

    async def send(self, data):
        self.tls.write(data)
        await self._loop.sock_sendall(self.sock, self._out.read())

    async def notify(self):
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self._loop.sock_sendall(self.sock, self._out.read())

    async def receive(self, size=1 << 16):
        """b"" behind close_notify. Raises EOFError when the stream ends without it."""
        while True:
            try:
                return self.tls.read(size)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                if not (data := await self._loop.sock_recv(self.sock, 1 << 16)):
                    raise EOFError from None
                self._in.write(data)

    async def receive_all(self, size):
        data = bytearray()
        while len(data) < size:
            data += await self.receive()
        return bytes(data)


def connected(test):
    """Runs `test(transport, protocol, client)` in a loop of its own; nothing may be left behind."""

    async def main():
        errors = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: errors.append(context))
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        stream, *client = handshake()
        protocol = Recorder()
        with theirs:
            transport = TlsTransport(loop, ours, stream, protocol)
            async with asyncio.timeout(20):
                await test(transport, protocol, Client(theirs, *client))
                transport.abort()
                await protocol.lost
        assert ours.fileno() == -1
        assert errors == []

    asyncio.run(main())


class TestTransport:
    def test_both_directions(self):
        async def test(transport, protocol, client):
            await client.send(b"question")
            while not protocol.data:
                await asyncio.sleep(0)
            assert protocol.data == b"question"
            transport.write(b"ans")
            transport.writelines([b"w", b"er"])
            assert await client.receive_all(6) == b"answer"
            assert protocol.events == ["made"]

        connected(test)

    def test_what_it_tells_of_itself(self):
        async def test(transport, protocol, client):
            assert isinstance(transport.get_extra_info("sslcontext"), ssl.SSLContext)
            assert transport.get_extra_info("ssl_object").version() == "TLSv1.3"
            assert transport.get_extra_info("socket").fileno() >= 0
            assert transport.get_extra_info("peername") is not None
            assert transport.get_extra_info("no such thing", 7) == 7
            assert transport.get_protocol() is protocol
            assert transport.is_reading() and not transport.is_closing()

        connected(test)

    def test_a_peer_that_reads_slowly_gets_everything_and_pauses_the_writer(self):
        async def test(transport, protocol, client):
            sent = bytes(range(256)) * 8192
            transport.write(sent)
            assert protocol.events == ["made", "pause"]
            assert transport.get_write_buffer_size() > HIGH_WATER
            received = bytearray()
            while len(received) < len(sent):
                received += await client.receive(1000)
            assert received == sent
            assert protocol.events == ["made", "pause", "resume"]
            assert transport.get_write_buffer_size() == 0

        connected(test)

    def test_limits_of_the_write_buffer(self):
        async def test(transport, protocol, client):
            transport.set_write_buffer_limits(high=0)
            assert transport.get_write_buffer_limits() == (0, 0)
            transport.set_write_buffer_limits(low=100)
            assert transport.get_write_buffer_limits() == (100, 400)
            with pytest.raises(ValueError, match="at least low"):
                transport.set_write_buffer_limits(high=1, low=2)

        connected(test)

    def test_a_paused_protocol_gets_nothing_until_it_goes_on(self):
        async def test(transport, protocol, client):
            transport.pause_reading()
            await client.send(b"question")
            for _ in range(10):
                await asyncio.sleep(0)
            assert protocol.data == b""
            assert not transport.is_reading()
            transport.resume_reading()
            while not protocol.data:
                await asyncio.sleep(0)
            assert protocol.data == b"question"

        connected(test)

    def test_close_sends_what_waits_and_close_notify(self):
        async def test(transport, protocol, client):
            transport.write(bytes(300_000))
            transport.close()
            transport.close()
            transport.write(b"too late")
            assert transport.is_closing()
            assert len(await client.receive_all(300_000)) == 300_000
            assert await client.receive() == b""
            assert await protocol.lost is None

        connected(test)

    def test_write_eof_leaves_the_other_direction_open(self):
        async def test(transport, protocol, client):
            assert transport.can_write_eof()
            transport.write(b"all")
            transport.write_eof()
            with pytest.raises(RuntimeError):
                transport.write(b"more")
            assert await client.receive_all(3) == b"all"
            assert await client.receive() == b""
            await client.send(b"still heard")
            while not protocol.data:
                await asyncio.sleep(0)
            assert protocol.data == b"still heard"
            assert protocol.events == ["made"]

        connected(test)

    def test_the_end_of_the_peer_closes(self):
        async def test(transport, protocol, client):
            await client.send(b"last")
            await client.notify()
            assert await client.receive() == b""
            assert await protocol.lost is None
            assert protocol.data == b"last"
            assert protocol.events == ["made", "eof", "lost"]

        connected(test)

    def test_a_protocol_may_go_on_behind_the_end_of_the_peer(self):
        async def test(transport, protocol, client):
            protocol.keep_open = True
            await client.notify()
            while "eof" not in protocol.events:
                await asyncio.sleep(0)
            transport.write(b"answer")
            assert await client.receive_all(6) == b"answer"

        connected(test)

    @pytest.mark.parametrize("broken", [True, False], ids=["a broken record", "no close_notify"])
    def test_a_peer_that_breaks_off(self, broken):
        async def test(transport, protocol, client):
            if broken:
                await asyncio.get_running_loop().sock_sendall(client.sock, b"\x17\x03\x03\x00\x20" + bytes(32))
            else:
                client.sock.shutdown(socket.SHUT_WR)
            error = await protocol.lost
            assert isinstance(error, ssl.SSLError) is broken
            assert transport.is_closing()
            transport.write(b"into nothing")

        connected(test)

    def test_a_peer_that_is_gone(self):
        async def test(transport, protocol, client):
            client.sock.close()
            transport.write(bytes(100_000))
            assert isinstance(await protocol.lost, (OSError, type(None)))

        connected(test)

    def test_a_protocol_that_fails_loses_its_connection_alone(self):
        async def main():
            told = []
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: told.append(context))
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            stream, client, _, client_out = handshake()
            protocol = Recorder()
            protocol.data_received = lambda data: 1 / 0
            client.write(b"question")
            stream.incoming.write(client_out.read())  # is there before the transport
            with theirs:
                TlsTransport(loop, ours, stream, protocol)
                assert isinstance(await protocol.lost, ZeroDivisionError)
            assert [type(context["exception"]) for context in told] == [ZeroDivisionError]

        asyncio.run(main())


class TestApplication:
    """aiohttp's protocol on it, adopted as the reactor hands it over."""

    def ask(self, server, request):
        """Everything that is answered until close_notify; the handshake is over, and the request came with it."""
        ours, theirs = socket.socketpair()
        stream, client, client_in, _ = handshake()

        async def adopt():
            server.http.adopt(ours.detach(), request, "127.0.0.1:1", stream)

        asyncio.run_coroutine_threadsafe(adopt(), server._loop).result(10)
        theirs.settimeout(10)
        answer = b""
        with theirs:
            while True:
                try:
                    if not (piece := client.read()):
                        return answer
                    answer += piece
                except ssl.SSLZeroReturnError:
                    return answer
                except ssl.SSLWantReadError:
                    client_in.write(theirs.recv(1 << 16))

    def test_requests_are_answered_in_order(self, server):
        get = b"GET /health/live HTTP/1.1\r\nHost: h\r\n%b\r\n"
        answer = self.ask(server, get % b"" + get % b"Connection: close\r\n")
        assert answer.count(b"HTTP/1.1 200 ") == 2

    def test_a_request_that_breaks_the_rules(self, server):
        answer = self.ask(server, b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\n" + bytes(5))
        assert answer.startswith(b"HTTP/1.1 400 ")

    def test_too_many_connections(self, server, monkeypatch):
        monkeypatch.setattr("realtime_communication.http.connection.MAX_CONNECTIONS", 0)
        answer = self.ask(server, b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["error"]["code"] == "unavailable"
