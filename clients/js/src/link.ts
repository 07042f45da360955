/** Keeps one connection after the other up, and decides when to give up. */

import type { Backoff } from "./backoff.js";
import type { Credentials } from "./credentials.js";
import { Codec, subprotocols, type Compression, type Format } from "./encoding.js";
import { AuthenticationFailed, type ClientError, ConnectionLost } from "./errors.js";
import type { Disconnected } from "./events.js";
import { type ClientProtocol, type Credential, PASSING_ERRORS } from "./protocol.js";
import { Connection, type Outcome, type WebSocketConstructor } from "./transport.js";
import { Pause } from "./waiting.js";

const ABNORMAL = 1006;
const UNAUTHORIZED = 4401;
const DISCONNECTED = 4403;
const LOOK_AT_MOST_EVERY_MS = 50;

export interface LinkOptions {
  readonly url: string;
  readonly WebSocket: WebSocketConstructor;
  readonly format: Format;
  readonly compression: Compression | null;
  readonly reconnect: boolean;
  readonly openTimeoutMs: number;
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly maxMessageBytes: number;
}

/** What a link calls. */
export interface LinkHandlers {
  /** After every change of the protocol that has outputs or something to send. */
  readonly changed: () => void;
  /** After each connection or attempt that ended and is followed by another. */
  readonly lost: (event: Disconnected) => void;
}

/** Runs until it is stopped or `failure` is set: no further connection makes sense. */
export class Link {
  /** Why there is no further connection. */
  failure: ClientError | null = null;
  /** What ended the latest attempt. */
  lastError: ClientError | null = null;
  readonly #protocol: ClientProtocol;
  readonly #credentials: Credentials;
  readonly #backoff: Backoff;
  readonly #options: LinkOptions;
  readonly #handlers: LinkHandlers;
  readonly #pause: Pause = new Pause();
  #connection: Connection | null = null;
  #stopping = false;
  #stayAwayUntil = 0;
  #heardAt = 0;
  #heard = 0; // messages on this connection: clocks of browsers are too coarse to tell what came after a Ping

  constructor(
    protocol: ClientProtocol,
    credentials: Credentials,
    backoff: Backoff,
    options: LinkOptions,
    handlers: LinkHandlers,
  ) {
    this.#protocol = protocol;
    this.#credentials = credentials;
    this.#backoff = backoff;
    this.#options = options;
    this.#handlers = handlers;
  }

  /** Connection after connection. Resolves when there will be no other; never rejects. */
  async run(): Promise<void> {
    while (!this.#isOver()) {
      const { code, reason } = await this.#oneConnection();
      if (this.#isOver()) break;
      const retryInMs = this.#backoff.nextDelay(Math.max(0, this.#stayAwayUntil - performance.now()));
      this.#handlers.lost({ type: "disconnected", code, reason, retryInMs });
      if (!this.#isOver()) await this.#pause.for(retryInMs);
    }
  }

  /** The connection is closed and no other follows. */
  stop(): void {
    this.#stopping = true;
    this.#connection?.drop(1000, "closed by the application");
    this.#pause.end();
  }

  /** Write what the protocol has for the wire. */
  flush(): void {
    for (const data of this.#protocol.dataToSend()) this.#connection?.send(data);
  }

  /** The server greeted us. */
  established(): void {
    this.#credentials.accepted();
    this.#backoff.reset();
  }

  /** The server asks not to be bothered before. */
  stayAway(afterMs: number): void {
    this.#stayAwayUntil = performance.now() + afterMs;
  }

  /** The network came back: try now, unless the server wished otherwise. */
  wake(): void {
    if (performance.now() >= this.#stayAwayUntil) this.#pause.end();
  }

  /** The token will not be renewed: end the connection and decide as if the server had done so. */
  dropCredentials(): void {
    this.#connection?.drop(UNAUTHORIZED, "no new token");
  }

  #isOver(): boolean {
    return this.#stopping || this.failure !== null;
  }

  /** Dial and serve until the connection ends. */
  async #oneConnection(): Promise<Outcome> {
    let credential: Credential | null;
    try {
      credential = await this.#credentials.next();
    } catch (error) {
      if (error instanceof AuthenticationFailed) this.#refused(error);
      else this.#lost(error instanceof ConnectionLost ? error : new ConnectionLost(wordsOf(error)), false);
      return { code: error instanceof AuthenticationFailed ? UNAUTHORIZED : ABNORMAL, reason: wordsOf(error) };
    }
    if (this.#stopping) return { code: 1000, reason: "" };
    const outcome = await this.#serve(credential);
    this.#protocol.connectionLost(outcome.code, outcome.reason);
    this.#handlers.changed();
    this.#afterClose(outcome);
    return outcome;
  }

  async #serve(credential: Credential | null): Promise<Outcome> {
    const { url, WebSocket, format, compression, openTimeoutMs } = this.#options;
    let connection: Connection;
    try {
      connection = new Connection(WebSocket, url, subprotocols(format, compression), {
        opened: (opened) => this.#opened(opened, credential),
        received: (data) => this.#received(data),
      });
    } catch (error) {
      return { code: ABNORMAL, reason: `cannot connect: ${wordsOf(error)}` };
    }
    this.#connection = connection;
    const greeting = setTimeout(() => {
      if (this.#protocol.state !== "open") connection.drop(ABNORMAL, `no session within ${openTimeoutMs} ms`);
    }, openTimeoutMs);
    const stopWatching = this.#watch(connection);
    const outcome = await connection.ended;
    stopWatching();
    clearTimeout(greeting);
    this.#connection = null;
    return outcome;
  }

  #opened(connection: Connection, credential: Credential | null): void {
    const { format, compression, maxMessageBytes } = this.#options;
    this.#guarded(() => {
      const codec = Codec.chosen(connection.subprotocol, format, compression, maxMessageBytes);
      this.#protocol.connectionMade(codec, credential);
    });
  }

