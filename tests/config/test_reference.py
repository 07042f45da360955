"""What is generated from the schema."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.examples import EXAMPLES
from realtime_communication.config.keys import REDACTED, Key
from realtime_communication.config.reference import example, json_schema, markdown, show, show_json, toml
from realtime_communication.config.values import convert

Load = Callable[..., LoadedConfig]
DOCS = Path(__file__).parents[2] / "docs" / "configuration.md"
SECRET = "0123456789abcdef0123456789abcdef"


def test_the_reference_in_docs_is_up_to_date() -> None:
    assert DOCS.read_text() == markdown(), "run: rtc config reference > docs/configuration.md"


def test_the_published_schema_is_up_to_date() -> None:
    published = DOCS.with_name("configuration.schema.json").read_text()
    assert json.loads(published) == json.loads(json.dumps(json_schema())), (
        "run: rtc config schema > docs/configuration.schema.json"
    )


def test_every_example_can_be_written_as_it_stands() -> None:
    def walk(keys: Iterable[Key], inside: str) -> Iterator[tuple[str, Key]]:
        for key in keys:
            yield inside + key.path, key
            yield from walk(key.element, f"{inside}{key.path}[].")

    places = dict(walk(KEYS.values(), ""))
    assert EXAMPLES.keys() <= places.keys()
    for path, key in places.items():
        value = tomllib.loads(example(path, key))[key.path.rpartition(".")[2]]
        assert value or key.default in (0, False, (), ""), f"{path} has an example that shows nothing"
        complaints: list[str] = []
        if "${" not in str(value) and "…" not in str(value):
            convert(key, value, lambda below, value, message: complaints.append(message))  # noqa: B023
        assert not complaints, path


def test_the_reference_names_every_key_and_variable() -> None:
    text = markdown()
    for path, key in KEYS.items():
        section, _, name = path.rpartition(".")
        if section:
            assert f"## `[{section}]`" in text and f"| `{name}`" in text
        else:
            assert f"## `[[{name}]]`" in text
        assert all(f"`{variable}`" in text for variable in key.variables)


def test_tables_in_the_reference_have_equal_columns() -> None:
    for block in markdown().split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, block


def test_show_is_toml_with_origins(load_config: Load) -> None:
    text = show(load_config("--port=9000", files={"config.toml": 'auth.jwt_issuer = "me"'}))
    values = tomllib.loads(text)
    assert values["server"]["port"] == 9000 and values["auth"]["jwt_issuer"] == "me"
    assert "server.port = 9000  # command line --port" in text
    assert "config.toml:1" in text and "# default" in text
    assert len(text.splitlines()) == len(KEYS) + 1


def test_show_redacts_secrets(load_config: Load) -> None:
    stored = "sha256:" + "0a" * 32
    text = f'[[auth.providers]]\ntype="api_key"\nkeys=[{{key="{stored}", user="a"}}]'
    loaded = load_config(files={"config.toml": text})
    for output in (show(loaded), show_json(loaded)):
        assert SECRET not in output and stored not in output
        assert REDACTED in output


def test_show_redacts_credentials_in_urls(load_config: Load) -> None:
    loaded = load_config("--tracing.endpoint=http://joe:hush@collector:4317")
    for output in (show(loaded), show_json(loaded)):
        assert "hush" not in output
        assert f"http://{REDACTED}@collector:4317" in output


def test_a_secret_that_is_not_set_is_shown_in_its_own_type(load_config: Load) -> None:
    lines = show(load_config()).splitlines()
    assert "redis.cluster.nodes = []  # default" in lines
    assert 'redis.sentinel.password = ""  # default' in lines


def test_show_as_json(load_config: Load) -> None:
    content = json.loads(show_json(load_config("--profile=dev", environ={"PORT": "9000"})))
    assert content["profile"] == "dev" and content["files"] == []
    assert content["keys"]["server.port"] == {"value": 9000, "origin": "environment variable PORT"}
    assert set(content["keys"]) == set(KEYS)


@pytest.mark.parametrize(
    "value", ['a"b\\c\n\x7f\x80😀', 1, 1.5, 30.0, True, ["a", 1], {"a": {"b": [True]}}, {}, [], -0.25, 10**12]
)
def test_toml_reads_back(value: object) -> None:
    assert tomllib.loads(f"value = {toml(value)}")["value"] == value


class TestSchema:
    schema = json_schema()

    def _find(self, path: str) -> dict[str, object]:
        place: dict[str, object] = self.schema
        for name in path.split("."):
            properties = place["properties"]
            assert isinstance(properties, dict) and place["additionalProperties"] is False
            place = properties[name]
        return place

    @pytest.mark.parametrize("path", KEYS)
    def test_every_key_and_spelling(self, path: str) -> None:
        key = KEYS[path]
        for spelling in (path, *key.aliases):
            assert self._find(spelling)["description"] == key.effect

    def test_a_number_has_its_bounds_and_may_be_expanded(self) -> None:
        schema = self._find("server.port")
        assert schema["default"] == 8081
        assert schema["anyOf"] == [
            {"type": "integer", "minimum": 0, "maximum": 65535},
            {"type": "string", "pattern": "\\$\\{"},
        ]

    def test_required_keys_of_tables(self) -> None:
        schema = json.loads(json.dumps(self._find("rate_limiting.custom_limits")))
        assert schema["anyOf"][0]["items"]["required"] == ["name", "pattern", "requests_per_second", "burst_size"]

    def test_secrets_have_no_default(self) -> None:
        assert "default" not in self._find("auth.jwt_secret")
