"""Keys of the guide whose feature this version does not have."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.catalogue import KEYS, LATER_KEYS
from realtime_communication.config.keys import Kind
from realtime_communication.config.later import LATER, LaterKey
from realtime_communication.config.reference import toml
from realtime_communication.errors import ConfigurationProblem

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]

every_row = pytest.mark.parametrize("later", LATER, ids=lambda later: later.key.path)


def _other_value(later: LaterKey) -> object:
    key = later.key
    if key.kind is Kind.BOOLEAN:
        return True
    if key.kind is Kind.CHOICE:
        return next(choice for choice in key.choices if choice != key.default)
    return {
        Kind.INTEGER: 7,
        Kind.NUMBER: 7.5,
        Kind.STRING: "something",
        Kind.STRINGS: ["something"],
        Kind.NUMBERS: [7.5],
        Kind.STRING_MAP: {"a": "b"},
        Kind.TABLES: [{"name": "redis"}],
    }[key.kind]


def test_no_key_is_in_both_tables() -> None:
    assert not set(KEYS) & set(LATER_KEYS)


def test_switches_exist() -> None:
    for later in LATER:
        assert not later.switch or LATER_KEYS[later.switch].key.kind is Kind.BOOLEAN


@every_row
def test_the_default_is_accepted(later: LaterKey, load_config: Load) -> None:
    loaded = load_config(files={"config.toml": f"{later.key.path} = {toml(later.key.default)}"})
    told = any("not supported by this version yet" in warning for warning in loaded.warnings)
    switched_off = bool(later.switch) and LATER_KEYS[later.switch].key.default is False
    assert told == (later.key.default is not False and not switched_off)


@every_row
def test_a_value_that_asks_for_something_is_refused(later: LaterKey, refused: Refuse, load_config: Load) -> None:
    value = _other_value(later)
    text = f"{later.key.path} = {toml(value)}\n"
    if later.switch and LATER_KEYS[later.switch].key.default is False:
        assert load_config(files={"config.toml": text}).warnings == ()
        text += f"{later.switch} = true\n"
    if later.harmless or value == later.key.default:
        assert load_config(files={"config.toml": text}).warnings
        return
    problems = {problem.key: problem for problem in refused(files={"config.toml": text})}
    assert "is not supported by this version yet" in problems[later.key.path].message
    assert problems[later.key.path].origin.endswith("config.toml:1")


@every_row
def test_a_wrong_type_is_a_wrong_type_here_too(later: LaterKey, refused: Refuse) -> None:
    problems = refused(files={"config.toml": f"{later.key.path} = 1979-05-27"})
    assert [problem.key for problem in problems] == [later.key.path]


@pytest.mark.parametrize("section", ["circuit_breaker", "monitoring.prometheus", "tracing", "security.tls"])
def test_below_a_switch_that_is_off_anything_goes(section: str, load_config: Load) -> None:
    rows = [later for later in LATER if later.switch == f"{section}.enabled"]
    text = "".join(f"{later.key.path} = {toml(_other_value(later))}\n" for later in rows)
    assert load_config(files={"config.toml": f"{section}.enabled = false\n{text}"}).warnings == ()


@pytest.mark.parametrize(
    "words",
    [["--profile=dev"], ["--profile=test", "--testing.use_in_memory_storage"]],
)
def test_where_redis_is_never_looked_for_its_settings_are_accepted(words: list[str], load_config: Load) -> None:
    assert load_config(*words, files={"config.toml": 'redis.url = "redis://node:6379"'}).warnings == ()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (
            variable,
            "true" if later.key.kind is Kind.BOOLEAN else "7" if later.key.kind is not Kind.STRING else "redis://h",
        )
        for later in LATER
        for variable in later.key.variables
    ],
)
def test_a_variable_only_warns(variable: str, value: str, load_config: Load) -> None:
    (warning,) = load_config(environ={variable: value}).warnings
    assert f"environment variable {variable}" in warning
    assert value not in warning.replace(variable, "") or value in ("7", "true")


def test_warnings_do_not_show_a_redis_password(load_config: Load) -> None:
    loaded = load_config(environ={"REDIS_URL": "redis://:hush@host"})
    assert loaded.warnings and "hush" not in "".join(loaded.warnings)


def test_a_refusal_says_what_to_write(refused: Refuse) -> None:
    def message(text: str) -> str:
        (problem,) = refused(files={"config.toml": text})
        return problem.message

    assert "set tracing.enabled = false" in message('tracing.endpoint = "http://x:1"')
    assert "must be false" in message("tls.enabled = true")
    assert 'leave it at "rtc:"' in message('redis.key_prefix = "x:"')
    assert "take it out" in message("message_routing.transforms = [{a = 1}]")
