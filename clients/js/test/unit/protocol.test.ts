import assert from "node:assert/strict";
import { test } from "node:test";

import { Codec, json } from "#dist/encoding.js";
import type { Output } from "#dist/outputs.js";
import { ClientProtocol, type ProtocolOptions } from "#dist/protocol.js";
import { ConnectionLost, ProtocolViolation, QueueFull } from "realtime-communication-client";

type Fields = Record<string, unknown>;

/** A protocol and the server it talks to, envelope by envelope. */
class Talk {
  readonly protocol: ClientProtocol;

  constructor(options: ProtocolOptions = {}) {
    this.protocol = new ClientProtocol({ recoverInbox: false, ...options });
  }

  connect(): Fields[] {
    this.protocol.connectionMade(new Codec(json, null, 1_000_000), { token: "t" });
    assert.deepEqual(this.sent(), [{ type: "Authenticate", id: "authenticate", token: "t" }]);
    this.says({ type: "Connected", id: "authenticate", session_id: "s", user_id: "alice", node_id: "n" });
    return this.sent();
  }

  says(envelope: Fields, now = 0): void {
    this.protocol.receive(JSON.stringify(envelope), now);
  }

  message(topic: string, offset: number): void {
    this.says({ type: "Message", topic, offset, ts: 1, from: "bob", payload: offset });
  }

  sent(): Fields[] {
    return this.protocol.dataToSend().map((data) => JSON.parse(String(data)) as Fields);
  }

  /** Events of topics, in few words, and the ends of requests. */
  heard(): string[] {
    return this.protocol.outputs().flatMap(words);
  }
}

function words(output: Output): string[] {
  switch (output.kind) {
    case "topic": {
      const { event } = output;
      if (event.type === "message") return [`${event.offset}`];
      if (event.type === "lagged") return [`lagged ${event.source} ${event.missed} ${event.recovered}`];
      return [event.type === "recovered" ? `recovered ${event.recovered} ${event.missed}` : `${event.type} ${event.userId}`];
    }
    case "answered":
      return [`answered ${output.id}`];
    case "failed":
      return [`failed ${output.id} ${output.error.code}`];
    case "ended":
      return [`ended ${output.topic} ${output.error.code}`];
    case "inbox":
      return output.event.type === "direct" ? [`direct ${output.event.offset}`] : [];
    default:
      return [];
  }
}

function subscribed(id: unknown, offset: number, more: Fields = {}): Fields {
  return { type: "Subscribed", id, topic: "t", epoch: "e", offset, recovered: false, messages: [], ...more };
}

const wanted = { history: 0, presence: false, recover: null };

test("requests wait for the connection and go out again on the next", () => {
  const talk = new Talk();
  const id = talk.protocol.request("Broadcast", { topic: "t", payload: 1 });
  assert.deepEqual(talk.sent(), []);
  const broadcast = { type: "Broadcast", id, topic: "t", payload: 1 };
  assert.deepEqual(talk.connect(), [broadcast]);
  talk.protocol.connectionLost(1006, "");
  assert.deepEqual(talk.connect(), [broadcast]);
  talk.says({ type: "Ack", id, topic: "t", epoch: "e", offset: 1 });
  assert.deepEqual(talk.heard(), [`answered ${id}`]);
  talk.protocol.connectionLost(1006, "");
  assert.deepEqual(talk.connect(), []);
});

test("what may have broken the connection is not sent again", () => {
  const talk = new Talk();
  talk.connect();
  const id = talk.protocol.request("Broadcast", { topic: "t", payload: "too big" });
  talk.protocol.connectionLost(1009, "");
  assert.deepEqual(talk.heard(), [`failed ${id} connection_lost`]);
});

test("held messages follow the recovered ones; duplicates are dropped", () => {
  const talk = new Talk();
  talk.protocol.subscribe("t", { ...wanted, recover: { epoch: "e", offset: 3 } });
  const [subscribe] = talk.connect();
  assert.deepEqual(subscribe?.["recover"], { epoch: "e", offset: 3 });
  talk.message("t", 5);
  talk.message("t", 6);
  const messages = [4, 5].map((offset) => ({ offset, ts: 1, from: "bob", payload: offset }));
  talk.says(subscribed(subscribe?.["id"], 5, { recovered: true, messages }));
  talk.message("t", 6);
  talk.message("t", 7);
  assert.deepEqual(talk.heard(), ["recovered true 0", "4", "5", "6", `answered ${subscribe?.["id"]}`, "7"]);
  assert.deepEqual(talk.protocol.position("t"), { epoch: "e", offset: 7 });
});

test("holes are told, announced ones once", () => {
  const talk = new Talk();
  talk.protocol.subscribe("t", wanted);
  const [subscribe] = talk.connect();
  talk.says(subscribed(subscribe?.["id"], 3));
  talk.message("t", 6);
  talk.says({ type: "Lagged", topic: "t", missed: 2, epoch: "e", offset: 8, recovered: false });
  talk.message("t", 9);
  assert.deepEqual(talk.heard().slice(1), ["lagged offsets 2 false", "6", "lagged server 2 false", "9"]);
});

