/** The client of rtc.v1: one object that stays connected. */

import { Credentials } from "./credentials.js";
import { EventChannel, type EventOf, type EventSource, type ListenerOptions, type Off, type TypeOf } from "./delivery.js";
import { asyncDispose } from "./disposal.js";
import type { ServerEnvelope } from "./envelopes.js";
import { ClientClosed, ClientError, ConnectionLost, ProtocolViolation, RequestError } from "./errors.js";
import type {
  ClientState,
  Connected,
  ConnectionEvent,
  Delivery,
  Disconnected,
  HistoryMessage,
  HistoryPage,
  InboxEvent,
  Position,
  PresenceState,
  Session,
  SubscriptionEvent,
} from "./events.js";
import { Link } from "./link.js";
import { type ConnectOptions, positive, type Settings, settingsOf } from "./options.js";
import type { Output } from "./outputs.js";
import { ClientProtocol, type RequestType } from "./protocol.js";
import { Renewal } from "./renewal.js";
import {
  Answers,
  type HistoryOptions,
  Keys,
  type PublishOptions,
  type RequestOptions,
  type SendOptions,
  type SubscribeOptions,
} from "./requests.js";
import { Subscription, type SubscriptionOwner } from "./subscription.js";

interface Subscribed {
  readonly subscription: Subscription;
  readonly channel: EventChannel<SubscriptionEvent>;
  readonly stopListening: () => void;
}

/**
 * Open a client for `url` (`wss://host/ws`; `/ws` in a page of the same host) and wait for its first connection.
 * Attempts are repeated up to `openTimeoutMs`.
 *
 * @throws AuthenticationFailed, ConnectionLost (with the reason of the last attempt), the signal's reason, and TypeError
 * or RangeError for a wrong option.
 */
export async function connect(url: string | URL, options: ConnectOptions = {}): Promise<Client> {
  const client = new Client(url, options);
  try {
    await client.ready();
    return client;
  } catch (error) {
    await client.close();
    throw error;
  }
}

/**
 * Connects at once and stays connected until `close`: a lost connection is opened again by itself, with jittered
 * exponential back-off; subscriptions and direct messages continue after the last position seen, each message comes
 * once, and `recovered` says whether anything is missing. Requests made meanwhile wait for the new connection up to
 * their time-out.
 *
 * Every request rejects with RequestError when the server refuses it, RequestTimeout when no answer comes in time,
 * QueueFull when too many wait, ClientClosed when the client is closed, the reason of the signal that aborted it, and
 * what ended the client for good: AuthenticationFailed or ConnectionLost.
 */
export class Client implements AsyncDisposable {
  /** Direct messages to this user, with `recovered` and `lagged` where something may be missing. */
  readonly inbox: EventSource<InboxEvent>;
  readonly #settings: Settings;
  readonly #protocol: ClientProtocol;
  readonly #credentials: Credentials;
  readonly #link: Link;
  readonly #renewal: Renewal;
  readonly #answers: Answers = new Answers();
  readonly #keys: Keys = new Keys();
  readonly #subscriptions: Map<string, Subscribed> = new Map();
  readonly #inbox: EventChannel<InboxEvent>;
  readonly #events: EventChannel<ConnectionEvent>;
  readonly #owner: SubscriptionOwner;
  readonly #cleanups: (() => void)[] = [];
  readonly #watchers: Set<() => void> = new Set(); // of the state, for `ready`
  #state: ClientState = "connecting";
  #session: Session | null = null;
  #ended: ClientError | null = null;
  #working = false;
  #tickTimer: ReturnType<typeof setTimeout> | null = null;

