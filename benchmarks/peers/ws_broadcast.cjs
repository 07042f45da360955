// The `ws` package of Node.js, compression off, with its native add-on `bufferutil`; broadcasting as its README does it.
// Usage: NODE_PATH=folder/node_modules node ws_broadcast.cjs PORT
"use strict";

const { WebSocketServer } = require("ws");

const subscribers = new Set();

const kinds = {
  "/subscribe": (socket) => {
    subscribers.add(socket);
    socket.on("close", () => subscribers.delete(socket));
  },
  "/publish": (socket) => {
    socket.on("message", (data, binary) => {
      for (const subscriber of subscribers) {
        if (subscriber.readyState === 1) {
          subscriber.send(data, { binary });
        }
      }
    });
  },
  "/echo": (socket) => {
    socket.on("message", (data, binary) => socket.send(data, { binary }));
  },
};

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: Number(process.argv[2] ?? 0),
  backlog: 4096,
  perMessageDeflate: false,
  clientTracking: false, // the subscribers are kept here
});

server.on("connection", (socket, request) => {
  socket.on("error", () => socket.terminate());
  const kind = kinds[request.url];
  if (kind === undefined) {
    socket.close(1008);
  } else {
    kind(socket);
  }
});
server.on("listening", () => console.log(server.address().port));
