import assert from "node:assert/strict";
import { test } from "node:test";

import { Backoff } from "#dist/backoff.js";
import { connect, type ConnectOptions } from "realtime-communication-client";

class NoSocket {
  constructor() {
    throw new Error("not to be dialled");
  }
}

test("wrong options are refused by name", async () => {
  const WebSocket = NoSocket as unknown as NonNullable<ConnectOptions["WebSocket"]>;
  const wrong: [ConnectOptions, RegExp][] = [
    [{ token: "a", apiKey: "b" }, /one of token, getToken and apiKey/],
    [{ requestTimeoutMs: 0 }, /requestTimeoutMs: 0 is not above 0/],
    [{ queueSize: Number.NaN }, /queueSize/],
    [{ openTimeoutMs: 2 ** 31 }, /openTimeoutMs/],
    [{ backoff: { initialMs: 10, maximumMs: 5 } }, /backoff/],
    [{ encoding: "msgpack" as "json" }, /realtime-communication-client\/msgpack/],
  ];
  for (const [options, message] of wrong) await assert.rejects(connect("ws://localhost/ws", { WebSocket, ...options }), message);
  await assert.rejects(connect("ftp://localhost/ws", { WebSocket }), /ftp: is none of/);
  await assert.rejects(connect("/ws", { WebSocket }), TypeError);
});

test("without a WebSocket it says what to do", async () => {
  const own = Object.getOwnPropertyDescriptor(globalThis, "WebSocket");
  Object.defineProperty(globalThis, "WebSocket", { value: undefined, configurable: true });
  try {
    await assert.rejects(connect("ws://localhost/ws"), /install the package ws/);
  } finally {
    if (own === undefined) Reflect.deleteProperty(globalThis, "WebSocket");
    else Object.defineProperty(globalThis, "WebSocket", own);
  }
});

test("delays double up to their maximum, jittered, never under the server's wish", () => {
  const backoff = new Backoff({ initialMs: 100, maximumMs: 400 }, () => 1);
  assert.deepEqual([1, 2, 3, 4].map(() => backoff.nextDelay()), [100, 200, 400, 400]);
  assert.equal(backoff.nextDelay(5000), 5400);
  backoff.reset();
  assert.equal(backoff.nextDelay(), 100);
  assert.equal(new Backoff({}, () => 0).nextDelay(70), 70);
});
