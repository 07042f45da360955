"""The table of entries that expire, against a plain model."""

from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.broker.expiring import ExpiringTable


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    most=st.integers(1, 5),
    steps=st.lists(st.tuples(st.integers(0, 8), st.integers(-1, 20), st.integers(0, 3), st.booleans()), max_size=60),
)
def test_against_a_model(most, steps):
    table, model, now = ExpiringTable(most), {}, 0
    for key, ttl, pause, put in steps:
        now += pause
        if not put:
            table.pop(key)
            model.pop(key, None)
        else:
            table.put(key, (key, now), now + ttl, now)
            model[key] = ((key, now), now + ttl)
            model = {each: entry for each, entry in model.items() if entry[1] > now}
            if len(model) > most:
                del model[min(model, key=lambda each: (model[each][1], each))]
        alive = {each: entry for each, entry in model.items() if entry[1] > now}
        assert {each: (value, until) for each, value, until in table.items(now)} == alive
        assert [table.get(each, now) for each in range(9)] == [
            alive[each][0] if each in alive else None for each in range(9)
        ]


def test_putting_one_key_for_ever_takes_no_room():
    table = ExpiringTable(10)
    for number in range(10_000):
        table.put("key", number, 1e9 + number, 0)
    assert len(table) == 1
    assert len(table._times) < 200
