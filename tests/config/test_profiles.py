"""What a profile changes."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.catalogue import KEYS
from realtime_communication.config.origins import Layer
from realtime_communication.config.profiles import DEFAULT_PROFILE, PROFILE_DEFAULTS, is_profile_name

Load = Callable[..., LoadedConfig]


def test_names() -> None:
    assert DEFAULT_PROFILE == "prod"
    assert set(PROFILE_DEFAULTS) == {"dev", "test", "prod"}
    assert is_profile_name("eu-west_1")
    assert not any(map(is_profile_name, ("", "a/b", "..", "a b", "x" * 65)))


@pytest.mark.parametrize("profile", PROFILE_DEFAULTS)
def test_profile_defaults_are_in_force_and_can_be_told(profile: str, load_config: Load) -> None:
    loaded = load_config(f"--profile={profile}")
    for path, value in PROFILE_DEFAULTS[profile].items():
        assert functools.reduce(getattr, path.split("."), loaded.config) == value
        assert loaded.origins[path].layer is Layer.PROFILE and str(loaded.origins[path]) == f"profile {profile}"


def test_profile_defaults_are_keys_of_the_schema() -> None:
    assert all(path in KEYS for defaults in PROFILE_DEFAULTS.values() for path in defaults)


def test_no_profile_is_prod(load_config: Load) -> None:
    assert load_config().profile == "prod"
    assert load_config().config == load_config("--profile=prod").config
