"""Keys of the schema that govern who is asked what users may do. See `schema.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from realtime_communication.config.keys import DAY_SECONDS, Section, Spec, signing_key

AUTHORIZED_ACTIONS = ("subscribe", "publish")
MAX_TIMEOUT_MS = 9000
"""A request of a client waits for 10 seconds at most, whoever is asked."""


class Authorization(Section, frozen=True, kw_only=True):
    """Who is asked whether a user may subscribe or publish, after token and rules of topics have allowed it."""

    callable: Annotated[
        str,
        Spec(
            "`package.module:function`, called with action, user and topic, which says True or False; may be async.",
            maximum=255,
        ),
    ] = ""
    url: Annotated[
        str, Spec("http(s) URL that is asked by a signed POST, in place of a function.", maximum=2048, secret=True)
    ] = ""
    secret: Annotated[str, signing_key(live=False)] = ""
    actions: Annotated[
        tuple[str, ...], Spec(f"What is asked about: any of {', '.join(f'`{each}`' for each in AUTHORIZED_ACTIONS)}.")
    ] = AUTHORIZED_ACTIONS
    timeout_ms: Annotated[
        float,
        Spec("Longest wait for an answer.", minimum=10, maximum=MAX_TIMEOUT_MS, unit="milliseconds"),
    ] = 1000.0
    cache_ttl_secs: Annotated[
        float,
        Spec(
            "How long an answer counts for the same action, user and topic.",
            minimum=0.1,
            maximum=DAY_SECONDS,
            unit="seconds",
        ),
    ] = 60.0
    cache_size: Annotated[
        int,
        Spec(
            "Most answers that a worker remembers; the oldest go first.",
            minimum=1,
            maximum=10_000_000,
            unit="answers",
        ),
    ] = 100_000
    max_pending: Annotated[
        int,
        Spec(
            "Most questions without an answer at a time, of a worker; a request beyond them is `unavailable`.",
            minimum=1,
            maximum=100_000,
            unit="questions",
        ),
    ] = 1000
    on_failure: Annotated[
        Literal["deny", "allow"], Spec("What counts, for a second, when there is no answer or a wrong one.")
    ] = "deny"


def authorization_problems(authorization: Authorization) -> Iterator[tuple[str, str]]:
    """What is wrong with the keys taken together."""
    if authorization.callable and authorization.url:
        yield "authorization.url", "must be empty while authorization.callable is given: one of them is asked"
    known = f"{' and '.join(AUTHORIZED_ACTIONS)}, at least one of them and each once"
    actions = authorization.actions
    if not actions or len(set(actions)) < len(actions) or not set(actions) <= set(AUTHORIZED_ACTIONS):
        yield "authorization.actions", f"must be a list of {known}"
