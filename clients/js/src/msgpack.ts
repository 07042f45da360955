/**
 * MessagePack (the specification at github.com/msgpack/msgpack), for `connect(url, { encoding: msgpack })`.
 *
 * What arrives is taken as it is, whoever sent it: integers beyond 2^53 become bigints, extension types become
 * `Extension`, keys of maps become text. Encoding is strict about what JSON would take silently: functions and symbols.
 */

import type { Bytes, Format } from "./encoding.js";

/** Levels of nesting, the envelope's included: what the server takes. */
const MOST_LEVELS = 128;

const FIRST_BYTES = 1024;
const UTF8_MOST_BYTES_A_UNIT = 3;

/** A value of an extension type; of a timestamp too (type -1). */
export class Extension {
  readonly type: number;
  readonly data: Bytes;

  /** `type` is from -128 to 127. */
  constructor(type: number, data: Bytes) {
    this.type = type;
    this.data = data;
  }
}

/** Grows as it is written. */
class Writer {
  #bytes: Bytes = new Uint8Array(FIRST_BYTES);
  #view: DataView = new DataView(this.#bytes.buffer);
  #at = 0;
  readonly #encoder: TextEncoder = new TextEncoder();

  get written(): Bytes {
    return this.#bytes.slice(0, this.#at);
  }

  value(value: unknown, level: number): void {
    if (level > MOST_LEVELS) throw new RangeError(`payload: nested deeper than ${MOST_LEVELS} levels, or in a circle`);
    switch (typeof value) {
      case "string":
        return this.#text(value);
      case "number":
        return this.#number(value);
      case "boolean":
        return this.#byte(value ? 0xc3 : 0xc2);
      case "bigint":
        return this.#bigint(value);
      case "undefined":
        return this.#byte(0xc0);
      case "object":
        return value === null ? this.#byte(0xc0) : this.#object(value, level);
      default:
        throw new TypeError(`payload: MessagePack has no ${typeof value}`);
    }
  }

