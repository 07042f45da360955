"""Looking inside."""

import pytest

ON = {"development.enable_debug_endpoints": True}


def test_nothing_of_it_without_the_switch(server):
    for name in ("", "tasks", "connections", "routes", "memory"):
        assert server.request("GET", f"/debug/{name}").status == 404


def test_what_is_shown(make_server):
    server = make_server(changes=ON)
    assert any("adopt" in row["name"] or row["where"] for row in server.request("GET", "/debug/tasks").json["tasks"])
    shown = server.request("GET", "/debug/connections?limit=2").json
    assert (shown["count"], len(shown["connections"])) == (3, 2)
    paths = {row["path"] for row in server.request("GET", "/debug/routes").json["routes"]}
    assert {"/ws", "/health", "/api/publish", "/debug/echo", "/debug/routes"} <= paths
    assert server.request("GET", "/debug/").json["endpoints"] == [
        *("/debug/", "/debug/connections", "/debug/echo", "/debug/memory", "/debug/routes", "/debug/tasks")
    ]
    memory = server.request("GET", "/debug/memory").json
    assert memory["rss_bytes"] > 1_000_000
    assert memory["hub"] == {"connections": 3}


@pytest.mark.parametrize("limit", ["0", "-1", "1001", "9223372036854775808", "x", "", "1.5", "%D9%A1", "9" * 5000])
def test_limits(make_server, limit):
    assert make_server(changes=ON).request("GET", f"/debug/connections?limit={limit}").status == 400
