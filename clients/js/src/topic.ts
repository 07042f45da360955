/**
 * One subscription over many connections: what to ask for, what is new, what is missing.
 *
 * Live messages that come before the topic's answer are held until the recovered ones are out, so that the application
 * sees the topic in offset order.
 */

import { Cursor } from "./cursor.js";
import type { LaggedEnvelope, MessageEnvelope, SubscribedEnvelope } from "./envelopes.js";
import { ProtocolViolation } from "./errors.js";
import type { HistoryMessage, Position, Recovered } from "./events.js";
import type { Emit } from "./outputs.js";

/** Messages that may wait for the answer before them. A server sends a handful. */
export const MOST_HELD = 10_000;

/** What a subscription asks for. */
export interface Wanted {
  readonly history: number;
  readonly presence: boolean;
  readonly recover: Position | null;
}

/** A subscription the application wants. */
export class Topic {
  readonly name: string;
  readonly cursor: Cursor = new Cursor();
  /** Id of the unanswered `Subscribe`. */
  requestId: number | null = null;
  /** Whether there was an answer at some time. */
  answered = false;
  /** When a passing refusal is waited out, on the clock of `now`. */
  retryAt: number | null = null;
  readonly #history: number;
  readonly #presence: boolean;
  readonly #emit: Emit;
  #live = false;
  #held: MessageEnvelope[] = [];

  constructor(name: string, { history, presence, recover }: Wanted, emit: Emit) {
    this.name = name;
    this.#history = history;
    this.#presence = presence;
    this.#emit = emit;
    if (recover !== null) this.cursor.reset(recover.epoch, recover.offset);
  }

  /** The fields of the `Subscribe` that continues where this topic stands. */
  body(): Record<string, unknown> {
    const { position } = this.cursor;
    return {
      topic: this.name,
      ...(position === null ? {} : { recover: position }),
      ...(this.#history > 0 ? { history: this.#history } : {}), // what an unsuccessful recovery falls back to
      ...(this.#presence ? { presence: true } : {}),
    };
  }

  /** The next connection starts with a `Subscribe` again. */
  connectionLost(): void {
    this.#live = false;
    this.retryAt = null;
    this.#held = [];
  }

  /** What came until now belonged to an earlier subscription of the same topic. */
  forgetHeld(): void {
    this.#held = [];
  }

  /** The server's answer; everything held follows it. */
  subscribed(reply: SubscribedEnvelope): void {
    for (const message of this.#begin(reply)) this.#deliver(message);
    if (this.#held.length === 0) this.cursor.advance(reply.offset);
    this.#live = this.answered = true;
    const held = this.#held;
    this.#held = [];
    for (const message of held) this.#deliver(message);
  }

  /** A live message. */
  message(envelope: MessageEnvelope): void {
    if (this.#live) {
      this.#deliver(envelope);
      return;
    }
    if (this.#held.length >= MOST_HELD) {
      throw new ProtocolViolation(`the server sent ${MOST_HELD} messages of a topic before its Subscribed`);
    }
    this.#held.push(envelope);
  }

  /** The server skipped messages for this connection. */
  lagged(envelope: LaggedEnvelope): void {
    noteLag(this.cursor, envelope);
    const { missed, recovered } = envelope;
    this.#emit({
      kind: "topic",
      topic: this.name,
      event: { type: "lagged", topic: this.name, missed, recovered, source: "server" },
    });
  }

  /** A publication of ours with `excludeSelf` got `offset`, or failed (null). */
  excludedSettled(offset: number | null): void {
    this.#tellHoles(this.cursor.publishedExcluded(offset));
  }

  /** Set the cursor before the first new message, tell what is missing, return what is new. */
  #begin(reply: SubscribedEnvelope): readonly HistoryMessage[] {
    const before = this.cursor.position;
    if (before === null) {
      const first = Math.min(reply.offset + 1, ...offsets(reply.messages), ...offsets(this.#held));
      this.cursor.reset(reply.epoch, first - 1);
      return reply.messages;
    }
    const sameEpoch = before.epoch === reply.epoch;
    const fresh = reply.messages.filter((message) => !sameEpoch || message.offset > before.offset);
    if (reply.recovered && sameEpoch) {
      this.#tell({ type: "recovered", topic: this.name, recovered: true, missed: 0 });
    } else {
      const missed = sameEpoch ? Math.max(0, reply.offset - before.offset - fresh.length) : null;
      this.cursor.reset(reply.epoch, (fresh[0]?.offset ?? reply.offset + 1) - 1);
      this.#tell({ type: "recovered", topic: this.name, recovered: false, missed });
    }
    return fresh;
  }

  #deliver({ offset, ts, from, payload }: HistoryMessage): void {
    const { isNew, holes } = this.cursor.accept(offset);
    this.#tellHoles(holes);
    if (isNew) {
      const event = { type: "message", topic: this.name, offset, ts, from, payload } as const;
      this.#emit({ kind: "topic", topic: this.name, event });
    }
  }

  #tellHoles(missed: number): void {
    if (missed === 0) return;
    const event = { type: "lagged", topic: this.name, missed, recovered: false, source: "offsets" } as const;
    this.#emit({ kind: "topic", topic: this.name, event });
  }

  #tell(event: Recovered): void {
    this.#emit({ kind: "topic", topic: this.name, event });
    this.#emit({ kind: "connection", event });
  }
}

/** Prepare `cursor` for what follows a `Lagged`: the recovered messages, a jump, or another history. */
export function noteLag(cursor: Cursor, { epoch, recovered }: LaggedEnvelope): void {
  if (cursor.epoch !== null && cursor.epoch !== epoch) cursor.reset(epoch, null);
  else if (!recovered) cursor.announceHole();
}

function offsets(messages: readonly HistoryMessage[]): number[] {
  return messages.map((message) => message.offset);
}
