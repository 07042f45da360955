import assert from "node:assert/strict";
import { test } from "node:test";

import { Extension, msgpack } from "realtime-communication-client/msgpack";

const text = (size: number): string => "é".repeat(size);

function there(value: unknown): unknown {
  return msgpack.decode(msgpack.encode(value));
}

function bytes(hex: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));
}

test("numbers come back, in the shortest form", () => {
  const lengths: [number | bigint, number][] = [
    [0, 1], [127, 1], [128, 2], [255, 2], [256, 3], [65_535, 3], [65_536, 5], [4_294_967_295, 5], [4_294_967_296, 9],
    [-1, 1], [-32, 1], [-33, 5], [-2_147_483_648, 5], [-2_147_483_649, 9],
    [Number.MAX_SAFE_INTEGER, 9], [Number.MIN_SAFE_INTEGER, 9], [0.1, 9], [-0, 9], [1e300, 9], [Infinity, 9], [NaN, 9],
    [2n ** 64n - 1n, 9], [-(2n ** 63n), 9],
  ];
  for (const [value, length] of lengths) {
    assert.equal(msgpack.encode(value).length, length, String(value));
    assert.ok(Object.is(there(value), value), String(value));
  }
});

test("every size of text, bytes, lists and maps", () => {
  for (const size of [0, 1, 10, 15, 16, 31, 32, 127, 255, 256, 65_535, 65_536]) {
    const map = Object.fromEntries(Array.from({ length: size }, (_, at) => [`k${at}`, at]));
    const data = new Uint8Array(size).fill(7);
    const list: unknown[] = new Array(size).fill(null);
    assert.deepEqual(there({ text: text(size), data, list, map }), { text: text(size), data, list, map });
  }
});

test("extensions of every size", () => {
  for (const size of [0, 1, 2, 3, 4, 8, 16, 17, 255, 256, 70_000]) {
    const value = new Extension(-1, new Uint8Array(size).fill(9));
    assert.deepEqual(there(value), value);
  }
});

test("dates as in JSON; what is undefined is left out, and nothing in lists", () => {
  const date = new Date(0);
  assert.deepEqual(there({ date, gone: undefined, list: [undefined] }), { date: date.toJSON(), list: [null] });
  assert.deepEqual(there(new Uint8Array([1, 2]).buffer), new Uint8Array([1, 2]));
});

test("what cannot be expressed", () => {
  const circle: unknown[] = [];
  circle.push(circle);
  assert.throws(() => msgpack.encode(circle), /128 levels/);
  assert.throws(() => msgpack.encode({ f: () => 1 }), /no function/);
  assert.throws(() => msgpack.encode(2n ** 64n), /64 bits/);
});

test("what others may send is taken", () => {
  assert.deepEqual(msgpack.decode(bytes("81 01 02")), { "1": 2 });
  const odd = msgpack.decode(bytes("81 a9 5f 5f 70 72 6f 74 6f 5f 5f 01"));
  assert.deepEqual(Object.entries(odd as object), [["__proto__", 1]]);
  assert.equal(msgpack.decode(bytes("ca 3f c0 00 00")), 1.5);
  assert.equal(msgpack.decode(bytes("d0 80")), -128);
  assert.equal(msgpack.decode(bytes("d1 80 00")), -32_768);
  assert.equal(msgpack.decode(bytes("cf 00 00 00 00 00 00 00 07")), 7);
});

test("what is broken throws and allocates nothing", () => {
  for (const hex of ["", "c1", "92 01", "dd ff ff ff ff", "df ff ff ff ff", "c6 ff ff ff ff", "a5 61", "d8 01 02", "01 01"]) {
    assert.throws(() => msgpack.decode(bytes(hex)), hex);
  }
  assert.throws(() => msgpack.decode(new Uint8Array(100_000).fill(0x91)), /levels/);
});
