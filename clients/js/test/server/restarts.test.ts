import assert from "node:assert/strict";
import { test } from "node:test";

import type { Client, Subscription } from "realtime-communication-client";

import { next, open, Server, take, unique } from "../rig.js";

const count = 300;

/** Publish 0, 1, 2, … one after the other; `at` is called with each number before it goes out. */
async function publishAll(client: Client, topic: string, at: (number: number) => void): Promise<void> {
  for (let number = 0; number < count; number += 1) {
    at(number);
    await client.publish(topic, number, { timeoutMs: 60_000 });
  }
}

/** The payloads up to the last; offsets must go up by one within an epoch, and nothing may be missed unsaid. */
async function readAll(room: Subscription<number>, mayLose: boolean): Promise<number[]> {
  const seen: number[] = [];
  let offset = 0;
  for await (const event of room) {
    if (event.type === "recovered") {
      assert.ok(event.recovered || mayLose);
      if (!event.recovered) offset = 0;
    }
    assert.notEqual(event.type, "lagged");
    if (event.type !== "message") continue;
    assert.equal(event.offset, offset + 1);
    offset = event.offset;
    seen.push(event.payload);
    if (event.payload === count - 1) break;
  }
  return seen;
}

test("kill -9: a new epoch is told, and what waited is published once", async () => {
  const server = await Server.start();
  const topic = unique();
  await using alice = await open(server.url);
  await using bob = await open(server.url);
  const room = await alice.subscribe<number>(topic, { history: 100 });
  const first = await bob.publish(topic, 1);
  assert.equal((await next(room, "message")).payload, 1);
  await server.kill();
  await next(bob.events(), "disconnected");
  const waiting = Promise.all([2, 3, 4].map((number) => bob.publish(topic, number, { timeoutMs: 60_000 })));
  await server.again();
  const positions = await waiting;
  assert.deepEqual(positions.map(({ offset }) => offset), [1, 2, 3]);
  assert.ok(positions.every(({ epoch }) => epoch !== first.epoch));
  const [recovered, ...messages] = await take(room, 4);
  assert.deepEqual(recovered, { type: "recovered", topic, recovered: false, missed: null });
  assert.deepEqual(messages.map((event) => event.type === "message" && event.payload), [2, 3, 4]);
  assert.equal((await next(alice.events(), "connected")).reconnected, false);
  assert.equal((await next(alice.events(), "connected")).reconnected, true);
});

test("a stop is announced and obeyed; a publisher notices nothing, and each message comes once", async () => {
  const server = await Server.start();
  const topic = unique();
  await using alice = await open(server.url);
  await using bob = await open(server.url);
  const room = await alice.subscribe<number>(topic, { history: 1000 });
  let restarted: Promise<void> | undefined;
  const publishing = publishAll(bob, topic, (number) => {
    if (number === 100) restarted = server.stop().then(() => server.again());
  });
  const seen = await readAll(room, true);
  await Promise.all([publishing, restarted]);
  assert.deepEqual(seen, Array.from({ length: count }, (_, at) => at));
  const closing = await next(alice.events(), "closing");
  const disconnected = await next(alice.events(), "disconnected");
  assert.ok(closing.reconnect);
  assert.equal(disconnected.code, 1001);
  assert.ok((disconnected.retryInMs ?? 0) >= 0);
});

test("a rolling restart of two workers: the history stays, each message comes once", async () => {
  const server = await Server.start({}, "workers");
  const topic = unique();
  await using alice = await open(server.url);
  await using bob = await open(server.url);
  const room = await alice.subscribe<number>(topic);
  let rolled: Promise<void> | undefined;
  const publishing = publishAll(bob, topic, (number) => {
    if (number === 50) rolled = server.roll();
  });
  const seen = await readAll(room, false);
  await Promise.all([publishing, rolled]);
  assert.deepEqual(seen, Array.from({ length: count }, (_, at) => at));
});
