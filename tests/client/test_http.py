"""The publisher against running servers, and against one that fails as told."""

from __future__ import annotations

import concurrent.futures
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from realtime_communication.client import (
    AuthenticationFailed,
    Backoff,
    ClientClosed,
    ConnectionLost,
    Delivery,
    Position,
    ProtocolViolation,
    RequestError,
    RequestTimeout,
)
from realtime_communication.client.http import MAX_ENTRIES, Publication, Publisher, Sending
from serving.certificates import trusted
from serving.peer import unique, unique_user
from serving.processes import ServerProcess, free_port
from serving.tokens import token
from serving.web import Handler, web_server

Answer = tuple[int, dict[str, str], Any]


class Note(msgspec.Struct):
    text: str


@pytest.fixture(scope="module")
def product() -> Iterator[ServerProcess]:
    process = ServerProcess("product", free_port(), None, None)
    process.start()
    try:
        yield process
    finally:
        process.dispose()


@pytest.fixture
def publisher(product: ServerProcess) -> Iterator[Publisher]:
    with Publisher(product.http_url, token=token(unique_user())) as made:
        yield made


@contextmanager
def answering(*answers: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server that answers with these, one after the other; and what it was asked."""
    asked: list[dict[str, Any]] = []
    left = list(answers)

    class Answering(Handler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            peer = self.client_address[1]
            asked.append({"path": self.path, "headers": dict(self.headers), "body": body, "peer": peer})
            status, headers, value = left.pop(0)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, text in ({"Content-Length": str(len(data))} | headers).items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = "hang-up" in headers

    with web_server(Answering) as url:
        yield url, asked


def error(code: str, message: str = "", **more: Any) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, **more}}


def quick(url: str, **options: Any) -> Publisher:
    return Publisher(url, **{"token": "t", "backoff": lambda: Backoff(0.001, 0.002), **options})


DONE: Answer = (200, {}, {"epoch": "e", "offset": 1})


class TestAgainstTheServer:
    def test_publish_history_and_presence(self, publisher: Publisher) -> None:
        topic = unique() + "/a b?ü"
        first = publisher.publish(topic, {"n": 1})
        second = publisher.publish(topic, Note("two"))
        assert (second.epoch, second.offset) == (first.epoch, first.offset + 1)
        page = publisher.history(topic, after=first, limit=10)
        assert (page.position, [message.payload for message in page.messages]) == (second, [{"text": "two"}])
        assert [message.offset for message in publisher.history(topic, reverse=True, limit=1).messages] == [2]
        assert publisher.presence(topic).count == 0

    def test_send(self, publisher: Publisher) -> None:
        assert publisher.send("nobody", 1) == Delivery([], ["nobody"])
        assert publisher.send(("nobody", "none"), 1).offline == ["nobody", "none"]

    def test_an_idempotency_key_publishes_once(self, publisher: Publisher) -> None:
        topic = unique()
        assert publisher.publish(topic, 1, idempotency_key=topic) == publisher.publish(topic, 1, idempotency_key=topic)
        assert publisher.publish(topic, 1).offset == 2

    def test_batch(self, publisher: Publisher) -> None:
        topic = unique()
        outcomes = publisher.batch(
            [Publication(topic, 1), Sending("nobody", 2), Publication("", 3), Publication(topic, 4, topic)]
        )
        assert isinstance(outcomes[0], Position) and outcomes[1] == Delivery([], ["nobody"])
        assert isinstance(outcomes[2], RequestError) and outcomes[2].code == "topic_invalid"
        assert outcomes[3] == Position(outcomes[0].epoch, 2)
        assert publisher.batch([Publication(topic, 4, topic)]) == [outcomes[3]]
        assert publisher.batch([]) == []

    def test_a_long_batch_goes_out_in_portions(self, publisher: Publisher) -> None:
        topic = unique()
        outcomes = publisher.batch([Publication(topic, number) for number in range(MAX_ENTRIES + 5)])
        assert [outcome.offset for outcome in outcomes if isinstance(outcome, Position)] == list(
            range(1, MAX_ENTRIES + 6)
        )
        large = publisher.batch([Publication(topic, "x" * 200_000)] * 6)
        assert all(isinstance(outcome, Position) for outcome in large)

    def test_any_other_endpoint(self, publisher: Publisher) -> None:
        assert publisher.request("GET", "/api/topics", query={"limit": 1})["topics"] is not None
        with pytest.raises(RequestError) as caught:
            publisher.request("GET", "/admin/stats")
        assert (caught.value.code, caught.value.status) == ("forbidden", 403)

    def test_refusals_name_the_field(self, publisher: Publisher) -> None:
        with pytest.raises(RequestError) as caught:
            publisher.request("GET", "/api/topics/x/history", query={"limit": -1})
        assert (caught.value.code, caught.value.field, caught.value.status) == ("bad_request", "limit", 400)
        with pytest.raises(TypeError):
            publisher.publish("x", object())

    def test_wrong_credentials(self, product: ServerProcess) -> None:
        with Publisher(product.http_url, token="wrong") as wrong:
            with pytest.raises(AuthenticationFailed) as caught:
                wrong.publish("x", 1)
        assert caught.value.code == "unauthorized"

    def test_the_url_of_the_websocket(self, product: ServerProcess) -> None:
        with Publisher(product.url, token=token()) as made:
            assert made.url == product.http_url
            assert made.publish(unique(), 1).offset == 1

    def test_over_tls(self) -> None:
        process = ServerProcess("tls", free_port(), None, None)
        process.start()
        try:
            with Publisher(process.http_url, token=token(), ssl_context=trusted(process.http_url)) as made:
                assert [made.publish("x", 1).offset, made.publish("x", 2).offset] == [1, 2]
            with Publisher(process.http_url, token=token()) as untrusting:
                with pytest.raises(ConnectionLost, match="certificate verify failed"):
                    untrusting.publish("x", 1)
        finally:
            process.dispose()

    def test_many_threads(self, publisher: Publisher) -> None:
        topic = unique()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            positions = list(pool.map(lambda number: publisher.publish(topic, number), range(200)))
        assert sorted(position.offset for position in positions) == list(range(1, 201))

    def test_over_a_fork(self, publisher: Publisher) -> None:
        topic = unique()
        publisher.publish(topic, "parent")
        child = os.fork()
        if child == 0:
            try:
                position = publisher.publish(topic, "child")
                os._exit(0 if position.offset == 2 else 1)
            finally:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        assert publisher.publish(topic, "parent again").offset == 3


class TestRetries:
    def test_an_overloaded_server_is_asked_again_with_the_same_key(self) -> None:
        with answering((503, {}, error("unavailable")), (429, {}, error("rate_limited")), DONE) as (url, asked):
            assert quick(url).publish("t", 1) == Position("e", 1)
        keys = {json.loads(request["body"])["idempotency_key"] for request in asked}
        assert len(asked) == 3 and len(keys) == 1

    def test_a_refusal_is_not(self) -> None:
        with answering((400, {}, error("bad_request", "payload: is missing"))) as (url, asked):
            with pytest.raises(RequestError) as caught:
                quick(url).publish("t", 1)
        assert caught.value.field == "payload" and len(asked) == 1

    @pytest.mark.parametrize("answer", [(503, {"Retry-After": "60"}, error("unavailable")), (502, {}, b"<html>")])
    def test_the_last_refusal_is_raised(self, answer: Answer) -> None:
        with answering(*[answer] * 3) as (url, asked):
            with pytest.raises(RequestError) as caught:
                quick(url, timeout=5).publish("t", 1)
        assert caught.value.code == "unavailable" and caught.value.status == answer[0]
        wait = 60.0 if answer[1] else None
        assert caught.value.retry_after == wait
        assert len(asked) == (1 if wait else 3)  # nobody waits for longer than the call may take

    def test_a_lost_connection_is_opened_again(self) -> None:
        with pytest.raises(ConnectionLost, match="refused"):
            quick(f"http://127.0.0.1:{free_port()}").publish("t", 1)

    def test_a_change_without_a_key_is_sent_once(self) -> None:
        with answering((503, {}, error("unavailable"))) as (url, asked):
            with pytest.raises(RequestError):
                quick(url).request("POST", "/admin/drain", body={})
        assert len(asked) == 1

    def test_a_kept_connection_that_the_server_closed(self) -> None:
        with answering((200, {"hang-up": "yes"}, {"epoch": "e", "offset": 1}), DONE, DONE) as (url, asked):
            with quick(url, retries=0) as made:
                for _ in range(3):
                    made.publish("t", 1)
        assert len({request["peer"] for request in asked}) == 2

    def test_time_is_up(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            with pytest.raises(RequestTimeout):
                quick(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout=0.05).publish("t", 1)

    @pytest.mark.parametrize("answer", [(200, {}, b"<html>"), (200, {}, {"epoch": 1}), (404, {}, b"not here")])
    def test_something_else_than_this_api(self, answer: Answer) -> None:
        with answering(answer) as (url, _):
            with pytest.raises(ProtocolViolation):
                quick(url).publish("t", 1)

    def test_a_batch_answered_with_too_little(self) -> None:
        with answering((200, {}, []), (200, {}, [{"x": 1}])) as (url, _), quick(url) as made:
            for _ in range(2):
                with pytest.raises(ProtocolViolation):
                    made.batch([Publication("t", 1)])


class TestCredentials:
    def test_one_kind(self) -> None:
        with pytest.raises(ValueError, match="one of"):
            Publisher("http://x", token="t", api_key="k")
        with pytest.raises(ValueError, match="timeout"):
            Publisher("http://x", timeout=0)

    def test_an_api_key_is_a_header(self) -> None:
        with answering(DONE) as (url, asked):
            quick(url, token=None, api_key="key").publish("t", 1)
        assert asked[0]["headers"]["X-API-Key"] == "key" and "Authorization" not in asked[0]["headers"]

    def test_a_provider_is_asked_once_and_again_when_the_token_is_refused(self) -> None:
        tokens = iter(["one", "two", "three"])
        with answering(DONE, DONE, (401, {}, error("token_expired")), DONE) as (url, asked):
            with quick(url, token=None, token_provider=lambda: next(tokens)) as made:
                for _ in range(3):
                    made.publish("t", 1)
        sent = [request["headers"]["Authorization"] for request in asked]
        assert sent == ["Bearer one", "Bearer one", "Bearer one", "Bearer two"]

    def test_a_provider_whose_tokens_are_refused(self) -> None:
        with answering(*[(401, {}, error("unauthorized"))] * 2) as (url, asked):
            with pytest.raises(AuthenticationFailed):
                quick(url, token=None, token_provider=lambda: "no").publish("t", 1)
        assert len(asked) == 2

    @pytest.mark.parametrize("failure", [AuthenticationFailed("over"), KeyError("x")])
    def test_a_provider_that_fails(self, failure: Exception) -> None:
        def provider() -> str:
            raise failure

        wanted: type[Exception] = AuthenticationFailed if isinstance(failure, AuthenticationFailed) else ConnectionLost
        with pytest.raises(wanted):
            quick("http://127.0.0.1:1", token=None, token_provider=provider).publish("t", 1)

    def test_closed(self) -> None:
        made = quick("http://127.0.0.1:1")
        made.close()
        made.close()
        with pytest.raises(ClientClosed):
            made.publish("t", 1)
