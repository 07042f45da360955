import assert from "node:assert/strict";
import { before, test } from "node:test";

import type { Message, SubscriptionEvent } from "realtime-communication-client";
import { msgpack } from "realtime-communication-client/msgpack";

import { Proxy } from "../proxy.js";
import { all, next, open, Server, take, token, unique } from "../rig.js";

let server: Server;
before(async () => {
  server = await Server.shared();
});

function payloads(events: readonly SubscriptionEvent[]): unknown[] {
  return events.map((event) => (event as Message).payload);
}

test("what was missed meanwhile comes first, and it is told", async () => {
  const topic = unique();
  await using proxy = await Proxy.open(server.port);
  await using alice = await open(server.url);
  await using bob = await open(proxy.url);
  const room = await bob.subscribe<number>(topic);
  await alice.publish(topic, 1);
  assert.deepEqual(payloads(await take(room, 1)), [1]);
  proxy.refusing = true;
  proxy.cut();
  for (const number of [2, 3, 4, 5]) await alice.publish(topic, number);
  assert.equal(bob.state, "reconnecting");
  proxy.refusing = false;
  const [recovered, ...messages] = await take(room, 5);
  assert.deepEqual(recovered, { type: "recovered", topic, recovered: true, missed: 0 });
  assert.deepEqual(messages.map((event) => (event as Message).offset), [2, 3, 4, 5]);
});

test("direct messages missed meanwhile, the first ones too", async () => {
  const user = unique("user");
  await using proxy = await Proxy.open(server.port);
  await using alice = await open(server.url);
  await alice.send(user, "before this client's time");
  await using bob = await open(proxy.url, { user });
  await bob.ping();
  for (const round of [0, 10]) {
    proxy.refusing = true;
    proxy.cut();
    for (const number of [1, 2, 3]) await alice.send(user, round + number);
    proxy.refusing = false;
    const [recovered, ...messages] = await take(bob.inbox, 4);
    assert.deepEqual(recovered, { type: "recovered", topic: `@${user}`, recovered: true, missed: 0 });
    assert.deepEqual(messages.map((event) => event.type === "direct" && event.payload), [1, 2, 3].map((number) => round + number));
  }
  await alice.send(user, "live");
  assert.equal((await next(bob.inbox, "direct")).payload, "live");
});

test("without the permission to read, the inbox is honestly unknown", async () => {
  const user = unique("user");
  await using proxy = await Proxy.open(server.port);
  await using alice = await open(server.url);
  await using bob = await open(proxy.url, { token: await token(user, { permissions: ["subscribe", "write"] }) });
  await alice.send(user, 1);
  assert.equal((await next(bob.inbox, "direct")).payload, 1);
  proxy.cut();
  assert.deepEqual(await take(bob.inbox, 1), [{ type: "recovered", topic: `@${user}`, recovered: false, missed: null }]);
  await alice.send(user, 2);
  assert.equal((await next(bob.inbox, "direct")).payload, 2);
});

for (const encoding of ["json", msgpack] as const) {
  test(`cut again and again, each message comes once and in order: ${encoding === "json" ? "json" : "msgpack"}`, async () => {
    const topic = unique();
    const count = 400;
    await using proxy = await Proxy.open(server.port);
    await using alice = await open(proxy.url, { encoding });
    await using bob = await open(proxy.url, { encoding });
    const room = await bob.subscribe<number>(topic);
    const publishing = (async () => {
      for (let number = 0; number < count; number += 1) {
        await alice.publish(topic, number);
        if (number % 60 === 30) proxy.cut();
      }
    })();
    const seen: Message<number>[] = [];
    for await (const event of room) {
      assert.notEqual(event.type, "lagged");
      if (event.type === "recovered") assert.ok(event.recovered);
      if (event.type === "message") seen.push(event);
      if (seen.length === count) break;
    }
    await publishing;
    assert.deepEqual(seen.map(({ payload }) => payload), Array.from({ length: count }, (_, at) => at));
    assert.deepEqual(seen.map(({ offset }) => offset), Array.from({ length: count }, (_, at) => at + 1));
    assert.ok(proxy.accepted >= 8, `${proxy.accepted} connections`);
  });
}

test("excluded publications stay excluded over a cut", async () => {
  const topic = unique();
  await using proxy = await Proxy.open(server.port);
  await using alice = await open(proxy.url);
  await using bob = await open(server.url);
  const room = await alice.subscribe<number>(topic);
  for (let number = 0; number < 30; number += 1) {
    if (number % 10 === 5) proxy.cut();
    await alice.publish(topic, `mine ${number}`, { excludeSelf: true });
    await bob.publish(topic, number);
  }
  const seen: unknown[] = [];
  for await (const event of room) {
    assert.notEqual(event.type, "lagged");
    if (event.type === "message") seen.push(event.payload);
    if (seen.length === 30) break;
  }
  assert.deepEqual(seen, Array.from({ length: 30 }, (_, at) => at));
});

test("a lost Ack does not double the publication", async () => {
  const topic = unique();
  await using proxy = await Proxy.open(server.port);
  await using alice = await open(proxy.url);
  await using bob = await open(server.url);
  const room = await bob.subscribe(topic);
  proxy.stallAnswers();
  const publishing = alice.publish(topic, 1);
  assert.equal((await next(room, "message")).payload, 1); // the server has it, and alice does not know
  proxy.cut();
  const position = await publishing;
  assert.deepEqual((await bob.history(topic)).position, position);
  assert.equal(position.offset, 1);
});

test("requests wait for the connection, and not for ever", async () => {
  const topic = unique();
  await using proxy = await Proxy.open(server.port);
  await using alice = await open(proxy.url);
  proxy.refusing = true;
  proxy.cut();
  await next(alice.events(), "disconnected");
  await assert.rejects(alice.publish(topic, 1, { timeoutMs: 50 }), { code: "timeout", message: /no connection/ });
  const waiting = Promise.all([alice.publish(topic, 2), alice.subscribe(topic, { history: 10 })]);
  proxy.refusing = false;
  const [position, room] = await waiting;
  assert.equal(position.offset, 1);
  assert.equal((await next(room, "message")).payload, 2);
});

test("a dead link is noticed", async () => {
  await using proxy = await Proxy.open(server.port);
  await using alice = await open(proxy.url, { keepaliveIntervalMs: 100, keepaliveTimeoutMs: 200 });
  proxy.stall();
  const { reason } = await next(alice.events(), "disconnected");
  assert.match(reason, /no answer to a Ping/);
  proxy.flow();
  await alice.ping();
});

test("without reconnect, the first lost connection is the end", async () => {
  await using proxy = await Proxy.open(server.port);
  const alice = await open(proxy.url, { reconnect: false });
  const room = await alice.subscribe(unique());
  const waiting = take(room, 1);
  proxy.cut();
  await assert.rejects(waiting, { code: "connection_lost" });
  await assert.rejects(alice.ping(), { code: "connection_lost" });
  await assert.rejects(all(alice.events()), { code: "connection_lost" });
});

test("recover from an earlier run", async () => {
  const topic = unique();
  const alice = await open(server.url);
  const position = await alice.publish(topic, 1);
  await alice.publish(topic, 2);
  await alice.close();
  await using again = await open(server.url);
  const [recovered, message] = await take(await again.subscribe(topic, { recover: position }), 2);
  assert.deepEqual(recovered, { type: "recovered", topic, recovered: true, missed: 0 });
  assert.ok(message?.type === "message" && message.payload === 2);
});
