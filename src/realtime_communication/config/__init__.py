"""Configuration: every key, where its value came from, and what is wrong with it.

`load` gives a `LoadedConfig` or raises ConfigurationError with all problems. This package knows nothing of the rest of
the program but `realtime_communication.errors`.
"""

from realtime_communication.config.loader import LoadedConfig, load
from realtime_communication.config.origins import Layer, Origin
from realtime_communication.config.schema import Config

__all__ = ["Config", "Layer", "LoadedConfig", "Origin", "load"]
