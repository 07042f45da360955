"""The operator's functions that payloads go through: `[[message_routing.transforms]]`.

A function is called with the topic and the decoded payload and returns the payload that is published; None refuses it,
and the publisher is told. It runs between two messages in the thread of the event loop, so it has to be quick, and an
exception in it is the publisher's `internal` and one line in the log.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import msgspec

from realtime_communication.config.traffic import MessageRouting
from realtime_communication.errors import ConfigurationError, ConfigurationProblem
from realtime_communication.observability.logs import get_logger

PAYLOAD_ARGUMENTS: Final = ("the topic", "the payload")
MOST_REASON: Final = 200  # characters of an import's error that are told

_log = get_logger(__name__)
_decode: Final = msgspec.json.Decoder().decode
_encode: Final = msgspec.json.Encoder().encode


@dataclasses.dataclass(frozen=True, slots=True)
class Transformation:
    """One function as the compiled core calls it: JSON in, JSON out, None to refuse.

    `name` is for the log. What it makes may have `most_bytes` bytes, like a client's message.
    """

    name: str
    function: Callable[[str, Any], Any]
    most_bytes: int

    def __call__(self, topic: str, payload: bytes) -> bytes | None:
        """Raises whatever the function raises, and ValueError for a payload that is too large, after it was logged."""
        try:
            made = self.function(topic, _decode(payload))
            encoded = None if made is None else _encode(made)
            if encoded is not None and len(encoded) > self.most_bytes:
                raise ValueError(f"the payload has {len(encoded)} bytes, at most {self.most_bytes} are allowed")
            return encoded
        except BaseException:  # `sys.exit()` in the operator's code ends its message alone, and is told like the rest
            _log.exception("a transform failed", transform=self.name, topic=topic)
            raise


def load_transforms(routing: MessageRouting, most_bytes: int) -> tuple[tuple[str, Transformation], ...]:
    """The configured transforms in their order, as (topic or prefix and `*`, function); none while they are off.

    Raises ConfigurationError that names each one that cannot be imported or called.
    """
    if not routing.enable_message_transformation:
        return ()
    problems: list[ConfigurationProblem] = []
    made: list[tuple[str, Transformation]] = []
    for index, transform in enumerate(routing.transforms):
        faults = list(faults_of(transform.callable, PAYLOAD_ARGUMENTS))
        if faults:
            key = f"message_routing.transforms[{index}].callable"
            problems += [ConfigurationProblem(key, transform.callable, "", fault) for fault in faults]
        else:
            function = Transformation(transform.callable, imported(transform.callable), most_bytes)
            made.append((transform.topic, function))
    if problems:
        raise ConfigurationError(problems)
    return tuple(made)


def faults_of(name: str, arguments: Sequence[str], *, may_be_async: bool = False) -> Iterator[str]:
    """Why the function of that name cannot be called with these `arguments`; nothing when it can."""
    try:
        function = imported(name)
    except Exception as error:  # an import runs the operator's code, which may raise anything
        yield f"cannot be imported: {type(error).__name__}: {' '.join(str(error).split())[:MOST_REASON]}"
        return
    if not callable(function):
        yield "must name a function"
        return
    if inspect.iscoroutinefunction(function) and not may_be_async:
        yield "must not be async: it is called between two messages"
        return
    try:
        inspect.signature(function).bind(*[None] * len(arguments))
    except TypeError:
        named = ", ".join(arguments[:-1]) + " and " + arguments[-1]
        yield f"must be callable with {len(arguments)} arguments, {named}"
    except ValueError:
        pass  # a function in C that does not tell its arguments


def imported(name: str) -> Any:
    """The function of that name, `package.module:function`. Raises whatever the import does."""
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
