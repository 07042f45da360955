/**
 * The client's side of rtc.v1 without I/O: messages and the time go in, messages and outputs come out.
 *
 * Theory of operation
 * -------------------
 * One `ClientProtocol` lives as long as the client and sees many connections:
 *
 *     idle ── connectionMade ──▶ greeting ── Connected ──▶ open
 *       ▲                           │                        │
 *       └─────────── connectionLost ┴────────────────────────┘
 *
 * A request keeps its id over connections. What has no answer when a connection is lost is sent again on the next one:
 * every request is either harmless to repeat or carries an idempotency key. On each new connection go out, in this order:
 *
 * 1. `Authenticate`, before anything else;
 * 2. unanswered requests: the offsets of our own `excludeSelf` publications must be known before recovery hands these
 *    messages back to us;
 * 3. a `Subscribe` with the last position for each topic (`topic.ts`);
 * 4. a `History` of the user's own inbox after its last position (`inbox.ts`).
 *
 * After the server's `Closing` publications wait for the next connection, as the server would refuse them.
 *
 * Rules: no clock, no timer, no socket here. The caller takes `outputs` and `dataToSend` after each call.
 */

import { json, sizeOf, type Bytes, type Codec, type Format } from "./encoding.js";
import type { ConnectedEnvelope, ErrorEnvelope, LaggedEnvelope, MessageEnvelope, ServerEnvelope } from "./envelopes.js";
import { type ClientError, ConnectionLost, QueueFull, RequestError } from "./errors.js";
import type { Closing, Join, Leave, Position } from "./events.js";
import { Inbox } from "./inbox.js";
import type { Output } from "./outputs.js";
import { Topic, type Wanted } from "./topic.js";

/** Shortest wait before a subscription that the server refused for a passing reason is tried again. */
const RETRY_AT_LEAST_MS = 500;

/** Refusals that another attempt may not meet. */
export const PASSING_ERRORS: ReadonlySet<string> = new Set(["rate_limited", "backpressure", "unavailable", "internal"]);

/** Close codes after which what was in flight is not sent again: it may be what broke the connection. */
const BLAMED_ON_REQUEST: ReadonlySet<number> = new Set([1002, 1003, 1007, 1009, 4429]);

/** The id of `Authenticate`; those of requests are numbers. */
const AUTHENTICATE_ID = "authenticate";

export type RequestType =
  | "Subscribe"
  | "Unsubscribe"
  | "Broadcast"
  | "DirectMessage"
  | "Presence"
  | "History"
  | "Refresh"
  | "Ping";

/** What shows who we are: the fields of `Authenticate`. */
export type Credential = { readonly token: string } | { readonly api_key: string };

export interface ProtocolOptions {
  readonly format?: Format;
  readonly recoverInbox?: boolean;
  /** Requests without an answer, and their bytes. */
  readonly maxPending?: number;
  readonly maxPendingBytes?: number;
}

/** An unanswered request. `internal`: the protocol's own, nobody else waits for its answer. */
interface Request {
  readonly id: number;
  readonly type: RequestType;
  readonly topic: string | null;
  readonly excludeSelf: boolean;
  readonly internal: boolean;
  readonly data: string | Bytes;
  sent: boolean;
}

type Fields = Readonly<Record<string, unknown>>;

export class ClientProtocol {
  /** Of the present connection. */
  state: "idle" | "greeting" | "open" = "idle";
  /** The server's announcement that the present connection will end. */
  closing: Closing | null = null;
  /** Why the server refused our `Authenticate` on the present connection. */
  refusal: RequestError | null = null;
  readonly #format: Format;
  readonly #recoverInbox: boolean;
  readonly #maxPending: number;
  readonly #maxPendingBytes: number;
  readonly #requests: Map<number, Request> = new Map();
  readonly #topics: Map<string, Topic> = new Map();
  readonly #inbox: Inbox;
  #codec: Codec | null = null;
  #connections = 0;
  #nextId = 1;
  #pendingBytes = 0;
  #toSend: (string | Bytes)[] = [];
  #outputs: Output[] = [];

