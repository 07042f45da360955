/**
 * rtc.v1 as WebSocket messages: JSON, the door for other formats, compression of whole messages.
 *
 * Knows no socket and no state. What does not decode is a ProtocolViolation.
 */

import { readEnvelope, type ServerEnvelope } from "./envelopes.js";
import { ProtocolViolation } from "./errors.js";

/** Bytes that no other thread changes. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** How envelopes are written. JSON is built in; `realtime-communication-client/msgpack` has the other one. */
export interface Format {
  readonly name: "json" | "msgpack";
  /** @throws TypeError or RangeError for a value the format cannot express. */
  encode(value: unknown): string | Bytes;
  /** @throws an Error for what is not of this format. */
  decode(data: string | Bytes): unknown;
}

/** Compression of whole messages, from `realtime-communication-client/zstd`, `/lz4` or `/gzip`. */
export interface Compression {
  readonly name: "zstd" | "lz4" | "gzip";
  /** The first bytes of every compressed message. */
  readonly magic: readonly number[];
  /** @throws an Error for a broken message, and before it inflates beyond `limit` bytes. */
  decompress(data: Bytes, limit: number): Bytes;
  /** Left out where only the server compresses. */
  compress?(data: Bytes): Bytes;
}

/** Smaller messages are sent as they are; the server's default threshold. */
export const COMPRESS_FROM_BYTES = 1024;

const PROTOCOL = "rtc.v1";

/** JSON, as text. */
export const json: Format = {
  name: "json",
  encode(value: unknown): string {
    return JSON.stringify(value);
  },
  decode(data: string | Bytes): unknown {
    return JSON.parse(typeof data === "string" ? data : new TextDecoder("utf-8", { fatal: true }).decode(data));
  },
};

/** What to offer, best first. Without support for the compression the server takes the plain form. */
export function subprotocols(format: Format, compression: Compression | null): string[] {
  const plain = `${PROTOCOL}.${format.name}`;
  return compression === null ? [plain] : [`${plain}+${compression.name}`, plain];
}

/** How many bytes `data` has on the wire, uncompressed; of text, at most. */
export function sizeOf(data: string | Bytes): number {
  return typeof data === "string" ? data.length * 3 : data.length;
}

/** Envelopes to WebSocket messages and back, for one connection. */
export class Codec {
  readonly #format: Format;
  readonly #compression: Compression | null;
  readonly #maxMessageBytes: number;

  constructor(format: Format, compression: Compression | null, maxMessageBytes: number) {
    this.#format = format;
    this.#compression = compression;
    this.#maxMessageBytes = maxMessageBytes;
  }

  /**
   * The codec of a connection for which the server chose `subprotocol`.
   *
   * @throws ProtocolViolation when that was not offered.
   */
  static chosen(subprotocol: string, format: Format, compression: Compression | null, maxMessageBytes: number): Codec {
    const at = subprotocols(format, compression).indexOf(subprotocol);
    if (at < 0) throw new ProtocolViolation(`the server chose the subprotocol "${subprotocol}", which was not offered`);
    return new Codec(format, subprotocol.includes("+") ? compression : null, maxMessageBytes);
  }

  /** What travels for `data`, which the format made. */
  pack(data: string | Bytes): string | Bytes {
    const compress = this.#compression?.compress;
    if (compress === undefined || data.length < COMPRESS_FROM_BYTES) return data;
    return compress(typeof data === "string" ? new TextEncoder().encode(data) : data);
  }

  /** The envelope in one WebSocket message, or null for a type that is not known here. Throws ProtocolViolation. */
  decode(data: string | ArrayBuffer): ServerEnvelope | null {
    let value: unknown;
    try {
      value = this.#format.decode(this.#unpack(data));
    } catch (error) {
      if (error instanceof ProtocolViolation) throw error;
      throw new ProtocolViolation(`the server sent what is not ${this.#format.name}`, { cause: error });
    }
    return readEnvelope(value);
  }

  #unpack(data: string | ArrayBuffer): string | Bytes {
    const limit = this.#maxMessageBytes;
    if ((typeof data === "string" ? data.length : data.byteLength) > limit) {
      throw new ProtocolViolation(`the server sent a message of more than ${limit} bytes`);
    }
    if (typeof data === "string") return data;
    const bytes = new Uint8Array(data);
    const compression = this.#compression;
    if (compression === null || !compression.magic.every((byte, at) => bytes[at] === byte)) return bytes;
    try {
      return compression.decompress(bytes, limit);
    } catch (error) {
      throw new ProtocolViolation(`the server sent a ${compression.name} message that is broken or too big`, {
        cause: error,
      });
    }
  }
}
