/**
 * What the server says, checked and typed: decoded values in, envelopes with this client's names out.
 *
 * Fields that are not known are ignored, as a later server may send them.
 */

import { ProtocolViolation } from "./errors.js";
import type { HistoryMessage, Member } from "./events.js";

/** `id` is that of the request answered, null when there was none. */
interface Envelope<K extends string> {
  readonly type: K;
  readonly id: number | string | null;
}

export interface ConnectedEnvelope extends Envelope<"Connected"> {
  readonly sessionId: string;
  readonly userId: string;
  readonly nodeId: string;
  readonly expiresAt: number | null;
}

export interface SubscribedEnvelope extends Envelope<"Subscribed"> {
  readonly topic: string;
  readonly epoch: string;
  readonly offset: number;
  readonly recovered: boolean;
  readonly messages: readonly HistoryMessage[];
}

export interface UnsubscribedEnvelope extends Envelope<"Unsubscribed"> {
  readonly topic: string;
}

export interface AckEnvelope extends Envelope<"Ack"> {
  readonly topic: string;
  readonly epoch: string;
  readonly offset: number;
  readonly delivered: readonly string[];
  readonly offline: readonly string[];
}

export interface PresenceStateEnvelope extends Envelope<"PresenceState"> {
  readonly topic: string;
  readonly count: number;
  readonly members: readonly Member[];
}

export interface HistoryPageEnvelope extends Envelope<"HistoryPage"> {
  readonly topic: string;
  readonly epoch: string;
  readonly offset: number;
  readonly messages: readonly HistoryMessage[];
}

export interface RefreshedEnvelope extends Envelope<"Refreshed"> {
  readonly expiresAt: number | null;
}

export interface PongEnvelope extends Envelope<"Pong"> {
  readonly ts: number;
}

export interface MessageEnvelope extends Envelope<"Message">, HistoryMessage {
  readonly topic: string;
}

export interface DirectMessageEnvelope extends Envelope<"DirectMessage">, HistoryMessage {}

export interface PresenceEnvelope extends Envelope<"Join" | "Leave"> {
  readonly topic: string;
  readonly userId: string;
  readonly sessionId: string;
  readonly info: Readonly<Record<string, unknown>> | null;
}

export interface LaggedEnvelope extends Envelope<"Lagged"> {
  readonly topic: string;
  readonly missed: number;
  readonly epoch: string;
  readonly offset: number;
  readonly recovered: boolean;
}

export interface TokenExpiringEnvelope extends Envelope<"TokenExpiring"> {
  readonly expiresAt: number | null;
}

export interface ClosingEnvelope extends Envelope<"Closing"> {
  readonly code: number;
  readonly reason: string;
  readonly reconnect: boolean;
  readonly afterMs: number;
}

export interface ErrorEnvelope extends Envelope<"Error"> {
  readonly code: string;
  readonly message: string;
  readonly retryAfterMs: number | null;
  readonly scope: string | null;
}

export type ServerEnvelope =
  | ConnectedEnvelope
  | SubscribedEnvelope
  | UnsubscribedEnvelope
  | AckEnvelope
  | PresenceStateEnvelope
  | HistoryPageEnvelope
  | RefreshedEnvelope
  | PongEnvelope
  | MessageEnvelope
  | DirectMessageEnvelope
  | PresenceEnvelope
  | LaggedEnvelope
  | TokenExpiringEnvelope
  | ClosingEnvelope
  | ErrorEnvelope;

/** The map behind an envelope. Each method throws ProtocolViolation for a value of the wrong type. */
class Fields {
  readonly #values: Readonly<Record<string, unknown>>;

  constructor(value: unknown, what: string) {
    if (!isRecord(value)) throw new ProtocolViolation(`the server sent ${what} that is no map`);
    this.#values = value;
  }

  get id(): number | string | null {
    const id = this.#values["id"];
    return typeof id === "number" || typeof id === "string" ? id : null;
  }

  any(name: string): unknown {
    return this.#values[name];
  }

  text(name: string, otherwise?: string): string {
    const value = this.#values[name] ?? otherwise;
    if (typeof value !== "string") throw wrong(name, "text");
    return value;
  }

  textOrNull(name: string): string | null {
    return this.#values[name] == null ? null : this.text(name);
  }

  number(name: string, otherwise?: number): number {
    const value = this.#values[name] ?? otherwise;
    if (typeof value !== "number") throw wrong(name, "a number");
    return value;
  }

  numberOrNull(name: string): number | null {
    return this.#values[name] == null ? null : this.number(name);
  }

  flag(name: string, otherwise: boolean): boolean {
    const value = this.#values[name] ?? otherwise;
    if (typeof value !== "boolean") throw wrong(name, "true or false");
    return value;
  }

  list<T>(name: string, read: (entry: unknown) => T): T[] {
    const value = this.#values[name] ?? [];
    if (!Array.isArray(value)) throw wrong(name, "a list");
    return value.map((entry: unknown) => read(entry));
  }

