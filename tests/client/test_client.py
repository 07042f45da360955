"""The client against running servers: requests, lost connections, recovery, tokens, callbacks."""

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import Any

import pytest

from realtime_communication.client import (
    AuthenticationFailed,
    Backoff,
    Client,
    ClientClosed,
    Connected,
    ConnectionLost,
    DirectMessage,
    Disconnected,
    HandshakeRejected,
    Join,
    Lagged,
    Message,
    Position,
    Recovered,
    RequestError,
    RequestTimeout,
    Subscription,
    TokenExpiring,
    connect,
)
from serving.peer import unique, unique_user
from serving.processes import ServerProcess, StartServer, free_port
from serving.proxy import Proxy, scenario
from serving.tokens import token


def client(url: str, user: str | None = None, **options: Any) -> Client:
    """A client with a short back-off."""
    if "token_provider" not in options and "api_key" not in options:
        options.setdefault("token", token(user or unique_user()))
    return connect(url, backoff=Backoff(0.02, 0.2), **options)


async def take(subscription: Subscription, count: int) -> list[Any]:
    """The next ``count`` events."""
    events = aiter(subscription)
    return [await asyncio.wait_for(anext(events), 10) for _ in range(count)]


async def until(subscription: Subscription, kind: type, seen: list[Any]) -> Any:
    """Collect events in ``seen`` up to one of ``kind``, which is returned."""
    async for event in subscription:
        if isinstance(event, kind):
            return event
        seen.append(event)
    raise AssertionError("the subscription ended")


async def connection_event(opened: Client, kind: type) -> Any:
    async for event in opened.events():
        if isinstance(event, kind):
            return event
    raise AssertionError("the client ended")


async def eventually(reached: Callable[[], bool]) -> None:
    """Return as soon as ``reached``; the scenario's own time-out ends the waiting."""
    loop = asyncio.get_running_loop()
    passed = asyncio.Event()

    def look() -> None:
        if reached():
            passed.set()
        else:
            loop.call_later(0.01, look)

    look()
    await passed.wait()


class TestRequests:
    @pytest.mark.parametrize("encoding", ["json", "msgpack"])
    @scenario
    async def test_publish_and_receive(self, server: ServerProcess, encoding: Any) -> None:
        topic = unique()
        async with client(server.url, encoding=encoding) as alice, client(server.url) as bob:
            subscription = await bob.subscribe(topic)
            position = await alice.publish(topic, {"text": "hello"})
            (message,) = await take(subscription, 1)
            assert isinstance(message, Message)
            assert (message.topic, message.offset, message.payload) == (topic, 1, {"text": "hello"})
            assert alice.session is not None and message.sender == alice.session.user_id
            assert position.offset == 1
            assert subscription.position == position

    @scenario
    async def test_messages_only(self, server: ServerProcess) -> None:
        topic = unique()
        async with (
            client(server.url) as alice,
            client(server.url) as bob,
            await alice.subscribe(topic, presence=True) as subscription,
            await bob.subscribe(topic),
        ):
            await bob.publish(topic, 1)
            async for message in subscription.messages():
                assert message.payload == 1
                break

    @scenario
    async def test_history_presence_ping_direct_refresh(self, server: ServerProcess) -> None:
        topic = unique()
        async with client(server.url) as alice, client(server.url) as bob:
            assert alice.session is not None and bob.session is not None
            for number in range(5):
                position = await alice.publish(topic, number)
            subscription = await alice.subscribe(topic, history=2, presence=True)
            assert [event.payload for event in await take(subscription, 2)] == [3, 4]
            await bob.subscribe(topic)
            assert isinstance((await take(subscription, 1))[0], Join)
            state = await bob.presence(topic)
            assert {member.user_id for member in state.members} == {alice.session.user_id, bob.session.user_id}
            page = await bob.history(topic, after=Position(position.epoch, 2), limit=2)
            assert ([m.payload for m in page.messages], page.position) == ([2, 3], position)
            assert [m.payload for m in (await bob.history(topic, limit=1, reverse=True)).messages] == [4]
            assert 0 < await alice.ping() < 5
            delivery = await alice.direct([bob.session.user_id, "nobody-" + topic], "psst")
            assert (delivery.delivered, delivery.offline) == ([bob.session.user_id], ["nobody-" + topic])
            direct = await asyncio.wait_for(anext(aiter(bob.direct_messages())), 5)
            assert isinstance(direct, DirectMessage) and direct.payload == "psst"
            expires_at = int(time.time()) + 5000
            assert await alice.refresh(token(alice.session.user_id, exp=expires_at)) == expires_at

    @scenario
    async def test_exclude_self_leaves_no_hole(self, server: ServerProcess) -> None:
        topic = unique()
        async with client(server.url) as alice, client(server.url) as bob:
            subscription = await alice.subscribe(topic)
            await alice.publish(topic, "mine", exclude_self=True)
            await bob.publish(topic, "his")
            assert [event.payload for event in await take(subscription, 1)] == ["his"]

    @scenario
    async def test_idempotency_key(self, server: ServerProcess) -> None:
        topic = unique()
        async with client(server.url) as alice:
            first = await alice.publish(topic, 1, idempotency_key=topic)
            assert await alice.publish(topic, 1, idempotency_key=topic) == first
            assert await alice.publish(topic, 1) != first

    @scenario
    async def test_refused(self, server: ServerProcess) -> None:
        async with client(server.url) as alice:
            with pytest.raises(RequestError) as caught:
                await alice.subscribe("@somebody")
            assert caught.value.code == "forbidden"
            with pytest.raises(RequestError):
                await alice.publish("", 1)
            with pytest.raises((TypeError, ValueError)):
                await alice.publish("topic", object())
            topic = unique()
            await alice.subscribe(topic)
            with pytest.raises(ValueError, match="already"):
                await alice.subscribe(topic)
            await alice.unsubscribe(topic)
            await alice.subscribe(topic)

    @scenario
    async def test_many_at_once_are_matched(self, server: ServerProcess) -> None:
        topic = unique()
        async with client(server.url) as alice:
            positions = await asyncio.gather(*(alice.publish(topic, number) for number in range(500)))
            assert [position.offset for position in positions] == list(range(1, 501))

    @scenario
    async def test_after_close(self, server: ServerProcess) -> None:
        alice = client(server.url)
        with pytest.raises(ClientClosed):
            await alice.ping()
        await alice.open()
        subscription = await alice.subscribe(unique())
        await alice.close()
        await alice.close()
        with pytest.raises(ClientClosed):
            await alice.ping()
        assert [event async for event in subscription] == []
        assert [event async for event in alice.direct_messages()] == []


