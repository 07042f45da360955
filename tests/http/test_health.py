"""Health in its three forms."""

from realtime_communication import __version__


def test_the_report(server):
    answer = server.request("GET", "/health")
    assert answer.status == 200
    report = answer.json
    assert report.pop("uptime_secs") >= 0
    assert report == {
        "status": "ok",
        "version": __version__,
        "profile": "test",
        "node_id": "node-1",
        "port": server.port,
        "connections": 3,
        "workers": 1,
    }


def test_the_short_forms(server):
    assert server.request("GET", "/health/live").json == {"status": "ok"}
    assert server.request("GET", "/health/ready").status == 200


def test_draining_is_not_ready_but_alive(server):
    server.services.draining = True
    assert server.request("GET", "/health").json["status"] == "draining"
    assert server.request("GET", "/health/live").status == 200
    answer = server.request("GET", "/health/ready")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")


def test_the_configuration_moves_and_removes_it(make_server):
    moved = make_server(changes={"monitoring.health_check.path": "/up", "monitoring.health_check.detailed": False})
    assert moved.request("GET", "/up").json == {"status": "ok"}
    assert moved.request("GET", "/health").status == 404
    assert make_server(changes={"monitoring.health_check.enabled": False}).request("GET", "/health").status == 404
