"""Topics that look like others, and what is said on topics that are somebody else's."""

import json
import unicodedata
from typing import Any
from urllib.parse import quote

import pytest

from serving.asking import ask, bearer
from serving.peer import MSGPACK, Peer, unique, unique_user
from serving.processes import ServerProcess
from serving.raw import BINARY, TEXT, RawSocket, frame
from serving.tokens import token

REFUSED = ("forbidden", "topic_invalid")
CAFE = unicodedata.normalize("NFC", "café")
LOOKALIKES = {
    "decomposed": unicodedata.normalize("NFD", CAFE),
    "zero width space": "caf\u200b\u00e9",
    "zero width joiner": "\u200dcaf\u00e9",
    "byte order mark": "\ufeffcaf\u00e9",
    "soft hyphen": "ca\u00adf\u00e9",
    "right to left": "\u202ecaf\u00e9",
    "full width": "\uff43\uff41\uff46\u00e9",
    "Cyrillic": "\u0441\u0430f\u00e9",
    "upper case": "CAFÉ",
    "space behind": "café ",
    "variation selector": "café\ufe0f",
}


class TestNames:
    @pytest.mark.parametrize("name", LOOKALIKES.values(), ids=LOOKALIKES.keys())
    def test_what_looks_alike_is_another_topic(self, victim: ServerProcess, name: str) -> None:
        base = unique()
        right, wrong = f"{base}:{CAFE}", f"{base}:{name}"
        patterns = {"subscribe": [right], "publish": [right]}
        with Peer(victim.url, "narrowed", topics=patterns) as narrowed, Peer(victim.url, unique_user()) as free:
            for request, fields in REQUESTS.items():
                assert narrowed.error(request, topic=wrong, **fields)["code"] in REFUSED, request
            narrowed.ok("Subscribe", topic=right)
            free.request("Broadcast", topic=wrong, payload="elsewhere")
            free.ok("Broadcast", topic=right, payload="here")
            assert [event["payload"] for event in narrowed.settle()] == ["here"]

    @pytest.mark.parametrize("character", ["\x00", "\x1f", "\x7f", "\x80", "\x85", "\x9b", "\x9f"], ids=ascii)
    def test_control_characters(self, victim: ServerProcess, character: str) -> None:
        with Peer(victim.url, unique_user()) as peer:
            for name in (character, f"room{character}", f"{character}@bob"):
                for request, fields in REQUESTS.items():
                    assert peer.error(request, topic=name, **fields)["code"] == "topic_invalid", (request, name)

    @pytest.mark.parametrize(
        ("escaped", "codes"),
        [
            ("\\u0040bob", ("forbidden",)),
            ("\\u0024system", ("forbidden",)),
            ("\\u002a", ("topic_invalid", "forbidden")),
            ("room\\u0000", ("topic_invalid",)),
            ("room\\n", ("topic_invalid",)),
            ("a\\u007bb\\u007d", ("topic_invalid",)),
            ("\\ud800", ("topic_invalid", "bad_request")),
        ],
    )
    def test_escapes_hide_nothing(self, victim: ServerProcess, escaped: str, codes: tuple[str, ...]) -> None:
        with RawSocket.upgraded(victim.port) as raw:
            for request in ("Subscribe", "Broadcast"):
                raw.send(frame(TEXT, f'{{"type":"{request}","id":1,"topic":"{escaped}","payload":1}}'.encode()))
                assert raw.json()["code"] in codes

    def test_a_longer_form_of_the_same_character(self, victim: ServerProcess) -> None:
        for at_sign in (b"\xc1\x80", b"\xe0\x81\x80"):
            with RawSocket.upgraded(victim.port) as raw:
                raw.send(frame(TEXT, b'{"type":"Subscribe","topic":"' + at_sign + b'bob"}'))
                assert raw.closed_with() == 1007

    def test_a_topic_in_bytes_is_none(self, victim: ServerProcess) -> None:
        with RawSocket.upgraded(victim.port, subprotocol=MSGPACK) as raw:
            raw.send(frame(BINARY, b"\x83\xa4type\xa9Subscribe\xa2id\x01\xa5topic\xc4\x04@bob"))
            assert b"bad_request" in raw.frame().payload

    @pytest.mark.parametrize("sign", ["\uff20", "\ufe6b", "\u200b@"])
    def test_no_other_at_sign_leads_to_an_inbox(self, victim: ServerProcess, sign: str) -> None:
        bob = unique_user()
        with Peer(victim.url, bob) as there, Peer(victim.url, unique_user()) as peer:
            peer.request("Broadcast", topic=f"{sign}{bob}", payload="forged")
            peer.request("Broadcast", topic=f"x\x00@{bob}", payload="forged")
            assert there.settle() == []

    @pytest.mark.parametrize("user", ["@bob", "*", "$system", "", "a\nb", "{tag}", "u" * 129])
    def test_users_that_are_no_names(self, victim: ServerProcess, user: str) -> None:
        with Peer(victim.url, unique_user()) as peer:
            reply = peer.request("DirectMessage", to=user, payload=1)
            if reply["type"] == "Ack":  # a name like any other: its inbox is nobody else's
                assert reply["offline"] == [user]


