"""A question over HTTP, to a real service on the loopback: what is asked, and what counts as an answer."""

import asyncio

import aiohttp
import pytest

from realtime_communication.auth.call_out import MAX_ANSWER_BYTES, CallOut, UnusableAnswer
from serving.receiver import Receiver, documented_check

SECRET = b"the secret of the service"


@pytest.fixture
def make_service():
    made = []

    def make(*answers, **options):
        made.append(Receiver(*answers, **options).start())
        return made[-1]

    yield make
    for service in made:
        service.close()


def ask(url, *, secs=20.0):
    async def asking():
        call_out = CallOut(url, SECRET, "n-1")
        try:
            async with asyncio.timeout(secs):
                return await call_out.ask("publish", "alice", "room:1")
        finally:
            await call_out.close()

    return asyncio.run(asking())


@pytest.mark.parametrize(
    ("body", "allowed"),
    [(b'{"allowed":true}', True), (b'{"allowed":false}', False), (b' {"why": [1], "allowed": true}\n', True)],
)
def test_an_answer(make_service, body, allowed):
    assert ask(make_service(200, body=body).url) is allowed


def test_403_is_no(make_service):
    assert ask(make_service(403).url) is False


def test_the_question(make_service):
    service = make_service(403)
    ask(service.url.replace("http://", "http://user:pass@"))
    (request,) = service.requests
    assert request.event == {"action": "publish", "user_id": "alice", "topic": "room:1", "node_id": "n-1"}
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Authorization"] == "Basic dXNlcjpwYXNz"
    assert documented_check()(SECRET.decode(), request.headers, request.body)


@pytest.mark.parametrize("status", [201, 204, 400, 401, 404, 429, 500, 503])
def test_other_statuses(make_service, status):
    with pytest.raises(UnusableAnswer, match=f"HTTP {status}"):
        ask(make_service(status, body=b'{"allowed":true}' if status != 204 else b"").url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(make_service, status):
    other = make_service(200, body=b'{"allowed":true}')
    with pytest.raises(UnusableAnswer, match=f"HTTP {status}"):
        ask(make_service(status, headers={"Location": other.url}).url)
    assert other.requests == []


@pytest.mark.parametrize(
    "body", [b"", b"true", b"[]", b"{}", b'{"allowed":1}', b'{"allowed":"true"}', b"\xff\xfe", b"[" * 4000, b"<html>"]
)
def test_garbage(make_service, body):
    with pytest.raises(UnusableAnswer, match="no JSON object"):
        ask(make_service(200, body=body, headers={} if body else {"Content-Length": "0"}).url)


def test_an_answer_of_the_longest_size(make_service):
    padding = b" " * (MAX_ANSWER_BYTES - len(b'{"allowed":true}'))
    assert ask(make_service(200, body=b'{"allowed":true}' + padding).url) is True
    with pytest.raises(UnusableAnswer, match="more than 4096 bytes"):
        ask(make_service(200, body=b' {"allowed":true}' + padding).url)


def test_a_huge_answer_is_not_read(make_service):
    service = make_service(200, body=b" " * (32 << 20))
    with pytest.raises(UnusableAnswer, match="more than 4096 bytes"):
        ask(service.url)


def test_a_packed_answer_is_not_unpacked(make_service):
    with pytest.raises(UnusableAnswer, match="no JSON object"):
        ask(make_service(200, body=b"\x1f\x8b\x08", headers={"Content-Encoding": "gzip"}).url)


def test_nobody_there():
    with pytest.raises(aiohttp.ClientError):
        ask("http://127.0.0.1:9/")


def test_no_answer(make_service):
    service = make_service()
    service.silent = True
    with pytest.raises(TimeoutError):
        ask(service.url, secs=0.05)


def test_connections_are_used_again(make_service):
    service = make_service(403, 403)

    async def asking():
        call_out = CallOut(service.url, SECRET, "n-1")
        answers = [await call_out.ask("publish", "alice", topic) for topic in ("a", "b")]
        await call_out.close()
        await call_out.close()
        return answers

    assert asyncio.run(asking()) == [False, False]
