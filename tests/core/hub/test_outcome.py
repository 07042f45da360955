"""What a request comes to: the same refusal over a connection and over HTTP."""

from typing import Any

import pytest

from core.hub.sans_io import Envelope, identity, make_hub
from realtime_communication._core.hub.outcome import RequestError


class TestRequestError:
    def test_what_it_says(self) -> None:
        error = RequestError("rate_limited", "more requests than the limit allows", 50)
        assert (error.code, error.message, error.retry_after_ms) == (
            "rate_limited",
            "more requests than the limit allows",
            50,
        )
        assert str(error) == error.message
        assert RequestError("forbidden", "no").retry_after_ms is None


@pytest.mark.parametrize("request_", [{"type": "Broadcast", "topic": "t"}, {"type": "DirectMessage", "to": "bob"}])
def test_a_server_that_ends_refuses_both_ways_alike(request_: Envelope) -> None:
    server = make_hub()
    alice = server.connect("alice")
    server.hub.begin_drain(0)
    server.flush()
    alice.messages()
    answer = alice.request({**request_, "id": 1, "payload": 1})
    over_http: Any = server.publish if request_["type"] == "Broadcast" else server.send
    with pytest.raises(RequestError) as caught:
        over_http(identity("bob"), payload=1, **{name: value for name, value in request_.items() if name != "type"})
    assert (caught.value.code, caught.value.message, caught.value.retry_after_ms) == (
        answer["code"],
        answer["message"],
        answer["retry_after_ms"],
    )
