import assert from "node:assert/strict";
import { before, test } from "node:test";

import { ClientClosed, type Message, RequestError } from "realtime-communication-client";
import { msgpack } from "realtime-communication-client/msgpack";

import { all, next, open, Server, take, token, unique } from "../rig.js";

let url: string;
before(async () => {
  ({ url } = await Server.shared());
});

for (const encoding of ["json", msgpack] as const) {
  test(`publish and receive in ${encoding === "json" ? "json" : "msgpack"}`, async () => {
    const topic = unique();
    await using alice = await open(url, { encoding });
    await using bob = await open(url, { encoding });
    await using room = await bob.subscribe<{ text: string }>(topic);
    const position = await alice.publish(topic, { text: "hällo" });
    const [event] = await take(room, 1);
    assert.ok(event?.type === "message");
    assert.ok(event.ts > 1_700_000_000_000);
    assert.deepEqual(
      { ...event, ts: 0 },
      { type: "message", topic, offset: 1, ts: 0, from: alice.session?.userId, payload: { text: "hällo" } },
    );
    assert.deepEqual(room.position, position);
  });
}

test("bytes and 64 bits in MessagePack", async () => {
  const topic = unique();
  await using alice = await open(url, { encoding: msgpack });
  await using room = await alice.subscribe(topic);
  const payload = { bytes: new Uint8Array([1, 2, 255]), negative: -129, float: 0.5, none: null, list: [true, "x"] };
  await alice.publish(topic, payload);
  assert.deepEqual((await next(room, "message")).payload, payload);
});

test("history, presence, ping, direct messages", async () => {
  const topic = unique();
  await using alice = await open(url);
  await using bob = await open(url);
  const names = [alice.session?.userId ?? "", bob.session?.userId ?? ""];
  for (const number of [0, 1, 2, 3]) await alice.publish(topic, number);
  const last = await alice.publish(topic, 4);
  await using room = await alice.subscribe<number>(topic, { history: 2, presence: true });
  assert.deepEqual((await take(room, 2)).map((event) => (event as Message).payload), [3, 4]);
  const hers = await bob.subscribe(topic);
  assert.equal((await next(room, "join")).userId, names[1]);
  const state = await bob.presence(topic);
  assert.equal(state.count, 2);
  assert.deepEqual(state.members.map((member) => member.userId).sort(), [...names].sort());
  await hers.unsubscribe();
  assert.equal((await next(room, "leave")).userId, names[1]);
  const page = await bob.history<number>(topic, { after: { epoch: last.epoch, offset: 2 }, limit: 2 });
  assert.deepEqual([page.messages.map(({ payload }) => payload), page.position], [[2, 3], last]);
  const end = await bob.history<number>(topic, { limit: 1, reverse: true });
  assert.deepEqual(end.messages.map(({ payload }) => payload), [4]);
  assert.ok((await alice.ping()) > 0);
  const nobody = unique("nobody");
  assert.deepEqual(await alice.send([names[1] ?? "", nobody], "psst"), { delivered: [names[1]], offline: [nobody] });
  const direct = await next(bob.inbox, "direct");
  assert.deepEqual([direct.from, direct.payload], [names[0], "psst"]);
});

test("listeners hear what came before them", async () => {
  const topic = unique();
  await using alice = await open(url);
  await alice.publish(topic, "before");
  const room = await alice.subscribe<string>(topic, { history: 1 });
  const heard: string[] = [];
  const ended = new Promise((resolve) => room.on("end", resolve));
  room.on("message", ({ payload }) => heard.push(payload));
  await alice.publish(topic, "after");
  await alice.ping();
  assert.deepEqual(heard, ["before", "after"]);
  await room.unsubscribe();
  assert.deepEqual(await ended, { type: "end", error: null });
});

test("excludeSelf leaves no hole", async () => {
  const topic = unique();
  await using alice = await open(url);
  await using bob = await open(url);
  await using room = await alice.subscribe(topic);
  await alice.publish(topic, "mine", { excludeSelf: true });
  await bob.publish(topic, "his");
  const [event] = await take(room, 1);
  assert.ok(event?.type === "message" && event.payload === "his");
});

test("an idempotency key has its effect once", async () => {
  const topic = unique();
  await using alice = await open(url);
  const first = await alice.publish(topic, 1, { idempotencyKey: topic });
  assert.deepEqual(await alice.publish(topic, 1, { idempotencyKey: topic }), first);
  assert.notDeepEqual(await alice.publish(topic, 1), first);
});