  #received(data: string | ArrayBuffer): void {
    this.#heardAt = performance.now();
    this.#heard += 1;
    this.#guarded(() => this.#protocol.receive(data, this.#heardAt));
  }

  #guarded(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#connection?.drop(ABNORMAL, wordsOf(error));
    }
    this.#handlers.changed();
  }

  /** Drop `connection` when nothing comes for too long, not even the answer to a `Ping`. Returns how to stop. */
  #watch(connection: Connection): () => void {
    const { keepaliveIntervalMs, keepaliveTimeoutMs } = this.#options;
    let timer: ReturnType<typeof setTimeout>;
    const look = (): void => {
      const silentMs = performance.now() - this.#heardAt;
      if (silentMs < keepaliveIntervalMs || this.#protocol.state !== "open") {
        timer = setTimeout(look, Math.max(keepaliveIntervalMs - silentMs, LOOK_AT_MOST_EVERY_MS));
        return;
      }
      const before = this.#heard;
      timer = setTimeout(() => {
        if (this.#heard > before) look();
        else connection.drop(ABNORMAL, `no answer to a Ping within ${keepaliveTimeoutMs} ms`);
      }, keepaliveTimeoutMs);
      this.#protocol.ping();
      this.#handlers.changed();
    };
    this.#heardAt = performance.now();
    timer = setTimeout(look, keepaliveIntervalMs);
    return () => clearTimeout(timer);
  }

  /** Whether to come back after a close code: docs/protocol.md, "Errors". */
  #afterClose({ code, reason }: Outcome): void {
    const { closing, refusal } = this.#protocol;
    const words = refusal?.message ?? `the connection was closed with ${code} ${reason}`.trimEnd();
    if (code === DISCONNECTED) {
      this.lastError = this.failure = new AuthenticationFailed(words, "forbidden");
    } else if (code === UNAUTHORIZED && !PASSING_ERRORS.has(refusal?.code ?? "unauthorized")) {
      this.#refused(new AuthenticationFailed(words, refusal?.code));
    } else {
      this.#lost(new ConnectionLost(words, code, reason), closing?.reconnect === false);
    }
  }

  #refused(error: AuthenticationFailed): void {
    this.lastError = error;
    if (!this.#credentials.refused() || !this.#options.reconnect) this.failure = error;
  }

  #lost(error: ConnectionLost, forGood: boolean): void {
    this.lastError = error;
    if (forGood || !this.#options.reconnect) this.failure = error;
  }
}

function wordsOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
