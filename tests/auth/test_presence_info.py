"""What others see of a user."""

import json

import pytest

from realtime_communication.auth.presence_info import MAX_INFO_BYTES, presence_info
from realtime_communication.config.schema import CustomClaims

ALL = {
    "include_user_metadata": True,
    "include_device_info": True,
    "include_location": True,
    "custom_fields": {"tier": "gold"},
}
CLAIMS = {
    "sub": "alice",
    "user_metadata": {"team": "red"},
    "tier": "silver",
    "email": "alice@example",
    "device_info": {"user_agent": "of the token"},
    "location": {"address": "of the token"},
}


def info(claims=CLAIMS, agent="Firefox", address="192.0.2.1", **wanted):
    made = presence_info(claims, CustomClaims(**wanted), user_agent=agent, address=address)
    return None if made is None else json.loads(made)


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("include_user_metadata", {"user_metadata": {"team": "red"}}),
        ("include_device_info", {"device_info": {"user_agent": "Firefox"}}),
        ("include_location", {"location": {"address": "192.0.2.1"}}),
        ("custom_fields", {"tier": "silver"}),
    ],
)
def test_each_only_where_it_is_configured(key, shown):
    assert info() is None
    assert info(**{key: ALL[key]}) == shown


def test_all_of_it_and_nothing_else():
    assert info(**ALL) == {
        "user_metadata": {"team": "red"},
        "tier": "silver",
        "device_info": {"user_agent": "Firefox"},
        "location": {"address": "192.0.2.1"},
    }


@pytest.mark.parametrize("claims", [None, {}, {"user_metadata": "text", "tier": 7}, {"user_metadata": ["a"]}])
def test_what_the_token_does_not_have(claims):
    assert info(claims, **(ALL | {"include_device_info": False, "include_location": False})) == {"tier": "gold"}


def test_nothing_to_show_is_nothing():
    assert info({}, "", "", include_user_metadata=True, include_device_info=True, include_location=True) is None


@pytest.mark.parametrize(
    ("claims", "kept"),
    [
        ({"user_metadata": {"a": "x" * MAX_INFO_BYTES}}, {"tier", "device_info", "location"}),
        ({"tier": "x" * MAX_INFO_BYTES}, {"device_info", "location"}),
        ({"user_metadata": {"a": "x" * 3000}, "tier": "y" * 3000}, {"tier", "device_info", "location"}),
    ],
)
def test_what_is_too_large_is_left_out(claims, kept):
    assert info(claims, **ALL).keys() == kept


def test_the_user_agent_is_cut_and_any_text_is_good():
    assert info(None, 'x"\n' * 500, "", include_device_info=True)["device_info"]["user_agent"] == ('x"\n' * 500)[:256]
