"""The union names every output there is."""

from typing import get_args

from realtime_communication.client import outputs


def test_every_output_is_in_the_union() -> None:
    named = {getattr(outputs, name) for name in outputs.__all__} - {outputs.Output, outputs.Emit}
    assert set(get_args(outputs.Output)) == named
