/**
 * Where a subscription stands in its topic: drops what came before, notices what is missing.
 *
 * Offsets of a topic grow by one with each message. Two things break the row on purpose: messages published with
 * `excludeSelf`, which the publisher never gets, and a hole the server announced by `Lagged`.
 */

import type { Position } from "./events.js";

/** What `Cursor.accept` says about a message. */
export interface Accepted {
  /** Whether the message is new and not our own. */
  readonly isNew: boolean;
  /** How many before it are missing unexplained. */
  readonly holes: number;
}

/** The last position seen. `offset` is null until a first message or reply fixed it. */
export class Cursor {
  epoch: string | null = null;
  offset: number | null = null;
  readonly #own: Set<number> = new Set(); // published with excludeSelf, above `offset`
  readonly #suspected: Set<number> = new Set(); // holes that pending publications may explain
  #ownPending = 0; // excludeSelf publications without their Ack so far
  #holeAnnounced = false;

  /** What to recover from, or null when nothing is known yet. */
  get position(): Position | null {
    return this.epoch === null || this.offset === null ? null : { epoch: this.epoch, offset: this.offset };
  }

  /** Another history begins, or the first one. */
  reset(epoch: string, offset: number | null): void {
    this.epoch = epoch;
    this.offset = offset;
    this.#own.clear();
    this.#suspected.clear();
    this.#holeAnnounced = false;
  }

  /** Everything up to `offset` is accounted for. */
  advance(offset: number): void {
    if (this.offset === null || offset > this.offset) this.offset = offset;
    this.#absorbOwn();
  }

  /** The next jump is known to the application already. */
  announceHole(): void {
    this.#holeAnnounced = true;
  }

  /** A message came. */
  accept(offset: number): Accepted {
    if (this.offset === null) {
      this.offset = offset;
      return { isNew: true, holes: 0 };
    }
    if (offset <= this.offset) return { isNew: false, holes: 0 };
    const own = this.#own.has(offset);
    const holes = offset > this.offset + 1 ? this.#unexplained(this.offset + 1, offset) : 0;
    this.offset = offset;
    this.#holeAnnounced = false;
    this.#absorbOwn();
    return { isNew: !own, holes };
  }

  /** A publication of ours that will not come back is on its way. */
  publishingExcluded(): void {
    this.#ownPending += 1;
  }

  /** That publication got `offset` (null: it failed). Returns how many holes turn out to be unexplained. */
  publishedExcluded(offset: number | null): number {
    this.#ownPending = Math.max(0, this.#ownPending - 1);
    if (offset !== null && !this.#suspected.delete(offset) && this.offset !== null && offset > this.offset) {
      this.#own.add(offset);
      this.#absorbOwn();
    }
    if (this.#ownPending > 0) return 0;
    const unexplained = this.#suspected.size;
    this.#suspected.clear();
    return unexplained;
  }

  /** How many offsets of `start` … `stop` - 1 are neither our own nor announced. */
  #unexplained(start: number, stop: number): number {
    if (this.#holeAnnounced) return 0;
    let count = stop - start;
    for (const own of this.#own) if (start <= own && own < stop) count -= 1;
    if (count > 0 && count + this.#suspected.size <= this.#ownPending) {
      for (let offset = start; offset < stop; offset += 1) if (!this.#own.has(offset)) this.#suspected.add(offset);
      return 0;
    }
    return count;
  }

  #absorbOwn(): void {
    if (this.offset === null) return;
    while (this.#own.has(this.offset + 1)) this.offset += 1;
    for (const own of this.#own) if (own <= this.offset) this.#own.delete(own);
  }
}
