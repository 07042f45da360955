"""Accepting HS256 tokens in one go: against PyJWT, and against the rules that say why a token is refused."""

import base64
import hashlib
import hmac
import itertools
import json
from datetime import UTC, datetime
from unittest import mock

import jwt as pyjwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime_communication._core.wire import tokens
from realtime_communication.auth import token_rules
from realtime_communication.auth.identity import MAX_TIMESTAMP, Identity
from realtime_communication.auth.jwt import JwtRules, JwtVerifier
from realtime_communication.errors import AuthenticationFailed

NOW = 1_700_000_000
SECRET = "a secret of the tests, which is 64 bytes long or longer than that"
BEFORE = "the secret before it, of 40 bytes or so"
OTHER = "a secret that nobody has configured at all"
GOOD = {
    "sub": "alice",
    "user_id": "alice",
    "session_id": "login-1",
    "jti": "7",
    "iss": "issuer",
    "aud": "audience",
    "iat": NOW,
    "nbf": NOW,
    "exp": NOW + 60,
    "roles": ["user"],
    "permissions": ["read", "write", "subscribe"],
    "refresh_threshold": NOW + 40,
    "topics": {"subscribe": ["room:*", "news"], "publish": []},
}
HEADER = {"alg": "HS256", "typ": "JWT"}
SWITCHES = ("validate_issuer", "validate_audience", "validate_exp", "validate_nbf")

attack = settings(max_examples=1500, deadline=None, derandomize=True)


def segment(value):
    raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def signed(claims, header=HEADER, secret=SECRET, digest=hashlib.sha256):
    text = f"{segment(header)}.{segment(claims)}"
    return f"{text}.{segment(hmac.digest(secret.encode(), text.encode(), digest))}"


def verifier(**rules):
    return JwtVerifier(
        JwtRules(
            **{"secret": SECRET, "previous_secrets": (BEFORE,), "issuer": "issuer", "audience": "audience", **rules}
        )
    )


def quick(*secrets, types=token_rules.ACCESS_TYPES, identity=Identity, **rules):
    wanted = dict.fromkeys(SWITCHES, True) | rules
    return tokens.Hs256Tokens(
        [secret.encode() for secret in secrets or (SECRET, BEFORE)],
        identity,
        types=types,
        issuer="issuer" if wanted["validate_issuer"] else None,
        audience="audience" if wanted["validate_audience"] else None,
        validate_exp=wanted["validate_exp"],
        validate_nbf=wanted["validate_nbf"],
    )


def answer(verify, token, now):
    """An identity, or the code and the text of a refusal."""
    try:
        return verify(token, now)
    except AuthenticationFailed as error:
        return error.code, error.message


def is_plain(token):
    """Whether the header has nothing but HS256, `typ` and `kid`: all that is accepted in one go."""
    header = token_rules.split(token).header
    return header.get("alg") == "HS256" and header.keys() <= {"alg", "typ", "kid"}


def check(token, now=NOW, **switches):
    """The verifier says what the rules say, and the short cut says yes to every plain token that they accept."""
    whole = verifier(**switches)
    by_rules = answer(whole.verify_by_rules, token, now)
    assert answer(whole.verify, token, now) == by_rules
    made = quick(**switches).accept(token, now)
    if isinstance(by_rules, Identity) and is_plain(token):
        assert made == by_rules
        assert type(made.issued_at) is type(by_rules.issued_at)
        check_with_pyjwt(token, made, now, switches)
    else:
        assert made is None
    return made


