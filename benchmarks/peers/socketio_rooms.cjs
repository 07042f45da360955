// Socket.IO: rooms are topics. WebSocket is the only transport, compression is off, the engine is `ws` with its native
// add-on `bufferutil`, and the first HTTP request is not kept, as its pages on tuning and memory have it.
// Usage: NODE_PATH=folder/node_modules node socketio_rooms.cjs PORT
"use strict";

const { createServer } = require("node:http");
const { Server } = require("socket.io");

const http = createServer();
const io = new Server(http, {
  transports: ["websocket"],
  perMessageDeflate: false,
  httpCompression: false,
  serveClient: false,
});

io.engine.on("connection", (raw) => {
  raw.request = null;
});
io.on("connection", (socket) => {
  socket.on("s", (room, done) => {
    socket.join(room);
    done();
  });
  socket.on("p", (room, message) => io.to(room).emit("m", message));
  socket.on("e", (message) => socket.emit("m", message));
});
http.listen({ host: "127.0.0.1", port: Number(process.argv[2] ?? 0), backlog: 4096 }, () =>
  console.log(http.address().port),
);
