"""The rules for all tokens, alone. `test_jwt` and `test_oidc` attack them through the two verifiers."""

import base64
import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication.auth.token_rules import Names, check_parties, check_times, decoded, names_of, split
from realtime_communication.errors import AuthenticationFailed


def segment(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token(header, claims):
    return f"{segment(header)}.{segment(claims)}.AAAA"


def test_the_parts():
    taken_apart = split(token({"alg": "x"}, {"a": 1}))
    assert taken_apart.header == {"alg": "x"}
    assert taken_apart.signed == f"{segment({'alg': 'x'})}.{segment({'a': 1})}".encode()
    assert (taken_apart.payload, taken_apart.signature) == (segment({"a": 1}), b"\0\0\0")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        (token({"alg": "RS256"}, {"iss": "me"}), Names("RS256", "me")),
        (token({"alg": "HS256"}, {}), Names("HS256", None)),
        (token({"alg": "HS256"}, {"aud": "us"}), Names("HS256", None, "us")),
        (token({"alg": "HS256"}, {"aud": ["us"]}), Names("HS256", None)),
        (token({"alg": "HS256"}, {"iss": ["me"]}), Names("HS256", None)),
        (token({"alg": 7}, {"iss": "me"}), None),
        (token({}, {"iss": "me"}), None),
        (token({"alg": "HS256"}, []), None),
        ("a.b", None),
        ("x" * 10_000, None),
        ("", None),
    ],
)
def test_who_a_token_says_it_comes_from(text, names):
    assert names_of(text) == names


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=100) | st.builds(".".join, st.lists(st.text("AQe-_{}", max_size=20), min_size=3, max_size=3)))
def test_no_text_makes_it_fail(text):
    names_of(text)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(min_size=1, max_size=50))
def test_one_text_per_value(value):
    text = segment(value)
    assert decoded(text) == value
    for other in (text + "=", text + "A", text[:-1] + chr(ord(text[-1]) ^ 1)):
        with contextlib.suppress(AuthenticationFailed):
            assert decoded(other) != value


def test_times_are_given_back():
    times = check_times({"exp": 20, "iat": 1.5}, 10)
    assert (times.expires_at, times.issued_at) == (20, 1.5)
    assert check_times({}, 10, validate_exp=False).expires_at is None


def test_parties_may_be_left_out():
    check_parties({}, issuer=None, audience=None)
    check_parties({"iss": "a", "aud": "b"}, issuer="a", audience="b")
    for issuer, audience in (("a", "c"), ("c", "b")):
        with pytest.raises(AuthenticationFailed):
            check_parties({"iss": "a", "aud": "b"}, issuer=issuer, audience=audience)
