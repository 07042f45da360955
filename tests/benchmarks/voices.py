"""What the peers of the benchmarks say inside WebSocket messages, as much of it as a relay needs.

A voice reads what a client says and writes what its server would. Bytes as the servers themselves sent them.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

Message = str | bytes


class Said(NamedTuple):
    """One thing a client said: `subscribe`, `publish`, `echo`, `pong`, or what `answer` alone is for."""

    kind: str
    topic: str = ""
    payload: str = ""
    answer: Message = ""


class Voice(NamedTuple):
    """One protocol."""

    read: Callable[[str, Message], Iterator[Said]]
    """From the path of the request and a message."""
    write: Callable[[str, Sequence[str]], list[Message]]
    """Payloads on a topic as WebSocket messages, several in one where the server does that."""
    greeting: Message = ""
    ping: Message = ""


def read_text(path: str, message: Message) -> Iterator[Said]:
    kind = {"/publish": "publish", "/echo": "echo"}[path]
    yield Said(kind, "bench", str(message))


def write_text(topic: str, payloads: Sequence[str]) -> list[Message]:
    return list(payloads)


def read_nats(path: str, message: Message) -> Iterator[Said]:
    assert isinstance(message, bytes)
    pattern = rb"CONNECT \{[^\r]*\}\r\n|PING\r\n|PONG\r\n|SUB (\S+) \d+\r\n|PUB (\S+) (\d+)\r\n([^\r]*)\r\n"
    at = 0
    for found in re.finditer(pattern, message):
        assert found.start() == at, message
        at = found.end()
        if found[1]:
            yield Said("subscribe", found[1].decode())
        elif found[2]:
            assert len(found[4]) == int(found[3])
            yield Said("publish", found[2].decode(), found[4].decode())
        elif found[0] == b"PING\r\n":
            yield Said("ping", answer=b"PONG\r\n")
        elif found[0] == b"PONG\r\n":
            yield Said("pong")
    assert at == len(message), message


def write_nats(topic: str, payloads: Sequence[str]) -> list[Message]:
    """A stream, cut where no message ends."""
    stream = b"".join(f"MSG {topic} 1 {len(payload)}\r\n{payload}\r\n".encode() for payload in payloads)
    cuts = [0, *sorted({5, len(stream) // 3, len(stream) - 1}), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(cuts)]


def read_centrifugo(path: str, message: Message) -> Iterator[Said]:
    assert path == "/connection/websocket"
    connect = r'\{"id":1,"connect":\{(?:"token":"[^"]+")?\}\}'
    pattern = (
        connect + r'|\{"id":2,"subscribe":\{"channel":"([^"]+)"\}\}|\{"id":3,"publish":\{"channel":"([^"]+)"'
        r',"data":("[^"]*")\}\}|\{\}'
    )
    found = re.fullmatch(pattern, str(message))
    assert found is not None, message
    if found[1]:
        answer = '{"id":2,"subscribe":{"recoverable":true,"epoch":"YXWx","offset":7,"positioned":true}}'
        yield Said("subscribe", found[1], answer=answer)
    elif found[2]:
        yield Said("publish", found[2], found[3], '{"id":3,"publish":{}}')
    elif message == "{}":
        yield Said("pong")
    else:
        yield Said("connect", answer='{"id":1,"connect":{"client":"0d39","version":"0.0.0","ping":25,"pong":true}}')


def write_centrifugo(topic: str, payloads: Sequence[str]) -> list[Message]:
    lines = [
        f'{{"push":{{"channel":"{topic}","pub":{{"data":{payload},"info":{{"client":"0d39"}},"offset":{number}}}}}}}'
        for number, payload in enumerate(payloads, 8)
    ]
    return ["\n".join(lines)]


def read_socketio(path: str, message: Message) -> Iterator[Said]:
    assert path == "/socket.io/?EIO=4&transport=websocket"
    pattern = r'40|3|421\["s","([^"]+)"\]|42\["p","([^"]+)",("[^"]*")\]|42\["e",("[^"]*")\]'
    found = re.fullmatch(pattern, str(message))
    assert found is not None, message
    if found[1]:
        yield Said("subscribe", found[1], answer="431[]")
    elif found[2]:
        yield Said("publish", found[2], found[3])
    elif found[4]:
        yield Said("echo", payload=found[4])
    elif message == "40":
        yield Said("connect", answer='40{"sid":"P7NFRmR5"}')
    else:
        yield Said("pong")


def write_socketio(topic: str, payloads: Sequence[str]) -> list[Message]:
    return [f'42["m",{payload}]' for payload in payloads]


OFFSETS = itertools.count(1)


def read_rtc(path: str, message: Message) -> Iterator[Said]:
    """A publication gets its offset here, so that it keeps it whatever happens to it."""
    assert path == "/ws"
    envelope = json.loads(message)
    match envelope["type"]:
        case "Subscribe":
            answer = {"type": "Subscribed", "id": envelope["id"], "epoch": "e", "offset": 0}
            yield Said("subscribe", envelope["topic"], answer=compact(answer))
        case "Broadcast":
            numbered = compact({"offset": next(OFFSETS), "payload": envelope["payload"]})
            yield Said("publish", envelope["topic"], numbered)


def write_rtc(topic: str, payloads: Sequence[str]) -> list[Message]:
    return [compact({"type": "Message", "topic": topic, "epoch": "e", **json.loads(payload)}) for payload in payloads]


def compact(envelope: dict[str, object]) -> str:
    return json.dumps(envelope, separators=(",", ":"))


VOICES = {
    "rtc": Voice(read_rtc, write_rtc, '{"type":"Connected","session":"s"}'),
    "text": Voice(read_text, write_text),
    "nats": Voice(
        read_nats,
        write_nats,
        b'INFO {"server_id":"NCV2","version":"2.9.10","proto":1,"headers":true,"max_payload":1048576}\r\n',
        b"PING\r\n",
    ),
    "centrifugo": Voice(read_centrifugo, write_centrifugo, ping="{}"),
    "socketio": Voice(
        read_socketio,
        write_socketio,
        '0{"sid":"lv_VI97H","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}',
        "2",
    ),
}
