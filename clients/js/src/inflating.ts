/** Collects what a streaming decompressor gives, up to a limit. */

import type { Bytes } from "./encoding.js";

/** Compressed bytes given to a decompressor in one go: the most that these make is kept before the limit is looked at. */
const PIECE_BYTES = 4096;

/**
 * What `push` makes of `data`, which it hands to `collect` piece by piece.
 *
 * @throws RangeError beyond `limit` bytes, an Error when the end is missing, and what `push` throws.
 */
export function inflate(
  data: Bytes,
  limit: number,
  start: (collect: (piece: Uint8Array, final: boolean) => void) => (piece: Bytes, last: boolean) => void,
): Bytes {
  const pieces: Uint8Array[] = [];
  let size = 0;
  let isWhole = false;
  const push = start((piece, final) => {
    size += piece.length;
    if (size > limit) throw new RangeError(`more than ${limit} bytes`);
    pieces.push(piece);
    isWhole ||= final;
  });
  for (let at = 0; at < data.length; at += PIECE_BYTES) {
    push(data.subarray(at, at + PIECE_BYTES), at + PIECE_BYTES >= data.length);
  }
  if (!isWhole) throw new Error("the message is cut off");
  const whole = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
}
