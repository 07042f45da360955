"""The assembly of a worker: which parts there are for which configuration, and that all follow a change."""

import subprocess
import sys

import pytest

from realtime_communication.config import load
from realtime_communication.errors import ConfigurationError
from realtime_communication.server.listening import open_listeners
from realtime_communication.server.parts import Parts

SECRET = "a secret of the tests, 32 bytes or longer"


@pytest.fixture
def parts(tmp_path):
    opened = []

    def make(*words, metrics=False, profile="test"):
        loaded = load([f"--profile={profile}", *words], {"JWT_SECRET": SECRET}, tmp_path)
        listeners = open_listeners("127.0.0.1", 0)
        metrics_listeners = open_listeners("127.0.0.1", 0) if metrics else []
        opened.extend([*listeners, *metrics_listeners])
        return Parts(loaded, listeners, metrics_listeners, list)

    yield make
    for listener in opened:
        listener.close()


def names(made):
    return {service.name for service in made.tasks}


def test_what_is_off_has_no_task(parts):
    made = parts("--testing.use_in_memory_storage")
    always = {
        "revocations",
        "issuer keys",
        "webhooks",
        "event webhooks",
        "garbage collector",
        "watchdog",
        "draining",
        "samples",
    }
    assert names(made) == always
    assert made.services.metrics is None and set(made.services.checks) == {"services", "log"}


def test_redis_py_is_not_loaded_for_a_node_without_redis():
    script = """if True:
        import sys
        from realtime_communication.config import load
        from realtime_communication.server import supervisor, worker
        from realtime_communication.server.listening import open_listeners
        from realtime_communication.server.parts import Parts

        loaded = load(["--profile=test", "--testing.use_in_memory_storage", "--testing.bypass_auth"], {})
        Parts(loaded, open_listeners("127.0.0.1", 0), [], list)
        print(sorted({name.partition(".")[0] for name in sys.modules} & {"hiredis", "opentelemetry", "redis"}))
    """
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_what_is_on_has_one(parts):
    made = parts("--tracing.enabled", "--tracing.sampling_rate=1", metrics=True)
    assert names(made) >= {"Redis link", "Redis events", "metrics", "samples"}
    assert "redis" in made.services.checks
    made.tracer.shutdown()


def test_every_part_follows_a_change(parts):
    made = parts("--testing.use_in_memory_storage")
    before = made.services.chain
    made.live.change(
        {
            "circuit_breaker.failure_threshold": 2,
            "security.content_security_policy": "default-src 'none'",
            "rate_limiting.user.burst_size": 7,
        },
        "alice",
    )
    assert made.services.config is made.live.config
    assert made.services.config.security.content_security_policy == "default-src 'none'"
    assert made.services.chain is not before
    assert made.hub.user_limit("alice")[0] == 7
    assert made.breakers["redis"]._settings.failure_threshold == 2


def test_a_change_that_one_part_cannot_follow_changes_none(parts):
    made = parts("--testing.use_in_memory_storage")

    def refuses(config):
        raise OSError("no such file")

    made.live.add(refuses)
    with pytest.raises(ConfigurationError, match="no such file"):
        made.live.change({"rate_limiting.user.burst_size": 7}, "alice")
    assert made.hub.user_limit("alice")[0] == 1000