REQUESTS: dict[str, dict[str, Any]] = {"Subscribe": {}, "Broadcast": {"payload": 1}, "Presence": {}, "History": {}}
FOREIGN = ["@bob", "$system"]


class TestForeignTopics:
    """Who is on a topic and what was said there is for those who may subscribe to it, whatever way they ask."""

    @pytest.fixture
    def topic(self, victim: ServerProcess) -> str:
        """One with a message and somebody on it, which the narrowed may not read."""
        name = unique("foreign")
        with Peer(victim.url, unique_user()) as peer:
            peer.ok("Broadcast", topic=name, payload="hush")
        return name

    def test_over_the_connection(self, victim: ServerProcess, topic: str) -> None:
        with Peer(victim.url, unique_user(), topics={"subscribe": ["mine:*"]}) as peer:
            for name in (topic, "mine", f"mine:\n{topic}", "mine:*", *FOREIGN):
                for request in ("Presence", "History", "Subscribe"):
                    reply = peer.error(request, topic=name)
                    assert reply["code"] in REFUSED
                    assert "hush" not in json.dumps(reply)

    def test_over_http(self, victim: ServerProcess, topic: str) -> None:
        mine = bearer(unique_user(), topics={"subscribe": ["mine:*"]})
        for name in (topic, "mine", *FOREIGN, f"mine:/../{topic}", f"../topics/{topic}"):
            for what in ("presence", "history"):
                for path in (quote(name, safe=""), quote(quote(name, safe=""), safe=""), quote(name, safe="/")):
                    answer = ask(victim.port, "GET", f"/api/topics/{path}/{what}", mine)
                    if answer.status != 200:
                        assert answer.status in (400, 403, 404, 422), (path, answer)
                        continue
                    assert answer.json["topic"].startswith("mine:"), path
                    assert b"hush" not in answer.body

    def test_in_the_list(self, victim: ServerProcess, topic: str) -> None:
        with Peer(victim.url, unique_user()) as peer:
            peer.ok("Subscribe", topic=topic)
            all_of_them = ask(victim.port, "GET", "/api/topics", bearer(unique_user())).json["topics"]
            assert topic in [row["topic"] for row in all_of_them]
            assert not [row for row in all_of_them if row["topic"][0] in "@$*"]
            mine = ask(victim.port, "GET", "/api/topics", bearer(unique_user(), topics={"subscribe": ["mine:*"]}))
            assert not [row for row in mine.json["topics"] if not row["topic"].startswith("mine:")]

    def test_as_events(self, victim: ServerProcess, topic: str) -> None:
        mine = bearer(unique_user(), topics={"subscribe": ["mine:*"]})
        for name in (topic, f"mine:1,{topic}", *FOREIGN, "mine:*"):
            answer = ask(victim.port, "GET", f"/sse?topics={quote(name)}", mine)
            assert answer.status in (400, 403, 422), (name, answer)
            assert b"hush" not in answer.body

    def test_with_recovery(self, victim: ServerProcess, topic: str) -> None:
        with Peer(victim.url, unique_user()) as free:
            epoch = free.ok("History", topic=topic)["epoch"]
        with Peer(victim.url, unique_user(), topics={"subscribe": ["mine:*"]}) as peer:
            reply = peer.error("Subscribe", topic=topic, recover={"epoch": epoch, "offset": 0}, history=100)
            assert reply["code"] == "forbidden"
            assert peer.error("History", topic=topic, after={"epoch": epoch, "offset": 0})["code"] == "forbidden"

    def test_a_token_that_narrows_ends_what_it_does_not_allow_to_ask(self, victim: ServerProcess, topic: str) -> None:
        user = unique_user()
        with Peer(victim.url, user) as peer:
            peer.ok("History", topic=topic)
            peer.ok("Refresh", token=token(user, topics={"subscribe": ["mine:*"], "publish": []}))
            for request, fields in REQUESTS.items():
                assert peer.error(request, topic=topic, **fields)["code"] == "forbidden"
