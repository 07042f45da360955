"""A real-time messaging server and its client."""

from importlib.metadata import version

__version__ = version("realtime_communication")
