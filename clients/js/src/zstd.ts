/**
 * Zstandard from the server, for `connect(url, { compression: zstd })`. What this client sends stays as it is.
 *
 * Needs the package `fzstd`.
 */

import { Decompress } from "fzstd";

import type { Bytes, Compression } from "./encoding.js";
import { inflate } from "./inflating.js";

export const zstd: Compression = {
  name: "zstd",
  magic: [0x28, 0xb5, 0x2f, 0xfd],
  decompress(data: Bytes, limit: number): Bytes {
    return inflate(data, limit, (collect) => {
      const stream = new Decompress((piece, final = false) => collect(piece, final));
      return (piece, last) => stream.push(piece, last);
    });
  },
};
