"""The command line that all peers share."""

import argparse
import resource


def listening_port() -> int:
    """The port to listen on, 0 for a free one; also lets this process open as many files as it may."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port: int = parser.parse_args().port
    return port
