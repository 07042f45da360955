import assert from "node:assert/strict";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { once } from "node:events";
import { before, test } from "node:test";

import { AuthenticationFailed, Client, connect, ConnectionLost } from "realtime-communication-client";
import WebSocket from "ws";

import { open, Server, token, unique } from "../rig.js";

let url: string;
before(async () => {
  ({ url } = await Server.shared());
});

test("a wrong token", async () => {
  await assert.rejects(open(url, { token: "wrong" }), AuthenticationFailed);
  await assert.rejects(open(url, { apiKey: "wrong" }), { name: "AuthenticationFailed", code: "unauthorized" });
});

test("nobody listens, or nobody answers", async () => {
  const mute = createServer(() => undefined).listen(0, "127.0.0.1");
  await once(mute, "listening");
  const { port } = mute.address() as AddressInfo;
  const options = { WebSocket, token: "any", openTimeoutMs: 300 };
  await assert.rejects(connect(`ws://127.0.0.1:${port}/ws`, options), ConnectionLost);
  mute.close();
  await assert.rejects(connect("ws://127.0.0.1:9/ws?token=secret", options), (error: Error) => {
    assert.match(error.message, /within 300 ms: .*ECONNREFUSED/);
    assert.doesNotMatch(error.message, /secret/);
    return true;
  });
  await assert.rejects(connect(`${url}x`, options), /404/);
});

test("a client may begin before its server and is not given up", async () => {
  const client = new Client("ws://127.0.0.1:9/ws", { WebSocket, token: "any" });
  await assert.rejects(client.ready({ timeoutMs: 50 }), ConnectionLost);
  await assert.rejects(client.ready({ signal: AbortSignal.abort() }), { name: "AbortError" });
  assert.equal(client.state, "connecting");
  const waiting = client.publish("topic", 1, { timeoutMs: 50 });
  await assert.rejects(waiting, { code: "timeout", message: "no connection within 50 ms" });
  await client.close();
});

test("credentials in the URL are left alone", async () => {
  const client = await connect(`${url}?token=${await token(unique("user"))}`, { WebSocket });
  assert.ok(client.session?.userId.startsWith("user-"));
  await client.close();
});

test("http addresses are taken for ws", async () => {
  const user = unique("user");
  const client = await connect(url.replace("ws:", "http:"), { WebSocket, token: await token(user) });
  assert.equal(client.session?.userId, user);
  await client.close();
});

test("waiting requests have a bound", async () => {
  const limits = { maxPending: 3, maxPendingBytes: 1000 };
  const client = new Client("ws://127.0.0.1:9/ws", { WebSocket, token: "any", ...limits });
  const waiting = [client.publish("a", 1), client.publish("a", 2)];
  await assert.rejects(client.publish("a", "x".repeat(1000)), { code: "queue_full", message: /maxPendingBytes is 1000/ });
  waiting.push(client.publish("a", 3));
  await assert.rejects(client.publish("a", 4), { code: "queue_full", message: /maxPending is 3/ });
  const settled = Promise.allSettled(waiting);
  await client.close();
  assert.deepEqual((await settled).map(({ status }) => status), ["rejected", "rejected", "rejected"]);
});
