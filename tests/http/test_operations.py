"""The table of operations."""

import inspect

from realtime_communication.http.operations import OPERATIONS


def test_each_says_what_it_is():
    for handler, operation in OPERATIONS.items():
        assert inspect.iscoroutinefunction(handler), handler
        assert operation.summary and not operation.summary.endswith("."), handler
        assert operation.tag and operation.answer is not None, handler


def test_summaries_are_different():
    summaries = [operation.summary for operation in OPERATIONS.values()]
    assert len(set(summaries)) == len(summaries)


def test_administration_keeps_credentials_out_of_the_url():
    assert not [one.summary for one in OPERATIONS.values() if one.needs in ("admin", "a credential") and one.in_url]
