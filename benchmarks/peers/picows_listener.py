"""A picows listener under uvloop: messages are sent from the callback that read them, without a copy."""

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from .options import listening_port

subscribers: set[WSTransport] = set()


class Subscriber(WSListener):
    def on_ws_connected(self, transport: WSTransport) -> None:
        subscribers.add(transport)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        subscribers.discard(transport)


class Publisher(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            message = frame.get_payload_as_bytes()
            for subscriber in subscribers:
                subscriber.send(WSMsgType.TEXT, message)


class Echo(WSListener):
    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type is WSMsgType.TEXT:
            transport.send(WSMsgType.TEXT, frame.get_payload_as_memoryview())


LISTENERS: dict[bytes, type[WSListener]] = {b"/subscribe": Subscriber, b"/publish": Publisher, b"/echo": Echo}


def listener(request: WSUpgradeRequest) -> WSListener | None:
    kind = LISTENERS.get(request.path)
    return kind() if kind is not None else None


async def run(port: int) -> None:
    server = await ws_create_server(listener, "127.0.0.1", port, websocket_handshake_timeout=30, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(run(listening_port()))
