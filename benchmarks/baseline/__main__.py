"""`python -m benchmarks.baseline`: runs the server until SIGTERM or SIGINT."""

import argparse
import asyncio
import logging
import os
import signal
import sys

import uvloop

from .server import DEFAULT_AUDIENCE, DEFAULT_ISSUER, RtcServer, Settings


async def run(settings: Settings, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop.set)
    rtc = RtcServer(settings)
    server = await rtc.listen(host, port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    await rtc.announce_shutdown()
    server.close(code=1001, reason="server shutting down")
    await server.wait_closed()


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.baseline", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one; the port in use is printed")
    parser.add_argument("--secret", default=os.environ.get("JWT_SECRET"), help="of HS256 tokens; default: $JWT_SECRET")
    parser.add_argument("--issuer", default=DEFAULT_ISSUER)
    parser.add_argument("--audience", default=DEFAULT_AUDIENCE)
    options = parser.parse_args()
    if options.secret is None:
        parser.error("--secret or JWT_SECRET is needed")
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    settings = Settings(secret=options.secret, issuer=options.issuer, audience=options.audience)
    uvloop.run(run(settings, options.host, options.port))


if __name__ == "__main__":
    main()
