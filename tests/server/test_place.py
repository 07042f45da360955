"""What a worker gets from its supervisor comes out as it went in."""

import socket
from pathlib import Path

import msgspec
import pytest

from realtime_communication.config import Config, load
from realtime_communication.server.listening import Listener
from realtime_communication.server.place import (
    ALONE,
    Assignment,
    Handed,
    Place,
    handed,
    made_node_id,
    packed,
    unpacked_assignment,
    unpacked_configuration,
)


@pytest.fixture
def loaded(tmp_path):
    (tmp_path / "config.toml").write_text('[server]\nport = 9000\n[[auth.providers]]\ntype = "jwt"\n')
    return load(["--profile=dev"], environ={}, directory=tmp_path)


def test_a_configuration_with_origins_files_and_made_secret(loaded, tmp_path):
    copy = unpacked_configuration(packed(loaded))
    assert copy == loaded and copy.config.auth.jwt_secret == loaded.config.auth.jwt_secret
    assert copy.files == (tmp_path / "config.toml",) and isinstance(copy.directory, Path)
    assert str(copy.origins["server.port"]) == str(loaded.origins["server.port"])


def test_an_assignment(loaded):
    place = Place(slot=1, workers=2, incarnation=7, node_id="n", bus_dir="/run/x", metrics_port=1)
    assignment = Assignment(place=place, loaded=loaded, listeners=(Handed(5, None), Handed(6, "/run/s")))
    assert unpacked_assignment(packed(assignment)) == assignment


def test_what_is_none_is_refused():
    with pytest.raises(msgspec.MsgspecError):
        unpacked_assignment(b"\x80")


def test_a_socket_is_the_same_one_in_other_hands():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        copy = socket.socket(fileno=sock.dup().detach())
        (each,) = handed([Listener(copy)])
        other = each.listener()
        copy.detach()
        assert other.port == sock.getsockname()[1] and other.sock.getblocking() is False
        assert not other.sock.get_inheritable()
        other.close()


def test_a_unix_socket_in_other_hands_leaves_its_file(tmp_path):
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        other = Handed(sock.dup().detach(), path).listener()
        assert other.url == f"unix:{path}" and other.port is None
        other.close()
        assert Path(path).exists()


def test_names_of_nodes():
    assert made_node_id(Config()) != made_node_id(Config()) and len(made_node_id(Config())) == 16
    testing = msgspec.structs.replace(Config().testing, deterministic_ids=True)
    assert made_node_id(msgspec.structs.replace(Config(), testing=testing)) == "node-1"
    assert (ALONE.slot, ALONE.workers, ALONE.bus_dir) == (0, 1, "")