  constructor({
    format = json,
    recoverInbox = true,
    maxPending = 10_000,
    maxPendingBytes = 16 * 1024 * 1024,
  }: ProtocolOptions = {}) {
    this.#format = format;
    this.#recoverInbox = recoverInbox;
    this.#maxPending = maxPending;
    this.#maxPendingBytes = maxPendingBytes;
    this.#inbox = new Inbox(this.#emit);
  }

  // The connection's life

  /** A WebSocket connection stands; the server's `Connected` comes next. `credential` is null when the URL has one. */
  connectionMade(codec: Codec, credential: Credential | null): void {
    this.state = "greeting";
    this.closing = null;
    this.refusal = null;
    this.#codec = codec;
    if (credential !== null) {
      this.#toSend.push(this.#format.encode({ type: "Authenticate", id: AUTHENTICATE_ID, ...credential }));
    }
  }

  /** The connection is gone. What was in flight waits for the next one, unless it may be what broke this one. */
  connectionLost(code: number, reason: string): void {
    this.state = "idle";
    this.#toSend = [];
    for (const request of [...this.#requests.values()]) {
      if (request.internal) {
        this.#remove(request);
      } else if (request.sent && BLAMED_ON_REQUEST.has(code)) {
        const words = `the server closed the connection with ${code} ${reason}`.trimEnd();
        this.#fail(request, new ConnectionLost(words, code, reason));
      } else {
        request.sent = false;
      }
    }
    for (const topic of this.#topics.values()) {
      topic.connectionLost();
      if (topic.requestId !== null && !this.#requests.has(topic.requestId)) topic.requestId = null;
    }
    this.#inbox.connectionLost();
  }

  /** There will be no further connection: every request fails with `error`. */
  failAll(error: ClientError): void {
    for (const request of this.#requests.values()) {
      if (!request.internal) this.#emit({ kind: "failed", id: request.id, error });
    }
    this.#requests.clear();
    this.#topics.clear();
    this.#pendingBytes = 0;
  }

  /** One WebSocket message of the server, at `now` (milliseconds). Throws ProtocolViolation. */
  receive(data: string | ArrayBuffer, now: number): void {
    const envelope = this.#codec?.decode(data) ?? null;
    if (envelope !== null) this.#dispatch(envelope, now);
  }

  /** When `tick` wants to be called, on the clock of `now`; null when there is no need. */
  get nextDeadline(): number | null {
    let first: number | null = null;
    for (const { retryAt } of this.#topics.values()) {
      if (retryAt !== null && (first === null || retryAt < first)) first = retryAt;
    }
    return first;
  }

  /** Time has passed: subscriptions that waited out a refusal are tried again. */
  tick(now: number): void {
    if (this.state !== "open") return;
    for (const topic of this.#topics.values()) {
      if (topic.retryAt === null || topic.retryAt > now) continue;
      topic.retryAt = null;
      topic.requestId = this.#add("Subscribe", topic.body(), true);
    }
  }

  /** Messages for the wire. */
  dataToSend(): (string | Bytes)[] {
    const codec = this.#codec;
    const data = this.#toSend;
    this.#toSend = [];
    return codec === null ? [] : data.map((each) => codec.pack(each));
  }

  /** What happened since the last call, in order. */
  outputs(): Output[] {
    const outputs = this.#outputs;
    this.#outputs = [];
    return outputs;
  }

  // Requests

  /**
   * Send a request now or as soon as a connection stands. Returns its id.
   *
   * @throws QueueFull, and TypeError or RangeError when the payload cannot be encoded.
   */
  request(type: RequestType, fields: Fields): number {
    return this.#add(type, fields, false);
  }

  /** Make the server show a sign of life. */
  ping(): void {
    if (this.state === "open") this.#add("Ping", {}, true);
  }

  /** Nobody waits for the answer any more. */
  forget(id: number): void {
    const request = this.#requests.get(id);
    if (request === undefined) return;
    this.#remove(request);
    this.#settle(request, null);
    if (request.type === "Subscribe" && request.sent && this.state === "open") {
      this.#add("Unsubscribe", { topic: request.topic }, true);
    }
  }

  /** Want the topic `name` from now on. Returns the request's id. Throws TypeError when it already is, and QueueFull. */
  subscribe(name: string, wanted: Wanted): number {
    if (this.#topics.has(name)) throw new TypeError(`there is a subscription of "${name}" already`);
    const topic = new Topic(name, wanted, this.#emit);
    topic.requestId = this.#add("Subscribe", topic.body(), false);
    this.#topics.set(name, topic);
    return topic.requestId;
  }

  /** Want the topic no longer. Returns the request's id, or null when the server need not be told. */
  unsubscribe(name: string): number | null {
    const topic = this.#topics.get(name);
    if (topic === undefined) return null;
    this.#topics.delete(name);
    const asking = topic.requestId === null ? undefined : this.#requests.get(topic.requestId);
    if (asking !== undefined) this.#remove(asking);
    return this.state === "open" ? this.#add("Unsubscribe", { topic: name }, false) : null;
  }

  /** The last position seen of a subscribed topic. */
  position(name: string): Position | null {
    return this.#topics.get(name)?.cursor.position ?? null;
  }

  #add(type: RequestType, fields: Fields, internal: boolean): number {
    const id = this.#nextId;
    const data = this.#format.encode({ type, id, ...fields });
    if (!internal) this.#reserve(data);
    this.#nextId += 1;
    const topic = typeof fields["topic"] === "string" ? fields["topic"] : null;
    const excludeSelf = type === "Broadcast" && fields["exclude_self"] === true;
    const request: Request = { id, type, topic, excludeSelf, internal, data, sent: false };
    this.#requests.set(id, request);
    if (this.state === "open") this.#send(request);
    if (excludeSelf && topic !== null) this.#topics.get(topic)?.cursor.publishingExcluded();
    return id;
  }

  #reserve(data: string | Bytes): void {
    const bytes = this.#pendingBytes + sizeOf(data);
    if (this.#requests.size >= this.#maxPending) {
      throw new QueueFull(`${this.#requests.size} requests wait for their answers, maxPending is ${this.#maxPending}`);
    }
    if (bytes > this.#maxPendingBytes) {
      throw new QueueFull(`${bytes} bytes of requests would wait, maxPendingBytes is ${this.#maxPendingBytes}`);
    }
    this.#pendingBytes = bytes;
  }

  #remove(request: Request): void {
    if (this.#requests.delete(request.id) && !request.internal) this.#pendingBytes -= sizeOf(request.data);
  }

  #send(request: Request): void {
    if (this.closing?.reconnect && isPublication(request)) return; // it waits for the next connection
    this.#toSend.push(request.data);
    request.sent = true;
  }

  #fail(request: Request, error: ClientError): void {
    this.#remove(request);
    this.#settle(request, null);
    this.#emit({ kind: "failed", id: request.id, error });
  }

