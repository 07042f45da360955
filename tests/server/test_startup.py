"""The lines at the start, and the limit of files. How the whole comes out is in test_worker.py."""

import resource
import subprocess
import sys

import pytest

from realtime_communication.config import Config
from realtime_communication.server.listening import open_listeners
from realtime_communication.server.startup import announce, raise_file_limit


@pytest.mark.parametrize(("connections", "reserved"), [(3000, 4096), (10**9, 65_536)])
def test_the_table_of_descriptors_has_room_for_all_connections(connections, reserved):
    code = (
        "import resource;from realtime_communication.server.startup import reserve_files;"
        "hard=resource.getrlimit(resource.RLIMIT_NOFILE)[1];resource.setrlimit(resource.RLIMIT_NOFILE,(hard,hard));"
        f"reserve_files({connections});"
        "import os;print(open('/proc/self/status').read(),len(os.listdir('/proc/self/fd')))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    (size,) = (int(line.split()[1]) for line in out.splitlines() if line.startswith("FDSize:"))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert size >= min(reserved, hard) // 2
    assert int(out.split()[-1]) < 20


class Issuer:
    def access_token(self, user, now):
        return f"token-of-{user}"


@pytest.fixture
def listener():
    (listener,) = open_listeners("127.0.0.1", 0)
    yield listener
    listener.close()


def test_where_it_is_and_how_to_try_it(listener, capsys, caplog):
    caplog.set_level("INFO")
    announce(Config(), [listener], [listener], Issuer())
    first, page, token = capsys.readouterr().out.splitlines()
    assert first.endswith(f"listening on {listener.url}")
    assert page == f"demo page: {listener.url}/" and token == "token of 'demo': token-of-demo"
    assert [record.event_fields["url"] for record in caplog.records] == [listener.url, f"{listener.url}/metrics"]


def test_no_token_where_none_may_be_given_away(listener, capsys):
    announce(Config(), [listener], [], None)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_too_few_files_are_told(caplog):
    raise_file_limit(1 << 40)
    (record,) = caplog.records
    assert record.event_fields["max_connections"] == 1 << 40
    caplog.clear()
    raise_file_limit(1)
    assert not caplog.records


def test_all_files_that_are_allowed_are_used():
    script = (
        "import resource; from realtime_communication.server.startup import raise_file_limit;"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard)); raise_file_limit(1);"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == resource.getrlimit(resource.RLIMIT_NOFILE)[1]
