"""The examples; that they can be written as they stand is tested with the reference."""

from realtime_communication.config.examples import EXAMPLES


def test_no_example_holds_a_secret() -> None:
    for path, value in EXAMPLES.items():
        if path.endswith(("secret", "password")):
            assert str(value).startswith("${")
