"""The operator's functions: how they are found, what they see, what a bad one tells."""

import asyncio
import json
import os
import subprocess
import sys
from types import ModuleType

import msgspec
import pytest

from realtime_communication.config.traffic import MessageRouting, Transform
from realtime_communication.errors import EXIT_CONFIG, ConfigurationError
from realtime_communication.observability import logs
from realtime_communication.server.transforms import Transformation, load_transforms
from serving.tokens import SECRET


async def slow(topic, payload):
    await asyncio.sleep(0)


def double(topic, payload):
    return payload * 2


@pytest.fixture(autouse=True)
def rules(monkeypatch):
    module = ModuleType("server_rules")
    module.double, module.slow, module.number = double, slow, 3
    module.one = lambda topic: topic
    module.clock = max  # in C, with arguments of its own
    monkeypatch.setitem(sys.modules, "server_rules", module)
    return module


def load(*callables, **changes):
    transforms = tuple(Transform(topic="t", callable=name) for name in callables)
    return load_transforms(MessageRouting(transforms=transforms, **changes), 1000)


def test_the_pattern_and_its_function():
    ((topic, function),) = load("server_rules:double")
    assert topic == "t"
    assert json.loads(function("t", b'"ab"')) == "abab"
    assert function("t", b"[1]") == b"[1,1]"


def test_none_is_a_refusal_and_null_is_a_payload():
    assert Transformation("f", lambda topic, payload: None, 9)("t", b"1") is None
    assert Transformation("f", lambda topic, payload: {"was": payload}, 99)("t", b"null") == b'{"was":null}'


def test_the_same_configuration_gives_equal_settings():
    assert load("server_rules:double") == load("server_rules:double")


def test_nothing_is_imported_while_transformation_is_off():
    assert load("no_such_module:f", enable_message_transformation=False) == ()


@pytest.mark.parametrize(
    "name, why",
    [
        ("no_such_module:f", "ModuleNotFoundError"),
        ("server_rules:nothing", "AttributeError"),
        ("server_rules:number", "must name a function"),
        ("server_rules:slow", "must not be async"),
        ("server_rules:one", "2 arguments, the topic and the payload"),
    ],
)
def test_one_that_cannot_be_used(name, why):
    with pytest.raises(ConfigurationError, match=why) as refused:
        load("server_rules:double", name, "no.other.module:f")
    assert refused.value.exit_status == EXIT_CONFIG
    first, second = refused.value.problems
    assert (first.key, first.value) == ("message_routing.transforms[1].callable", name)
    assert second.key == "message_routing.transforms[2].callable"


def test_functions_in_c_are_taken_at_their_word():
    ((_, function),) = load("server_rules:clock")
    assert function("t", b'"z"') == b'"z"'


def test_an_exception_is_one_line_in_the_log(capfd):
    logs.configure("info", "json")
    try:
        with pytest.raises(ZeroDivisionError):
            Transformation("rules:divide", lambda topic, payload: 1 / 0, 9)("room", b"1")
    finally:
        logs.shutdown()
    (line,) = capfd.readouterr().err.splitlines()
    told = msgspec.json.decode(line)
    assert (told["level"], told["event"]) == ("error", "a transform failed")
    assert (told["transform"], told["topic"], told["error"]) == (
        "rules:divide",
        "room",
        "ZeroDivisionError: division by zero",
    )


def test_one_that_wants_the_process_to_end_is_told_too(caplog):
    def leave(topic, payload):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        Transformation("rules:leave", leave, 9)("room", b"1")
    assert [record.getMessage() for record in caplog.records] == ["a transform failed"]


def test_what_is_too_large_is_an_error_of_the_function():
    shout = Transformation("rules:shout", lambda topic, payload: payload * 100, 100)
    with pytest.raises(ValueError, match="102 bytes, at most 100"):
        shout("room", b'"a"')
    assert shout("room", b'""') == b'""'


def test_a_server_with_a_bad_one_does_not_start(tmp_path):
    (tmp_path / "bad_rules.py").write_text("raise RuntimeError('first\\nsecond')")
    (tmp_path / "config.toml").write_text(
        '[[message_routing.transforms]]\ntopic = "room:*"\ncallable = "bad_rules:change"\n'
    )
    done = subprocess.run(
        [sys.executable, "-m", "realtime_communication.cli.main", "serve", "--profile=test", "--port=0"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "JWT_SECRET": SECRET, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == EXIT_CONFIG
    told = "message_routing.transforms[0].callable = bad_rules:change: cannot be imported: RuntimeError: first second"
    assert any(told in line for line in done.stderr.splitlines())
    assert done.stdout == ""
