"""How full the mailboxes are, and whose are fullest."""

from core.hub.sans_io import Server, make_hub


def waiting(server: Server, **counts: int) -> None:
    """A stalled connection for each user, with so many messages waiting for it."""
    for user, count in counts.items():
        peer = server.connect(user)
        peer.subscribe(user)
        peer.stall()
        server.fill(user, count, size=100)
    server.flush()


def test_connections_by_what_waits_for_them() -> None:
    server = make_hub()
    waiting(server, none=0, one=1, three=3, four=4, many=40)
    depths, slowest = server.hub.mailboxes(10)
    assert len(depths) == 16
    assert {step: count for step, count in enumerate(depths) if count} == {0: 1, 1: 1, 2: 1, 3: 1, 6: 1}
    assert [(row["user_id"], row["queued"]) for row in slowest] == [("many", 40), ("four", 4), ("three", 3), ("one", 1)]


def test_no_more_than_asked_for() -> None:
    server = make_hub()
    waiting(server, b=2, d=4, a=1, c=3, e=5)
    assert [row["user_id"] for row in server.hub.mailboxes(2)[1]] == ["e", "d"]
    depths, slowest = server.hub.mailboxes(0)
    assert (sum(depths), slowest) == (5, [])


def test_the_last_step_is_of_all_that_have_more() -> None:
    server = make_hub(mailbox_capacity=100_000, max_cache_entries=10)
    waiting(server, most=40_000)
    depths, ((row),) = server.hub.mailboxes(1)
    assert (depths[15], row["queued"]) == (1, 40_000)
