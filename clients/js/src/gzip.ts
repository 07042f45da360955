/**
 * gzip both ways, for `connect(url, { compression: gzip })`. A browser has permessage-deflate, which does the same.
 *
 * Needs the package `fflate`.
 */

import { Gunzip, gzipSync } from "fflate";

import type { Bytes, Compression } from "./encoding.js";
import { inflate } from "./inflating.js";

/** A header and a trailer: RFC 1952, section 2.3. */
const LEAST_BYTES = 18;

export const gzip: Compression = {
  name: "gzip",
  magic: [0x1f, 0x8b],
  decompress(data: Bytes, limit: number): Bytes {
    if (data.length < LEAST_BYTES) throw new Error("the message is cut off");
    const whole = inflate(data, limit, (collect) => {
      const stream = new Gunzip((piece, final) => collect(piece, final));
      return (piece, last) => stream.push(piece, last);
    });
    // fflate takes an end for an end: the size in the trailer tells a message that is cut off (RFC 1952, 2.3.1).
    const size = new DataView(data.buffer, data.byteOffset).getUint32(data.length - 4, true);
    if (size !== whole.length) throw new Error("the message is cut off");
    return whole;
  },
  compress(data: Bytes): Bytes {
    return new Uint8Array(gzipSync(data, { level: 1 }));
  },
};