class TestOpening:
    @scenario
    async def test_nobody_listens(self) -> None:
        with pytest.raises(ConnectionLost, match="within"):
            async with client(f"ws://127.0.0.1:{free_port()}/ws", open_timeout=0.3):
                pass

    @scenario
    async def test_wrong_token(self, server: ServerProcess) -> None:
        with pytest.raises(AuthenticationFailed):
            async with client(server.url, token="wrong"):
                pass

    @scenario
    async def test_wrong_path(self, server: ServerProcess) -> None:
        with pytest.raises(HandshakeRejected) as caught:
            async with client(server.url + "x"):
                pass
        assert caught.value.status == 404

    @scenario
    async def test_mute_peer(self) -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        listener = await asyncio.start_server(mute, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        with pytest.raises(ConnectionLost):
            async with client(f"ws://127.0.0.1:{port}/ws", open_timeout=0.5):
                pass
        listener.close()
        await listener.wait_closed()
        await asyncio.sleep(0.05)

    def test_one_credential(self) -> None:
        with pytest.raises(ValueError, match="one of"):
            connect("ws://localhost/ws", token="a", api_key="b")


class TestLostConnection:
    @scenario
    async def test_messages_missed_meanwhile_are_recovered(self, server: ServerProcess) -> None:
        topic = unique()
        async with Proxy(server.port) as proxy, client(server.url) as alice, client(proxy.url) as bob:
            subscription = await bob.subscribe(topic)
            await alice.publish(topic, 1)
            assert (await take(subscription, 1))[0].payload == 1
            proxy.refusing = True
            proxy.cut()
            for number in range(2, 6):
                await alice.publish(topic, number)
            proxy.refusing = False
            recovered, *messages = await take(subscription, 5)
            assert recovered == Recovered(topic, True, 0)
            assert [(message.payload, message.offset) for message in messages] == [(n, n) for n in range(2, 6)]

    @scenario
    async def test_direct_messages_missed_meanwhile_are_recovered(self, server: ServerProcess) -> None:
        user = unique_user()
        async with Proxy(server.port) as proxy, client(server.url) as alice, client(proxy.url, user) as bob:
            inbox = aiter(bob.direct_messages())
            await alice.direct(user, 0)
            assert (await anext(inbox)).payload == 0  # type: ignore[union-attr]
            proxy.refusing = True
            proxy.cut()
            for number in range(1, 4):
                await alice.direct(user, number)
            proxy.refusing = False
            events = [await asyncio.wait_for(anext(inbox), 10) for _ in range(4)]
            assert events[0] == Recovered(f"@{user}", True, 0)
            assert [event.payload for event in events[1:]] == [1, 2, 3]  # type: ignore[union-attr]
            await alice.direct(user, 4)
            assert (await asyncio.wait_for(anext(inbox), 10)).payload == 4  # type: ignore[union-attr]

    @scenario
    async def test_direct_messages_before_any_was_received(self, server: ServerProcess) -> None:
        user = unique_user()
        async with Proxy(server.port) as proxy, client(server.url) as alice:
            await alice.direct(user, "before this client's time")
            async with client(proxy.url, user) as bob:
                await bob.ping()
                proxy.refusing = True
                proxy.cut()
                await alice.direct(user, "missed")
                proxy.refusing = False
                inbox = aiter(bob.direct_messages())
                assert await anext(inbox) == Recovered(f"@{user}", True, 0)
                assert (await anext(inbox)).payload == "missed"  # type: ignore[union-attr]

    @scenario
    async def test_without_read_the_inbox_is_honestly_unknown(self, server: ServerProcess) -> None:
        user = unique_user()
        text = token(user, permissions=["subscribe", "write"])
        async with Proxy(server.port) as proxy, client(server.url) as alice, client(proxy.url, token=text) as bob:
            inbox = aiter(bob.direct_messages())
            await alice.direct(user, 1)
            assert (await anext(inbox)).payload == 1  # type: ignore[union-attr]
            proxy.cut()
            assert await anext(inbox) == Recovered(f"@{user}", False, None)
            await alice.direct(user, 2)
            assert (await anext(inbox)).payload == 2  # type: ignore[union-attr]

    @pytest.mark.parametrize("encoding", ["json", "msgpack"])
    @scenario
    async def test_no_loss_and_no_duplicate_while_cut_again_and_again(
        self, server: ServerProcess, encoding: Any
    ) -> None:
        topic, count = unique(), 600
        async with (
            Proxy(server.port) as proxy,
            client(proxy.url, encoding=encoding) as alice,
            client(proxy.url, encoding=encoding) as bob,
        ):
            subscription = await bob.subscribe(topic)

            async def publish() -> None:
                for number in range(count):
                    await alice.publish(topic, number)
                    if number % 20 == 0:
                        await asyncio.sleep(0.01)

            async def cut() -> None:
                for _ in range(6):
                    await asyncio.sleep(0.1)
                    proxy.cut()

            publishing, cutting = asyncio.create_task(publish()), asyncio.create_task(cut())
            payloads: list[int] = []
            offsets: list[int] = []
            async for event in subscription:
                match event:
                    case Message(payload=payload, offset=offset):
                        payloads.append(payload)
                        offsets.append(offset)
                    case Recovered(recovered=recovered):
                        assert recovered
                    case Lagged():
                        raise AssertionError(event)
                if len(payloads) == count:
                    break
            await asyncio.gather(publishing, cutting)
            assert payloads == list(range(count))
            assert offsets == list(range(1, count + 1))
            assert proxy.accepted > 2

    @scenario
    async def test_excluded_publications_stay_excluded_over_a_cut(self, server: ServerProcess) -> None:
        topic = unique()
        async with Proxy(server.port) as proxy, client(proxy.url) as alice, client(server.url) as bob:
            subscription = await alice.subscribe(topic)
            payloads: list[Any] = []
            for number in range(30):
                if number % 10 == 5:
                    proxy.cut()
                await alice.publish(topic, f"mine {number}", exclude_self=True)
                await bob.publish(topic, number)
            async for event in subscription:
                assert not isinstance(event, Lagged)
                if isinstance(event, Message):
                    payloads.append(event.payload)
                    if event.payload == 29:
                        break
            assert payloads == list(range(30))

    @scenario
    async def test_request_waits_for_the_connection(self, server: ServerProcess) -> None:
        topic = unique()
        async with Proxy(server.port) as proxy, client(proxy.url) as alice:
            proxy.refusing = True
            proxy.cut()
            await connection_event(alice, Disconnected)
            assert not alice.connected
            waiting = asyncio.create_task(alice.publish(topic, 1))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            proxy.refusing = False
            assert (await waiting).offset == 1

    @scenario
    async def test_request_times_out_without_a_connection(self, server: ServerProcess) -> None:
        async with Proxy(server.port) as proxy, client(proxy.url) as alice:
            proxy.refusing = True
            proxy.cut()
            with pytest.raises(RequestTimeout):
                await alice.publish("topic", 1, timeout=0.2)

    @scenario
    async def test_lost_ack_does_not_double_the_publication(self, server: ServerProcess) -> None:
        topic = unique()
        async with Proxy(server.port) as proxy, client(proxy.url) as alice, client(server.url) as bob:
            subscription = await bob.subscribe(topic)
            await alice.ping()
            publishing = asyncio.create_task(alice.publish(topic, 1))
            await asyncio.sleep(0)  # sent, the answer not read yet
            proxy.cut()
            position = await publishing
            assert (await bob.history(topic)).position == position
            assert [event.payload for event in await take(subscription, 1)] == [1]

    @scenario
    async def test_dead_link_is_noticed(self, server: ServerProcess) -> None:
        options = {"keepalive_interval": 0.2, "keepalive_timeout": 0.2}
        async with Proxy(server.port) as proxy, client(proxy.url, **options) as alice:
            proxy.stall()
            await connection_event(alice, Disconnected)
            proxy.flow()
            await alice.ping()

    @scenario
    async def test_without_reconnect_it_is_over(self, server: ServerProcess) -> None:
        async with Proxy(server.port) as proxy, client(proxy.url, reconnect=False) as alice:
            subscription = await alice.subscribe(unique())
            proxy.cut()
            with pytest.raises(ConnectionLost):
                await take(subscription, 1)
            with pytest.raises(ConnectionLost):
                await alice.ping()

    @scenario
    async def test_recover_from_an_earlier_run(self, server: ServerProcess) -> None:
        topic = unique()
        async with client(server.url) as alice:
            position = await alice.publish(topic, 1)
            await alice.publish(topic, 2)
        async with client(server.url) as alice:
            subscription = await alice.subscribe(topic, recover=position)
            recovered, message = await take(subscription, 2)
            assert recovered == Recovered(topic, True, 0)
            assert message.payload == 2


class TestServerRestart:
    @scenario
    async def test_killed_and_started_again(self, own_server: ServerProcess) -> None:
        topic, user = unique(), unique_user()
        async with client(own_server.url, user) as alice, client(own_server.url) as bob:
            subscription = await alice.subscribe(topic)
            first = await bob.publish(topic, 1)
            assert (await take(subscription, 1))[0].payload == 1
            await asyncio.to_thread(own_server.kill)
            await connection_event(alice, Disconnected)
            await asyncio.to_thread(own_server.start)
            (recovered,) = await take(subscription, 1)
            assert recovered == Recovered(topic, False, None)
            second = await bob.publish(topic, 2)
            assert second.epoch != first.epoch
            (message,) = await take(subscription, 1)
            assert (message.payload, message.offset) == (2, second.offset)
            assert alice.session is not None and alice.session.reconnected

    @scenario
    async def test_shutdown_is_announced_and_obeyed(self, own_server: ServerProcess) -> None:
        async with client(own_server.url) as alice:
            await asyncio.to_thread(own_server.stop)
            events = []
            async for event in alice.events():
                events.append(event)
                if isinstance(event, Disconnected):
                    break
            closing, disconnected = events[-2:]
            assert disconnected.code == 1001
            assert closing.reconnect and disconnected.retry_in is not None


class TestTokens:
    @scenario
    async def test_provider_refreshes_in_time(self, server: ServerProcess) -> None:
        user, asked = unique_user(), 0
        lifetimes = iter([(4, 1), (3600, 1800)])

        async def provider() -> str:
            nonlocal asked
            asked += 1
            life, threshold = next(lifetimes)
            now = int(time.time())
            return token(user, exp=now + life, refresh_threshold=now + threshold)

        async with client(server.url, token_provider=provider) as alice:
            await eventually(lambda: asked == 2)
            await alice.ping()
            assert alice.session is not None and not alice.session.reconnected

    @scenario
    async def test_expired_token_is_replaced_on_a_new_connection(self, server: ServerProcess) -> None:
        user, topic = unique_user(), unique()
        made = itertools.count()

        async def provider() -> str:
            match next(made):
                case 0:
                    return token(user, exp=int(time.time()) + 2, refresh_threshold=None)
                case 1:  # so that no refresh in time is possible
                    raise OSError("the issuer is away")
                case _:
                    return token(user)

        async with client(server.url, token_provider=provider) as alice, client(server.url) as bob:
            subscription = await alice.subscribe(topic)
            assert (await connection_event(alice, Disconnected)).code == 4401
            await bob.publish(topic, "after")
            seen: list[Any] = []
            message = await until(subscription, Message, seen)
            assert message.payload == "after"

    @scenario
    async def test_fixed_token_that_expires_ends_the_client(self, server: ServerProcess) -> None:
        text = token(unique_user(), exp=int(time.time()) + 2, refresh_threshold=None)
        async with client(server.url, token=text) as alice:
            subscription = await alice.subscribe(unique())
            with pytest.raises(AuthenticationFailed):
                await take(subscription, 1)
            with pytest.raises(AuthenticationFailed):
                await alice.ping()

    @scenario
    async def test_provider_of_refused_tokens_ends_the_client(self, server: ServerProcess) -> None:
        asked = itertools.count()

        async def provider() -> str:
            next(asked)
            return "refused"

        with pytest.raises(AuthenticationFailed):
            async with client(server.url, token_provider=provider):
                pass
        assert next(asked) == 3

    @scenario
    async def test_provider_that_fails_is_asked_again(self, server: ServerProcess) -> None:
        made = itertools.count()

        async def provider() -> str:
            if next(made) < 2:
                raise OSError("the issuer is away")
            return token(unique_user())

        async with client(server.url, token_provider=provider) as alice:
            assert alice.connected

    @scenario
    async def test_warning_without_a_provider(self, server: ServerProcess) -> None:
        now = int(time.time())
        user = unique_user()
        async with client(server.url, token=token(user, exp=now + 5, refresh_threshold=now + 1)) as alice:
            assert await connection_event(alice, TokenExpiring) == TokenExpiring(now + 5)
            await alice.refresh(token(user))


class TestCallbacks:
    @scenario
    async def test_what_they_raise_stays_there(self, server: ServerProcess, caplog: pytest.LogCaptureFixture) -> None:
        topic, user = unique(), unique_user()
        broken: list[Any] = []
        sound: list[Any] = []
        directs: list[Any] = []

        def failing(event: Any) -> None:
            broken.append(event)
            raise RuntimeError("the application's own mistake")

        async def collecting(event: Any) -> None:
            await asyncio.sleep(0)
            sound.append(event)

        def direct(event: Any) -> None:
            directs.append(event)
            raise ValueError("another one")

        async with client(server.url, user, on_direct=direct) as alice, client(server.url) as bob:
            await alice.subscribe(topic, callback=failing)
            await bob.subscribe(topic, callback=collecting)
            for number in range(3):
                await bob.publish(topic, number)
                await bob.direct(user, number)
            await eventually(lambda: min(len(broken), len(sound), len(directs)) == 3)
            assert [event.payload for event in broken] == [0, 1, 2]
            assert [event.payload for event in sound] == [0, 1, 2]
            assert [event.payload for event in directs] == [0, 1, 2]
            await alice.ping()
        assert "the application's own mistake" in caplog.text

    @scenario
    async def test_they_may_make_requests(self, server: ServerProcess) -> None:
        topic, answered = unique(), asyncio.Event()

        async with client(server.url) as alice, client(server.url) as bob:

            async def echo(event: Any) -> None:
                await alice.direct(event.sender, event.payload)

            await alice.subscribe(topic, callback=echo)
            await bob.publish(topic, "marco")
            reply = await asyncio.wait_for(anext(aiter(bob.direct_messages())), 5)
            assert isinstance(reply, DirectMessage) and reply.payload == "marco"
            answered.set()

    @scenario
    async def test_connection_events(self, server: ServerProcess) -> None:
        seen: list[Any] = []
        async with client(server.url, on_event=seen.append):
            await eventually(lambda: bool(seen))
        assert isinstance(seen[0], Connected)


class TestFullQueue:
    @scenario
    async def test_oldest_give_way_and_the_reader_is_told(self, server: ServerProcess) -> None:
        topic = unique()
        async with client(server.url) as alice, client(server.url) as bob:
            subscription = await bob.subscribe(topic, queue_size=10)
            for number in range(25):
                await alice.publish(topic, number)
            await bob.ping()
            await bob.ping()
            lagged, *messages = await take(subscription, 11)
            assert lagged == Lagged(topic, 15, recovered=False, source="queue")
            assert [message.payload for message in messages] == list(range(15, 25))


@pytest.mark.parametrize("compression", ["zstd", "lz4", "gzip"])
@pytest.mark.parametrize("encoding", ["json", "msgpack"])
@scenario
async def test_compressed_both_ways(start_server: StartServer, encoding: Any, compression: Any) -> None:
    process = await asyncio.to_thread(
        start_server, {"performance": {"messages": {"compression_algorithm": compression}}}
    )
    topic, payload = unique(), {"text": "compress me " * 1000}
    options = {"encoding": encoding, "compression": compression}
    async with client(process.url, **options) as alice, client(process.url) as bob:
        subscription = await alice.subscribe(topic)
        plain = await bob.subscribe(topic)
        await alice.publish(topic, payload)
        assert (await take(subscription, 1))[0].payload == payload
        assert (await take(plain, 1))[0].payload == payload