  record(name: string): Readonly<Record<string, unknown>> | null {
    const value = this.#values[name];
    return isRecord(value) ? value : null;
  }
}

const READERS: ReadonlyMap<string, (fields: Fields) => ServerEnvelope> = new Map<
  string,
  (fields: Fields) => ServerEnvelope
>([
  [
    "Connected",
    (fields) => ({
      type: "Connected",
      id: fields.id,
      sessionId: fields.text("session_id", ""),
      userId: fields.text("user_id", ""),
      nodeId: fields.text("node_id", ""),
      expiresAt: fields.numberOrNull("expires_at"),
    }),
  ],
  [
    "Subscribed",
    (fields) => ({
      type: "Subscribed",
      id: fields.id,
      ...position(fields),
      recovered: fields.flag("recovered", false),
      messages: fields.list("messages", message),
    }),
  ],
  ["Unsubscribed", (fields) => ({ type: "Unsubscribed", id: fields.id, topic: fields.text("topic") })],
  [
    "Ack",
    (fields) => ({
      type: "Ack",
      id: fields.id,
      topic: fields.text("topic", ""),
      epoch: fields.text("epoch", ""),
      offset: fields.number("offset", 0),
      delivered: fields.list("delivered", userId),
      offline: fields.list("offline", userId),
    }),
  ],
  [
    "PresenceState",
    (fields) => ({
      type: "PresenceState",
      id: fields.id,
      topic: fields.text("topic"),
      count: fields.number("count"),
      members: fields.list("members", member),
    }),
  ],
  [
    "HistoryPage",
    (fields) => ({
      type: "HistoryPage",
      id: fields.id,
      ...position(fields),
      messages: fields.list("messages", message),
    }),
  ],
  ["Refreshed", (fields) => ({ type: "Refreshed", id: fields.id, expiresAt: fields.numberOrNull("expires_at") })],
  ["Pong", (fields) => ({ type: "Pong", id: fields.id, ts: fields.number("ts") })],
  ["Message", (fields) => ({ type: "Message", id: fields.id, topic: fields.text("topic"), ...published(fields) })],
  ["DirectMessage", (fields) => ({ type: "DirectMessage", id: fields.id, ...published(fields) })],
  ["Join", (fields) => ({ type: "Join", ...presence(fields) })],
  ["Leave", (fields) => ({ type: "Leave", ...presence(fields) })],
  [
    "Lagged",
    (fields) => ({
      type: "Lagged",
      id: fields.id,
      ...position(fields),
      missed: fields.number("missed"),
      recovered: fields.flag("recovered", false),
    }),
  ],
  [
    "TokenExpiring",
    (fields) => ({ type: "TokenExpiring", id: fields.id, expiresAt: fields.numberOrNull("expires_at") }),
  ],
  [
    "Closing",
    (fields) => ({
      type: "Closing",
      id: fields.id,
      code: fields.number("code", 1001),
      reason: fields.text("reason", ""),
      reconnect: fields.flag("reconnect", true),
      afterMs: fields.number("after_ms", 0),
    }),
  ],
  [
    "Error",
    (fields) => ({
      type: "Error",
      id: fields.id,
      code: fields.text("code"),
      message: fields.text("message", ""),
      retryAfterMs: fields.numberOrNull("retry_after_ms"),
      scope: fields.textOrNull("scope"),
    }),
  ],
]);

/**
 * The envelope in a decoded message, or null for a type that is not known here.
 *
 * @throws ProtocolViolation for anything that is no envelope.
 */
export function readEnvelope(value: unknown): ServerEnvelope | null {
  const fields = new Fields(value, "a message");
  return READERS.get(fields.text("type"))?.(fields) ?? null;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function wrong(name: string, wanted: string): ProtocolViolation {
  return new ProtocolViolation(`the server sent an envelope whose ${name} is not ${wanted}`);
}

function position(fields: Fields): { topic: string; epoch: string; offset: number } {
  return { topic: fields.text("topic"), epoch: fields.text("epoch"), offset: fields.number("offset") };
}

function published(fields: Fields): HistoryMessage {
  return {
    offset: fields.number("offset"),
    ts: fields.number("ts"),
    from: fields.text("from"),
    payload: fields.any("payload"),
  };
}

function message(entry: unknown): HistoryMessage {
  return published(new Fields(entry, "an entry of messages"));
}

function member(entry: unknown): Member {
  const fields = new Fields(entry, "an entry of members");
  const info = fields.record("info");
  return {
    userId: fields.text("user_id"),
    sessionId: fields.text("session_id"),
    joinedAt: fields.number("joined_at"),
    ...(info === null ? {} : { info }),
  };
}

function userId(entry: unknown): string {
  if (typeof entry !== "string") throw wrong("delivered or offline", "a list of user ids");
  return entry;
}

function presence(fields: Fields): Omit<PresenceEnvelope, "type"> {
  return {
    id: fields.id,
    topic: fields.text("topic"),
    userId: fields.text("user_id"),
    sessionId: fields.text("session_id"),
    info: fields.record("info"),
  };
}
