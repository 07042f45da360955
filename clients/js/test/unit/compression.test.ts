import assert from "node:assert/strict";
import { test } from "node:test";
import { gzipSync } from "node:zlib";

import { gzip } from "realtime-communication-client/gzip";
import { lz4 } from "realtime-communication-client/lz4";
import { zstd } from "realtime-communication-client/zstd";

const text = "compress me ".repeat(1000);
const plain = new Uint8Array(new TextEncoder().encode(text));

// Made by lz4.frame.compress of Python, with block linking, a content size and both kinds of checksums, and by zstandard.
const samples = {
  lz4: "BCJNGHxA4C4AAAAAAABWRAAAAM9jb21wcmVzcyBtZSAMAP/////////////////////////////////////////////////////////////qUHMgbWUg/fME4wAAAAB/3pZX",
  zstd: "KLUv/WDgLaUAAGBjb21wcmVzcyBtZSABANHufEkC",
};

function sample(name: keyof typeof samples): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(samples[name], "base64"));
}

test("lz4 and zstd frames as servers make them", () => {
  assert.deepEqual(lz4.decompress(sample("lz4"), plain.length), plain);
  assert.deepEqual(zstd.decompress(sample("zstd"), plain.length), plain);
});

test("gzip both ways", () => {
  assert.deepEqual(gzip.decompress(new Uint8Array(gzipSync(plain)), plain.length), plain);
  assert.ok(gzip.compress);
  assert.deepEqual(gzip.decompress(gzip.compress(plain), plain.length), plain);
});

test("nothing inflates beyond the limit", () => {
  const bomb = new Uint8Array(gzipSync(new Uint8Array(50_000_000)));
  assert.throws(() => gzip.decompress(bomb, 1_000_000), /more than 1000000 bytes/);
  for (const compression of [lz4, zstd]) {
    assert.throws(() => compression.decompress(sample(compression.name as "lz4" | "zstd"), plain.length - 1), /more than/);
  }
});

test("cut off or changed anywhere, it throws or gives something of bounded size", () => {
  const frames = [[lz4, sample("lz4")], [zstd, sample("zstd")], [gzip, new Uint8Array(gzipSync(plain))]] as const;
  for (const [compression, frame] of frames) {
    for (let size = 4; size < frame.length - 8; size += 1) {
      assert.throws(() => compression.decompress(frame.slice(0, size), plain.length), `${compression.name} ${size}`);
    }
    for (let at = 4; at < frame.length; at += 1) {
      const changed = frame.slice();
      changed[at] = (changed[at] ?? 0) ^ 0xff;
      try {
        assert.ok(compression.decompress(changed, plain.length).length <= plain.length);
      } catch (error) {
        assert.ok(error instanceof Error || typeof error === "string");
      }
    }
  }
});