  #object(value: object, level: number): void {
    if (Array.isArray(value)) {
      this.#head(value.length, 0x90, 16, null, 0xdc, 0xdd);
      for (const entry of value) this.value(entry, level + 1);
    } else if (value instanceof Uint8Array) {
      this.#head(value.length, null, 0, 0xc4, 0xc5, 0xc6);
      this.#append(value);
    } else if (value instanceof ArrayBuffer) {
      this.#object(new Uint8Array(value), level);
    } else if (value instanceof Extension) {
      this.#extension(value);
    } else if ("toJSON" in value && typeof value.toJSON === "function") {
      this.value(value.toJSON(), level + 1);
    } else {
      this.#map(value, level);
    }
  }

  #map(value: object, level: number): void {
    const entries = Object.entries(value).filter(([, entry]) => entry !== undefined);
    this.#head(entries.length, 0x80, 16, null, 0xde, 0xdf);
    for (const [key, entry] of entries) {
      this.#text(key);
      this.value(entry, level + 1);
    }
  }

  #extension({ type, data }: Extension): void {
    const fixed = { 1: 0xd4, 2: 0xd5, 4: 0xd6, 8: 0xd7, 16: 0xd8 }[data.length];
    if (fixed === undefined) this.#head(data.length, null, 0, 0xc7, 0xc8, 0xc9);
    else this.#byte(fixed);
    this.#byte(type & 0xff);
    this.#append(data);
  }

  #text(value: string): void {
    const most = value.length * UTF8_MOST_BYTES_A_UNIT;
    this.#reserve(most + 5);
    if (most < 32) {
      const { written } = this.#encoder.encodeInto(value, this.#bytes.subarray(this.#at + 1));
      this.#bytes[this.#at] = 0xa0 | written;
      this.#at += 1 + written;
      return;
    }
    const encoded = this.#encoder.encode(value);
    this.#head(encoded.length, 0xa0, 32, 0xd9, 0xda, 0xdb);
    this.#append(encoded);
  }

  #number(value: number): void {
    if (!Number.isSafeInteger(value) || Object.is(value, -0)) {
      this.#reserve(9);
      this.#view.setUint8(this.#at, 0xcb);
      this.#view.setFloat64(this.#at + 1, value);
      this.#at += 9;
    } else if (value >= -32 && value < 128) {
      this.#byte(value & 0xff);
    } else if (value >= 0 && value <= 0xffff_ffff) {
      this.#head(value, null, 0, 0xcc, 0xcd, 0xce);
    } else if (value < 0 && value >= -0x8000_0000) {
      this.#reserve(5);
      this.#view.setUint8(this.#at, 0xd2);
      this.#view.setInt32(this.#at + 1, value);
      this.#at += 5;
    } else {
      this.#bigint(BigInt(value));
    }
  }

  #bigint(value: bigint): void {
    if (value < -(2n ** 63n) || value >= 2n ** 64n) throw new RangeError(`payload: ${value} does not fit into 64 bits`);
    this.#reserve(9);
    this.#view.setUint8(this.#at, value < 0n ? 0xd3 : 0xcf);
    if (value < 0n) this.#view.setBigInt64(this.#at + 1, value);
    else this.#view.setBigUint64(this.#at + 1, value);
    this.#at += 9;
  }

  /** The head of something of `size`, in the shortest of its forms that there is (null: there is none). */
  #head(size: number, fixed: number | null, fixedBelow: number, in8: number | null, in16: number, in32: number): void {
    this.#reserve(5);
    if (fixed !== null && size < fixedBelow) {
      this.#byte(fixed | size);
    } else if (in8 !== null && size <= 0xff) {
      this.#byte(in8);
      this.#byte(size);
    } else if (size <= 0xffff) {
      this.#view.setUint8(this.#at, in16);
      this.#view.setUint16(this.#at + 1, size);
      this.#at += 3;
    } else {
      this.#view.setUint8(this.#at, in32);
      this.#view.setUint32(this.#at + 1, size);
      this.#at += 5;
    }
  }

  #byte(value: number): void {
    this.#reserve(1);
    this.#bytes[this.#at] = value;
    this.#at += 1;
  }

  #append(data: Uint8Array): void {
    this.#reserve(data.length);
    this.#bytes.set(data, this.#at);
    this.#at += data.length;
  }

  #reserve(count: number): void {
    const needed = this.#at + count;
    if (needed <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(needed, this.#bytes.length * 2));
    grown.set(this.#bytes);
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}

/** Reads one value. Every length is checked against what is there before anything is made of it. */
class Reader {
  readonly #bytes: Bytes;
  readonly #view: DataView;
  readonly #decoder: TextDecoder = new TextDecoder();
  #at = 0;

  constructor(bytes: Bytes) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** The only value. Throws RangeError or TypeError. */
  whole(): unknown {
    const value = this.#value(1);
    if (this.#at !== this.#bytes.length) throw new RangeError("there is something behind the value");
    return value;
  }

  #value(level: number): unknown {
    if (level > MOST_LEVELS + 1) throw new RangeError(`nested deeper than ${MOST_LEVELS} levels`);
    const head = this.#uint(1);
    if (head < 0x80) return head;
    if (head < 0x90) return this.#map(head & 0x0f, level);
    if (head < 0xa0) return this.#array(head & 0x0f, level);
    if (head < 0xc0) return this.#text(head & 0x1f);
    if (head >= 0xe0) return head - 0x100;
    return this.#long(head, level);
  }

  #long(head: number, level: number): unknown {
    switch (head) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#take(this.#uint(1 << (head - 0xc4))).slice();
      case 0xc7:
      case 0xc8:
      case 0xc9:
        return this.#extension(this.#uint(1 << (head - 0xc7)));
      case 0xca:
        return this.#view.getFloat32(this.#step(4));
      case 0xcb:
        return this.#view.getFloat64(this.#step(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.#uint(1 << (head - 0xcc));
      case 0xcf:
        return plain(this.#view.getBigUint64(this.#step(8)));
      case 0xd0:
        return this.#view.getInt8(this.#step(1));
      case 0xd1:
        return this.#view.getInt16(this.#step(2));
      case 0xd2:
        return this.#view.getInt32(this.#step(4));
      case 0xd3:
        return plain(this.#view.getBigInt64(this.#step(8)));
      case 0xd4:
      case 0xd5:
      case 0xd6:
      case 0xd7:
      case 0xd8:
        return this.#extension(1 << (head - 0xd4));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#text(this.#uint(1 << (head - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.#array(this.#uint(2 << (head - 0xdc)), level);
      case 0xde:
      case 0xdf:
        return this.#map(this.#uint(2 << (head - 0xde)), level);
      default:
        throw new TypeError(`0x${head.toString(16)} begins no value`);
    }
  }

  #map(count: number, level: number): Record<string, unknown> {
    const made: Record<string, unknown> = {};
    for (let left = count; left > 0; left -= 1) {
      const key = this.#value(level + 1);
      const value = this.#value(level + 1);
      // An assignment to __proto__ would not make an entry.
      if (key === "__proto__") Object.defineProperty(made, key, { value, enumerable: true, configurable: true, writable: true });
      else made[typeof key === "string" ? key : String(key)] = value;
    }
    return made;
  }

  #array(count: number, level: number): unknown[] {
    const made: unknown[] = [];
    for (let left = count; left > 0; left -= 1) made.push(this.#value(level + 1));
    return made;
  }

  #extension(size: number): Extension {
    const type = this.#view.getInt8(this.#step(1));
    return new Extension(type, this.#take(size).slice());
  }

  #text(size: number): string {
    return this.#decoder.decode(this.#take(size));
  }

  #uint(size: number): number {
    const at = this.#step(size);
    if (size === 1) return this.#view.getUint8(at);
    return size === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #take(size: number): Bytes {
    const at = this.#step(size);
    return this.#bytes.subarray(at, at + size);
  }

  /** Where the next `size` bytes begin. */
  #step(size: number): number {
    const at = this.#at;
    if (size > this.#bytes.length - at) throw new RangeError("the value is cut off");
    this.#at += size;
    return at;
  }
}

function plain(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

export const msgpack: Format = {
  name: "msgpack",
  encode(value: unknown): Bytes {
    const writer = new Writer();
    writer.value(value, 1);
    return writer.written;
  },
  decode(data: string | Bytes): unknown {
    if (typeof data === "string") throw new TypeError("MessagePack does not come in text frames");
    return new Reader(data).whole();
  },
};
