import assert from "node:assert/strict";
import { test } from "node:test";

import { Cursor } from "#dist/cursor.js";

function at(offset: number): Cursor {
  const cursor = new Cursor();
  cursor.reset("epoch", offset);
  return cursor;
}

test("a row without holes", () => {
  const cursor = new Cursor();
  assert.equal(cursor.position, null);
  assert.deepEqual(cursor.accept(7), { isNew: true, holes: 0 });
  assert.deepEqual(cursor.accept(8), { isNew: true, holes: 0 });
  assert.deepEqual(cursor.accept(8), { isNew: false, holes: 0 });
  assert.equal(cursor.offset, 8);
});

test("a hole is counted once", () => {
  const cursor = at(3);
  assert.deepEqual(cursor.accept(6), { isNew: true, holes: 2 });
  assert.deepEqual(cursor.accept(7), { isNew: true, holes: 0 });
});

test("an announced hole is no surprise, the next one is", () => {
  const cursor = at(3);
  cursor.announceHole();
  assert.deepEqual(cursor.accept(9), { isNew: true, holes: 0 });
  assert.deepEqual(cursor.accept(11), { isNew: true, holes: 1 });
});

test("own publications explain holes, their Ack before or behind", () => {
  const cursor = at(3);
  cursor.publishingExcluded();
  assert.equal(cursor.publishedExcluded(4), 0);
  assert.equal(cursor.offset, 4);
  cursor.publishingExcluded();
  assert.deepEqual(cursor.accept(6), { isNew: true, holes: 0 }); // 5 may be ours
  assert.equal(cursor.publishedExcluded(5), 0);
});

test("a suspected hole that was not ours is told when the last Ack is there", () => {
  const cursor = at(3);
  cursor.publishingExcluded();
  assert.deepEqual(cursor.accept(5), { isNew: true, holes: 0 });
  assert.equal(cursor.publishedExcluded(6), 1);
});

test("own publications that recovery hands back are dropped", () => {
  const cursor = at(3);
  cursor.publishingExcluded();
  cursor.publishedExcluded(5);
  assert.deepEqual(cursor.accept(4), { isNew: true, holes: 0 });
  assert.deepEqual(cursor.accept(5), { isNew: false, holes: 0 });
});