def check_with_pyjwt(token, made, now, switches):
    """PyJWT accepts it too, under the same switches, at the same time."""
    clock = mock.Mock(now=lambda tz: datetime.fromtimestamp(now, UTC))
    wanted = dict.fromkeys(SWITCHES, True) | switches
    secrets = [secret for secret in (SECRET, BEFORE) if has_signed(secret, token)]
    assert secrets
    options = {"strict_aud": True, "verify_jti": False, "verify_aud": False, "verify_iss": False}
    with mock.patch("jwt.api_jwt.datetime", clock):
        # The leeway is for `nbf` and `iat` alone.
        claims = pyjwt.decode(
            token,
            secrets[0],
            ["HS256"],
            options={**options, "verify_exp": wanted["validate_exp"], "verify_nbf": False, "verify_iat": False},
        )
        pyjwt.decode(
            token,
            secrets[0],
            ["HS256"],
            leeway=token_rules.LEEWAY_SECS,
            audience="audience",
            issuer="issuer",
            options={
                **options,
                "verify_exp": False,
                "verify_nbf": wanted["validate_nbf"],
                "verify_aud": wanted["validate_audience"],
                "verify_iss": wanted["validate_issuer"],
            },
        )
    assert made.claims == claims


def has_signed(secret, token):
    try:
        pyjwt.api_jws.decode(token, secret, ["HS256"])
    except pyjwt.InvalidSignatureError:
        return False
    return True


def test_a_good_token():
    made = check(signed(GOOD))
    assert (made.user_id, made.login, made.permissions, made.expires_at) == ("alice", "login-1", 7, NOW + 60)
    assert (made.subscribe_patterns, made.publish_patterns) == (("room:*", "news"), ())
    assert (made.refresh_at, made.issued_at, made.claims) == (NOW + 40, NOW, GOOD)
    assert check(pyjwt.encode(GOOD, SECRET, "HS256")) == made


@pytest.mark.parametrize("secret", [SECRET, BEFORE])
def test_every_secret_counts(secret):
    assert check(signed(GOOD, secret=secret)) is not None
    assert check(signed(GOOD, secret=OTHER)) is None


@pytest.mark.parametrize("size", [32, 63, 64, 65, 100, 1000])
def test_secrets_of_any_length(size):
    secret = "x" * size
    token = pyjwt.encode(GOOD, secret, "HS256")
    assert quick(secret).accept(token, NOW).user_id == "alice"
    assert quick(secret + "y").accept(token, NOW) is None
    assert quick("y" + secret[1:]).accept(token, NOW) is None


def test_no_secret_is_shown_or_kept():
    held = quick(SECRET)
    assert SECRET not in repr(held)
    assert not any(SECRET in repr(getattr(held, name, None)) for name in dir(held))


class TestHeader:
    @pytest.mark.parametrize(
        "header",
        [
            {"alg": "HS256"},
            {"alg": "HS256", "typ": "jwt"},
            {"alg": "HS256", "typ": "at+JWT"},
            {"alg": "HS256", "typ": "JWT", "kid": "2024-01"},
            {"alg": "HS256", "kid": "a.b:c_d"},
            {"alg": "HS256", "kid": "x" * 64},
            b' { "typ" : "JWT" ,\n"alg":"HS256"}\t',
            b'{"alg":"none","alg":"HS256"}',
            b'{"alg":"H\\u0053256"}',
        ],
    )
    def test_accepted(self, header):
        assert check(signed(GOOD, header)) is not None

    @pytest.mark.parametrize("name", ["none", "None", "", "hs256", "HS256 ", "HS384", "RS256", None, 7, ["HS256"], {}])
    def test_algorithms(self, name):
        assert check(signed(GOOD, {"alg": name, "typ": "JWT"})) is None
        assert check(signed(GOOD, {"alg": name}, digest=hashlib.sha384)) is None
        assert check(f"{segment({'alg': name})}.{segment(GOOD)}.") is None

    @pytest.mark.parametrize("name", ["crit", "b64", "jwk", "jku", "x5u", "x5c"])
    def test_what_a_header_may_not_bring(self, name):
        assert check(signed(GOOD, {**HEADER, name: []})) is None

    def test_what_the_rules_alone_accept(self):
        token = signed(GOOD, {**HEADER, "cty": "JWT"})
        assert quick().accept(token, NOW) is None
        assert verifier().verify(token, NOW).user_id == "alice"
        assert verifier().verify(signed(GOOD, {"alg": "HS512"}, digest=hashlib.sha512), NOW).user_id == "alice"

    @pytest.mark.parametrize(
        "key_id",
        ["", "a" * 65, "a\x00", "..", "a..b", "../a", "/etc/passwd", "é", "a\n", "' OR 1=1 --", ".", "-", 7, None, {}],
    )
    def test_key_ids(self, key_id):
        check(signed(GOOD, {**HEADER, "kid": key_id}))

    @pytest.mark.parametrize("kind", ["rt+jwt", "JWE", "", "jwt ", "ſwt", "JWT", "At+Jwt", 7, None, ["JWT"]])
    def test_types(self, kind):
        check(signed(GOOD, {**HEADER, "typ": kind}))

    def test_other_types_may_be_wanted(self):
        held = quick(types=("rt+jwt",))
        assert held.accept(signed(GOOD, {"alg": "HS256", "typ": "rt+jwt"}), NOW).user_id == "alice"
        assert held.accept(signed(GOOD, {"alg": "HS256"}), NOW) is None

    @pytest.mark.parametrize("header", [b"", b"[]", b'"HS256"', b"{", b"\xff", b"[" * 3000, b'{"alg":"HS256"}x'])
    def test_what_is_no_object(self, header):
        assert check(signed(GOOD, header)) is None