test("a subscription that cannot be restored now is tried again, one that may not be is ended", () => {
  const talk = new Talk();
  talk.protocol.subscribe("t", wanted);
  const [first] = talk.connect();
  talk.says(subscribed(first?.["id"], 3));
  talk.protocol.connectionLost(1006, "");
  const [again] = talk.connect();
  talk.says({ type: "Error", id: again?.["id"], code: "unavailable", message: "", retry_after_ms: 700 }, 1000);
  assert.equal(talk.protocol.nextDeadline, 1700);
  talk.protocol.tick(1699);
  assert.deepEqual(talk.sent(), []);
  talk.protocol.tick(1700);
  const [retried] = talk.sent();
  assert.deepEqual([retried?.["type"], retried?.["recover"]], ["Subscribe", { epoch: "e", offset: 3 }]);
  talk.heard();
  talk.says({ type: "Error", id: retried?.["id"], code: "forbidden", message: "" });
  assert.deepEqual(talk.heard(), ["ended t forbidden"]);
  talk.protocol.connectionLost(1006, "");
  assert.deepEqual(talk.connect(), []);
});

test("after Closing publications wait for the next connection, also those that were refused", () => {
  const talk = new Talk();
  talk.connect();
  const early = talk.protocol.request("Broadcast", { topic: "t", payload: 1 });
  talk.says({ type: "Closing", code: 1001, reason: "", reconnect: true, after_ms: 5 });
  const late = talk.protocol.request("DirectMessage", { to: "bob", payload: 1 });
  const reading = talk.protocol.request("Presence", { topic: "t" });
  assert.deepEqual(talk.sent().map(({ id }) => id), [early, reading]);
  talk.says({ type: "Error", id: early, code: "unavailable", message: "closing" });
  talk.protocol.connectionLost(1001, "");
  assert.deepEqual(talk.heard(), []);
  assert.deepEqual(talk.connect().map(({ id }) => id), [early, late, reading]);
});

test("what waits has a bound, and room again when it is answered", () => {
  const talk = new Talk({ maxPending: 2, maxPendingBytes: 1000 });
  const id = talk.protocol.request("Ping", {});
  assert.throws(() => talk.protocol.request("Broadcast", { topic: "t", payload: "x".repeat(500) }), QueueFull);
  talk.protocol.request("Ping", {});
  assert.throws(() => talk.protocol.request("Ping", {}), QueueFull);
  talk.protocol.forget(id);
  talk.protocol.request("Ping", {});
  talk.protocol.failAll(new ConnectionLost("over"));
  assert.equal(talk.heard().length, 2);
});

test("a payload is taken as it is when it is published", () => {
  const talk = new Talk();
  const payload = { text: "before" };
  talk.protocol.request("Broadcast", { topic: "t", payload });
  payload.text = "after";
  assert.deepEqual(talk.connect()[0]?.["payload"], { text: "before" });
});

test("an inbox is read page by page, live messages wait", () => {
  const talk = new Talk({ recoverInbox: true });
  const direct = (offset: number): Fields => ({ offset, ts: 1, from: "bob", payload: offset });
  const page = (id: unknown, offset: number, offsets: number[]): Fields => ({
    type: "HistoryPage", id, topic: "@alice", epoch: "e", offset, messages: offsets.map(direct),
  });
  const [first] = talk.connect();
  assert.deepEqual({ ...first, id: 0 }, { type: "History", id: 0, topic: "@alice", limit: 1, reverse: true });
  talk.says(page(first?.["id"], 2, [2]));
  talk.protocol.connectionLost(1006, "");
  const [second] = talk.connect();
  assert.deepEqual(second?.["after"], { epoch: "e", offset: 2 });
  talk.says({ type: "DirectMessage", ...direct(6) });
  talk.says(page(second?.["id"], 5, [3, 4]));
  const [third] = talk.sent();
  assert.deepEqual(third?.["after"], { epoch: "e", offset: 4 });
  talk.says(page(third?.["id"], 5, [5]));
  assert.deepEqual(talk.heard(), ["direct 3", "direct 4", "direct 5", "direct 6"]);
});

test("what is no envelope is a violation, what is not known is passed over", () => {
  const talk = new Talk();
  talk.connect();
  talk.says({ type: "FromTheFuture", topic: 7 });
  talk.says({ type: "Pong", id: 99, ts: 1 });
  for (const text of ["", "[]", "null", "7", "{}", '{"type":7}', '{"type":"Message","topic":"t"}', '{"type":"Ack","offset":"1"}']) {
    assert.throws(() => talk.protocol.receive(text, 0), ProtocolViolation, text);
  }
  assert.throws(() => talk.protocol.receive(new ArrayBuffer(1_000_001), 0), /more than 1000000 bytes/);
  assert.throws(() => Codec.chosen("rtc.v2.json", json, null, 1), ProtocolViolation);
});

test("messages before their Subscribed have a bound", () => {
  const talk = new Talk();
  talk.protocol.subscribe("t", wanted);
  talk.connect();
  assert.throws(() => {
    for (let offset = 1; offset < 20_000; offset += 1) talk.message("t", offset);
  }, /10000 messages of a topic before its Subscribed/);
});
