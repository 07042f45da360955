"""`[actor_system]` and `[performance.actors]`: queues, fairness, cores and crashes."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from realtime_communication.config.catalogue import KEYS
from realtime_communication.resilience.supervision import RestartPolicy
from serving.processes import free_port


def stalled_subscriber(server, count):
    """A subscriber that reads nothing while `count` messages are published; and the publisher."""
    reader, publisher = server.connect("reader"), server.connect("publisher")
    reader.subscribe("t")
    reader.stall()
    for number in range(count):
        publisher.send({"type": "Broadcast", "id": number, "topic": "t", "payload": number})
    return reader, publisher


def received(reader):
    """Payloads of messages, and what is told of gaps between them."""
    reader.resume()
    return [
        message["payload"] if message["type"] == "Message" else (message["missed"], message["recovered"])
        for message in reader.messages()
    ]


def overflowing(hub, strategy, capacity=3):
    return hub({"actor_system": {"mailbox_capacity": capacity, "overflow_strategy": strategy}})


@pytest.mark.parametrize("capacity", [3, 6])
def test_mailbox_capacity_with_drop_newest(hub, capacity):
    reader, _ = stalled_subscriber(overflowing(hub, "drop_newest", capacity), 10)
    assert reader.connection.open
    got = received(reader)
    assert got[-1] == (10 - len(got) + 1, False)
    assert got[:-1] == list(range(len(got) - 1))
    assert capacity <= len(got) - 1 <= capacity + 1  # at most its bound plus one message is queued


def test_drop_oldest(hub):
    reader, _ = stalled_subscriber(overflowing(hub, "drop_oldest"), 10)
    got = received(reader)
    assert got[-2:] == [8, 9]
    gaps = [entry for entry in got if isinstance(entry, tuple)]
    assert [recovered for _, recovered in gaps] == [False]
    assert len(got) - 1 + gaps[0][0] == 10


def test_backpressure_catches_up_from_the_cache(hub):
    reader, _ = stalled_subscriber(overflowing(hub, "backpressure"), 10)
    got = received(reader)
    assert [entry for entry in got if not isinstance(entry, tuple)] == list(range(10))
    gaps = [entry for entry in got if isinstance(entry, tuple)]  # one for each mailbox full of what is caught up
    assert {recovered for _, recovered in gaps} == {True}
    assert got.index(gaps[0]) + sum(missed for missed, _ in gaps) == 10


def test_backpressure_refuses_direct_messages(hub):
    server = overflowing(hub, "backpressure")
    reader, publisher = server.connect("reader"), server.connect("publisher")
    reader.stall()
    answers = []
    for number in range(10):
        publisher.send({"type": "DirectMessage", "id": number, "to": "reader", "payload": number})
        answers += publisher.messages()
    errors = [answer for answer in answers if answer["type"] == "Error"]
    assert errors
    assert {error["code"] for error in errors} == {"backpressure"}
    assert all(error["retry_after_ms"] > 0 for error in errors)
    assert reader.connection.open


def test_block_stops_reading_from_the_publisher(hub):
    server = overflowing(hub, "block")
    reader, publisher = stalled_subscriber(server, 10)
    assert not publisher.connection.reading
    assert server.stats()["publications"] < 10
    for _ in range(10):
        reader.resume()
        server.flush()
    assert publisher.connection.reading
    assert [message["payload"] for message in reader.messages()] == list(range(10))


@pytest.mark.parametrize("priority", [True, False])
def test_enable_priority_mailbox(hub, priority):
    server = hub({"actor_system": {"enable_priority_mailbox": priority}})
    reader, _ = stalled_subscriber(server, 3)
    reader.send({"type": "Ping", "id": 7})
    reader.resume()
    kinds = [message["type"] for message in reader.messages()]
    # What was on its way when the reader stalled cannot be overtaken.
    assert kinds.index("Pong") < kinds.index("Message") + 2 if priority else kinds[-1] == "Pong"
    assert sorted(kinds) == ["Message"] * 3 + ["Pong"]


@pytest.mark.parametrize(("size", "reading"), [(3, False), (50, True)])
def test_priority_mailbox_size(hub, size, reading):
    peer = hub({"performance": {"actors": {"priority_mailbox_size": size}}}).connect()
    peer.stall()
    for number in range(10):
        peer.send({"type": "Ping", "id": number})
    assert peer.connection.reading is reading
    peer.resume()
    assert [message["id"] for message in peer.messages()] == list(range(10))


@pytest.mark.parametrize(
    ("strategy", "most", "window"), [("one_for_one", 3, 60.0), ("all_for_one", 0, 1.0), ("rest_for_one", 9, 500.0)]
)
def test_supervision_follows_the_configuration(serve, strategy, most, window):
    running = serve(
        {"actor_system": {"supervision_strategy": strategy, "max_restarts": most, "restart_window_secs": window}}
    )
    assert running.worker._supervisor._policy == RestartPolicy(strategy, most, window)


def test_work_stealing_promises_nothing_to_one_worker():
    assert "with one worker there is nobody to take them" in KEYS["performance.actors.use_work_stealing"].effect


@pytest.mark.parametrize("pinned", [True, False])
def test_pin_actors_to_cores(pinned):
    allowed = sorted(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "realtime_communication.cli.main", "serve", "--profile=dev", "--workers=1"]
    command += [
        "--host=127.0.0.1",
        f"--port={free_port()}",
        f"--performance.actors.pin_actors_to_cores={str(pinned).lower()}",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert "listening on" in process.stdout.readline()
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()
            with contextlib.suppress(ValueError):
                process.communicate(timeout=20)
    shown = re.search(r"^Cpus_allowed_list:\s+(\S+)$", status, re.MULTILINE)[1]
    assert cores_of(shown) == (allowed[:1] if pinned else allowed)


def cores_of(text):
    """The numbers of a list such as `0-3,8`."""
    cores = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores += range(int(first), int(last or first) + 1)
    return cores
