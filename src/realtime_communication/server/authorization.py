"""Who is asked what users may do, as `[authorization]` says: the function is imported, or the service's client made."""

from __future__ import annotations

from typing import Final

from realtime_communication._core.hub.hub import Hub
from realtime_communication.auth.authorizer import Authorizer
from realtime_communication.auth.call_out import CallOut
from realtime_communication.config.schema import Config
from realtime_communication.errors import ConfigurationError, ConfigurationProblem
from realtime_communication.resilience.breaker import CircuitBreaker
from realtime_communication.resilience.webhooks import key_of
from realtime_communication.server.transforms import faults_of, imported

QUESTION_ARGUMENTS: Final = ("the action", "the user", "the topic")


def authorizer_of(config: Config, hub: Hub, breaker: CircuitBreaker, node_id: str) -> Authorizer | None:
    """Whom `hub` asks from now on; None: nobody. Raises ConfigurationError when a function cannot be used."""
    settings = config.authorization
    if settings.url:
        call_out = CallOut(settings.url, key_of(settings.secret, config.auth.jwt_secret), node_id)
        return Authorizer(settings, hub, breaker, call_out=call_out)
    if not settings.callable:
        return None
    faults = list(faults_of(settings.callable, QUESTION_ARGUMENTS, may_be_async=True))
    if faults:
        key = "authorization.callable"
        raise ConfigurationError([ConfigurationProblem(key, settings.callable, "", fault) for fault in faults])
    return Authorizer(settings, hub, breaker, function=imported(settings.callable))