class TestShape:
    @pytest.mark.parametrize("parts", range(6))
    def test_parts(self, parts):
        assert check(".".join([segment(HEADER)] * parts)) is None

    @pytest.mark.parametrize("tail", [".", "=", "==", "!", " ", "\n", "+", "/", "é", "\x00", "\ud800", "A", "AA", ".A"])
    def test_what_stands_around_it(self, tail):
        assert check(signed(GOOD) + tail) is None
        assert check(tail + signed(GOOD)) is None

    def test_every_character_changed(self):
        token = signed(GOOD)
        for at, other in itertools.product(range(len(token)), "AB_-.=+/ \n\x00é"):
            changed = token[:at] + other + token[at + 1 :]
            assert (check(changed) is None) == (changed != token)

    def test_every_character_left_out_or_twice(self):
        token = signed(GOOD)
        for at in range(len(token)):
            assert check(token[:at] + token[at + 1 :]) is None
            assert check(token[:at] + token[at] + token[at:]) is None

    @pytest.mark.parametrize("over", range(-4, 5))
    def test_size(self, over):
        def of(size):
            return signed({**GOOD, "jti": "x" * size})

        size = next(
            n for n in itertools.count(5600) if len(of(n)) >= token_rules.MAX_TOKEN_BYTES
        )  # each jti character is 4/3 of a token's
        check(of(size + over))

    def test_a_second_spelling_of_the_same_bytes(self):
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
        token = signed(GOOD)
        for change in range(1, 4):
            assert check(token[:-1] + alphabet[alphabet.index(token[-1]) ^ change]) is None