  /** `request` is over; `offset` is what an acknowledged publication got, null when it came to nothing. */
  #settle(request: Request, offset: number | null): void {
    const topic = request.topic === null ? undefined : this.#topics.get(request.topic);
    if (topic === undefined) return;
    if (request.excludeSelf) topic.excludedSettled(offset);
    const unwanted = request.type === "Subscribe" && !request.internal && topic.requestId === request.id;
    if (unwanted && !topic.answered) this.#topics.delete(topic.name);
  }

  readonly #emit = (output: Output): void => {
    this.#outputs.push(output);
  };

  // What the server says

  #dispatch(envelope: ServerEnvelope, now: number): void {
    switch (envelope.type) {
      case "Message":
        return this.#message(envelope);
      case "DirectMessage":
        return this.#inbox.message(envelope);
      case "Join":
      case "Leave": {
        const { topic, userId, sessionId, info } = envelope;
        if (envelope.type === "Leave") return this.#presence({ type: "leave", topic, userId, sessionId });
        return this.#presence({ type: "join", topic, userId, sessionId, ...(info === null ? {} : { info }) });
      }
      case "Lagged":
        return this.#lagged(envelope);
      case "Connected":
        return this.#connected(envelope);
      case "TokenExpiring":
        return this.#emit({ kind: "refresh", expiresAt: envelope.expiresAt });
      case "Closing": {
        const { code, reason, reconnect, afterMs } = envelope;
        this.closing = { type: "closing", code, reason, reconnect, afterMs };
        return this.#emit({ kind: "connection", event: this.closing });
      }
      case "Error":
        return this.#error(envelope, now);
      default:
        return this.#reply(envelope);
    }
  }

  #message(envelope: MessageEnvelope): void {
    const { topic, ts, from, payload } = envelope;
    const wanted = this.#topics.get(topic);
    if (wanted !== undefined) wanted.message(envelope);
    else if (topic === "*") this.#emit({ kind: "connection", event: { type: "announcement", ts, from, payload } });
  }

  #lagged(envelope: LaggedEnvelope): void {
    if (envelope.topic === this.#inbox.name) this.#inbox.lagged(envelope);
    else this.#topics.get(envelope.topic)?.lagged(envelope);
  }

  #presence(event: Join | Leave): void {
    if (this.#topics.has(event.topic)) this.#emit({ kind: "topic", topic: event.topic, event });
  }

  #connected({ sessionId, userId, nodeId, expiresAt }: ConnectedEnvelope): void {
    const reconnected = this.#connections > 0;
    this.#connections += 1;
    this.state = "open";
    this.#emit({ kind: "open", session: { sessionId, userId, nodeId, expiresAt }, reconnected });
    const subscribing = new Set([...this.#topics.values()].map((topic) => topic.requestId));
    for (const request of [...this.#requests.values()]) if (!subscribing.has(request.id)) this.#send(request);
    for (const topic of this.#topics.values()) {
      const asking = topic.requestId === null ? undefined : this.#requests.get(topic.requestId);
      if (asking === undefined) topic.requestId = this.#add("Subscribe", topic.body(), true);
      else this.#send(asking);
    }
    this.#inbox.connectionMade(userId, reconnected, this.#recoverInbox);
    if (this.#recoverInbox) this.#askInbox();
  }

  #askInbox(): void {
    this.#inbox.asked = this.#add("History", this.#inbox.body(), true);
  }

  #reply(envelope: ServerEnvelope): void {
    const request = typeof envelope.id === "number" ? this.#requests.get(envelope.id) : undefined;
    if (request === undefined) return; // answered after its time-out
    this.#remove(request);
    if (envelope.type === "Subscribed") {
      const topic = this.#topics.get(envelope.topic);
      if (topic?.requestId === request.id) {
        topic.requestId = null;
        topic.subscribed(envelope);
      }
    } else if (envelope.type === "Unsubscribed") {
      this.#topics.get(envelope.topic)?.forgetHeld();
    } else if (envelope.type === "HistoryPage" && request.id === this.#inbox.asked) {
      if (this.#inbox.page(envelope)) this.#askInbox();
    }
    this.#settle(request, envelope.type === "Ack" ? envelope.offset : null);
    if (!request.internal) this.#emit({ kind: "answered", id: request.id, envelope });
  }

  #error({ id, code, message, retryAfterMs, scope }: ErrorEnvelope, now: number): void {
    const error = new RequestError(code, message, retryAfterMs, scope);
    if (id === AUTHENTICATE_ID) this.refusal = error;
    const request = typeof id === "number" ? this.#requests.get(id) : undefined;
    if (request === undefined) return;
    if (code === "unavailable" && this.closing?.reconnect && isPublication(request)) {
      request.sent = false; // sent before we heard that the server closes; the next connection takes it
      return;
    }
    if (!request.internal) return this.#fail(request, error);
    this.#remove(request);
    if (request.id === this.#inbox.asked) return this.#inbox.unavailable();
    const topic = request.topic === null ? undefined : this.#topics.get(request.topic);
    if (request.type === "Subscribe" && topic !== undefined) this.#resubscriptionRefused(topic, error, now);
  }

  #resubscriptionRefused(topic: Topic, error: RequestError, now: number): void {
    topic.requestId = null;
    if (PASSING_ERRORS.has(error.code)) {
      topic.retryAt = now + Math.max(RETRY_AT_LEAST_MS, error.retryAfterMs ?? 0);
    } else {
      this.#topics.delete(topic.name);
      this.#emit({ kind: "ended", topic: topic.name, error });
    }
  }
}

function isPublication({ type }: Request): boolean {
  return type === "Broadcast" || type === "DirectMessage";
}
