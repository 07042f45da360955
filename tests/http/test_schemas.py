"""The shapes of the API, held against the answers of a server whose data plane is scripted."""

import msgspec
import pytest

from realtime_communication.http import schemas


def body_of(answer, kind):
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body, type=kind)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/health", schemas.Health),
        ("/health/live", schemas.Live),
        ("/health/ready", schemas.Ready),
        ("/admin/stats", schemas.Stats),
        ("/admin/overview", schemas.Overview),
        ("/admin/connections/1", schemas.ConnectionInFull),
        ("/admin/config", schemas.EffectiveConfig),
        ("/api/topics/room:1/presence", schemas.Presence),
        ("/api/topics/room:1/history", schemas.History),
    ],
)
def test_what_is_read(operated, admin_key, path, kind):
    assert body_of(operated.request("GET", path, headers=admin_key), kind)


@pytest.mark.parametrize(
    ("path", "body", "kind"),
    [
        ("/api/publish", b'{"topic":"t","payload":1}', schemas.Published),
        ("/api/send", b'{"to":"bob","payload":1}', schemas.Sent),
        ("/api/batch", b'[{"publish":{}},{"send":{}},{}]', list[schemas.EntryAnswer]),
        ("/api/subscribe", b'{"user_id":"bob","topic":"t"}', schemas.SubscribedUser),
        ("/api/unsubscribe", b'{"user_id":"bob","topic":"t"}', schemas.UnsubscribedUser),
        ("/api/disconnect", b'{"user_id":"bob"}', schemas.Disconnected),
    ],
)
def test_what_is_asked(operated, admin_key, path, body, kind):
    headers = {**admin_key, "Content-Type": "application/json"}
    assert body_of(operated.request("POST", path, body, headers), kind)


def test_what_is_changed(operated, admin_key):
    headers = {**admin_key, "Content-Type": "application/json"}
    answer = operated.request("PUT", "/admin/config/rate-limits", b'{"user_rps":5}', headers)
    assert body_of(answer, schemas.RateLimits).user_burst == 10
    answer = operated.request("PUT", "/admin/config/log-level", b'{"level":"info"}', headers)
    assert body_of(answer, schemas.LogLevel).level == "info"


@pytest.mark.parametrize("path", ["/nowhere", "/api/connections", "/api/topics?limit=x"])
def test_failures(server, path):
    answer = server.request("GET", path)
    assert answer.status >= 400
    assert msgspec.json.decode(answer.body, type=schemas.Failure).error.message


def test_a_message_names_its_sender():
    message = schemas.StoredMessage(offset=1, ts=2, sender="bob", payload=None)
    assert msgspec.to_builtins(message)["from"] == "bob"


def test_a_field_that_may_be_left_out_is_never_null():
    _, components = schemas.described_types([schemas.EntryAnswer, schemas.SendRequest, schemas.Connection])
    fields = components["EntryAnswer"]["properties"]
    assert fields["offset"] == {"type": "integer", "minimum": 0, "maximum": (1 << 53) - 1}
    assert fields["error"] == {"$ref": "#/components/schemas/EntryError"}
    assert components["SendRequest"]["properties"]["idempotency_key"]["type"] == "string"
    assert {"type": "null"} in components["Connection"]["properties"]["user_id"]["anyOf"]
