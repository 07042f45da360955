"""uWebSockets (C++) through socketify, with its native publish and subscribe, compression off.

The back-pressure limit is lifted so that a slow reader costs memory and not messages: with the default of 64 KiB it
drops what does not fit, and a run with loss does not count.
"""

import socket

from socketify import App, AppListenOptions, CompressOptions, OpCode, WebSocket  # type: ignore[import-untyped]

from .options import listening_port

MAX_BACKPRESSURE = 256 * 1024 * 1024
LIMITS = {
    "compression": CompressOptions.DISABLED,
    "max_payload_length": 1024 * 1024,
    "max_backpressure": MAX_BACKPRESSURE,
    "idle_timeout": 0,
    "send_pings_automatically": False,
}


def free_port() -> int:
    """A port that was free a moment ago: socketify does not tell which one it was given for 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def subscribe(ws: WebSocket) -> None:
    ws.subscribe("bench")


def publish(ws: WebSocket, message: str | bytes, opcode: OpCode) -> None:
    app.publish("bench", message, opcode)


def echo(ws: WebSocket, message: str | bytes, opcode: OpCode) -> None:
    ws.send(message, opcode)


def ignore(ws: WebSocket, message: str | bytes, opcode: OpCode) -> None:
    """What a subscriber says is nobody's business."""


app = App()

if __name__ == "__main__":
    app.ws("/subscribe", {**LIMITS, "open": subscribe, "message": ignore})
    app.ws("/publish", {**LIMITS, "message": publish})
    app.ws("/echo", {**LIMITS, "message": echo})
    app.listen(
        AppListenOptions(port=listening_port() or free_port(), host="127.0.0.1"),
        lambda config: print(config.port, flush=True),
    )
    app.run()