test("refusals carry the server's code", async () => {
  await using alice = await open(url);
  await assert.rejects(alice.subscribe("@somebody"), { name: "RequestError", code: "forbidden" });
  await assert.rejects(alice.publish("", 1), RequestError);
  await assert.rejects(alice.publish("topic", undefined), TypeError);
  await assert.rejects(alice.publish("topic", 1n), TypeError);
  await assert.rejects(alice.ping({ timeoutMs: 0 }), RangeError);
  const reader = await open(url, { token: await token(unique("user"), { permissions: ["subscribe"] }) });
  await assert.rejects(reader.publish("topic", 1), { code: "forbidden" });
  await reader.close();
});

test("a topic has one subscription, and another after it", async () => {
  const topic = unique();
  await using alice = await open(url);
  const first = await alice.subscribe(topic);
  await assert.rejects(alice.subscribe(topic), /already/);
  const leaving = first.unsubscribe();
  await using second = await alice.subscribe(topic);
  await leaving;
  await first.unsubscribe(); // long over; not the second one's end
  await alice.publish(topic, 1);
  assert.equal((await next(second, "message")).payload, 1);
  assert.deepEqual(await all(first), []);
});

test("signals end requests and subscriptions", async () => {
  const topic = unique();
  await using alice = await open(url);
  await assert.rejects(alice.publish(topic, 1, { signal: AbortSignal.abort() }), { name: "AbortError" });
  const controller = new AbortController();
  const asking = alice.subscribe(topic, { signal: controller.signal });
  controller.abort();
  const again = alice.subscribe(topic);
  await assert.rejects(asking, { name: "AbortError" });
  const room = await again;
  await alice.publish(topic, "for the second one");
  assert.equal((await next(room, "message")).payload, "for the second one");
  await room.unsubscribe();
  const later = new AbortController();
  const mine = await alice.subscribe(topic, { signal: later.signal });
  later.abort();
  assert.deepEqual(await all(mine), []);
  await alice.ping();
  assert.equal((await alice.presence(topic)).count, 0);
});

test("many requests at once find their answers", async () => {
  const topic = unique();
  await using alice = await open(url);
  const positions = await Promise.all(Array.from({ length: 500 }, (_, number) => alice.publish(topic, number)));
  assert.deepEqual(positions.map(({ offset }) => offset), Array.from({ length: 500 }, (_, at) => at + 1));
});

test("closed is closed", async () => {
  const alice = await open(url);
  const room = await alice.subscribe(unique());
  const waiting = alice.ping();
  const states: string[] = [];
  alice.on("state", ({ state }) => states.push(state));
  await Promise.resolve();
  await alice.close();
  await alice.close();
  await assert.rejects(waiting, ClientClosed);
  await assert.rejects(alice.ping(), { code: "closed" });
  assert.deepEqual(await all(room), []);
  assert.deepEqual(await all(alice.inbox), []);
  assert.equal(alice.state, "closed");
  assert.equal(states.at(-1), "closed");
});

test("a signal closes the client", async () => {
  const controller = new AbortController();
  const alice = await open(url, { signal: controller.signal });
  controller.abort();
  await assert.rejects(alice.ping(), ClientClosed);
  await assert.rejects(open(url, { signal: controller.signal }), { name: "AbortError" });
});

test("the whole queue: the oldest give way and the reader is told", async () => {
  const topic = unique();
  await using alice = await open(url);
  await using bob = await open(url);
  const room = await bob.subscribe<number>(topic, { queueSize: 10 });
  for (let number = 0; number < 25; number += 1) await alice.publish(topic, number);
  await bob.ping();
  await bob.ping();
  const [lagged, ...messages] = await take(room, 11);
  assert.deepEqual(lagged, { type: "lagged", topic, missed: 15, recovered: false, source: "queue" });
  assert.deepEqual(messages.map((event) => (event as Message<number>).payload), Array.from({ length: 10 }, (_, at) => at + 15));
});

test("an administrator's announcement", async () => {
  await using alice = await open(url);
  await using admin = await open(url, { token: await token(unique("admin"), { roles: ["admin"] }) });
  await admin.publish("*", "the lights go out at ten");
  let heard;
  do heard = await next(alice.events(), "announcement");
  while (heard.from !== admin.session?.userId);
  assert.equal(heard.payload, "the lights go out at ten");
});
