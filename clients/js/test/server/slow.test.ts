import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";

import { gzip } from "realtime-communication-client/gzip";
import { lz4 } from "realtime-communication-client/lz4";
import { msgpack } from "realtime-communication-client/msgpack";
import { zstd } from "realtime-communication-client/zstd";

import { Proxy } from "../proxy.js";
import { next, open, Server, unique } from "../rig.js";

const text = randomBytes(40 * 1024).toString("base64"); // which no compression makes small
const count = 300;

for (const strategy of ["drop_oldest", "backpressure"]) {
  test(`a slow consumer is told what it missed: ${strategy}`, async () => {
    const server = await Server.start({ actor_system: { mailbox_capacity: 20, overflow_strategy: strategy } });
    const topic = unique();
    await using proxy = await Proxy.open(server.port);
    await using alice = await open(server.url);
    await using bob = await open(proxy.url);
    const room = await bob.subscribe<{ number: number }>(topic);
    await alice.publish(topic, { number: 0 });
    await next(room, "message");
    proxy.stall();
    for (let number = 1; number < count; number += 1) await alice.publish(topic, { number, text });
    proxy.flow();
    await alice.publish(topic, { number: count });
    let lagged = 0;
    let missed = 0;
    let last = 0;
    let received = 0;
    for await (const event of room) {
      if (event.type === "lagged") {
        assert.equal(event.source, "server");
        lagged += 1;
        if (!event.recovered) missed += event.missed;
      } else if (event.type === "message") {
        assert.ok(event.payload.number > last);
        last = event.payload.number;
        received += 1;
        if (last === count) break;
      }
    }
    assert.ok(lagged > 0);
    assert.equal(received + missed, count);
    assert.equal(strategy === "drop_oldest", missed > 0);
  });
}

for (const compression of [zstd, lz4, gzip]) {
  test(`messages compressed as a whole: ${compression.name}`, async () => {
    const server = await Server.start({ performance: { messages: { compression_algorithm: compression.name } } });
    const payload = { text: "compress me ".repeat(1000) };
    for (const encoding of ["json", msgpack] as const) {
      const topic = unique();
      await using alice = await open(server.url, { encoding, compression });
      await using bob = await open(server.url);
      const rooms = [await alice.subscribe(topic), await bob.subscribe(topic)];
      await alice.publish(topic, payload);
      for (const room of rooms) assert.deepEqual((await next(room, "message")).payload, payload);
    }
  });
}

test("a compression that the server does not have is done without", async () => {
  const { url } = await Server.shared();
  await using alice = await open(url, { compression: lz4 });
  assert.ok((await alice.ping()) > 0);
});
