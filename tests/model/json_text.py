"""What `_core/wire/json_scan` accepts, said with Python's own JSON reader and the differences that are meant."""

import json
import math

MAX_DEPTH = 128


class NotAccepted(Exception):
    """The text is no JSON, or outside the bounds that the protocol sets."""


def _refuse(_: str) -> float:
    raise NotAccepted("NaN and infinities are no JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise NotAccepted("beyond the range of a double")
    return number


def _integer(digits: str) -> int | float:
    number = _finite(digits)
    return int(digits) if len(digits) < 400 else number


def _depth(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Keep the values of repeated keys, so that their depth and their strings count too."""
    out: dict[str, object] = {}
    for number, (key, value) in enumerate(pairs):
        key.encode()
        out[f"{number}:{key}"] = value
    return out


def read(text: str) -> object:
    """The value of `text`; raises NotAccepted.

    Differs from `json.loads`: NaN and infinities, numbers beyond a double, escaped lone surrogates and more than
    MAX_DEPTH levels are refused. Keys carry their position, so that repeated ones can be told apart.
    """
    try:
        value: object = json.loads(
            text, parse_constant=_refuse, parse_float=_finite, parse_int=_integer, object_pairs_hook=_pairs
        )
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise NotAccepted(str(error)) from None
    if _depth(value) > MAX_DEPTH:
        raise NotAccepted("nested too deep")
    return value
