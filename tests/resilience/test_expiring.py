"""The table against a plain one that looks at every entry."""

from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.resilience.expiring import ExpiringTable


class Plain:
    """As slow as it is plain."""

    def __init__(self, most):
        self.most = most
        self.entries = {}

    def sweep(self, now):
        self.entries = {key: entry for key, entry in self.entries.items() if entry[1] > now}

    def put(self, key, value, until, now):
        self.entries[key] = (value, until)
        self.sweep(now)
        if len(self.entries) > self.most:
            del self.entries[min(self.entries, key=lambda key: (self.entries[key][1], key))]

    def get(self, key, now):
        self.sweep(now)
        return self.entries.get(key, (None,))[0]


STEP = st.tuples(
    st.sampled_from("abcdefg"), st.integers(-1, 20), st.integers(0, 3), st.sampled_from(("put", "put", "pop", "look"))
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(1, 5), st.lists(STEP, max_size=80))
def test_against_the_plain_one(most, steps):
    table, plain, now = ExpiringTable(most), Plain(most), 0
    for number, (key, life, passed, what) in enumerate(steps):
        now += passed
        if what == "put":
            # Ends that differ: which of two that end together goes first is nobody's business.
            until = now + life + number / 1000
            table.put(key, number, until, now)
            plain.put(key, number, until, now)
        elif what == "pop":
            table.pop(key)
            plain.entries.pop(key, None)
        plain.sweep(now)
        assert {key: (value, until) for key, value, until in table.items(now)} == plain.entries
        assert table.get(key, now) == plain.get(key, now)
        assert len(table) == len(plain.entries)
    for key in "abcdefg":
        assert table.get(key, now) == plain.get(key, now)


def test_an_entry_put_again_and_again_costs_no_memory():
    table = ExpiringTable(10)
    for number in range(10_000):
        table.put("a", number, 1e9 + number, 0)
    assert len(table._queue) < 100
    assert (table.get("a", 0), table.until("a"), table.until("b")) == (9999, 1e9 + 9999, 0)


def test_an_entry_removed_again_and_again_costs_no_memory():
    table = ExpiringTable(10)
    for number in range(10_000):
        table.put("a", number, 1e9 + number, 0)
        table.pop("a")
    assert len(table._queue) < 100
    assert len(table) == 0


def test_what_ends_is_swept_without_being_asked_for():
    table = ExpiringTable(10)
    for number in range(5):
        table.put(str(number), number, number + 1, 0)
    table.sweep(3)
    assert len(table) == len(table._queue) == 2


def test_what_has_ended_does_not_stay():
    table = ExpiringTable(10)
    table.put("a", 1, 5, 5)
    assert table.until("a") == 0
    assert table.get("a", 5) is None
    assert len(table) == 0
