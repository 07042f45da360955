"""The workers as an endpoint sees them."""

import asyncio

import pytest

from realtime_communication.http.fleet import Alone, Gathered


def test_one_worker_is_asked_at_once():
    async def later(params):
        await asyncio.sleep(0)
        return params["x"]

    fleet = Alone({"now": len, "later": later}, lambda changes, origin: None)
    assert asyncio.run(fleet.gather("now")) == Gathered({0: 0})
    assert asyncio.run(fleet.gather("later", {"x": 5})) == Gathered({0: 5})
    assert not Gathered({0: 5}).several


def test_a_change_is_made_where_it_is_asked():
    made = []
    fleet = Alone({}, lambda changes, origin: made.append((changes, origin)))
    asyncio.run(fleet.change({"logging.level": "debug"}, "somebody"))
    assert made == [({"logging.level": "debug"}, "somebody")]


@pytest.mark.parametrize(
    ("found", "several", "told"),
    [
        (Gathered({0: 1}), False, {"a": 1}),
        (Gathered({0: 1, 1: 2}), True, {"a": 1}),
        (Gathered({0: 1}, (1, 3)), True, {"a": 1, "workers_missing": [1, 3]}),
    ],
)
def test_who_is_missing_is_told(found, several, told):
    assert (found.several, found.told({"a": 1})) == (several, told)
