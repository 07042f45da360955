"""Connections and topics of the worker, and ending connections."""

import pytest

JSON = {"Content-Type": "application/json"}


class TestConnections:
    def test_all(self, server, admin_key):
        answer = server.request("GET", "/api/connections", headers=admin_key)
        assert answer.status == 200
        assert answer.json == {"count": 3, "connections": server.hub.rows, "complete": True}

    def test_of_a_user(self, server, admin_key):
        answer = server.request("GET", "/api/connections?user_id=user-0", headers=admin_key).json
        assert [row["session_id"] for row in answer["connections"]] == ["0", "2"]
        assert (answer["count"], answer["complete"]) == (2, True)
        answer = server.request("GET", "/api/connections?user_id=nobody", headers=admin_key).json
        assert answer == {"count": 0, "connections": [], "complete": True}

    @pytest.mark.parametrize(
        ("query", "rows", "complete"),
        [("limit=2", 2, False), ("limit=3", 3, True), ("user_id=user-0&limit=1", 1, False), ("limit=1000", 3, True)],
    )
    def test_limit(self, server, admin_key, query, rows, complete):
        answer = server.request("GET", f"/api/connections?{query}", headers=admin_key).json
        assert (len(answer["connections"]), answer["complete"]) == (rows, complete)

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=-1", "limit"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=9223372036854775808", "limit"),
            ("user_id=", "user_id"),
            ("user_id=" + "x" * 129, "user_id"),
            ("user_id=a%0Ab", "user_id"),
            ("user=bob", "user"),
        ],
    )
    def test_what_cannot_be(self, server, admin_key, query, field):
        answer = server.request("GET", f"/api/connections?{query}", headers=admin_key)
        assert answer.status == 400
        assert answer.json["error"]["message"].startswith(f"{field}: ")

    def test_a_filter_of_a_megabyte(self, server, admin_key):
        answer = server.request("GET", "/api/connections?user_id=" + "x" * 15_000, headers=admin_key)
        assert answer.status == 400
        assert len(answer.body) < 1000
        assert server.raw(b"GET /api/connections HTTP/1.1\r\nHost: a\r\n\r\nGET /?" + b"x" * (1 << 20)).count(
            b"HTTP/1.1 431 "
        )

    def test_one_of_very_many(self, server, admin_key):
        rows = [{"session_id": str(number), "user_id": "bob"} for number in range(10_001)]
        server.hub.rows = [*rows, {"session_id": "last", "user_id": "alice"}]
        answer = server.request("GET", "/api/connections?user_id=alice", headers=admin_key).json
        assert answer == {"count": 1, "connections": server.hub.rows[-1:], "complete": True}


class TestDisconnect:
    @pytest.fixture
    def post(self, server, admin_key):
        return lambda body: server.request("POST", "/api/disconnect", body, admin_key | JSON)

    def test_a_user_and_a_session(self, server, post, caplog):
        answer = post(b'{"user_id": "user-0", "reason": "spam"}')
        assert (answer.status, answer.json) == (200, {"disconnected": 2})
        assert post(b'{"session_id": "1"}').json == {"disconnected": 1}
        assert post(b'{"user_id": "nobody"}').json == {"disconnected": 0}
        assert server.hub.closed == [
            (None, "user-0", "spam"),
            ("1", None, "disconnected by an administrator"),
            (None, "nobody", "disconnected by an administrator"),
        ]
        lines = [record.event_fields for record in caplog.records if "closed by an administrator" in record.message]
        assert [(line["by"], line["user_id"], line["count"]) for line in lines][:1] == [("operator", "user-0", 2)]

    def test_a_login(self, server, post):
        server.hub.logins = ["phone", "phone", "laptop"]
        assert post(b'{"session_id": "phone"}').json == {"disconnected": 2}
        assert post(b'{"session_id": "%s"}' % (b"x" * 128)).json == {"disconnected": 0}

    @pytest.mark.parametrize(
        ("body", "field"),
        [
            (b"{}", "user_id"),
            (b'{"reason": "x"}', "user_id"),
            (b'{"user_id": "a", "session_id": "b"}', "user_id"),
            (b'{"user_id": 1}', "user_id"),
            (b'{"user_id": ["a", "b"]}', "user_id"),
            (b'{"user_id": ""}', "user_id"),
            (b'{"session_id": "' + b"x" * 129 + b'"}', "session_id"),
            (b'{"user_id": "a", "reason": "' + b"x" * 124 + b'"}', "reason"),
            (b'{"user_id": "a", "reason": "\\u001b[2J"}', "reason"),
            (b'{"user_id": "a", "code": 1000}', "code"),
        ],
    )
    def test_what_cannot_be(self, server, post, body, field):
        answer = post(body)
        assert answer.status == 422
        assert answer.json["error"]["message"].startswith(f"{field}: ")
        assert server.hub.closed == []


class TestTopics:
    def test_names_without_inboxes(self, server, bearer):
        answer = server.request("GET", "/api/topics", headers=bearer())
        assert [row["topic"] for row in answer.json["topics"]] == ["room:1", "room:2", "hall"]
        assert answer.json["complete"] is True

    def test_what_a_token_is_narrowed_to(self, server, bearer):
        headers = bearer(topics={"subscribe": ["room:*", "hall"]})
        assert len(server.request("GET", "/api/topics", headers=headers).json["topics"]) == 3
        headers = bearer(topics={"subscribe": ["room:2", "ha"]})
        assert [row["topic"] for row in server.request("GET", "/api/topics", headers=headers).json["topics"]] == [
            "room:2"
        ]

    def test_limit(self, server, bearer):
        answer = server.request("GET", "/api/topics?limit=2", headers=bearer()).json
        assert ([row["topic"] for row in answer["topics"]], answer["complete"]) == (["room:1", "room:2"], False)
        assert server.request("GET", "/api/topics?limit=-1", headers=bearer()).status == 400

    def test_who_may(self, server, bearer, api_key):
        assert server.request("GET", "/api/topics").status == 401
        assert server.request("GET", "/api/topics", headers=api_key).status == 403
        assert server.request("GET", "/api/topics", headers=bearer(permissions=["write"])).status == 403
        token = bearer()["Authorization"].partition(" ")[2]
        assert server.request("GET", f"/api/topics?token={token}").status == 200
