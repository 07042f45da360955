"""Every input of the corpora through its target, as `ci/fuzz` runs them, without sanitizers."""

from pathlib import Path

import pytest

from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"
MOST = 500_000


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_input_is_borne(name: str) -> None:
    inputs = sorted((CORPUS / name).iterdir())
    assert inputs
    for path in inputs:
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            error.add_note(f"with {path}")
            raise


def test_the_corpora_are_small_and_of_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < MOST
