"""One topic over HTTP."""

import pytest

from realtime_communication._core.hub.hub import RequestError

JSON = {"Content-Type": "application/json"}


class TestPresence:
    def test_as_the_request_answers(self, server, bearer):
        answer = server.request("GET", "/api/topics/room:1/presence", headers=bearer())
        assert (answer.status, answer.json) == (
            200,
            {
                "topic": "room:1",
                "count": 1,
                "members": [{"user_id": "alice", "session_id": "1", "joined_at": 5, "info": {"x": 1}}],
            },
        )

    def test_names_as_paths_carry_them(self, server, bearer):
        assert server.request("GET", "/api/topics/a%20b%2Fc/presence", headers=bearer()).json["topic"] == "a b/c"


class TestHistory:
    def test_as_the_request_answers_with_the_very_bytes(self, server, bearer):
        answer = server.request("GET", "/api/topics/room:1/history", headers=bearer())
        assert answer.body == (
            b'{"topic":"room:1","epoch":"e","offset":7,"messages":[{"offset":7,"ts":1,"from":"bob","payload":1.50}]}'
        )
        assert server.hub.asked == [("history", "room:1", None, 0, 100, False)]

    def test_a_page(self, server, bearer):
        server.request("GET", "/api/topics/room:1/history?epoch=e&offset=5&limit=10&reverse=true", headers=bearer())
        assert server.hub.asked == [("history", "room:1", "e", 5, 10, True)]

    def test_a_page_of_nothing_tells_the_position(self, server, bearer):
        server.request("GET", "/api/topics/room:1/history?limit=0", headers=bearer())
        assert server.hub.asked == [("history", "room:1", None, 0, 0, False)]

    def test_a_topic_that_is_not_there(self, server, bearer):
        answer = server.request("GET", "/api/topics/hall/history", headers=bearer())
        assert answer.json == {"topic": "hall", "epoch": "f", "offset": 0, "messages": []}

    def test_a_home_that_cannot_be_reached(self, server, bearer):
        server.hub.refuse("unavailable", "try again", 200)
        answer = server.request("GET", "/api/topics/room:1/history", headers=bearer())
        assert (answer.status, answer.json["error"]["code"]) == (503, "unavailable")

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=-1", "limit"),
            ("limit=1001", "limit"),
            ("epoch=e", "offset"),
            ("offset=5", "epoch"),
            ("epoch=&offset=5", "epoch"),
            ("epoch=e&offset=-1", "offset"),
            ("epoch=e&offset=9007199254740992", "offset"),
            ("epoch=e&offset=9223372036854775808", "offset"),
            ("epoch=e&offset=x", "offset"),
            ("reverse=1", "reverse"),
            ("after=5", "after"),
            ("epoch=" + "x" * 65 + "&offset=1", "epoch"),
        ],
    )
    def test_what_cannot_be(self, server, bearer, query, field):
        answer = server.request("GET", f"/api/topics/room:1/history?{query}", headers=bearer())
        assert answer.status == 400
        assert answer.json["error"]["message"].startswith(f"{field}")
        assert server.hub.asked == []


@pytest.mark.parametrize("what", ["presence", "history"])
class TestWhoMayRead:
    def test_credentials_in_the_url(self, server, bearer, what):
        token = bearer()["Authorization"].partition(" ")[2]
        assert server.request("GET", f"/api/topics/room:1/{what}?token={token}").status == 200

    def test_nobody_without_the_permission(self, server, bearer, api_key, what):
        assert server.request("GET", f"/api/topics/room:1/{what}").status == 401
        for headers in (api_key, bearer(permissions=["write", "subscribe"])):
            assert server.request("GET", f"/api/topics/room:1/{what}", headers=headers).status == 403
        assert server.hub.asked == []

    def test_what_a_token_is_narrowed_to(self, server, bearer, admin_key, what):
        headers = bearer(topics={"subscribe": ["room:*"]})
        assert server.request("GET", f"/api/topics/room:1/{what}", headers=headers).status == 200
        answer = server.request("GET", f"/api/topics/hall/{what}", headers=headers)
        assert (answer.status, answer.json["error"]["code"]) == (403, "forbidden")
        assert server.request("GET", f"/api/topics/hall/{what}", headers=admin_key).status == 200

    def test_no_inbox_but_the_own(self, server, bearer, admin_key, what):
        assert server.request("GET", f"/api/topics/@alice/{what}", headers=bearer("alice")).status == 200
        for headers in (bearer("bob"), admin_key):
            assert server.request("GET", f"/api/topics/@alice/{what}", headers=headers).status == 403
        assert server.request("GET", f"/api/topics/$sys/{what}", headers=bearer()).status == 403


@pytest.mark.parametrize(("path", "answer"), [("subscribe", {"subscribed": 2}), ("unsubscribe", {"unsubscribed": 1})])
class TestSubscriptions:
    def test_all_sessions_of_a_user(self, server, admin_key, caplog, path, answer):
        body = b'{"user_id": "alice", "topic": "room:1"}'
        found = server.request("POST", f"/api/{path}", body, admin_key | JSON)
        assert (found.status, found.json) == (200, answer)
        assert server.hub.asked == [(path, "room:1", "alice")]
        server.request("POST", f"/api/{path}", body, admin_key | JSON)
        assert 0 not in server.hub.orders
        assert len(set(server.hub.orders)) == 2
        line, _ = (record.event_fields for record in caplog.records if "subscriptions changed" in record.message)
        assert (line["by"], line["change"], line["user_id"], line["topic"]) == ("operator", path, "alice", "room:1")

    def test_who_may(self, server, bearer, api_key, path, answer):
        body = b'{"user_id": "alice", "topic": "room:1"}'
        assert server.request("POST", f"/api/{path}", body, JSON).status == 401
        for headers in (bearer(), api_key):
            assert server.request("POST", f"/api/{path}", body, headers | JSON).status == 403
        assert server.hub.asked == []

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (b"{}", "user_id"),
            (b'{"user_id": "a"}', "topic"),
            (b'{"topic": "a"}', "user_id"),
            (b'{"user_id": 5, "topic": "a"}', "user_id"),
            (b'{"user_id": "a", "topic": ""}', "topic"),
            (b'{"user_id": "a", "topic": "' + b"x" * 256 + b'"}', "topic"),
            (b'{"user_id": "a", "topic": "a", "history": 5}', "history"),
        ],
    )
    def test_what_cannot_be(self, server, admin_key, path, answer, body, field):
        found = server.request("POST", f"/api/{path}", body, admin_key | JSON)
        assert found.status == 422
        assert found.json["error"]["message"].startswith(f"{field}: ")
        assert server.hub.asked == []

    def test_what_the_hub_refuses(self, server, admin_key, path, answer):
        server.hub.refusal = RequestError("topic_invalid", "topic: must not have a *")
        found = server.request("POST", f"/api/{path}", b'{"user_id": "a", "topic": "a*"}', admin_key | JSON)
        assert (found.status, found.json["error"]["code"]) == (400, "topic_invalid")
