"""`[[topics]]`: what an entry may say."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from realtime_communication.config import LoadedConfig
from realtime_communication.config.topics import MAX_RULE_ROLES, MAX_TOPIC_RULES, TopicRule
from realtime_communication.errors import ConfigurationProblem

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]

GOOD = """
[[topics]]
pattern = "news:*"
publish_roles = ["editor"]
history_size = 100
history_ttl_secs = 60

[[topics]]
pattern = "typing:*"
history = false
presence = false
subscribe_roles = []
"""


def test_entries(load_config: Load) -> None:
    news, typing = load_config(files={"config.toml": GOOD}).config.topics
    assert news == TopicRule(pattern="news:*", publish_roles=("editor",), history_size=100, history_ttl_secs=60.0)
    assert typing == TopicRule(pattern="typing:*", subscribe_roles=(), history=False, presence=False)


def test_none_by_default(load_config: Load) -> None:
    assert load_config().config.topics == ()


@pytest.mark.parametrize(
    ("entry", "key", "message"),
    [
        ('pattern = "a*b"', "topics[0].pattern", "must be a topic, or a prefix and * at its end"),
        ("history = true", "topics[0].pattern", "is missing"),
        ('pattern = "a"\nroles = ["x"]', "topics[0].roles", "unknown key"),
        ('pattern = "a"\npublish_role = ["x"]', "topics[0].publish_role", "did you mean publish_roles?"),
        ('pattern = "a"\nsubscribe_roles = "x"', "topics[0].subscribe_roles", "must be a list of strings"),
        ('pattern = "a"\nsubscribe_roles = [""]', "topics[0].subscribe_roles", "must be a list of roles"),
        ('pattern = "a"\nhistory_size = 0', "topics[0].history_size", "from 1 to"),
        ('pattern = "a"\nhistory_size = 10_001', "topics[0].history_size", "message_routing.max_cache_entries (10000)"),
        ('pattern = "a"\nhistory_ttl_secs = 301', "topics[0].history_ttl_secs", "message_routing.cache_ttl_secs (300)"),
        ('pattern = "a"\nhistory = false\nhistory_size = 1', "topics[0].history", "must be true where"),
    ],
)
def test_what_is_wrong(entry: str, key: str, message: str, refused: Refuse) -> None:
    (problem,) = refused(files={"config.toml": f"[[topics]]\n{entry}\n"})
    assert problem.key == key
    assert message in problem.message
    assert "config.toml" in problem.origin


@pytest.mark.parametrize(("first", "second"), [("a", "a"), ("a*", "a"), ("a*", "ab*"), ("*", "x"), ("*", "*")])
def test_an_entry_that_can_never_count(first: str, second: str, refused: Refuse) -> None:
    text = f'[[topics]]\npattern = "{first}"\n[[topics]]\npattern = "{second}"\n'
    (problem,) = refused(files={"config.toml": text})
    assert (problem.key, problem.message) == (
        "topics[1].pattern",
        f"never counts: {first} before it matches all that it does",
    )


def test_entries_that_overlap_in_the_right_order(load_config: Load) -> None:
    text = "".join(f'[[topics]]\npattern = "{pattern}"\n' for pattern in ("ab", "ab*", "a*", "*"))
    assert len(load_config(files={"config.toml": text}).config.topics) == 4


def test_bounds(refused: Refuse) -> None:
    many = "".join(f'[[topics]]\npattern = "t{number}"\n' for number in range(MAX_TOPIC_RULES + 1))
    roles = ", ".join(f'"role-{number}"' for number in range(MAX_RULE_ROLES + 1))
    (problem,) = refused(files={"config.toml": many})
    assert (problem.key, problem.message) == ("topics", "must have at most 256 entries, not 257")
    (problem,) = refused(files={"config.toml": f'[[topics]]\npattern = "t"\npublish_roles = [{roles}]\n'})
    assert (problem.key, problem.message) == ("topics", "must name at most 64 different roles, not 65")
