"""A real-time messaging server and its client."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: that takes as long as all else that a short command does."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version

    return version("realtime_communication")
