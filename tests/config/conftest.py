"""Loading configurations in tests, away from the environment and the working directory of the test run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from realtime_communication.config import LoadedConfig, load
from realtime_communication.errors import ConfigurationError, ConfigurationProblem

SECRET = "0123456789abcdef0123456789abcdef"

Load = Callable[..., LoadedConfig]
Refuse = Callable[..., list[ConfigurationProblem]]


@pytest.fixture
def load_config(tmp_path: Path) -> Load:
    """Load with `words`; keyword arguments: `files` (name to text), `environ`, `secret=False` for no JWT_SECRET."""

    def load_it(
        *words: str,
        files: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        secret: bool = True,
    ) -> LoadedConfig:
        for name, text in (files or {}).items():
            (tmp_path / name).write_text(text)
        variables = {**({"JWT_SECRET": SECRET} if secret else {}), **(environ or {})}
        return load(words, variables, tmp_path)

    return load_it


@pytest.fixture
def refused(load_config: Load) -> Refuse:
    """Like `load_config`, for configurations that must not load: returns their problems."""

    def refuse(*words: str, **arguments: object) -> list[ConfigurationProblem]:
        with pytest.raises(ConfigurationError) as caught:
            load_config(*words, **arguments)
        return list(caught.value.problems)

    return refuse
