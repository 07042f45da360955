"""API keys of the configuration."""

import pytest

from realtime_communication.auth.api_key import MAX_KEY_BYTES, ApiKeyVerifier, generate_key, hashed
from realtime_communication.auth.identity import ALL_PERMISSIONS, READ, WRITE
from realtime_communication.config.schema import ApiKey


def test_every_listed_key_finds_its_own_user():
    keys = [generate_key() for _ in range(3)]
    verifier = ApiKeyVerifier(
        [ApiKey(key=hashed(key), user=f"user{n}", permissions=("write",)) for n, key in enumerate(keys)]
    )
    assert [verifier.verify(key).user_id for key in keys] == ["user0", "user1", "user2"]
    assert verifier.verify(keys[0]).permissions == WRITE


def test_roles_count():
    verifier = ApiKeyVerifier([ApiKey(key=hashed("k"), user="ops", roles=("admin",))])
    assert verifier.verify("k").permissions == ALL_PERMISSIONS


@pytest.mark.parametrize("key", ["", "K", "k ", " k", "k\x00", "k" * (MAX_KEY_BYTES + 1), "\udcff", hashed("k")])
def test_other_keys_are_nobody(key):
    assert ApiKeyVerifier([ApiKey(key=hashed("k"), user="ops")]).verify(key) is None


@pytest.mark.parametrize("key", ["", "plain", "sha256:", "sha256:" + "g" * 64, "sha1:" + "0" * 64, hashed("k") + "0"])
def test_malformed_hashes_are_refused_without_showing_them(key):
    with pytest.raises(ValueError, match="API key 0") as caught:
        ApiKeyVerifier([ApiKey(key=key, user="ops")])
    assert key[7:] == "" or key[7:] not in str(caught.value)


def test_an_entry_is_a_login_of_its_own_while_it_is_the_same():
    def login(key="k", **entry):
        (found,) = ApiKeyVerifier([ApiKey(key=hashed(key), **{"user": "ops", "permissions": ("read",)} | entry)]).logins
        return found

    others = [login("other"), login(user="robot"), login(permissions=("write",)), login(roles=("admin",))]
    assert login() == login(permissions=("read", "read"))
    assert len({login(), *others}) == 5
    verifier = ApiKeyVerifier([ApiKey(key=hashed("k"), user="ops", permissions=("read",))])
    assert verifier.verify("k").login == login()
    assert hashed("k").partition(":")[2] not in login()


def test_a_key_listed_twice_is_refused():
    entry = ApiKey(key=hashed("k"), user="ops")
    with pytest.raises(ValueError, match="twice"):
        ApiKeyVerifier([entry, entry])


def test_a_user_that_is_no_name_is_refused():
    with pytest.raises(ValueError, match="user"):
        ApiKeyVerifier([ApiKey(key=hashed("k"), user="")])


def test_generated_keys_differ_and_are_long():
    assert len({generate_key() for _ in range(10)}) == 10
    assert len(generate_key()) >= 40


def test_an_admin_permission_is_all_of_them():
    assert ApiKeyVerifier([ApiKey(key=hashed("k"), user="k", permissions=("admin",))]).verify("k").permissions == (
        ALL_PERMISSIONS
    )
    assert ApiKeyVerifier([ApiKey(key=hashed("k"), user="k", permissions=("read",))]).verify("k").permissions == READ
