import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import type { Client, Subscription } from "realtime-communication-client";

import { next, open, Server, take, unique } from "../rig.js";

interface Numbered {
  readonly number: number;
  readonly last: boolean;
}

/** Publish 0, 1, 2, … one after the other, during all of `work` and some more. Returns how many there were. */
async function publishDuring(client: Client, topic: string, work: () => Promise<void>): Promise<number> {
  const before = 50;
  let end = Infinity;
  let number = 0;
  let working: Promise<void> | undefined;
  for (; number < end; number += 1) {
    if (number === before) working = work().then(() => void (end = number + before));
    await client.publish(topic, { number, last: number === end - 1 } satisfies Numbered, { timeoutMs: 60_000 });
    await sleep(2);
  }
  await working;
  return end;
}

/** The numbers up to the last; offsets must go up by one within an epoch, and nothing may be missed unsaid. */
async function readAll(room: Subscription<Numbered>, mayLose: boolean): Promise<number[]> {
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
    seen.push(event.payload.number);
    if (event.payload.last) break;
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
  const room = await alice.subscribe<Numbered>(topic, { history: 1000 });
  const publishing = publishDuring(bob, topic, () => server.stop().then(() => server.again()));
  const [seen, count] = await Promise.all([readAll(room, true), publishing]);
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
  const room = await alice.subscribe<Numbered>(topic);
  const publishing = publishDuring(bob, topic, () => server.roll());
  const [seen, count] = await Promise.all([readAll(room, false), publishing]);
  assert.deepEqual(seen, Array.from({ length: count }, (_, at) => at));
});
