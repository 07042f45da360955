"""What an administrator orders for the sessions of a user, told to the nodes that share Redis with this one.

The workers of this node are asked by the endpoint, which counts their answers (`fleet.py`). The other nodes are told by
a control event and do the same, each of their workers for itself; nobody waits for them. Nothing is said while Redis is
away: an order would wait, and come when other sessions are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

import msgspec

from realtime_communication.http.fleet import Answer
from realtime_communication.http.nodes import Events
from realtime_communication.observability.logs import get_logger

EVENT: Final = "order"

Kind = Literal["disconnect", "subscribe", "unsubscribe"]

_log = get_logger(__name__)


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One order of node `node`; `params` are those of the question of that name in `worker_answers.py`."""

    node: str
    kind: Kind
    params: dict[str, Any]


class Orders:
    """See the head of this module. `answers` are this worker's; `reachable` says whether events reach anybody."""

    def __init__(
        self, events: Events, node_id: str, answers: Mapping[str, Answer], reachable: Callable[[], bool]
    ) -> None:
        self._events = events
        self._node_id = node_id
        self._answers = answers
        self._reachable = reachable
        events.subscribe(EVENT, self._on_order)

    def tell(self, kind: Kind, params: Mapping[str, Any]) -> None:
        """Have the other nodes do what this one has done."""
        if self._reachable():
            order = Order(node=self._node_id, kind=kind, params=dict(params))
            self._events.publish(EVENT, msgspec.to_builtins(order))

    def _on_order(self, payload: Mapping[str, Any]) -> None:
        try:
            order = msgspec.convert(payload, Order)
        except msgspec.ValidationError as error:
            _log.debug("a node of another version orders what is not understood", reason=str(error))
            return
        if order.node != self._node_id:  # the workers of this node have done it
            self._answers[order.kind](order.params)
