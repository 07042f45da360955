/** What `connect` takes, checked, with the defaults filled in. */

import { Backoff, type BackoffOptions } from "./backoff.js";
import type { TokenProvider } from "./credentials.js";
import { json, type Compression, type Format } from "./encoding.js";
import type { WebSocketConstructor } from "./transport.js";

export interface ConnectOptions {
  /** Access token. It cannot be renewed: when it ends, so does the client, unless `client.refresh` comes before. */
  readonly token?: string | undefined;
  /** Asked for a token at the start, when the token is due for renewal and when it was refused. */
  readonly getToken?: TokenProvider | undefined;
  /** Instead of a token. Not for browsers: whoever reads the page has the key. */
  readonly apiKey?: string | undefined;
  /** `"json"`, or `msgpack` from `realtime-communication-client/msgpack`, which carries `Uint8Array` too. */
  readonly encoding?: "json" | Format | undefined;
  /** Compression of whole messages, where the server has the same; permessage-deflate needs nothing here. */
  readonly compression?: Compression | undefined;
  /** The class to connect with, where there is no `globalThis.WebSocket` (Node 20): that of the package `ws`. */
  readonly WebSocket?: WebSocketConstructor | undefined;
  /** Closes the client when it is aborted. */
  readonly signal?: AbortSignal | undefined;
  /** False: the first lost connection is the end (true). */
  readonly reconnect?: boolean | undefined;
  readonly backoff?: BackoffOptions | undefined;
  /** How long a request may take, waiting for a connection included (10,000). */
  readonly requestTimeoutMs?: number | undefined;
  /** For `connect` as a whole, for each attempt, and for `getToken` (10,000). */
  readonly openTimeoutMs?: number | undefined;
  /** Silence before a `Ping`, and the wait for any sign of life after it (20,000 and 10,000). */
  readonly keepaliveIntervalMs?: number | undefined;
  readonly keepaliveTimeoutMs?: number | undefined;
  /** Events that may wait in each queue; one more pushes out the oldest and shows as `lagged` (1,000). */
  readonly queueSize?: number | undefined;
  /** Requests that may wait for their answers, and their bytes (10,000 and 16 MiB). */
  readonly maxPending?: number | undefined;
  readonly maxPendingBytes?: number | undefined;
  /** Bytes of one message of the server, decompressed (16 MiB). */
  readonly maxMessageBytes?: number | undefined;
  /** Read the own inbox's history after a reconnect; needs the permission `read` (true). */
  readonly recoverInbox?: boolean | undefined;
  /** Gets what listeners throw (`console.error`). */
  readonly onError?: ((error: unknown) => void) | undefined;
}

/** The same with nothing left open. */
export interface Settings {
  readonly url: string;
  readonly token: string | null;
  readonly getToken: TokenProvider | null;
  readonly apiKey: string | null;
  readonly format: Format;
  readonly compression: Compression | null;
  readonly WebSocket: WebSocketConstructor;
  readonly signal: AbortSignal | null;
  readonly reconnect: boolean;
  readonly backoff: Backoff;
  readonly requestTimeoutMs: number;
  readonly openTimeoutMs: number;
  readonly keepaliveIntervalMs: number;
  readonly keepaliveTimeoutMs: number;
  readonly queueSize: number;
  readonly maxPending: number;
  readonly maxPendingBytes: number;
  readonly maxMessageBytes: number;
  readonly recoverInbox: boolean;
  readonly onError: (error: unknown) => void;
}

/** What a browser, Node from 22 on, Deno and Bun have, and Node 20 has not. */
interface Surroundings {
  readonly WebSocket?: WebSocketConstructor;
  readonly location?: { readonly href: string };
}

const MIB = 1024 * 1024;

/** @throws TypeError or RangeError, naming the option. */
export function settingsOf(url: string | URL, options: ConnectOptions): Settings {
  const { token = null, getToken = null, apiKey = null, encoding = "json" } = options;
  if ([token, getToken, apiKey].filter((credential) => credential !== null).length > 1) {
    throw new TypeError("give one of token, getToken and apiKey");
  }
  if (typeof encoding === "string" && encoding !== "json") {
    throw new TypeError('encoding: "json", or msgpack from "realtime-communication-client/msgpack"');
  }
  return {
    url: addressOf(url),
    token,
    getToken,
    apiKey,
    format: encoding === "json" ? json : encoding,
    compression: options.compression ?? null,
    WebSocket: options.WebSocket ?? ownWebSocket(),
    signal: options.signal ?? null,
    reconnect: options.reconnect ?? true,
    backoff: new Backoff(options.backoff),
    requestTimeoutMs: positive("requestTimeoutMs", options.requestTimeoutMs, 10_000),
    openTimeoutMs: positive("openTimeoutMs", options.openTimeoutMs, 10_000),
    keepaliveIntervalMs: positive("keepaliveIntervalMs", options.keepaliveIntervalMs, 20_000),
    keepaliveTimeoutMs: positive("keepaliveTimeoutMs", options.keepaliveTimeoutMs, 10_000),
    queueSize: positive("queueSize", options.queueSize, 1000),
    maxPending: positive("maxPending", options.maxPending, 10_000),
    maxPendingBytes: positive("maxPendingBytes", options.maxPendingBytes, 16 * MIB),
    maxMessageBytes: positive("maxMessageBytes", options.maxMessageBytes, 16 * MIB),
    recoverInbox: options.recoverInbox ?? true,
    onError: options.onError ?? ((error) => console.error("realtime-communication-client: a listener failed", error)),
  };
}

/** `value`, or `otherwise` when there is none. Timers take no more than 2^31 - 1. Throws RangeError. */
export function positive(name: string, value: number | undefined, otherwise: number): number {
  const number = value ?? otherwise;
  if (number > 0 && number < 2 ** 31) return number;
  throw new RangeError(`${name}: ${number} is not above 0 and below 2^31`);
}

function addressOf(url: string | URL): string {
  const address = new URL(url, (globalThis as Surroundings).location?.href);
  const scheme = { "http:": "ws:", "https:": "wss:", "ws:": "ws:", "wss:": "wss:" }[address.protocol];
  if (scheme === undefined) throw new TypeError(`url: ${address.protocol} is none of ws:, wss:, http: and https:`);
  address.protocol = scheme;
  address.hash = "";
  return address.href;
}

function ownWebSocket(): WebSocketConstructor {
  const own = (globalThis as Surroundings).WebSocket;
  if (own !== undefined) return own;
  throw new TypeError(
    "there is no WebSocket here (Node has one from version 22 on): install the package ws and give " +
      'connect(url, { WebSocket }) its class, import WebSocket from "ws"',
  );
}
