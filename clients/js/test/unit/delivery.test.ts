import assert from "node:assert/strict";
import { test } from "node:test";

import { EventChannel } from "#dist/delivery.js";

type Event = { readonly type: "number"; readonly value: number } | { readonly type: "lost"; readonly count: number };

function channel(capacity = 10): { events: EventChannel<Event>; errors: unknown[] } {
  const errors: unknown[] = [];
  const events = new EventChannel<Event>(capacity, (count) => ({ type: "lost", count }), (error) => errors.push(error));
  return { events, errors };
}

const number = (value: number): Event => ({ type: "number", value });

async function drain(events: EventChannel<Event>): Promise<Event[]> {
  const drained: Event[] = [];
  for await (const event of events) drained.push(event);
  return drained;
}

test("iteration gets what waits, what comes, and the end", async () => {
  const { events } = channel();
  events.put(number(1));
  const drained = drain(events);
  await Promise.resolve();
  events.put(number(2));
  events.end(null);
  events.put(number(3));
  assert.deepEqual(await drained, [number(1), number(2)]);
});

test("iteration throws what ended the channel, behind what waits", async () => {
  const { events } = channel();
  events.put(number(1));
  events.end(new Error("over"));
  const iterator = events[Symbol.asyncIterator]();
  assert.deepEqual(await iterator.next(), { done: false, value: number(1) });
  await assert.rejects(iterator.next(), /over/);
});

test("a full queue gives way at its beginning and says so", async () => {
  const { events } = channel(2);
  for (const value of [1, 2, 3, 4]) events.put(number(value));
  events.end(null);
  assert.deepEqual(await drain(events), [{ type: "lost", count: 2 }, number(3), number(4)]);
});

test("leaving a loop loses nothing, and ends a wait", async () => {
  const { events } = channel();
  events.put(number(1));
  events.put(number(2));
  for await (const event of events) {
    assert.deepEqual(event, number(1));
    break;
  }
  for await (const event of events) {
    assert.deepEqual(event, number(2));
    break;
  }
  const iterator = events[Symbol.asyncIterator]();
  const waiting = iterator.next();
  await iterator.return?.();
  assert.deepEqual(await waiting, { done: true, value: undefined });
  events.put(number(3));
  assert.equal(events.size, 1);
});

test("what came before is for all listeners added in one go, in order", async () => {
  const { events } = channel();
  events.put(number(1));
  const seen: string[] = [];
  events.on("number", ({ value }) => seen.push(`a${value}`));
  events.on("number", ({ value }) => seen.push(`b${value}`));
  events.put(number(2)); // must not overtake
  assert.deepEqual(seen, []);
  await Promise.resolve();
  events.put(number(3));
  assert.deepEqual(seen, ["a1", "b1", "a2", "b2", "a3", "b3"]);
  assert.equal(events.size, 0);
});

test("listeners hear the end, also those that come too late", async () => {
  const { events } = channel();
  const heard: string[] = [];
  events.on("end", ({ error }) => heard.push(String(error)));
  events.end(null);
  assert.deepEqual(heard, ["null"]);
  const late = channel().events;
  late.end(new Error("over"));
  late.on("end", ({ error }) => heard.push(String(error)));
  await Promise.resolve();
  assert.deepEqual(heard, ["null", "Error: over"]);
});

test("what listeners throw harms nobody else", async () => {
  const { events, errors } = channel();
  const seen: number[] = [];
  events.on("number", () => {
    throw new Error("at once");
  });
  events.on("number", () => Promise.reject(new Error("later")));
  events.on("number", ({ value }) => seen.push(value));
  events.put(number(1));
  await new Promise(setImmediate);
  assert.deepEqual(seen, [1]);
  assert.deepEqual(errors.map(String), ["Error: at once", "Error: later"]);
});

test("listeners leave by their function and by a signal", () => {
  const { events } = channel();
  const seen: string[] = [];
  const controller = new AbortController();
  const off = events.on("number", () => seen.push("a"));
  events.on("number", () => seen.push("b"), { signal: controller.signal });
  events.on("number", () => seen.push("never"), { signal: AbortSignal.abort() });
  events.put(number(1));
  off();
  off();
  events.put(number(2));
  controller.abort();
  events.put(number(3));
  assert.deepEqual(seen, ["a", "b", "b"]);
});
