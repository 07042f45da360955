"""Bodies and query parameters of the endpoints for operators, read strictly.

What is not understood is refused with the name of the field and what it may be: a setting that is misspelt and ignored
would be believed to be in force.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, Final, NoReturn

from aiohttp import web

from realtime_communication.auth.chain import parse_query
from realtime_communication.auth.identity import ClaimError, checked_name
from realtime_communication.http.answers import FieldError
from realtime_communication.http.api import credential_names, read_json_body
from realtime_communication.http.services import SERVICES

MAX_BODY_BYTES: Final = 16_384

_INTEGER: Final = re.compile(r"[0-9]{1,10}")


async def read_object(request: web.Request, allowed: Collection[str]) -> dict[str, Any]:
    """The JSON object in a body, all of whose names are among `allowed`.

    Raises FieldError: 413 for a body above MAX_BODY_BYTES, 400 for one that is no JSON, 422 for another value than an
    object and for a name that is not allowed; HTTPUnsupportedMediaType as `read_json_body` does.
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise _too_large()
    body = await read_json_body(request)
    if len(body) > MAX_BODY_BYTES:
        raise _too_large()
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise FieldError("body", "must be JSON without repeated names", status=400) from None
    if not isinstance(value, dict):
        raise FieldError("body", f"must be an object of {', '.join(allowed)}")
    for name in value:
        if name not in allowed:
            raise FieldError(name, _unknown(allowed))
    return value


def name_in(fields: Mapping[str, Any], field: str, most_bytes: int) -> str | None:
    """The text of a field that may be missing: 1 to `most_bytes` bytes, no control characters. Raises FieldError."""
    if field not in fields:
        return None
    try:
        return checked_name(fields[field], field, most_bytes)
    except ClaimError as error:
        raise FieldError(field, str(error).partition("` ")[2]) from None


def query_of(request: web.Request, allowed: Collection[str]) -> dict[str, str]:
    """The query parameters, all of whose names are among `allowed`. Raises FieldError and MalformedRequestError."""
    parameters = parse_query(request.rel_url.raw_query_string.encode())
    for name in parameters:
        if name not in allowed:
            raise FieldError(name, _unknown(allowed), status=400)
    return parameters


def public_query_of(request: web.Request, allowed: Collection[str]) -> dict[str, str]:
    """As `query_of`; credentials may stand in the URL as well."""
    config = request.app[SERVICES].config
    bypass = ("user_id",) if config.testing.bypass_auth else ()
    return query_of(request, (*allowed, *sorted(credential_names(config.auth)), *bypass))


def limit_in(parameters: Mapping[str, str], most: int, least: int = 1) -> int:
    """`limit` of a query: `least` to `most`, which is also what holds without it. Raises FieldError."""
    text = parameters.get("limit", str(most))
    if not _INTEGER.fullmatch(text) or not least <= int(text) <= most:
        raise FieldError("limit", f"must be an integer from {least} to {most}", status=400)
    return int(text)


def _unknown(allowed: Collection[str]) -> str:
    return "is not known" + (f": there are {', '.join(allowed)}" if allowed else "")


def _too_large() -> FieldError:
    return FieldError("body", f"must be at most {MAX_BODY_BYTES} bytes", status=413)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a name is there twice")
    return made


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