  /** Connects in the background; `ready` tells how that went. Throws TypeError or RangeError for a wrong option. */
  constructor(url: string | URL, options: ConnectOptions = {}) {
    const settings = settingsOf(url, options);
    const { format, recoverInbox, maxPending, maxPendingBytes, queueSize, onError } = settings;
    this.#settings = settings;
    this.#protocol = new ClientProtocol({ format, recoverInbox, maxPending, maxPendingBytes });
    this.#credentials = new Credentials(settings.token, settings.getToken, settings.apiKey, settings.openTimeoutMs);
    this.#renewal = new Renewal(this.#credentials, {
      refresh: (token) => this.refresh(token),
      giveUp: () => this.#link.dropCredentials(),
    });
    this.#link = new Link(this.#protocol, this.#credentials, settings.backoff, settings, {
      changed: () => this.#work(),
      lost: (event) => this.#lost(event),
    });
    this.#inbox = this.inbox = new EventChannel<InboxEvent>(queueSize, (count) => this.#inboxOverflow(count), onError);
    this.#events = new EventChannel<ConnectionEvent>(queueSize, null, onError);
    this.#owner = {
      positionOf: ({ topic }) => this.#protocol.position(topic),
      end: (subscription, request) => this.#unsubscribe(subscription, request),
    };
    this.#listen(globalThis, "online", () => this.#link.wake());
    if (settings.signal !== null) this.#listen(settings.signal, "abort", () => void this.close());
    if (settings.signal?.aborted) void this.close();
    else void this.#run();
  }

  // Life

  /** `connecting` until the first connection, `open`, `reconnecting` between two, `closed` for good. */
  get state(): ClientState {
    return this.#state;
  }

  /** The latest session, or null before the first. */
  get session(): Session | null {
    return this.#session;
  }

  /** Listen to what happens to the connection: `state`, `connected`, `disconnected`, `recovered`, … and `end`. */
  on<K extends TypeOf<ConnectionEvent>>(
    type: K,
    listener: (event: EventOf<ConnectionEvent, K>) => unknown,
    options?: ListenerOptions,
  ): Off {
    return this.#events.on(type, listener, options);
  }

  /** The same to iterate over. When nobody reads them, only the latest are kept. */
  events(): AsyncIterable<ConnectionEvent> {
    return this.#events;
  }

  /** The session, as soon as there is a connection. Rejects as `connect`, and after `timeoutMs` (`openTimeoutMs`). */
  ready({ timeoutMs, signal }: RequestOptions = {}): Promise<Session> {
    const ms = positive("timeoutMs", timeoutMs, this.#settings.openTimeoutMs);
    return new Promise((resolve, reject) => {
      const look = (): void => {
        if (this.#ended !== null) settle(() => reject(this.#settings.signal?.reason ?? this.#ended));
        else if (signal?.aborted) settle(() => reject(signal.reason));
        else if (this.#state === "open" && this.#session !== null) settle(resolve.bind(null, this.#session));
      };
      const settle = (end: () => void): void => {
        clearTimeout(timer);
        this.#watchers.delete(look);
        signal?.removeEventListener("abort", look);
        end();
      };
      const timer = setTimeout(() => settle(() => reject(this.#notReady(ms))), ms);
      this.#watchers.add(look);
      signal?.addEventListener("abort", look, { once: true });
      look();
    });
  }

  /** Close the connection and end all iterations; waiting requests reject with ClientClosed. May be repeated. */
  close(): Promise<void> {
    this.#link.stop();
    this.#finish(new ClientClosed(), null);
    return Promise.resolve();
  }

  [asyncDispose](): Promise<void> {
    return this.close();
  }

  // Requests

  /**
   * Receive the messages of `topic` from now on; `T` is the type of their payloads. A topic can have one subscription.
   *
   * @throws TypeError when the topic is subscribed already, and what every request rejects with.
   */
  async subscribe<T = unknown>(topic: string, options: SubscribeOptions = {}): Promise<Subscription<T>> {
    const { history = 0, presence = false, recover = null, signal } = options;
    const timeoutMs = this.#begin(options);
    const capacity = positive("queueSize", options.queueSize, this.#settings.queueSize);
    const channel = new EventChannel<SubscriptionEvent<T>>(
      capacity,
      (missed) => ({ type: "lagged", topic, missed, recovered: false, source: "queue" }),
      this.#settings.onError,
    );
    const subscription = new Subscription<T>(topic, this.#owner, channel);
    const id = this.#protocol.subscribe(topic, { history, presence, recover });
    const abort = (): void => void this.#unsubscribe(subscription, {}).catch(() => undefined);
    signal?.addEventListener("abort", abort, { once: true });
    this.#subscriptions.set(topic, {
      subscription,
      channel,
      stopListening: () => signal?.removeEventListener("abort", abort),
    });
    try {
      await this.#answer(id, "Subscribed", timeoutMs, signal);
    } catch (error) {
      this.#forget(subscription, error instanceof ClientError ? error : null);
      throw error;
    }
    return subscription;
  }

  /**
   * Publish `payload`; resolves to its position once it is ordered and in the topic's cache.
   *
   * Without a connection it waits for one. It is sent again after a lost connection, with the same idempotency key, so
   * that it has its effect once. Throws TypeError or RangeError for a payload the encoding cannot express.
   */
  async publish(topic: string, payload: unknown, options: PublishOptions = {}): Promise<Position> {
    const fields = {
      topic,
      payload: checked(payload),
      ...(options.excludeSelf ? { exclude_self: true } : {}),
      idempotency_key: options.idempotencyKey ?? this.#keys.next(),
    };
    const { epoch, offset } = await this.#request("Broadcast", fields, "Ack", options);
    return { epoch, offset };
  }

  /** Send `payload` to one user or several; resolves to who has a live session. See `publish`. */
  async send(to: string | readonly string[], payload: unknown, options: SendOptions = {}): Promise<Delivery> {
    const fields = { to, payload: checked(payload), idempotency_key: options.idempotencyKey ?? this.#keys.next() };
    const { delivered, offline } = await this.#request("DirectMessage", fields, "Ack", options);
    return { delivered, offline };
  }

  /** Who is on `topic`. */
  async presence(topic: string, options: RequestOptions = {}): Promise<PresenceState> {
    const { count, members } = await this.#request("Presence", { topic }, "PresenceState", options);
    return { topic, count, members };
  }

  /** A page of the topic's cache: `limit` messages after a position, from the beginning, or from the end. */
  async history<T = unknown>(topic: string, options: HistoryOptions = {}): Promise<HistoryPage<T>> {
    const { after, limit, reverse } = options;
    const fields = {
      topic,
      ...(after === undefined ? {} : { after: { epoch: after.epoch, offset: after.offset } }),
      ...(limit === undefined ? {} : { limit }),
      ...(reverse ? { reverse: true } : {}),
    };
    const { epoch, offset, messages } = await this.#request("History", fields, "HistoryPage", options);
    return { topic, position: { epoch, offset }, messages: messages as readonly HistoryMessage<T>[] };
  }

  /** Milliseconds to the server's request handling and back. */
  async ping(options: RequestOptions = {}): Promise<number> {
    const started = performance.now();
    await this.#request("Ping", {}, "Pong", options);
    return performance.now() - started;
  }

  /** Replace the token of this and later connections; resolves to its end in seconds since 1970. */
  async refresh(token: string, options: RequestOptions = {}): Promise<number | null> {
    const { expiresAt } = await this.#request("Refresh", { token }, "Refreshed", options);
    this.#credentials.token = token;
    this.#credentials.accepted();
    return expiresAt;
  }

  async #request<K extends ServerEnvelope["type"]>(
    type: RequestType,
    fields: Readonly<Record<string, unknown>>,
    reply: K,
    options: RequestOptions,
  ): Promise<Extract<ServerEnvelope, { readonly type: K }>> {
    const timeoutMs = this.#begin(options);
    return this.#answer(this.#protocol.request(type, fields), reply, timeoutMs, options.signal);
  }

  async #answer<K extends ServerEnvelope["type"]>(
    id: number,
    reply: K,
    timeoutMs: number,
    signal: AbortSignal | undefined,
  ): Promise<Extract<ServerEnvelope, { readonly type: K }>> {
    const late = (): string => `no ${this.#state === "open" ? "answer" : "connection"} within ${timeoutMs} ms`;
    const answer = this.#answers.of(id, timeoutMs, late, signal, () => this.#protocol.forget(id));
    this.#work();
    try {
      const envelope = await answer;
      if (!isOfType(envelope, reply)) throw new ProtocolViolation(`the server answered with ${envelope.type}`);
      return envelope;
    } finally {
      this.#work();
    }
  }

  async #unsubscribe(subscription: Subscription, options: RequestOptions): Promise<void> {
    const { topic } = subscription;
    if (this.#subscriptions.get(topic)?.subscription !== subscription) return;
    const timeoutMs = this.#begin(options);
    this.#forgetLocally(topic, null);
    const id = this.#protocol.unsubscribe(topic);
    if (id === null) return;
    try {
      await this.#answer(id, "Unsubscribed", timeoutMs, options.signal);
    } catch (error) {
      const isGone = error instanceof ClientClosed || (error instanceof RequestError && error.code === "not_subscribed");
      if (!isGone) throw error;
    }
  }

  /** `subscription` did not come to be. */
  #forget(subscription: Subscription, error: ClientError | null): void {
    if (this.#subscriptions.get(subscription.topic)?.subscription !== subscription) return;
    this.#forgetLocally(subscription.topic, error);
    const id = this.#protocol.unsubscribe(subscription.topic);
    if (id !== null) this.#protocol.forget(id);
    this.#work();
  }

  #forgetLocally(topic: string, error: ClientError | null): void {
    const found = this.#subscriptions.get(topic);
    this.#subscriptions.delete(topic);
    found?.stopListening();
    found?.channel.end(error);
  }

  // Between protocol and application

  async #run(): Promise<void> {
    await this.#link.run();
    const { failure } = this.#link;
    if (failure === null) return;
    const code = failure instanceof ConnectionLost ? failure.closeCode : 4401;
    this.#events.put({ type: "disconnected", code, reason: failure.message, retryInMs: null });
    this.#finish(failure, failure);
  }

  /** No connection will follow. `error` is what readers of events get: null when the application closed the client. */
  #finish(ended: ClientError, error: ClientError | null): void {
    if (this.#ended !== null) return;
    this.#ended = ended;
    for (const cleanup of this.#cleanups.splice(0)) cleanup();
    if (this.#tickTimer !== null) clearTimeout(this.#tickTimer);
    this.#renewal.stop();
    this.#protocol.failAll(ended);
    this.#work();
    this.#answers.failAll(ended);
    for (const topic of [...this.#subscriptions.keys()]) this.#forgetLocally(topic, error);
    this.#inbox.end(error);
    this.#setState("closed");
    this.#events.end(error);
  }

  /** Take what the protocol has: outputs, then messages for the wire, then the next time to look. */
  #work(): void {
    if (this.#working) return; // a listener made a request; the loop below takes it
    this.#working = true;
    try {
      for (let outputs = this.#protocol.outputs(); outputs.length > 0; outputs = this.#protocol.outputs()) {
        for (const output of outputs) this.#take(output);
      }
      this.#link.flush();
    } finally {
      this.#working = false;
    }
    this.#schedule();
  }

  #schedule(): void {
    const deadline = this.#protocol.nextDeadline;
    if (this.#tickTimer !== null) clearTimeout(this.#tickTimer);
    this.#tickTimer = null;
    if (deadline === null || this.#ended !== null) return;
    this.#tickTimer = setTimeout(() => {
      this.#protocol.tick(performance.now());
      this.#work();
    }, Math.max(1, deadline - performance.now()));
  }

  #take(output: Output): void {
    switch (output.kind) {
      case "answered":
        return this.#answers.answered(output.id, output.envelope);
      case "failed":
        return this.#answers.failed(output.id, output.error);
      case "topic":
        return this.#subscriptions.get(output.topic)?.channel.put(output.event);
      case "inbox":
        return this.#inbox.put(output.event);
      case "connection":
        if (output.event.type === "closing") this.#link.stayAway(output.event.afterMs);
        return this.#events.put(output.event);
      case "open":
        return this.#opened(output.session, output.reconnected);
      case "ended":
        return this.#forgetLocally(output.topic, output.error);
      case "refresh":
        if (this.#credentials.renewable) this.#renewal.due();
        else this.#events.put({ type: "tokenExpiring", expiresAt: output.expiresAt });
    }
  }

  #opened(session: Session, reconnected: boolean): void {
    this.#session = session;
    this.#link.established();
    this.#renewal.reset();
    const event: Connected = { type: "connected", ...session, reconnected };
    this.#events.put(event);
    this.#setState("open");
  }

  #lost(event: Disconnected): void {
    this.#renewal.reset();
    this.#events.put(event);
    if (this.#session !== null) this.#setState("reconnecting");
  }

  #setState(state: ClientState): void {
    if (this.#state === state) return;
    this.#state = state;
    this.#events.put({ type: "state", state });
    for (const look of [...this.#watchers]) look();
  }

  #listen(target: unknown, type: string, listener: () => void): void {
    if (!isEventTarget(target)) return;
    target.addEventListener(type, listener);
    this.#cleanups.push(() => target.removeEventListener(type, listener));
  }

  /** What a request must know before it is made: its time-out. Throws when it is not to be made. */
  #begin({ timeoutMs, signal }: RequestOptions): number {
    if (this.#ended !== null) throw this.#ended;
    if (signal?.aborted) throw signal.reason;
    return positive("timeoutMs", timeoutMs, this.#settings.requestTimeoutMs);
  }

  #notReady(ms: number): ConnectionLost {
    const { lastError } = this.#link;
    const words = `no connection to ${this.#settings.url.split("?")[0]} within ${ms} ms`;
    return new ConnectionLost(lastError === null ? words : `${words}: ${lastError.message}`, 1006, "", { cause: lastError });
  }

  #inboxOverflow(missed: number): InboxEvent {
    const topic = `@${this.#session?.userId ?? ""}`;
    return { type: "lagged", topic, missed, recovered: false, source: "queue" };
  }
}

function isOfType<K extends ServerEnvelope["type"]>(
  envelope: ServerEnvelope,
  type: K,
): envelope is Extract<ServerEnvelope, { readonly type: K }> {
  return envelope.type === type;
}

function isEventTarget(target: unknown): target is EventTarget {
  return typeof (target as { readonly addEventListener?: unknown }).addEventListener === "function";
}

/** A payload that an envelope can hold. JSON would leave out the field, and the server miss it. */
function checked(payload: unknown): unknown {
  if (payload === undefined || typeof payload === "function" || typeof payload === "symbol") {
    throw new TypeError(`payload: ${typeof payload} cannot be sent; use null for nothing`);
  }
  return payload;
}
