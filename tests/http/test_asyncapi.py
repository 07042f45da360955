"""The description of the wire protocol, held against the schema of AsyncAPI 3.0."""

import gzip
import json
from pathlib import Path

import jsonschema
import pytest

from realtime_communication.http import envelopes
from realtime_communication.http.asyncapi import described

# Of the npm package @asyncapi/specs 6.11.1 (Apache-2.0, © AsyncAPI Initiative), without descriptions and examples.
SCHEMA = Path(__file__).with_name("asyncapi-3.0.0.json.gz")


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft7Validator(json.loads(gzip.decompress(SCHEMA.read_bytes())))


@pytest.mark.parametrize("secure", [False, True])
def test_is_valid(validator, secure):
    document = described("example.org:8080", secure=secure)
    validator.validate(document)
    assert document["servers"]["this"] == {"host": "example.org:8080", "protocol": "wss" if secure else "ws"}


def test_is_served_to_anyone(server, validator):
    answer = server.request("GET", "/asyncapi.json")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    validator.validate(answer.json)
    assert answer.json["servers"]["this"]["host"] == f"127.0.0.1:{server.port}"


def test_every_reference_leads_somewhere():
    document = described("x", secure=False)

    def references(value):
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    found = set(references(document))
    assert len(found) > len(envelopes.EXAMPLES)
    for reference in found:
        at = document
        for part in reference.removeprefix("#/").split("/"):
            at = at[part]


def test_examples_fit_the_payloads_they_stand_with():
    document = described("x", secure=False)
    for message in document["components"]["messages"].values():
        schema = {**message["payload"], "components": document["components"]}
        for example in message["examples"]:
            jsonschema.validate(example["payload"], schema)
            assert example["payload"]["type"] == message["name"]


def test_all_operations():
    operations = described("x", secure=False)["operations"]
    assert len(operations) == len(envelopes.REQUESTS) + len(envelopes.UNASKED)
    assert operations["receiveSubscribe"]["reply"]["messages"] == [
        {"$ref": "#/channels/connection/messages/Subscribed"},
        {"$ref": "#/channels/connection/messages/Error"},
    ]


def test_the_one_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "asyncapi.json").read_text()
    assert json.loads(text) == described("localhost:8080", secure=False), (
        "run: curl http://localhost:8080/asyncapi.json | python -m json.tool --no-ensure-ascii > docs/asyncapi.json"
    )
