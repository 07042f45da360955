"""Words for where a value came from."""

from __future__ import annotations

import pytest

from realtime_communication.config.origins import DEFAULT, Layer, Origin


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        (DEFAULT, "default"),
        (Origin(Layer.PROFILE, "dev"), "profile dev"),
        (Origin(Layer.FILE, "a/config.toml", 3), "a/config.toml:3"),
        (Origin(Layer.PROFILE_FILE, "config.dev.toml"), "config.dev.toml"),
        (Origin(Layer.ENVIRONMENT, "PORT"), "environment variable PORT"),
        (Origin(Layer.COMMAND_LINE, "--port"), "command line --port"),
        (Origin(Layer.DERIVED, "made for this run"), "made for this run"),
    ],
)
def test_words(origin: Origin, words: str) -> None:
    assert str(origin) == words


def test_layers_are_in_order_of_strength() -> None:
    assert Layer.DEFAULT < Layer.PROFILE < Layer.FILE < Layer.PROFILE_FILE < Layer.ENVIRONMENT < Layer.COMMAND_LINE