class TestClaims:
    def test_every_byte_of_the_document_changed(self):
        document = json.dumps(GOOD, separators=(",", ":")).encode()
        for at, other in itertools.product(range(len(document)), b'"\\{[,:0-9en\x00\x7f\x80\xff '):
            check(signed(document[:at] + bytes([other]) + document[at + 1 :]))

    @pytest.mark.parametrize(
        "document",
        [
            b"",
            b"[]",
            b"7",
            b"null",
            b"{",
            b"\xff",
            b"[" * 3000,
            b'{"sub":"a","exp":NaN}',
            b'{"sub":"a","exp":1700000060,"iat":Infinity}',
            b'{"sub":"eve","sub":"a","iss":"issuer","aud":"audience","exp":1700000060}',
            b'{"sub":"a","iss":"x","iss":"issuer","aud":"audience","exp":1,"exp":1700000060}',
            b'{"sub":"a","iss":"issuer","aud":"audience","exp":1700000060,"exp":1}',
            b'{"sub":"\\ud800","iss":"issuer","aud":"audience","exp":1700000060}',
            b'\xef\xbb\xbf{"sub":"a","iss":"issuer","aud":"audience","exp":1700000060}',
            b' {"sub":"a","iss":"issuer","aud":"audience","exp":1700000060} ',
            b'{"sub":"a","iss":"issuer","aud":"audience","exp":1700000060}{}',
        ],
    )
    def test_documents(self, document):
        check(signed(document))

    @pytest.mark.parametrize("claim", [*GOOD, "unknown"])
    @pytest.mark.parametrize(
        "value",
        [
            None,
            True,
            False,
            0,
            -1,
            1,
            NOW,
            NOW + 1,
            NOW + 5,
            NOW + 6,
            NOW + 60,
            MAX_TIMESTAMP,
            MAX_TIMESTAMP + 1,
            2**63,
            2**64,
            10**40,
            -(10**40),
            NOW + 0.5,
            NOW + 5.5,
            NOW + 60.5,
            -0.0,
            1e-9,
            1e300,
            float("nan"),
            float("inf"),
            str(NOW + 60),
            "",
            "x",
            "x" * 128,
            "x" * 129,
            "é" * 64,
            "é" * 65,
            "€" * 43,
            "😀" * 32,
            "a\nb",
            "a\x00",
            "a\x1f",
            "a b",
            "a\x7f",
            "a\x80",
            "a\x9f",
            "a\xa0",
            "\xc2",
            "issuer",
            "audience",
            [],
            ["audience"],
            ["issuer", "other"],
            ["admin"],
            ["user", "admin"],
            ["read"],
            ["read", "fly", "READ"],
            ["read", 1],
            [None],
            [["admin"]],
            {},
            {"subscribe": ["a"]},
            {"publish": None, "subscribe": ["*"]},
            {"subscribe": "a"},
            {"subscribe": [""]},
            {"subscribe": ["a*b"]},
            {"subscribe": ["**"]},
            {"publish": ["x" * 255]},
            {"publish": ["x" * 256]},
            {"publish": ["é" * 127 + "*"]},
            {"publish": [1]},
            {"publish": ["a\n"]},
            {"read": ["a"]},
            {"subscribe": ["a"], "read": []},
            {"subscribe": ["a"], "publish": ["b"], "x": None},
        ],
        ids=repr,
    )
    def test_one_claim_of_every_kind(self, claim, value):
        check(signed({**GOOD, claim: value}))

    @pytest.mark.parametrize("claim", GOOD)
    def test_a_claim_that_is_missing(self, claim):
        check(signed({name: value for name, value in GOOD.items() if name != claim}))

    def test_no_user_at_all(self):
        assert check(signed({name: GOOD[name] for name in ("iss", "aud", "exp")})) is None

    @pytest.mark.parametrize("now", [NOW, NOW + 0.5, NOW + 59, NOW + 59.999, NOW + 60, NOW + 61, NOW - 5, NOW - 5.1, 0])
    def test_the_edges_of_time(self, now):
        check(signed(GOOD), now)
        check(signed({**GOOD, "iat": NOW + 0.25, "nbf": NOW + 0.75}), now)


BREAKS = [{}, {"iss": "other"}, {"aud": ["audience"]}, {"exp": NOW - 60}, {"exp": "never"}, {"nbf": NOW + 60}]


@pytest.mark.parametrize("values", list(itertools.product([True, False], repeat=4)), ids=str)
def test_the_switches(values):
    switches = dict(zip(SWITCHES, values, strict=True))
    for broken in itertools.combinations(BREAKS, 2):
        check(signed({**GOOD, **broken[0], **broken[1]}), **switches)
    for claim in GOOD:
        check(signed({name: value for name, value in GOOD.items() if name != claim}), **switches)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
