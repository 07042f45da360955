"""The profiles and what each changes in the defaults.

Only what makes a profile that profile is built in; sizes and limits of a development or production machine belong
into its `config.{profile}.toml`.
"""

from __future__ import annotations

import re

DEFAULT_PROFILE = "prod"
"""Without --profile the server behaves as in production: nothing is relaxed unless somebody says so."""

PROFILE_DEFAULTS: dict[str, dict[str, object]] = {
    "dev": {
        "server.host": "localhost",
        "logging.level": "debug",
        "logging.format": "pretty",
        "development.enable_debug_endpoints": True,
        "development.enable_profiling": True,
        "development.mock_external_services": True,
        "tracing.enabled": False,
    },
    "test": {
        "server.host": "127.0.0.1",
        "server.port": 0,
        "testing.enable_test_mode": True,
        "monitoring.prometheus.port": 0,
        "tracing.enabled": False,
    },
    "prod": {},
}

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


def is_profile_name(name: str) -> bool:
    """Whether a name can be a profile's, and so part of a file name."""
    return _NAME.match(name) is not None
