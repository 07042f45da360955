/**
 * LZ4 frames from the server, for `connect(url, { compression: lz4 })`. What this client sends stays as it is.
 *
 * Source: "LZ4 Frame Format Description" 1.6.4 and "LZ4 Block Format Description", github.com/lz4/lz4. The checksums are
 * passed over: TCP has its own, and TLS a better one.
 */

import type { Bytes, Compression } from "./encoding.js";

const MAGIC = [0x04, 0x22, 0x4d, 0x18] as const;
const VERSION_MASK = 0xc0;
const VERSION_1 = 0x40;
const HAS_BLOCK_CHECKSUMS = 0x10;
const HAS_CONTENT_SIZE = 0x08;
const HAS_DICTIONARY = 0x01;
const IS_PLAIN = 0x8000_0000;
const CHECKSUM_BYTES = 4;
const LEAST_MATCH = 4;
const FIRST_BYTES = 64 * 1024;

/** The frame's blocks, one after the other into one output: a block may refer to those before it. */
class Frame {
  readonly #from: Bytes;
  readonly #limit: number;
  #at: number = MAGIC.length;
  #to: Bytes;
  #size = 0;

  constructor(from: Bytes, limit: number) {
    this.#from = from;
    this.#limit = limit;
    this.#to = new Uint8Array(Math.min(limit, FIRST_BYTES));
  }

  read(): Bytes {
    const flags = this.#byte();
    if ((flags & VERSION_MASK) !== VERSION_1) throw new Error("lz4: not version 1 of the frame format");
    if (flags & HAS_DICTIONARY) throw new Error("lz4: the frame needs a dictionary");
    this.#skip(1 + (flags & HAS_CONTENT_SIZE ? 8 : 0) + 1); // sizes, and the header's checksum
    for (let head = this.#uint32(); head !== 0; head = this.#uint32()) {
      const size = head % IS_PLAIN;
      const end = this.#at + size;
      if (end > this.#from.length) throw cutOff();
      if (head >= IS_PLAIN) this.#literals(size);
      else this.#block(end);
      if (flags & HAS_BLOCK_CHECKSUMS) this.#skip(CHECKSUM_BYTES);
    }
    return this.#to.slice(0, this.#size);
  }

  #block(end: number): void {
    while (this.#at < end) {
      const token = this.#byte();
      this.#literals(this.#length(token >> 4));
      if (this.#at >= end) return; // the last sequence has no match
      const distance = this.#byte() | (this.#byte() << 8);
      this.#match(distance, this.#length(token & 0x0f) + LEAST_MATCH);
    }
  }

  /** A length of which a token holds the first 4 bits. */
  #length(first: number): number {
    let length = first;
    for (let more = first === 15 ? 255 : 0; more === 255; length += more) more = this.#byte();
    return length;
  }

  #literals(count: number): void {
    if (count > this.#from.length - this.#at) throw cutOff();
    this.#reserve(count);
    this.#to.set(this.#from.subarray(this.#at, this.#at + count), this.#size);
    this.#at += count;
    this.#size += count;
  }

  #match(distance: number, count: number): void {
    if (distance === 0 || distance > this.#size) throw new Error("lz4: a match before the beginning");
    this.#reserve(count);
    const to = this.#to;
    let at = this.#size;
    if (distance >= count) {
      to.copyWithin(at, at - distance, at - distance + count);
    } else {
      for (const end = at + count; at < end; at += 1) to[at] = to[at - distance] ?? 0; // it overlaps with what it makes
    }
    this.#size += count;
  }

  #reserve(count: number): void {
    const needed = this.#size + count;
    if (needed > this.#limit) throw new RangeError(`lz4: more than ${this.#limit} bytes`);
    if (needed <= this.#to.length) return;
    const grown = new Uint8Array(Math.min(this.#limit, Math.max(needed, this.#to.length * 2)));
    grown.set(this.#to.subarray(0, this.#size));
    this.#to = grown;
  }

  #skip(count: number): void {
    this.#at += count;
  }

  #byte(): number {
    const byte = this.#from[this.#at];
    if (byte === undefined) throw cutOff();
    this.#at += 1;
    return byte;
  }

  #uint32(): number {
    return this.#byte() + this.#byte() * 0x100 + this.#byte() * 0x1_0000 + this.#byte() * 0x100_0000;
  }
}

function cutOff(): Error {
  return new Error("lz4: the frame is cut off");
}

export const lz4: Compression = {
  name: "lz4",
  magic: MAGIC,
  decompress(data: Bytes, limit: number): Bytes {
    return new Frame(data, limit).read();
  },
};