TIMES = st.integers(NOW - 70, NOW + 70) | st.floats(NOW - 70, NOW + 70) | JUNK
NAMES = st.text(max_size=140) | JUNK
WORDS = st.sampled_from(["read", "write", "subscribe", "admin", "user", "x*", "a*b"])
LISTS = st.lists(WORDS | JUNK, max_size=4) | JUNK
CLAIMS = {
    "sub": NAMES,
    "user_id": NAMES,
    "session_id": NAMES,
    "iss": st.just("issuer") | JUNK,
    "aud": st.just("audience") | st.just(["audience"]) | JUNK,
    "iat": TIMES,
    "nbf": TIMES,
    "exp": TIMES,
    "roles": LISTS,
    "permissions": LISTS,
    "refresh_threshold": TIMES,
    "topics": st.dictionaries(st.sampled_from(["subscribe", "publish", "x"]), LISTS, max_size=3) | JUNK,
}
PAIRS = st.one_of([st.tuples(st.just(name), value) for name, value in CLAIMS.items()])
HEADERS = st.fixed_dictionaries(
    {"alg": st.just("HS256") | st.sampled_from(["none", "HS512", "hs256"])},
    optional={
        "typ": st.sampled_from(["JWT", "at+jwt", "rt+jwt", None]),
        "kid": st.text("ab.:_-/é", max_size=4) | JUNK,
        "x": JUNK,
        "crit": JUNK,
    },
)


def object_of(pairs):
    """A JSON object that may have a member twice."""
    return ("{" + ",".join(f"{json.dumps(name)}:{json.dumps(value)}" for name, value in pairs) + "}").encode()


@attack
@given(st.lists(PAIRS, max_size=3), HEADERS, st.sampled_from([SECRET, SECRET, SECRET, BEFORE, OTHER]), st.data())
def test_against_the_rules_and_pyjwt(pairs, header, secret, data):
    switches = {name: data.draw(st.booleans()) for name in SWITCHES}
    document = object_of([*GOOD.items(), *pairs])
    token = signed(document, data.draw(st.just(HEADER) | st.just(header)), secret)
    check(token, NOW, **switches)


@attack
@given(st.data())
def test_mutated_tokens(data):
    token = signed(GOOD)
    at = data.draw(st.integers(0, len(token)))
    cut = data.draw(st.integers(0, 4))
    check(token[:at] + data.draw(st.text("AQ-_.= \n+/é", max_size=3)) + token[at + cut :])


@attack
@given(st.text(max_size=60) | st.builds(".".join, st.lists(st.text("AQe-_{}", max_size=50), min_size=3, max_size=3)))
def test_any_text(token):
    assert check(token) is None


def rules_decode(text):
    try:
        return token_rules.decoded(text.decode("latin-1"))
    except AuthenticationFailed:
        return None


@attack
@given(st.binary(max_size=40) | st.text("AQgw-_8/=", max_size=12).map(str.encode))
def test_base64url(text):
    assert tokens.decoded(text) == rules_decode(text)
    encoded = segment(text).encode()
    assert tokens.decoded(encoded) == (text or None)


def test_base64url_of_every_short_text():
    for size in (0, 1, 2):
        for text in map(bytes, itertools.product(range(256), repeat=size)):
            assert tokens.decoded(text) == rules_decode(text)
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_="
    for last in itertools.product(alphabet, repeat=2):
        for before in (b"A", b"z9", b"____-"):
            text = before + bytes(last)
            assert tokens.decoded(text) == rules_decode(text)


def test_what_makes_the_identity_gets_the_fields_by_name():
    assert quick(identity=dict).accept(signed(GOOD), NOW)["user_id"] == "alice"
    with pytest.raises(MemoryError):
        quick(identity=mock.Mock(side_effect=MemoryError)).accept(signed(GOOD), NOW)
