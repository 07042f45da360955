/**
 * Direct messages over many connections.
 *
 * An inbox cannot be subscribed to: its messages come by themselves. What came while there was no connection is read
 * from its history, page by page; live messages wait until that is done. The epoch, which live messages do not carry, is
 * learned from a first, small page.
 */

import { Cursor } from "./cursor.js";
import type { DirectMessageEnvelope, HistoryPageEnvelope, LaggedEnvelope } from "./envelopes.js";
import { ProtocolViolation } from "./errors.js";
import type { HistoryMessage, Recovered } from "./events.js";
import type { Emit } from "./outputs.js";
import { MOST_HELD, noteLag } from "./topic.js";

/** Messages per `History` while the inbox is recovered; the protocol's most. */
const PAGE = 1000;

/** The own inbox. */
export class Inbox {
  /** `@` and the user's id. */
  name = "@";
  /** Id of the unanswered `History`. */
  asked: number | null = null;
  #cursor: Cursor = new Cursor();
  readonly #emit: Emit;
  #recovering = false;
  #told = true;
  #mayBeOvertaken = false;
  #held: HistoryMessage[] = [];

  constructor(emit: Emit) {
    this.#emit = emit;
  }

  /** A session of `userId` begins. `readable`: the history will be asked for. */
  connectionMade(userId: string, reconnected: boolean, readable: boolean): void {
    const sameUser = this.name === `@${userId}`;
    this.name = `@${userId}`;
    if (!sameUser || !readable) this.#cursor = new Cursor();
    this.#recovering = reconnected && sameUser && readable;
    this.#told = !(reconnected && sameUser);
    if (!readable) this.#tell(false, null);
  }

  /** The next connection asks again. */
  connectionLost(): void {
    this.asked = null;
    this.#held = [];
  }

  /** The fields of the `History` to ask for: what follows the position, or merely where the inbox stands. */
  body(): Record<string, unknown> {
    const { position } = this.#cursor;
    if (!this.#recovering || position === null) return { topic: this.name, limit: 1, reverse: true };
    return { topic: this.name, after: position, limit: PAGE };
  }

  /** The answer. Returns whether another page must be asked for. */
  page(page: HistoryPageEnvelope): boolean {
    this.asked = null;
    const { position } = this.#cursor;
    if (!this.#recovering || position === null) {
      this.#tell(false, null);
      this.#cursor.reset(page.epoch, page.offset);
      this.#mayBeOvertaken = this.#held.length === 0;
      this.#release(true);
      return false;
    }
    if (page.epoch !== position.epoch) {
      this.#tell(false, null);
      this.#cursor.reset(page.epoch, 0);
      return true;
    }
    const fresh = page.messages.filter((message) => message.offset > position.offset);
    if (!this.#told) {
      const missed = Math.max(0, (fresh[0]?.offset ?? page.offset + 1) - position.offset - 1);
      this.#tell(missed === 0, missed);
      this.#cursor.announceHole();
    }
    for (const message of fresh) this.#deliver(message);
    const last = fresh.at(-1);
    if (last !== undefined && last.offset < page.offset) return true;
    this.#release(false);
    return false;
  }

  /** The history cannot be read: without the `read` permission, for one. */
  unavailable(): void {
    this.asked = null;
    this.#tell(false, null);
    this.#cursor = new Cursor();
    this.#release(false);
  }

  /** A live message. */
  message(envelope: DirectMessageEnvelope): void {
    if (this.asked !== null) {
      if (this.#held.length >= MOST_HELD) {
        throw new ProtocolViolation(`the server sent ${MOST_HELD} direct messages before the inbox's HistoryPage`);
      }
      this.#held.push(envelope);
      return;
    }
    if (this.#mayBeOvertaken) {
      // The reply that told the inbox's offset may have overtaken a message that was waiting already.
      this.#mayBeOvertaken = false;
      const { offset } = this.#cursor;
      if (offset !== null && envelope.offset <= offset) this.#cursor.offset = envelope.offset - 1;
    }
    this.#deliver(envelope);
  }

  /** The server skipped messages for this connection. */
  lagged(envelope: LaggedEnvelope): void {
    noteLag(this.#cursor, envelope);
    const { missed, recovered } = envelope;
    this.#emit({
      kind: "inbox",
      event: { type: "lagged", topic: this.name, missed, recovered, source: "server" },
    });
  }

  /** Recovery is over, what was held follows. `anew`: the row of offsets begins with it. */
  #release(anew: boolean): void {
    this.#recovering = false;
    const held = this.#held;
    this.#held = [];
    const first = held[0];
    if (anew && first !== undefined) this.#cursor.offset = first.offset - 1;
    for (const message of held) this.#deliver(message);
  }

  #deliver({ offset, ts, from, payload }: HistoryMessage): void {
    const { isNew, holes } = this.#cursor.accept(offset);
    if (holes > 0) {
      const event = { type: "lagged", topic: this.name, missed: holes, recovered: false, source: "offsets" } as const;
      this.#emit({ kind: "inbox", event });
    }
    if (isNew) this.#emit({ kind: "inbox", event: { type: "direct", offset, ts, from, payload } });
  }

  #tell(recovered: boolean, missed: number | null): void {
    if (this.#told) return;
    this.#told = true;
    const event: Recovered = { type: "recovered", topic: this.name, recovered, missed };
    this.#emit({ kind: "inbox", event });
    this.#emit({ kind: "connection", event });
  }
}
