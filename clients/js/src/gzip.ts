/**
 * gzip both ways, for `connect(url, { compression: gzip })`. A browser has permessage-deflate, which does the same.
 *
 * Needs the package `fflate`.
 */

import { Gunzip, gzipSync } from "fflate";

import type { Bytes, Compression } from "./encoding.js";
import { inflate } from "./inflating.js";

export const gzip: Compression = {
  name: "gzip",
  magic: [0x1f, 0x8b],
  decompress(data: Bytes, limit: number): Bytes {
    return inflate(data, limit, (collect) => {
      const stream = new Gunzip((piece, final) => collect(piece, final));
      return (piece, last) => stream.push(piece, last);
    });
  },
  compress(data: Bytes): Bytes {
    return new Uint8Array(gzipSync(data, { level: 1 }));
  },
};
