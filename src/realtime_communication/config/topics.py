"""Keys of the schema that govern single topics. See `schema.py`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Annotated

from realtime_communication.config.keys import DAY_SECONDS, Section, Spec
from realtime_communication.config.traffic import MessageRouting

MAX_TOPIC_RULES = 256
MAX_RULE_ROLES = 64
"""Different roles in all rules: a connection keeps a bit for each of them."""

MAX_ROLE_BYTES = 64


class TopicRule(Section, frozen=True, kw_only=True):
    """What is allowed and kept on the topics that match `pattern`; the first entry that matches counts."""

    pattern: Annotated[str, Spec("Topic, or prefix and `*`.", minimum=1, maximum=255, live=True)]
    subscribe_roles: Annotated[
        tuple[str, ...] | None,
        Spec(
            "Roles that may subscribe and read, beside `admin`; empty: nobody else. Left out: as the token says.",
            live=True,
        ),
    ] = None
    publish_roles: Annotated[
        tuple[str, ...] | None,
        Spec("Roles that may publish, beside `admin`; empty: nobody else. Left out: as the token says.", live=True),
    ] = None
    history: Annotated[
        bool, Spec("Whether messages are kept, for recovery and `History`, which is `forbidden` otherwise.", live=True)
    ] = True
    history_size: Annotated[
        int | None,
        Spec(
            "Most messages of one topic that are kept. Left out: as message_routing.max_cache_entries says.",
            minimum=1,
            maximum=100_000_000,
            unit="messages",
            live=True,
        ),
    ] = None
    history_ttl_secs: Annotated[
        float | None,
        Spec(
            "Age at which a message is dropped, at most message_routing.cache_ttl_secs. Left out: just that.",
            above=0,
            maximum=30 * DAY_SECONDS,
            unit="seconds",
            live=True,
        ),
    ] = None
    presence: Annotated[
        bool, Spec("Whether it is told who is there: `Presence`, joins and leaves, `forbidden` otherwise.", live=True)
    ] = True


def topic_problems(rules: Sequence[TopicRule], routing: MessageRouting) -> Iterator[tuple[str, str]]:
    """What is wrong with the entries taken together, or beside `routing`: the key at fault and what is allowed."""
    if len(rules) > MAX_TOPIC_RULES:
        yield "topics", f"must have at most {MAX_TOPIC_RULES} entries, not {len(rules)}"
        return
    seen: set[str] = set()
    roles: set[str] = set()
    for index, rule in enumerate(rules):
        place = f"topics[{index}]"
        if "*" in rule.pattern[:-1]:
            yield f"{place}.pattern", "must be a topic, or a prefix and * at its end"
        elif (earlier := _covering(rule.pattern, seen)) is not None:
            yield f"{place}.pattern", f"never counts: {earlier} before it matches all that it does"
        seen.add(rule.pattern)
        for name in ("subscribe_roles", "publish_roles"):
            named = getattr(rule, name) or ()
            if any(not role or len(role.encode()) > MAX_ROLE_BYTES for role in named):
                yield f"{place}.{name}", f"must be a list of roles, each of 1 to {MAX_ROLE_BYTES} bytes of UTF-8"
            roles.update(named)
        yield from _history_problems(place, rule, routing)
    if len(roles) > MAX_RULE_ROLES:
        yield "topics", f"must name at most {MAX_RULE_ROLES} different roles, not {len(roles)}"


def _covering(pattern: str, earlier: Collection[str]) -> str | None:
    """A pattern that leaves nothing for `pattern`."""
    if pattern in earlier:
        return pattern
    prefixes = (pattern[:end] + "*" for end in range(len(pattern.removesuffix("*")) + 1))
    return next((prefix for prefix in prefixes if prefix in earlier), None)


def _history_problems(place: str, rule: TopicRule, routing: MessageRouting) -> Iterator[tuple[str, str]]:
    if not rule.history and (rule.history_size is not None or rule.history_ttl_secs is not None):
        yield f"{place}.history", "must be true where history_size or history_ttl_secs is given"
    if rule.history_size is not None and rule.history_size > routing.max_cache_entries:
        most = routing.max_cache_entries
        yield f"{place}.history_size", f"must be at most message_routing.max_cache_entries ({most})"
    if rule.history_ttl_secs is not None and rule.history_ttl_secs > routing.cache_ttl_secs:
        most_secs = f"{routing.cache_ttl_secs:g}"
        yield f"{place}.history_ttl_secs", f"must be at most message_routing.cache_ttl_secs ({most_secs})"
